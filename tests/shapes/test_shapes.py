"""The embedded world: its texts, its pictures, its verifier, its data set and its tokenizer."""

import colorsys
import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from janus_jax.sequences import tokens
from janus_jax.shapes import reasons, render, scene, text, verify
from janus_jax.shapes.scene import Ask, Item, Noun, Scene
from janus_jax.shapes.verify import Reading
from janus_jax.shapes.vocabulary import train_tokenizer
from janus_jax.shapes.world import SHIPPED

SIDE, SHAPES, COLORS, HELD_OUT = SHIPPED.side, SHIPPED.shapes, SHIPPED.colors, SHIPPED.held_out

FREE_ASKS = [ask for category in text.FREE_CATEGORIES for kind in text.free_kinds(category) for ask in kind]
ALL_ASKS = [ask for category in text.CATEGORIES for ask in text.all_asks(category)] + FREE_ASKS
KINDS = list(itertools.product(SHAPES, COLORS))


def draw_ask(rng, i):
    """A random question; categories take turns."""
    asks = text.all_asks(text.CATEGORIES[i % len(text.CATEGORIES)])
    return asks[int(rng.integers(len(asks)))]


def see(*items):
    """The reading of a flawless picture of these."""
    return Reading(items)


# ---------------------------------------------------------------- texts


def test_phrase_and_parse_are_inverse():
    rng = np.random.default_rng(0)
    for ask in ALL_ASKS:
        for _ in range(3):
            assert text.parse(text.phrase(rng, ask)) == ask
    for prefix, one in itertools.product(text.PREFIXES, text.ONES):
        assert text.parse(f"{prefix}{one} red circle") == Ask("colors", (Noun(1, "red", "circle"),))


@pytest.mark.parametrize(
    "prompt, ask",
    [
        ("a circle", Ask("single_object", (Noun(1, None, "circle"),))),
        ("Draw  a cross.", Ask("single_object", (Noun(1, None, "cross"),))),
        ("three red crosses", Ask("counting", (Noun(3, "red", "cross"),))),
        ("a circle with a square", Ask("two_object", (Noun(1, None, "circle"), Noun(1, None, "square")))),
        ("two red shapes", Ask("counting", (Noun(2, "red", None),))),
        (
            "a red shape over a blue shape",
            Ask("position", (Noun(1, "red", None), Noun(1, "blue", None)), "above"),
        ),
        ("a circle over a square", Ask("position", (Noun(1, None, "circle"), Noun(1, None, "square")), "above")),
        (
            "a red circle and a blue square",
            Ask("color_attribution", (Noun(1, "red", "circle"), Noun(1, "blue", "square"))),
        ),
    ],
)
def test_parse_by_hand(prompt, ask):
    assert text.parse(prompt) == ask


@pytest.mark.parametrize(
    "prompt",
    [
        *("", "a dog", "a hexagon", "five circles", "a brown circle", "a tiny circle", "a red small circle"),
        *("two circles above a square", "a shape and a circle"),
    ],
)
def test_foreign_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="not a prompt of the shapes world"):
        text.parse(prompt)


def test_held_out_prompts():
    prompts = text.held_out_prompts(100)
    assert prompts == text.held_out_prompts(100) != text.held_out_prompts(100, seed=1)
    assert len(set(prompts)) == 600
    assert [text.parse(prompt).category for prompt in prompts] == [c for c in text.CATEGORIES for _ in range(100)]
    assert {text.split_of(prompt) for prompt in prompts} == {"test"}
    with pytest.raises(ValueError, match="single_object has only about .* ask for fewer"):
        text.held_out_prompts(400)  # 21 questions of 60 wordings, of which a quarter is held out


def test_training_prompts_hold_them_out():
    rng = np.random.default_rng(1)
    drawn = {text.train_prompt(rng, category) for category in text.CATEGORIES for _ in range(300)}
    assert not drawn & set(text.held_out_prompts(100))
    for prompt in drawn:
        ask = text.parse(prompt)
        assert not text.held_out(ask)
        assert not {(noun.color, noun.shape) for noun in ask.nouns} & HELD_OUT.colors
    assert {text.parse(prompt).category for prompt in drawn} == set(text.CATEGORIES)


def test_held_out_by_hand():
    held = [
        "a red triangle",
        "three triangles",
        "four blue circles",
        "a circle and a cross",
        "a cross with a circle",
        "a square left of a triangle",
        "a triangle to the right of a square",
        "a red triangle and a blue square",
    ]
    chosen_on = [
        "a yellow circle",
        "three circles",
        "two small diamonds",
        "a heart and a large cross",
        "a star to the right of a heart",
        "a cross below a diamond",
        "a purple square and a red circle",
    ]
    free = [
        "a red circle",
        "two triangles",
        "two circles",
        "a circle and a square",
        "a triangle left of a square",
        "a square right of a triangle",
        "a square above a triangle",
        "a blue triangle and a red square",
    ]
    for split, prompts in (("test", held), ("validation", chosen_on), ("train", free)):
        assert [text.split_of(prompt) for prompt in prompts] == [split] * len(prompts)


RED_CIRCLE, BLUE_CIRCLE = Item("circle", "red", 0.2, 0.2, 0.25), Item("circle", "blue", 0.2, 0.8, 0.25)
YELLOW_CIRCLE, BLUE_SQUARE = Item("circle", "yellow", 0.5, 0.2, 0.25), Item("square", "blue", 0.2, 0.5, 0.25)
GREEN_TRIANGLE = Item("triangle", "green", 0.8, 0.8, 0.25)
REASONS = [  # prompt, what is seen, all wordings of the reason
    ("a red circle", see(RED_CIRCLE), {"Yes, there is a red circle.", "Yes, the picture shows a red circle."}),
    (
        "two red circles",
        see(RED_CIRCLE, RED_CIRCLE),
        {"Yes, there are two red circles.", "Yes, the picture shows two red circles."},
    ),
    (
        "a circle above a square",
        see(RED_CIRCLE, BLUE_SQUARE),
        {"Yes, the circle is above the square.", "Yes, there is a circle above a square."},
    ),
    (
        "three red circles",
        see(RED_CIRCLE, RED_CIRCLE),
        {"No, there are two red circles, not three.", "No, it shows two red circles instead of three."},
    ),
    (
        "two circles",
        see(RED_CIRCLE),
        {"No, there is one circle, not two.", "No, it shows one circle instead of two."},
    ),
    ("two circles", see(BLUE_SQUARE), {"No, there is no circle.", "No, there are no circles."}),
    (
        "a red circle",
        see(BLUE_CIRCLE),
        {"No, the circle is blue, not red.", "No, the circle is blue instead of red."},
    ),
    ("a red circle", see(YELLOW_CIRCLE), {"No, the circle is not red."}),  # "yellow circle" is held out
    (
        "a circle",
        see(BLUE_SQUARE),
        {"No, there is a square, not a circle.", "No, it shows a square instead of a circle."},
    ),
    (
        "a red circle and a blue square",
        see(RED_CIRCLE),
        {"No, there is no blue square.", "No, the blue square is missing."},
    ),
    (
        "a circle",
        see(RED_CIRCLE, GREEN_TRIANGLE),
        {"No, there is also a triangle.", "No, the triangle should not be there."},
    ),
    (
        "a circle below a square",
        see(RED_CIRCLE, BLUE_SQUARE),
        {"No, the circle is above the square, not below.", "No, the circle is above the square."},
    ),
    (
        "a red shape",
        see(BLUE_SQUARE),
        {"No, there is a blue square, not a red shape.", "No, it shows a blue square instead of a red shape."},
    ),
    ("a red shape", see(RED_CIRCLE), {"Yes, there is a red shape.", "Yes, the picture shows a red shape."}),
    (
        "three shapes",
        see(RED_CIRCLE, BLUE_SQUARE),
        {"No, there are two shapes, not three.", "No, it shows two shapes instead of three."},
    ),
    (
        "a red shape below a blue shape",
        see(RED_CIRCLE, BLUE_SQUARE),
        {
            "No, the red shape is above the blue shape, not below.",
            "No, the red shape is above the blue shape.",
        },
    ),
    ("a circle", see(), {"No, the picture is empty.", "No, there is nothing in the picture."}),
    (
        "a circle",
        Reading((RED_CIRCLE,), unclear=1),
        {"No, one shape is not clear.", "No, the picture has an unclear shape."},
    ),
]


@pytest.mark.parametrize("prompt, reading, expected", REASONS)
def test_reasons_by_hand(prompt, reading, expected):
    ask = text.parse(prompt)
    assert {reasons.reason(np.random.default_rng(seed), ask, reading) for seed in range(20)} == expected
    assert verify.matches(ask, reading) == min(expected).startswith("Yes")


def test_scenes_reasons_and_scores():
    """compose satisfies its question, near_miss never does; the reason and the score say the same."""
    for i in range(3000):
        rng = np.random.default_rng([i, 2])
        ask = draw_ask(rng, i)
        for compose, right in ((scene.compose, True), (scene.near_miss, False)):
            reading = Reading(compose(rng, ask).items)
            assert verify.matches(ask, reading) == right, (ask, reading)
            assert reasons.reason(rng, ask, reading).startswith("Yes, " if right else "No, ")
            assert verify.score(ask, reading) == 1 if right else 0 <= verify.score(ask, reading) < 0.5


def test_free_prompts():
    """Freely composed prompts are right for any shapes, are never held out, and their reasons are truthful."""
    for i, ask in enumerate(FREE_ASKS):
        rng = np.random.default_rng([i, 5])
        assert not text.held_out(ask)
        shown = scene.compose(rng, ask)
        # what is never shown is never asked for: else no picture of the prompt could be found
        assert any(not text.shows_held_out(Reading(scene.compose(rng, ask).items)) for _ in range(40)), ask
        assert verify.matches(ask, Reading(shown.items)) and verify.score(ask, Reading(shown.items)) == 1
        assert reasons.reason(rng, ask, Reading(shown.items)).startswith("Yes, ")
        for items in (scene.near_miss(rng, ask).items, shown.items[1:]):
            right = verify.matches(ask, Reading(items))
            assert reasons.reason(rng, ask, Reading(items)).startswith("Yes, " if right else "No, ")
            assert (verify.score(ask, Reading(items)) == 1) == right
        assert not verify.matches(ask, Reading(shown.items[1:]))
    # which shapes they show is free indeed
    shown = {scene.compose(np.random.default_rng(i), text.free_kinds("colors")[0][0]).items[0].shape for i in range(40)}
    assert shown == set(SHAPES)


def test_score_counts_atomic_answers():
    ask = text.parse("a red circle and a blue square")
    assert verify.score(ask, see(RED_CIRCLE, BLUE_SQUARE)) == 1
    assert verify.score(ask, see(RED_CIRCLE)) == pytest.approx(0.4 * 4 / 6)  # no square: its shape and its colour
    assert verify.score(ask, see(BLUE_CIRCLE, BLUE_SQUARE)) == pytest.approx(0.4 * 4 / 6)  # colour 0, nothing else
    assert verify.score(ask, Reading((RED_CIRCLE, BLUE_SQUARE), unclear=1)) == pytest.approx(0.4 * 5 / 6)
    assert verify.score(ask, Reading((), unclear=1)) < verify.score(ask, see(RED_CIRCLE))


def test_training_reasons_name_nothing_held_out():
    """Over what the data set may hold: training prompts with pictures that show nothing held out."""
    shape, color = f"({'|'.join(SHAPES)})", f"({'|'.join(COLORS)})"
    number = f"({'|'.join(text.NUMBERS)})"
    side = {joint: relation for relation, joints in text.PLACES.items() for joint in joints}
    seen = 0
    for i in range(3000):
        rng = np.random.default_rng([i, 3])
        prompt = text.free_prompt(rng) if i % 2 == 0 else text.train_prompt(rng)
        ask = text.parse(prompt)
        reading = Reading((scene.compose if i % 3 == 0 else scene.near_miss)(rng, ask).items)
        if text.shows_held_out(reading):
            continue
        seen += 1
        reason = reasons.reason(rng, ask, reading)
        assert not set(re.findall(rf"{color} {shape}", reason)) & HELD_OUT.colors, (prompt, reason)
        assert not {(c, s) for s, c in re.findall(rf"{shape} is {color}", reason)} & HELD_OUT.colors, reason
        for count, named in re.findall(rf"{number} {shape}e?s", reason):
            assert (text.NUMBERS[count], named) not in HELD_OUT.counts, reason
        for first, joint, second in re.findall(rf"{shape} (?:is )?({'|'.join(side)}) (?:a|the) {shape}", reason):
            place = (first, side[joint], second)
            if side[joint] in ("right", "below"):
                place = (second, scene.OPPOSITE[side[joint]], first)
            assert place not in HELD_OUT.places, reason
        assert not any(all(re.search(rf"a {n}( and|\.)", reason) for n in pair) for pair in HELD_OUT.pairs), reason
    assert seen > 2000


def test_training_reasons_name_no_held_out_count_of_one_color():
    for i in range(600):
        rng = np.random.default_rng([i, 3])
        ask = text.parse(text.train_prompt(rng, "counting"))
        reading = Reading(scene.near_miss(rng, ask).items)
        if not text.shows_held_out(reading):
            reason = reasons.reason(rng, ask, reading)
            for (count, shape), color in itertools.product(HELD_OUT.counts, COLORS):
                assert f"{text.NUMBER_NAMES[count]} {color} {text.plural(shape)}" not in reason, (ask, reading, reason)


# ---------------------------------------------------------------- pictures and the verifier


def agreement(count, side, degrade=None):
    """Share of fresh pictures, right ones and near misses, whose verdict is the truth; and of the right ones alone."""
    agree = []
    for i in range(count):
        rng = np.random.default_rng([i, side, 4])
        ask = draw_ask(rng, i)
        right = i // len(text.CATEGORIES) % 2 == 0
        picture = render.render((scene.compose if right else scene.near_miss)(rng, ask), side, rng)
        picture = picture if degrade is None else degrade(rng, picture)
        agree.append((right, verify.matches(ask, verify.read(picture)) == right))
    return np.mean([ok for _, ok in agree]), np.mean([ok for right, ok in agree if right])


def degrade(rng, picture):
    """About what a good VQ does to a picture."""
    soft = ndimage.gaussian_filter(picture.astype(np.float32), (1, 1, 0))
    soft += rng.normal(0, 3, soft.shape) + rng.uniform(-8, 8, 3)
    return np.clip(np.round(soft), 0, 255).astype(np.uint8)


def test_verifier_agrees_with_the_truth():
    assert agreement(2400, SIDE)[0] >= 0.995


@pytest.mark.parametrize("side", [72, 192])
def test_verifier_agrees_at_another_resolution(side):
    assert agreement(300, side)[0] >= 0.99


@pytest.mark.parametrize("side, count", [(96, 1200), (192, 240)])
def test_verifier_stands_light_degradation(side, count):
    assert agreement(count, side, degrade)[1] >= 0.97


def test_reading_has_places_and_sizes():
    items = (Item("circle", "red", 0.2, 0.3, 0.25), Item("cross", "black", 0.7, 0.6, 0.28))
    for side in (48, 72, 96, 192):
        found = sorted(verify.read(render.render(Scene(items), side)).items, key=lambda item: item.x)
        for item, expected in zip(found, items, strict=True):
            assert (item.shape, item.color) == (expected.shape, expected.color)
            np.testing.assert_allclose((item.x, item.y), (expected.x, expected.y), atol=0.01)
            np.testing.assert_allclose(item.size, expected.size, atol=0.02)


def test_read_refuses_what_is_no_picture():
    for wrong in (np.zeros((96, 96, 3), np.float32), np.zeros((96, 95, 3), np.uint8), np.zeros((96, 96), np.uint8)):
        with pytest.raises(ValueError, match="a picture is u8"):
            verify.read(wrong)


def test_rendering_is_anti_aliased_and_jittered():
    one = Scene((Item("circle", "red", 0.5, 0.5, 0.26),))  # its edge runs through the middle of a pixel
    plain = render.render(one)
    assert len(np.unique(plain[SIDE // 2, :, 1])) > 2  # neither ground nor object: the rim
    np.testing.assert_array_equal(plain, render.render(one))
    assert (plain != render.render(one, rng=np.random.default_rng(0))).any()
    coverage = render.coverage("square", 10, 10, 5, 5, SIDE)
    assert coverage.sum() == pytest.approx(25)
    assert render.coverage("circle", 24, 24, 20, 20, SIDE).sum() == pytest.approx(np.pi * 100, rel=0.01)


# ---------------------------------------------------------------- pictures that must not count

GROUND = 240.0


def rgb(hue, saturation, value):
    return np.array(colorsys.hsv_to_rgb(hue / 360, saturation, value)) * 255


def put(picture, shape, color, x=0.5, y=0.5, size=0.28):
    """Draws one object; lengths as fractions of the picture."""
    side = len(picture)
    alpha = render.coverage(shape, x * side, y * side, size * side, size * side, side)[..., None]
    return picture * (1 - alpha) + (rgb(*COLORS[color]) if isinstance(color, str) else np.asarray(color)) * alpha


def ground(level=GROUND):
    return np.full((SIDE, SIDE, 3), level, np.float32)


def blob(rng, shape, color, sigma):
    """A Gaussian smear of the right colour."""
    x, y = rng.uniform(0.4, 0.6, 2) * SIDE
    at = np.arange(SIDE) + 0.5
    alpha = np.exp(-((at[None] - x) ** 2 + (at[:, None] - y) ** 2) / 2 / (sigma * SIDE) ** 2)[..., None]
    return ground() * (1 - alpha) + rgb(*COLORS[color]) * alpha


def hued(rng, shape, color, *hsv):
    return put(ground(), shape, rgb(*hsv))


def overlapping(rng, shape, color, distance):
    """A second object of another kind half over the first; asked for are both."""
    angle = rng.uniform(0, 2 * np.pi)
    dx, dy = distance * np.cos(angle) / 2, distance * np.sin(angle) / 2
    other, paint = partner(shape, color)
    return put(put(ground(), shape, color, 0.5 - dx, 0.5 - dy), other, paint, 0.5 + dx, 0.5 + dy)


def partner(shape, color):
    return SHAPES[SHAPES.index(shape) - 1], list(COLORS)[list(COLORS).index(color) - 1]


def half(rng, shape, color, axis):
    picture = put(ground(), shape, color)
    picture[(slice(None), slice(SIDE // 2, None))[-axis:] if axis == 2 else slice(0, SIDE // 2)] = GROUND
    return picture


def empty(rng, shape, color):
    return ground()


def noise(rng, shape, color):
    return rng.uniform(0, 255, (SIDE, SIDE, 3))


def noisy(rng, shape, color, std):
    return put(ground(), shape, color) + rng.normal(0, std, (SIDE, SIDE, 3))


def salted(rng, shape, color, share):
    picture = put(ground(), shape, color)
    grains = rng.random((SIDE, SIDE)) < share
    picture[grains] = rng.uniform(0, 255, (grains.sum(), 3))
    return picture


def hazy(rng, shape, color, depth):
    """Dark clouds over the whole picture."""
    clouds = ndimage.gaussian_filter(rng.normal(0, 1, (SIDE, SIDE, 3)), (4, 4, 0))
    return put(ground(), shape, color) - np.abs(clouds) * depth / clouds.std()


def ghost(rng, shape, color, strength):
    """A second, pale object."""
    other, paint = partner(shape, color)
    pale = strength * rgb(*COLORS[paint]) + (1 - strength) * GROUND
    return put(put(ground(), shape, color, 0.25, 0.25), other, pale, 0.75, 0.75)


def faint(rng, shape, color, distance):
    """The same, so far from the ground in RGB: of a light colour it is the more of it."""
    away = rgb(*COLORS[partner(shape, color)[1]]) - GROUND
    return ghost(rng, shape, color, distance / np.linalg.norm(away))


def pale(rng, shape, color, strength):
    return put(ground(), shape, strength * rgb(*COLORS[color]) + (1 - strength) * GROUND)


def on_dark(rng, shape, color, level):
    return put(ground(level), shape, color)


def sized(rng, shape, color, size):
    return put(ground(), shape, color, size=size)


def speckled(rng, shape, color, count):
    """Grains of another colour, a 48th of the side each, strewn over the free ground."""
    strewn = np.zeros((48, 48), bool)
    at = rng.permutation(np.argwhere(np.ones((12, 24))))[:count] * 2
    strewn[at[:, 0] + 24, at[:, 1]] = True
    picture = put(ground(), shape, color, 0.25, 0.25)
    picture[np.kron(strewn, np.ones((SIDE // 48, SIDE // 48), bool))] = rgb(*COLORS[partner(shape, color)[1]])
    return picture


def hollow(rng, shape, color, inner):
    """An outline: the same shape in ground colour within."""
    y = 0.5 + (0.28 * (1 - inner) / 6 if shape == "triangle" else 0)
    return put(put(ground(), shape, color), shape, [GROUND] * 3, y=y, size=0.28 * inner)


def glued(rng, shape, color, same):
    """Two whole objects that touch along an edge or in a tip, one above the other; asked for are both. They overlap by
    two pixels: of a tip, the first is thinner than a pixel."""
    other, paint = (shape, color) if same else partner(shape, color)
    deeper = {"heart": 0.03, "star": 0.06}[shape] if same and shape in ("heart", "star") else 0  # a tip in a notch
    return put(put(ground(), shape, color, y=0.36), other, paint, y=0.36 + 0.26 - deeper)


def two_toned(rng, shape, color):
    picture, other = put(ground(), shape, color), put(ground(), shape, partner(shape, color)[1])
    picture[:, : SIDE // 2] = other[:, : SIDE // 2]
    return picture


def stretched(rng, shape, color, ratio):
    width, height = 0.27 * SIDE * ratio**0.5, 0.27 * SIDE / ratio**0.5
    alpha = render.coverage(shape, SIDE / 2, SIDE / 2, width, height, SIDE)[..., None]
    return ground() * (1 - alpha) + rgb(*COLORS[color]) * alpha


WRONG = {
    **{f"blob {sigma}": (blob, sigma) for sigma in (0.04, 0.06, 0.08, 0.1, 0.12, 0.2)},
    "amber": (hued, 41, 0.9, 0.97),  # halfway from orange to yellow
    "teal": (hued, 165, 0.8, 0.6),
    "indigo": (hued, 255, 0.75, 0.8),
    "magenta": (hued, 305, 0.8, 0.85),
    "rose": (hued, 330, 0.3, 0.98),
    "lime": (hued, 85, 0.8, 0.8),
    "brown": (hued, 25, 0.6, 0.4),
    "grey": (hued, 0, 0, 0.5),
    "overlap": (overlapping, 0.14),
    "strong overlap": (overlapping, 0.06),
    "upper half": (half, 1),
    "left half": (half, 2),
    "empty": (empty,),
    "noise": (noise,),
    "noisy": (noisy, 25),
    "salt 2%": (salted, 0.02),
    "salt 10%": (salted, 0.1),
    "haze": (hazy, 25),
    "faint ghost": (faint, 32),
    "ghost 0.25": (ghost, 0.25),
    "ghost 0.5": (ghost, 0.5),
    "pale": (pale, 0.3),
    "dark ground": (on_dark, 100),
    "black ground": (on_dark, 0),
    "tiny": (sized, 0.1),
    "large": (sized, 0.45),
    "huge": (sized, 0.9),
    "speckles": (speckled, 12),
    "many speckles": (speckled, 60),
    "outline 0.8": (hollow, 0.8),
    "outline 0.6": (hollow, 0.6),
    "outline 0.4": (hollow, 0.4),
    "glued": (glued, False),
    "glued alike": (glued, True),
    "two-toned": (two_toned,),
    "wide": (stretched, 1.6),
    "tall": (stretched, 1 / 1.6),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_pictures_do_not_count(name):
    make, *settings = WRONG[name]
    for i, (shape, color) in enumerate(KINDS):
        picture = make(np.random.default_rng([i, 5]), shape, color, *settings)
        reading = verify.read(np.clip(np.round(picture), 0, 255).astype(np.uint8))
        if make is hued:
            asks = [Ask("colors", (Noun(1, name, shape),)) for name in (None, *COLORS)]
        elif make in (overlapping, glued) and settings != [True]:
            other, paint = partner(shape, color)
            asks = [Ask("color_attribution", (Noun(1, color, shape), Noun(1, paint, other)))]
        else:
            asks = [Ask("colors", (Noun(1, color, shape),)), Ask("counting", (Noun(2, color, shape),))]
        for ask in asks:
            assert not verify.matches(ask, reading), (ask, reading)
            assert verify.score(ask, reading) < 0.5


@pytest.mark.parametrize("shape, color", KINDS)
def test_the_flawless_picture_counts(shape, color):
    """What the wrong pictures above are made from."""
    picture = np.round(put(ground(), shape, color)).astype(np.uint8)
    assert verify.matches(Ask("colors", (Noun(1, color, shape),)), verify.read(picture))


# ---------------------------------------------------------------- the data set, mixed codes, the tokenizer

BUILD = """
import sys, grain
from janus_jax.data import shapes_dataset
from janus_jax.shapes import text, verify
shapes_dataset.TRAIN_PROMPTS, shapes_dataset.FREE_PROMPTS = 12, 8
builder = shapes_dataset.Shapes(config="second", data_dir=sys.argv[1], file_format="array_record")
builder.download_and_prepare()
for split, count in (("train", 12), ("train_free", 8)):
    source = builder.as_data_source(split)
    examples = list(grain.MapDataset.source(source))
    assert len(examples) == len(source) == count
    for example in examples:
        prompt, pictures = example["prompt"].decode(), example["pictures"]
        ask = text.parse(prompt)
        assert text.split_of(prompt) == "train"
        assert example["category"].decode() == ask.category
        assert [(image.shape, image.dtype) for image in pictures["image"]] == [((96, 96, 3), "uint8")] * 6
        assert [score == 1 for score in pictures["score"]] == [True] * 3 + [False] * 3
        for image, score, reason in zip(pictures["image"], pictures["score"], pictures["reason"], strict=True):
            reading = verify.read(image)
            assert abs(verify.score(ask, reading) - score) < 1e-6
            assert reason.decode().startswith("Yes" if score == 1 else "No")
            assert not text.shows_held_out(reading)
assert "tensorflow" not in sys.modules
"""


def test_data_set(tmp_path):
    """Built as ArrayRecord, read back by grain, and no TensorFlow at any time."""
    command = [sys.executable, "-c", BUILD, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stderr[-2000:]
    assert list(tmp_path.rglob("*.array_record*"))


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer()


def test_tokenizer_gives_texts_back(tokenizer):
    rng = np.random.default_rng(6)
    texts = [tokens.EDIT_REQUEST, tokens.SYSTEM_PROMPT, "\n", "\n\n", " a  b ", "", "Yes", "No, no."]
    for i in range(200):
        ask = draw_ask(rng, i)
        texts += [text.phrase(rng, ask), reasons.reason(rng, ask, Reading(scene.near_miss(rng, ask).items))]
    texts += ["ein Würfel, 3 €, 立方体 🟥\n\ttab", "a teal dodecahedron"]  # by single bytes
    for line in texts:
        assert tokenizer.decode(tokenizer.encode(line, bos=False)) == line
    template = tokens.generation_prompt("a red circle")
    assert tokenizer.decode(tokenizer.encode(template)) == ": a red circle\n\n:"  # special tokens are left out
    for before_and_after in tokens.edit_prompt("make the circle red"):
        ids = tokenizer.encode(before_and_after, bos=False)
        for special in tokens.SPECIAL:
            assert ids.count(tokenizer.id(special)) == before_and_after.count(special)


def test_tokenizer_has_the_special_tokens(tokenizer):
    ids = [tokenizer.id(token) for token in (*tokens.SPECIAL, "Yes", "No")]
    assert len(set(ids)) == len(ids)
    assert tokenizer.special.yes == tokenizer.encode("Yes, it is.", bos=False)[0]
    assert tokenizer.special.no == tokenizer.encode("No, it is not.", bos=False)[0]
    assert tokenizer.encode("a circle") == [tokenizer.special.bos, *tokenizer.encode("a circle", bos=False)]


def test_fixed_sentences_are_single_pieces(tokenizer):
    for sentence in (tokens.THINK_SENTENCE, tokens.NEXT_SENTENCE):
        assert len(tokenizer.encode(sentence, bos=False)) == 1
    assert len(tokenizer.encode(tokens.THINK, bos=False)) == 3  # end of image, newline, sentence
    assert len(tokenizer.encode(tokens.NEXT, bos=False)) == 4  # EOS, newline, sentence, begin of image


def test_words_of_the_world_are_single_pieces(tokenizer):
    words = (*COLORS, *SHAPES, *SHIPPED.sizes, *text.NUMBERS)
    lengths = {word: len(tokenizer.encode(f" {word}", bos=False)) for word in words}
    assert lengths == dict.fromkeys(words, 1)
    for shape in SHAPES:  # a plural is one, or the shape and an ending
        plural = tokenizer.encode(f" {text.plural(shape)}", bos=False)
        assert len(plural) == 1 or (len(plural) == 2 and plural[:1] == tokenizer.encode(f" {shape}", bos=False))
    assert train_tokenizer().content == tokenizer.content  # the same file every time
