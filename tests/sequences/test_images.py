"""Picture preprocessing against the reference, and truncation to 8 bits.

golden/*.npz hold samples: `X.idx` are flat indices into X in PyTorch's layout, `X.val` the values there.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janus_jax.errors import UserError
from janus_jax.sequences import images
from janus_jax.sequences.processor import Processor

GOLDEN = Path(__file__).parents[1] / "golden"


def picture(name):
    with Image.open(GOLDEN / f"{name}.png") as image:
        return image.copy()


@pytest.mark.parametrize("name", ["wide", "large"])
def test_generation_side_is_the_reference_to_the_bit(name):
    golden = np.load(GOLDEN / "vq.npz")
    assert picture(name).size[0] != picture(name).size[1]
    pixels = images.for_generation(picture(name), 384)
    assert pixels.shape == (384, 384, 3) and pixels.dtype == np.float32
    grey = np.rint((pixels.astype(np.float64) + 1) * 127.5).astype(np.uint8)
    assert tuple(golden[f"crop.{name}.uint8.shape"]) == grey.shape
    np.testing.assert_array_equal(grey.reshape(-1)[golden[f"crop.{name}.uint8.idx"]], golden[f"crop.{name}.uint8.val"])
    # not only where it was sampled: mean, spread, sum, extremes of the whole
    x = grey.astype(np.float64)
    np.testing.assert_allclose(
        [x.mean(), x.std(), np.abs(x).sum(), x.min(), x.max()], golden[f"crop.{name}.uint8.stats"], rtol=1e-6
    )
    channels_first = pixels.transpose(2, 0, 1).reshape(-1)
    np.testing.assert_allclose(channels_first[golden[f"crop.{name}.idx"]], golden[f"crop.{name}.val"], atol=1e-6)


def test_large_is_halved_first():
    # Were it not, the bicubic filter alone would give another picture: the golden above would tell.
    assert min(picture("large").size) >= 768
    golden = np.load(GOLDEN / "vq.npz")
    image = picture("large").convert("RGB")
    scale = 384 / min(image.size)
    direct = image.resize(tuple(round(side * scale) for side in image.size), Image.Resampling.BICUBIC)
    left, top = (direct.width - 384) // 2, (direct.height - 384) // 2
    direct = np.asarray(direct.crop((left, top, left + 384, top + 384))).reshape(-1)
    difference = direct[golden["crop.large.uint8.idx"]].astype(int) - golden["crop.large.uint8.val"].astype(int)
    assert np.abs(difference).max() > 2


@pytest.mark.parametrize("name", ["image_a", "wide", "large"])
def test_understanding_side_is_the_reference_within_a_grey_level(name):
    golden = np.load(GOLDEN / "siglip.npz")
    pixels = images.for_understanding(picture(name), 384)
    assert pixels.shape == (384, 384, 3) and pixels.dtype == np.float32
    channels_first = pixels.transpose(2, 0, 1).reshape(-1)
    got, expected = channels_first[golden[f"pixels.{name}.idx"]], golden[f"pixels.{name}.val"]
    np.testing.assert_allclose(got, expected, atol=2 / 255 + 1e-6, rtol=0)
    assert np.abs(got - expected).mean() < 1e-3
    x = channels_first.astype(np.float64)
    mean, std, total, low, high = golden[f"pixels.{name}.stats"]
    assert abs(x.mean() - mean) < 1e-3 and abs(x.std() - std) < 1e-3


def test_letterbox_and_crop_by_hand():
    red = Image.new("RGB", (40, 10), (255, 0, 0))
    got = images.for_understanding(red, 16)  # 16 x int(10 / 40 x 16) = 4, but at least 14: rows 1 to 14
    grey = np.float32((127 / 255 - 0.5) / 0.5)
    np.testing.assert_allclose(got[[0, 15]], np.full((2, 16, 3), grey), atol=1e-6)
    np.testing.assert_allclose(got[1:15], np.broadcast_to([1.0, -1.0, -1.0], (14, 16, 3)), atol=1e-6)
    wide = Image.new("RGB", (64, 32), (0, 255, 0))
    got = images.for_understanding(wide, 32)  # 32 x 16, eight rows of grey above
    np.testing.assert_allclose(got[8:24], np.broadcast_to([-1.0, 1.0, -1.0], (16, 32, 3)), atol=1e-6)
    np.testing.assert_allclose(got[[0, 7, 24, 31]], np.full((4, 32, 3), grey), atol=1e-6)
    # the short side is truncated: int(29 / 30 x 32) = 30, where rounding gives 31 and another offset
    got = images.for_understanding(Image.new("RGB", (30, 29), (255, 0, 0)), 32)
    np.testing.assert_allclose(got[:, 5, 0], [grey, *[1.0] * 30, grey], atol=1e-6)
    # left half blue, right half white: the crop takes the middle
    halves = np.zeros((8, 16, 3), np.uint8)
    halves[:, :8, 2] = 255
    halves[:, 8:] = 255
    got = images.for_generation(Image.fromarray(halves), 8)
    np.testing.assert_array_equal(got, np.asarray(halves[:, 4:12], np.float32) / 127.5 - 1)


def test_any_mode_becomes_rgb_and_a_picture_of_the_right_size_is_left_alone():
    x = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    processor = Processor(None, 16, 16)
    expected = x.astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(processor.for_generation(Image.fromarray(x)), expected, atol=1e-6)
    np.testing.assert_allclose(processor.for_understanding(Image.fromarray(x)), expected, atol=1e-6)
    for mode in ("L", "RGBA", "P"):
        for made in (processor.for_generation, processor.for_understanding):
            assert made(Image.fromarray(x).convert(mode)).shape == (16, 16, 3)


def test_to_uint8_truncates_and_clips():
    levels = np.array([-3.0, -1.0, -0.9922, 0.0, 0.5, 0.999, 1.0, 7.0])
    # (x + 1) / 2 x 255 = ..., 0.9945, 127.5, 191.25, 254.87, ...
    assert images.to_uint8(levels).tolist() == [0, 0, 0, 127, 191, 254, 255, 255]
    assert images.to_uint8(levels).dtype == np.uint8


def test_eight_bit_pictures_survive_the_way_there_and_back():
    # what the painter encodes again is what was shown; truncation must not eat a level of an exact value
    x = np.arange(256, dtype=np.uint8).reshape(16, 16)
    x = np.stack([x, x[::-1], x.T], axis=-1)
    again = images.to_uint8(images.for_generation(Image.fromarray(x), 16))
    assert np.abs(again.astype(int) - x.astype(int)).max() <= 1


# Files


def saved(tmp_path, image, name="picture.png", **options):
    image.save(tmp_path / name, **options)
    return images.read(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_read_upright(tmp_path, orientation):
    """The first row of what a camera stored is, by its orientation, one of the four edges, in one of two directions."""
    x = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    undone = [x, x[:, ::-1], x[::-1, ::-1], x[::-1], x.T, x.T[::-1], x.T[::-1, ::-1], x.T[:, ::-1]]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undone[orientation - 1])
    got = saved(tmp_path, Image.fromarray(stored).convert("RGB"), exif=exif)
    assert got.mode == "RGB" and np.asarray(got)[..., 0].tolist() == x.tolist()


def test_a_broken_orientation_is_none(tmp_path):
    image = Image.new("RGB", (3, 2), (9, 8, 7))
    image.save(tmp_path / "x.png", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01\x12")
    assert images.read(tmp_path / "x.png").size == (3, 2)


def test_deep_greys_are_scaled(tmp_path):
    levels = np.array([[0, 257, 128 * 257, 65535, 1000, 40000]], np.uint16)
    expected = [0, 1, 128, 255, 4, 156]
    for name in ("x.png", "x.tiff", "x.pgm"):
        got = saved(tmp_path, Image.fromarray(levels), name)
        assert got.mode == "RGB" and np.asarray(got)[0, :, 1].tolist() == expected, name
    deep = Image.fromarray(np.array([[0, 2**30, 2**31 - 1]], np.int32))
    assert np.asarray(saved(tmp_path, deep, "deep.tiff"))[0, :, 0].tolist() == [0, 128, 255]
    floating = Image.fromarray(np.array([[0, 0.5, 1, np.nan, -3]], np.float32))
    assert np.asarray(saved(tmp_path, floating, "f.tiff"))[0, :, 0].tolist() == [0, 128, 255, 0, 0]
    assert np.asarray(images.rgb(Image.fromarray(np.array([[0, 51, 255]], np.float32))))[0, :, 0].tolist() == [
        0,
        51,
        255,
    ]


def test_transparency_shows_white_and_not_what_it_hides(tmp_path):
    hidden = Image.new("RGBA", (3, 1), (255, 0, 0, 0))
    hidden.putpixel((1, 0), (0, 0, 255, 255))
    hidden.putpixel((2, 0), (0, 0, 255, 128))
    assert np.asarray(saved(tmp_path, hidden)).tolist() == [[[255, 255, 255], [0, 0, 255], [127, 127, 255]]]
    grey = Image.merge("LA", (Image.new("L", (1, 1), 10), Image.new("L", (1, 1), 0)))
    assert saved(tmp_path, grey).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 9, 9, 1, 2, 3])
    palette.putpixel((1, 0), 1)
    assert np.asarray(saved(tmp_path, palette)).tolist() == [[[9, 9, 9], [1, 2, 3]]]
    assert np.asarray(saved(tmp_path, palette, transparency=0)).tolist() == [[[255] * 3, [1, 2, 3]]]
    keyed = Image.new("RGB", (2, 1), (0, 255, 0))
    keyed.putpixel((1, 0), (1, 2, 3))
    assert np.asarray(saved(tmp_path, keyed, transparency=(0, 255, 0))).tolist() == [[[255] * 3, [1, 2, 3]]]
    # pictures that come from elsewhere are treated alike
    for made in (images.for_generation, images.for_understanding):
        assert (made(Image.new("RGBA", (16, 16), (255, 0, 0, 0)), 16) == 1).all()


def test_other_colours_and_bits(tmp_path):
    assert saved(tmp_path, Image.new("1", (1, 1), 1)).getpixel((0, 0)) == (255, 255, 255)
    assert saved(tmp_path, Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "x.tiff").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1), (4, 2000)])
def test_strips_are_cropped_before_they_grow(size, monkeypatch):
    """1 x 10000 at 384 pixels would be 384 x 3,840,000."""
    # not so bright or dark that a filter overshoots, and what it clips depends on the order of rows and columns
    x = np.random.default_rng(0).integers(90, 160, (size[1], size[0], 3), dtype=np.uint8)
    largest, resize = [], Image.Image.resize

    def watched(image, size, *args):
        largest.append(size[0] * size[1])
        return resize(image, size, *args)

    monkeypatch.setattr(Image.Image, "resize", watched)
    got = images.for_generation(Image.fromarray(x), 64)
    assert got.shape == (64, 64, 3) and max(largest) <= 64 * 64
    # the picture that growing first would have given
    monkeypatch.undo()
    middle = x.shape[0] // 2 - 100, x.shape[1] // 2 - 100
    near = x[max(middle[0], 0) : x.shape[0] // 2 + 100, max(middle[1], 0) : x.shape[1] // 2 + 100]
    grown = Image.fromarray(near).resize(
        [side * 64 // min(size) for side in near.shape[1::-1]], Image.Resampling.BICUBIC
    )
    left, top = (grown.width - 64) // 2, (grown.height - 64) // 2
    expected = np.asarray(grown.crop((left, top, left + 64, top + 64)), np.float32) / 127.5 - 1
    assert np.abs(got - expected).max() <= 2 / 127.5


def test_what_is_slender_is_the_same_either_way(monkeypatch):
    x = np.random.default_rng(1).integers(90, 160, (40, 150, 3), dtype=np.uint8)
    usual = images.for_generation(Image.fromarray(x), 32)
    monkeypatch.setattr(images, "SLENDER", 1)
    assert np.abs(images.for_generation(Image.fromarray(x), 32) - usual).max() <= 1 / 127.5


def refused(path):
    with pytest.raises(UserError) as caught:
        images.read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def test_files_that_are_no_pictures(tmp_path, monkeypatch):
    whole = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:200])
    (tmp_path / "text.png").write_text("a picture")
    for name in ("cut.png", "text.png"):
        assert "not a whole picture of a known format" in refused(tmp_path / name)
    assert "No such file" in refused(tmp_path / "absent.png")
    assert "no regular file" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    assert "no regular file" in refused(tmp_path / "pipe.png")  # and nobody waits for its writer
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "too large (200 pixels at most)" in refused(whole)
