"""Preprocessing of pictures, for the judge's eye (SigLIP) and for the painter's codes (VQ), as the original does it.

Pillow and numpy only. A picture is any PIL image; RGB is enforced.
"""

import numpy as np
from PIL import Image

from janus_jax.errors import UserError

GREY = (127, 127, 127)
MIN_SIDE = 14


def read(path) -> Image.Image:
    """A picture file as RGB. Raises UserError where there is none or it is no whole picture."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "not a whole picture of a known format"
        raise UserError(f"the picture {path} cannot be read: {reason}") from error


def letterbox(image: Image.Image, size: int) -> np.ndarray:
    """Long side to `size` by antialiased bicubic, the other side truncated (at least 14), centred on grey.

    Returns u8[size, size, 3].
    """
    image = image.convert("RGB")
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
    return (letterbox(image, size).astype(np.float32) / 255 - 0.5) / 0.5


def for_generation(image: Image.Image, size: int) -> np.ndarray:
    """Halved with a box filter while the short side is at least twice `size`, then the short side to `size` by bicubic,
    then the centre crop. Returns f32[size, size, 3] in [-1, 1]."""
    image = image.convert("RGB")
    while min(image.size) >= 2 * size:
        image = image.resize(tuple(side // 2 for side in image.size), Image.Resampling.BOX)
    scale = size / min(image.size)
    new = tuple(round(side * scale) for side in image.size)
    if new != image.size:
        image = image.resize(new, Image.Resampling.BICUBIC)
    left, top = (new[0] - size) // 2, (new[1] - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), np.float32)
    return pixels / 127.5 - 1.0


def to_uint8(pixels) -> np.ndarray:
    """Decoded pixels f32[..., 3], about [-1, 1], to u8 by truncation, as the original does it."""
    return np.clip((np.asarray(pixels, np.float32) + 1) / 2 * 255, 0, 255).astype(np.uint8)
