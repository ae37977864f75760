"""Pictures: read from files as RGB, and preprocessed for the judge's eye (SigLIP) and for the painter's codes (VQ), as
the original does it.

Pillow and numpy only. A picture is any PIL image; `rgb` says what other modes look like.
"""

import contextlib
import stat
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from janus_jax.errors import UserError

GREY = (127, 127, 127)  # around a letterboxed picture
GROUND = (255, 255, 255, 255)  # behind a transparent one: white, as a page shows it
MIN_SIDE = 14
NORMALISED = (np.arange(256, dtype=np.float32) / 255 - 0.5) / 0.5  # grey levels with mean and deviation 0.5
SLENDER = 16  # a picture so many times as long as it is wide is cropped before it is resized
# What EXIF's orientation asks for, to see the picture upright
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read(path) -> Image.Image:
    """A picture file as RGB, upright. Raises UserError where there is none, it is no whole picture, or too large."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a named pipe would be waited for
            raise OSError(0, "it is no regular file")
        with Image.open(path) as image:
            upright = None
            with contextlib.suppress(Exception):  # a broken EXIF block says nothing; the picture may be whole
                upright = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
            image = rgb(image)
            return image if upright is None else image.transpose(upright)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        most = f"{2 * Image.MAX_IMAGE_PIXELS:,} pixels at most" if Image.MAX_IMAGE_PIXELS else "out of memory"
        raise UserError(f"the picture {path} cannot be read: it is too large ({most})") from error
    except (OSError, ValueError, SyntaxError) as error:
        reason = getattr(error, "strerror", None) or "not a whole picture of a known format"
        raise UserError(f"the picture {path} cannot be read: {reason}") from error


def rgb(image: Image.Image) -> Image.Image:
    """Any PIL image as RGB: transparency on white, grey of more than 8 bits (65535 or, beyond it, 2^31 - 1 is white;
    1.0 where it is floating) scaled rather than clipped."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image.convert("RGB")  # a file is read here
    if image.mode.startswith("I") or image.mode == "F":
        levels = np.nan_to_num(np.asarray(image, np.float64))
        white = 1.0 if image.mode == "F" else 65535.0
        if levels.max() > white:
            white = 255.0 if image.mode == "F" else 2.0**31 - 1
        return Image.fromarray(np.rint(np.clip(levels / white, 0, 1) * 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, GROUND), over).convert("RGB")
    return image.convert("RGB")


def centre(image: Image.Image) -> Image.Image:
    """The square in the middle of a picture, as long as its short side: what an edit sees of its source."""
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    return image.crop((left, top, left + side, top + side))


def letterbox(image: Image.Image, size: int) -> np.ndarray:
    """Long side to `size` by antialiased bicubic, the other side truncated (at least 14), centred on grey.

    Returns u8[size, size, 3].
    """
    image = rgb(image)
    width, height = image.size
    longest = max(width, height)
    new = [max(int(side / longest * size), MIN_SIDE) for side in (width, height)]
    if tuple(new) != image.size:
        image = image.resize(new, Image.Resampling.BICUBIC)
    square = Image.new("RGB", (size, size), GREY)
    square.paste(image, ((size - new[0]) // 2, (size - new[1]) // 2))
    return np.asarray(square)


def for_understanding(image: Image.Image, size: int) -> np.ndarray:
    """The letterboxed picture as f32[size, size, 3] in [-1, 1]."""
    return seen(letterbox(image, size)[None], size)[0]


def seen(pixels: np.ndarray, size: int) -> np.ndarray:
    """Square pictures u8[N,h,h,3] as `for_understanding` makes them of images, f32[N,size,size,3] in [-1, 1]."""
    return NORMALISED[resized(pixels, size)]


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    """The same, not normalised yet: u8[N,size,size,3]."""
    if pixels.shape[1:3] == (size, size):  # the letterbox is the picture itself
        return pixels
    return np.stack([letterbox(Image.fromarray(picture), size) for picture in pixels])


def for_generation(image: Image.Image, size: int) -> np.ndarray:
    """Halved with a box filter while the short side is at least twice `size`, then the short side to `size` by bicubic,
    then the centre crop. Returns f32[size, size, 3] in [-1, 1]."""
    image = rgb(image)
    while min(image.size) >= 2 * size:
        image = image.resize(tuple(side // 2 for side in image.size), Image.Resampling.BOX)
    scale = size / min(image.size)
    new = tuple(round(side * scale) for side in image.size)
    left, top = (new[0] - size) // 2, (new[1] - size) // 2
    box = (left, top, left + size, top + size)
    if max(new) > SLENDER * size:  # the same up to rounding, but of a strip only what is seen
        ratios = [old / resized for old, resized in zip(image.size * 2, new * 2, strict=True)]
        image = image.resize(
            (size, size), Image.Resampling.BICUBIC, [edge * ratio for edge, ratio in zip(box, ratios, strict=True)]
        )
    else:
        image = (image if new == image.size else image.resize(new, Image.Resampling.BICUBIC)).crop(box)
    return np.asarray(image, np.float32) / 127.5 - 1.0


def to_uint8(pixels) -> np.ndarray:
    """Decoded pixels f32[..., 3], about [-1, 1], to u8 by truncation, as the original does it."""
    return np.clip((np.asarray(pixels, np.float32) + 1) / 2 * 255, 0, 255).astype(np.uint8)
