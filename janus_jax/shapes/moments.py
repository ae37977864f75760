"""A second verifier, by another method than verify.py's, to see whether the two agree about what a model drew.

Each pixel is unmixed into ground and one of the world's colours. What holds together is centred and scaled by its
moments (centre of mass, area), sampled on a small grid, and compared with the world's shapes, treated alike, by the
mean absolute difference. Bounding boxes, overlaps and foreground thresholds play no part.
"""

import functools

import numpy as np
from scipy import ndimage

from janus_jax.shapes.render import DRAWN, coverage, rgb
from janus_jax.shapes.scene import Item
from janus_jax.shapes.verify import Reading, checked
from janus_jax.shapes.world import SHIPPED, World

GRID = 24  # samples along one side of a normalised object
REACH = 1.0  # half the grid's side, in units of the square root of the object's area
LEAST = 0.008  # share of the picture that the smallest object covers
DUST = 0.004  # share of it that may be coloured and belong to no object
FAR = 46.0  # mean RGB distance of an object's inside from its colour
# Of the mean absolute difference from the nearest shape: the most, of which a part is the rim, that is the more the
# smaller the object; and the least that the second nearest is farther.
DIFFERENCE, RIM, MARGIN = 0.045, 0.6, 0.008


def read(picture, world: World = SHIPPED) -> Reading:
    """Reads a square picture u8[side, side, 3]. Raises ValueError for another shape or dtype."""
    pixels = checked(picture).astype(np.float32)
    side = len(pixels)
    ground = np.median(pixels.reshape(-1, 3), axis=0)
    if ground.min() < 185 or np.ptp(ground) > 30:
        return Reading((), unclear=1)
    share, color = _unmixed(pixels, ground, world)
    labels, count = ndimage.label(share > 0.5, np.ones((3, 3)))
    items, unclear, dust = [], 0, 0
    for index, window in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[window] == index
        if mask.sum() < LEAST * side * side:
            dust += mask.sum()
            continue
        item = _explain(pixels, share, color, labels == index, window, world)
        if item is None:
            unclear += 1
        else:
            items.append(item)
    near = ndimage.binary_dilation(labels > 0, np.ones((3, 3)), iterations=2)
    dust += (np.linalg.norm(pixels - ground, axis=-1)[~near] > 40).sum()
    return Reading(tuple(items), unclear + int(dust > DUST * side * side))


@functools.cache
def _palette(world):
    return np.stack([rgb(*hsv) for hsv in world.colors.values()])


def _unmixed(pixels, ground, world):
    """(how much of each pixel is not ground f32[s,s], which of the world's colours that is i64[s,s])."""
    toward = _palette(world) - ground  # [C, 3]
    away = pixels - ground
    shares = np.clip(away @ toward.T / np.square(toward).sum(-1), 0, 1)  # [s, s, C]
    left = np.linalg.norm(away[:, :, None] - shares[..., None] * toward, axis=-1)
    best = left.argmin(-1)
    return np.take_along_axis(shares, best[..., None], -1)[..., 0], best


def _explain(pixels, share, color, mask, window, world):
    """The item that a component shows, or None."""
    side = len(pixels)
    inside = mask & ndimage.binary_erosion(mask, np.ones((3, 3)))
    if inside.sum() < 4:
        return None
    votes = np.bincount(color[inside], minlength=len(world.colors))
    name, best = list(world.colors)[votes.argmax()], int(votes.argmax())
    distance = np.linalg.norm(pixels[inside] - _palette(world)[best], axis=-1)
    if votes[best] < 0.8 * inside.sum() or distance.mean() > FAR:
        return None
    rows, columns = (slice(max(edge.start - 3, 0), edge.stop + 3) for edge in window)
    soft = np.where(ndimage.binary_dilation(mask, np.ones((3, 3))), share, 0)[rows, columns]
    area, x, y = _moments(soft)
    normal = _normalised(soft, area, x, y)
    differences = {
        shape: float(np.abs(normal - _normal_shape(shape, round(np.sqrt(area)))).mean())
        for shape in (*world.shapes, *world.decoys)
    }
    shape, second = sorted(differences, key=differences.get)[:2]
    most = DIFFERENCE + RIM / np.sqrt(area)
    if differences[shape] > most or differences[second] - differences[shape] < MARGIN or shape in world.decoys:
        return None
    filled, below = _form(shape)
    size = np.sqrt(area / filled)
    y -= below * size  # to the middle of the box
    size /= DRAWN.get(shape, 1.0)
    return Item(shape, name, *(float(length / side) for length in (columns.start + x, rows.start + y, size)))


def _moments(soft):
    """Area and centre of mass (x, y) of a soft mask, in pixels."""
    area = soft.sum()
    at = [(np.arange(extent) + 0.5) for extent in soft.shape]
    return area, (soft.sum(0) @ at[1]) / area, (soft.sum(1) @ at[0]) / area


def _normalised(soft, area, x, y):
    """A soft mask on the grid, its centre of mass in the middle: f32[GRID, GRID]."""
    steps = ((np.arange(GRID) + 0.5) / GRID * 2 - 1) * REACH * np.sqrt(area)
    rows, columns = np.meshgrid(y + steps - 0.5, x + steps - 0.5, indexing="ij")
    return ndimage.map_coordinates(soft, [rows, columns], order=1, mode="constant")


@functools.cache
def _form(shape):
    """(the share of its bounding square that a shape fills, how far its centre of mass lies under the middle of it, in
    units of its side)."""
    area, _, y = _moments(coverage(shape, 64, 64, 128, 128, 128))
    return float(area) / 128**2, float(y) / 128 - 0.5


@functools.lru_cache(maxsize=1024)
def _normal_shape(shape, root):
    """A shape whose area is root x root pixels, on the grid."""
    size = root / np.sqrt(_form(shape)[0])
    side = int(np.ceil(size)) + 6
    soft = coverage(shape, side / 2, side / 2, size, size, side)
    return _normalised(soft, *_moments(soft))
