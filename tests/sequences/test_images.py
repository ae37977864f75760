"""Picture preprocessing against the reference, and truncation to 8 bits.

golden/*.npz hold samples: `X.idx` are flat indices into X in PyTorch's layout, `X.val` the values there.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
