"""The verifier: reads a picture (never a scene) and says what is in it.

Objects are told from the plain background by colour distance, separated into connected components, and each component
is explained by analysis through synthesis: the world's shapes are drawn into its bounding box and the best overlap
wins, if it is good and clear enough; so are a few shapes that have no name here, which must not win. What cannot be
explained (blobs, odd hues, overlaps, foreign shapes, noise) counts as unclear, and a picture with anything unclear
matches no prompt; this is what keeps a policy from earning reward with smears. A second verifier, by another method,
is moments.py.
"""

import dataclasses
import functools

import numpy as np
from scipy import ndimage

from janus_jax.shapes.render import DRAWN, coverage, rgb
from janus_jax.shapes.scene import Ask, Item, relation_holds
from janus_jax.shapes.world import SHIPPED, World

RIGHT = 0.8  # the least score of a picture that counts as right, to be drawn
FOREGROUND = 95.0  # RGB distance from the background at which a pixel belongs to an object
SPECK = 0.004  # share of the picture under which a component is dust; all dust together may be no more
HOLE = 0.001  # share of the picture that holes in an object may take
PALE, PALE_SHARE = 30.0, 0.015  # RGB distance of a visible trace on the ground, and the picture's share allowed to it
PEAK = 1.15  # an object is flat: its brightest parts stand out from the ground at most so much more than its median
SOLID = 0.85  # of that median: what a pixel has to stand out for its colour to count
MIN_SIDE, MAX_SIDE = 0.15, 0.36  # bounding-box sides of an object, as fractions of the picture
MIN_MARGIN = 0.02  # of the best overlap over the second
NEAR_COLOR = 42.0  # RGB distance within which a pixel bears a colour; the two nearest are 97 apart
MOST = 0.8  # share of an object's pixels that must bear its colour
# Tips are thinner than a pixel, so that a bounding box looks smaller than it is. Where a shape has them, in units of
# the pixels to try: left, right, top, bottom.
TIPS = {"triangle": (0, 0, 1, 0), "diamond": (1, 1, 1, 1), "heart": (0, 0, 0, 1), "star": (1, 1, 1, 0)}
HIDDEN = (0.0, 0.75, 1.5)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a picture shows: the recognised items, and how many things in it are not clear."""

    items: tuple[Item, ...]
    unclear: int = 0


def checked(picture) -> np.ndarray:
    """The picture as an array. Raises ValueError where it is not u8[side, side, 3]."""
    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.shape[0] != picture.shape[1] or picture.dtype != np.uint8:
        raise ValueError(f"a picture is u8[side, side, 3], not {picture.dtype}{list(picture.shape)}")
    return picture


def read(picture, world: World = SHIPPED) -> Reading:
    """Reads a square picture u8[side, side, 3]. Raises ValueError for another shape or dtype."""
    picture = checked(picture)
    side = picture.shape[0]
    pixels = picture.astype(np.float32)
    background = np.median(pixels.reshape(-1, 3), axis=0)
    if background.min() < 185 or background.max() - background.min() > 30:
        return Reading((), unclear=1)
    distance = np.linalg.norm(pixels - background, axis=-1)
    labels, count = ndimage.label(distance > FOREGROUND)
    items, unclear, dust = [], 0, 0.0
    for index, window in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[window] == index
        if mask.sum() < SPECK * side * side:
            dust += mask.sum()
            continue
        item = _explain(pixels, background, distance, labels == index, window, side, world)
        if item is None:
            unclear += 1
        else:
            items.append(item)
    if dust > SPECK * side * side:
        unclear += 1
    # what lies under the threshold everywhere must be background: a haze is no plain ground, a pale object not nothing
    rest = ~ndimage.binary_dilation(labels > 0, iterations=2)
    if rest.any() and (distance[rest].mean() > 16 or (distance[rest] > PALE).sum() > PALE_SHARE * side * side):
        unclear += 1
    return Reading(tuple(items), unclear)


def _explain(pixels, background, distance, mask, window, side, world):
    """The item that a component shows, or None."""
    rows, columns = window
    box = (columns.start, columns.stop, rows.start, rows.stop)
    if not all(MIN_SIDE * side <= extent <= MAX_SIDE * side for extent in (box[1] - box[0], box[3] - box[2])):
        return None
    # a square of pixels around the component: nothing else of the picture matters from here on
    left, top = (max(first - 4, 0) for first in (columns.start, rows.start))
    reach = max(box[1] - left, box[3] - top) + 4
    near = (slice(top, top + reach), slice(left, left + reach))
    mask, distance, pixels = mask[near], distance[near], pixels[near]
    core = mask & ndimage.binary_erosion(mask)
    if core.sum() < 4 or (ndimage.binary_fill_holes(mask) & ~mask).sum() > HOLE * side * side:
        return None
    full = np.median(distance[core])
    color = _color(pixels[core & (distance >= SOLID * full)], world)  # of a thin shape much is blended with the ground
    # what does not stand out so far must be such a blend, and no second, paler colour
    if color is None or _blended(pixels[core], background, rgb(*world.colors[color])) < MOST:
        return None
    if np.quantile(distance[core], 0.95) > PEAK * full:  # a smear
        return None
    # the soft mask of this component alone: its own pixels and their blended rim
    alpha = np.where(ndimage.binary_dilation(mask), np.clip(distance / full, 0, 1), 0).astype(np.float32)
    alpha = np.pad(alpha, [(0, reach - extent) for extent in alpha.shape])  # at the picture's right and lower edge
    x0, x1 = _extent(alpha.max(0))
    y0, y1 = _extent(alpha.max(1))
    if not 1 / world.slenderness <= (x1 - x0) / (y1 - y0) <= world.slenderness:
        return None
    shape = _shape(alpha, x0, x1, y0, y1, side, world)
    if shape is None:
        return None
    size = max(x1 - x0, y1 - y0) / side / DRAWN.get(shape, 1.0)
    return Item(shape, color, (left + (x0 + x1) / 2) / side, (top + (y0 + y1) / 2) / side, float(size))


def overlaps(alpha, x0, x1, y0, y1, world) -> dict[str, float]:
    """Of each shape, decoys too, its best overlap (intersection over union) with a soft mask whose box is given in
    pixels."""
    found = {}
    for shape in (*world.shapes, *world.decoys):
        tips, best = TIPS.get(shape), 0.0
        for hidden in HIDDEN if tips else (0.0,):
            more = [hidden * tip for tip in tips or (0, 0, 0, 0)]
            box = (x0 - more[0], x1 + more[1], y0 - more[2], y1 + more[3])
            template = _template(shape, *(round(4 * edge) for edge in box), len(alpha))
            best = max(best, float(np.minimum(alpha, template).sum() / np.maximum(alpha, template).sum()))
        found[shape] = best
    return found


def _shape(alpha, x0, x1, y0, y1, side, world):
    """The world's shape that a soft mask shows, or None; side: of the picture, in pixels."""
    found = overlaps(alpha, x0, x1, y0, y1, world)
    best = max(found, key=found.get)
    second = max((shape for shape in world.shapes if shape != best), key=found.get)
    # an outline that is off by so many pixels costs the more of the overlap the longer it is for what it encloses
    off = world.slack * side * _outline(best) / max(x1 - x0, y1 - y0)
    least = max(world.least_overlap, 1 - off)
    if found[best] < least or found[best] - found[second] < MIN_MARGIN or best in world.decoys:
        return None
    return best


@functools.cache
def _outline(shape):
    """The length of a shape's outline over its area, for a box of side 1."""
    fine = coverage(shape, 144, 144, 256, 256, 288)
    return float(np.hypot(*np.gradient(fine)).sum() / fine.sum() * 256)


def _extent(profile):
    """Sub-pixel first and last edge of a profile of largest coverages."""
    inside = np.flatnonzero(profile > 0.5)
    first, last = int(inside[0]), int(inside[-1])
    before = profile[first - 1] if first > 0 else 0.0
    after = profile[last + 1] if last + 1 < len(profile) else 0.0
    return float(first + 1 - profile[first] - before), float(last + profile[last] + after)


@functools.lru_cache(maxsize=1 << 14)
def _template(shape, x0, x1, y0, y1, side):
    """Coverage of a shape that fills the box given in quarter pixels."""
    return coverage(shape, (x0 + x1) / 8, (y0 + y1) / 8, (x1 - x0) / 4, (y1 - y0) / 4, side)


def _color(core, world):
    """The colour name that most of the core pixels f32[N, 3] are near to in RGB, or None."""
    shares = {
        name: (np.linalg.norm(core - rgb(*hsv), axis=-1) <= NEAR_COLOR).mean() for name, hsv in world.colors.items()
    }
    name = max(shares, key=shares.get)
    return name if shares[name] >= MOST else None


def _blended(core, background, color):
    """The share of the core pixels f32[N, 3] that are near to the colour, or to a blend of it with the background."""
    toward = color - background
    along = np.clip((core - background) @ toward / (toward @ toward), 0, 1)
    return (np.linalg.norm(core - background - along[:, None] * toward, axis=-1) <= NEAR_COLOR).mean()


@dataclasses.dataclass(frozen=True)
class Match:
    """How a reading meets a prompt: nouns without an object (as single nouns), objects no noun asks for, and the
    objects found for each noun of the prompt."""

    missing: tuple
    extra: tuple[Item, ...]
    found: tuple[tuple[Item, ...], ...]


def match(ask: Ask, reading: Reading) -> Match:
    """Assigns objects to nouns; what is left over is missing or extra. Where several assignments are possible ("a red
    shape and a circle", of a red circle and a red square), it is one with the fewest missing, then one for which the
    relation holds, then the first in reading order."""
    left = list(reading.items)
    if len(ask.nouns) == 2 and all(noun.count == 1 for noun in ask.nouns):
        first, second = ([item for item in left if noun.fits(item)] + [None] for noun in ask.nouns)
        picks = [(a, b) for a in first for b in second if a is None or a is not b]

        def fitness(pick):
            there = sum(item is not None for item in pick)
            return there, bool(ask.relation) and there == 2 and relation_holds(ask.relation, *pick)

        picked = [[item] if item else [] for item in max(picks, key=fitness)]
    else:
        picked = []
        for noun in ask.nouns:
            taken = [item for mine in picked for item in mine]
            free = [item for item in left if noun.fits(item) and all(item is not other for other in taken)]
            picked.append(free[: noun.count])
    taken = [item for mine in picked for item in mine]
    missing = [
        dataclasses.replace(noun, count=1)
        for noun, mine in zip(ask.nouns, picked, strict=True)
        for _ in range(noun.count - len(mine))
    ]
    extra = tuple(item for item in left if all(item is not other for other in taken))
    return Match(tuple(missing), extra, tuple(map(tuple, picked)))


def answers(ask: Ask, reading: Reading) -> list[tuple[str, bool]]:
    """The prompt's atomic questions, each with its answer for this picture.

    Kinds: ("shape i", "color i", "size i", "count i") per noun, "relation", "nothing else", "clear".
    """
    result = []
    matched = match(ask, reading)
    for i, noun in enumerate(ask.nouns):
        alike = sum(n.shape == noun.shape for n in ask.nouns)  # nouns of this shape: that many objects must be there
        there = sum(noun.shape in (None, item.shape) for item in reading.items)
        # without a colour or size it is also the question whether there is an object for this noun
        result.append((f"shape {i}", there >= alike and bool(noun.color or noun.size or matched.found[i])))
        if noun.color:
            colored = dataclasses.replace(noun, size=None)
            found = any(map(colored.fits, reading.items)) if noun.size else len(matched.found[i]) > 0
            result.append((f"color {i}", found))
        if noun.size:
            result.append((f"size {i}", len(matched.found[i]) > 0))
        if ask.category == "counting":
            result.append((f"count {i}", sum(noun.fits(item) for item in reading.items) == noun.count))
    if ask.relation:
        firsts, seconds = matched.found
        result.append(("relation", bool(firsts and seconds) and relation_holds(ask.relation, firsts[0], seconds[0])))
    result.append(("nothing else", not matched.extra))
    result.append(("clear", reading.unclear == 0))
    return result


def matches(ask: Ask, reading: Reading) -> bool:
    """Whether the picture is exactly what the prompt asks for: every atomic answer is yes."""
    return all(answer for _, answer in answers(ask, reading))


def score(ask: Ask, reading: Reading) -> float:
    """R_QA in [0, 1], the verifier's stand-in for a judge's P(yes): 1 for a right picture, else 0.4 times the share of
    atomic questions answered yes. A wrong picture stays under one half, as it does with a judge that answers the whole
    question, so that 1 - |R_QA - verdict| rewards the right verdict; the share still says which picture is nearer."""
    results = [answer for _, answer in answers(ask, reading)]
    return 1.0 if all(results) else 0.4 * sum(results) / len(results)
