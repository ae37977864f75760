"""The worlds: what is held out is named and shown by no training text or picture, and the splits share nothing."""

import itertools
import re

import numpy as np
import pytest
from tiny import OTHER

from janus_jax.shapes import moments, reasons, render, scene, text, verify
from janus_jax.shapes.scene import Ask, Item, Noun, Scene
from janus_jax.shapes.verify import Reading
from janus_jax.shapes.world import SECOND, SPLITS, WORLDS

EVERY = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)


def draw_ask(rng, i, world):
    asks = text.all_asks(text.CATEGORIES[i % len(text.CATEGORIES)], world)
    return asks[int(rng.integers(len(asks)))]


@EVERY
def test_held_out_things_are_of_the_world(world):
    for held in (world.validation, world.test):
        assert all(color in world.colors and shape in world.shapes for color, shape in held.colors)
        assert all(2 <= count <= scene.MAX_ITEMS and shape in world.shapes for count, shape in held.counts)
        assert all(len(pair) == 2 and pair <= set(world.shapes) for pair in held.pairs)
        for first, relation, second in held.places:
            assert relation in ("left", "above") and {first, second} <= set(world.shapes) and first != second


@EVERY
def test_no_word_is_held_out_altogether(world):
    """Every colour, shape, count of a shape, and relation of a shape is left to training with something."""
    held = world.held_out
    for shape in world.shapes:
        assert sum((color, shape) not in held.colors for color in world.colors) >= 4
        assert any((count, shape) not in held.counts for count in range(2, scene.MAX_ITEMS + 1))
        assert sum(frozenset({shape, other}) not in held.pairs for other in world.shapes if other != shape) >= 2
        for relation in scene.RELATIONS:
            places = [text.placement(shape, relation, other) for other in world.shapes if other != shape]
            assert any(place not in held.places and frozenset(place[::2]) not in held.pairs for place in places)
    for color in world.colors:
        assert sum((color, shape) not in held.colors for shape in world.shapes) >= 3


def test_validation_and_test_share_nothing():
    one, other = SECOND.validation, SECOND.test
    for name in ("colors", "counts", "pairs", "places", "wordings"):
        assert getattr(one, name) and getattr(other, name) and not getattr(one, name) & getattr(other, name)


def test_a_pair_of_colour_and_shape_is_one_of_dozens():
    assert (len(SECOND.shapes), len(SECOND.colors), list(SECOND.sizes)) == (7, 9, ["small", "large"])
    assert len(SECOND.test.colors) == 4 and len(SECOND.validation.colors) == 3


def test_splits_share_no_question():
    """Splits are disjoint, by combination too; the test has many questions where the category has."""
    prompts = {split: text.held_out_prompts(60, split=split, world=SECOND) for split in SPLITS}
    for split, some in prompts.items():
        assert [text.split_of(prompt, SECOND) for prompt in some] == [split] * 360
    for one, other in itertools.combinations(SPLITS, 2):
        assert not set(prompts[one]) & set(prompts[other])
        asks = [{text.parse(p, SECOND) for p in prompts[s]} for s in (one, other)]
        assert not {ask for ask in asks[0] & asks[1] if ask.category != "single_object"}
    combinations = {
        split: {c for p in prompts[split] for c in text.combinations(text.parse(p, SECOND), SECOND.held_out)}
        for split in SPLITS
    }
    assert not combinations["train"] and not combinations["validation"] & combinations["test"]
    asks = [text.parse(prompt, SECOND) for prompt in text.held_out_prompts(100, world=SECOND)]
    distinct = {category: len({ask for ask in asks if ask.category == category}) for category in text.CATEGORIES}
    # seven shapes in three sizes; four pairs in three sizes
    assert distinct.pop("single_object") == 21 and distinct.pop("colors") == 12
    assert min(distinct.values()) >= 40, distinct


def test_a_world_without_a_validation_split():
    with pytest.raises(ValueError, match="0 prompts of the validation split"):
        text.held_out_prompts(1, split="validation", world=OTHER)


def test_what_is_named_of_both_splits_is_nobodys():
    prompt = "a red triangle and a purple square"  # of the test, and of the validation
    assert text.split_of(prompt, SECOND) is None
    assert text.combination(text.parse(prompt, SECOND), SECOND) == "purple square; red triangle"


COMBINATIONS = [
    ("a small red triangle", "red triangle"),
    ("three triangles", "3 triangles"),
    ("a cross and a small circle", "circle and cross"),
    ("a triangle right of a square", "square left triangle"),
    ("a red triangle and a blue cross", "blue cross; red triangle"),
    ("a large star", "a large star"),
    ("please draw exactly one large star", "a large star"),
    ("a cyan heart", "a cyan heart"),
]


@pytest.mark.parametrize("prompt, expected", COMBINATIONS)
def test_combination_by_hand(prompt, expected):
    assert text.combination(text.parse(prompt, SECOND), SECOND) == expected


@EVERY
def test_training_texts_and_pictures_hold_out(world):
    """Nothing held out stands in a training prompt, nor in a reason or a caption of a training picture."""
    color, shape = f"({'|'.join(world.colors)})", f"({'|'.join(world.shapes)})"
    number = f"({'|'.join(text.NUMBERS)})"
    held, seen = world.held_out, 0
    for i in range(2400):
        rng = np.random.default_rng([i, 21])
        prompt = text.free_prompt(rng, world=world) if i % 2 else text.train_prompt(rng, world=world)
        ask = text.parse(prompt, world)
        assert not text.combinations(ask, held)
        reading = Reading((scene.compose if i % 3 == 0 else scene.near_miss)(rng, ask, world).items)
        if text.shows_held_out(reading, world):
            continue
        seen += 1
        for words in (prompt, reasons.reason(rng, ask, reading, world), reasons.caption(reading, world)):
            assert not set(re.findall(rf"{color} {shape}", words)) & held.colors, words
            assert not {(c, s) for s, c in re.findall(rf"{shape} is {color}", words)} & held.colors, words
            counts = re.findall(rf"{number} (?:{color} |small |large )?{shape}e?s", words)
            assert not {(text.NUMBERS[n], s) for n, _, s in counts} & held.counts, words
    assert seen > 1500


@pytest.mark.parametrize(
    "prompt, ask",
    [
        ("a small red circle", Ask("colors", (Noun(1, "red", "circle", "small"),))),
        ("an orange star", Ask("colors", (Noun(1, "orange", "star"),))),
        ("two large hearts", Ask("counting", (Noun(2, None, "heart", "large"),))),
    ],
)
def test_parse_by_hand(prompt, ask):
    assert text.parse(prompt, SECOND) == ask


def test_the_words_are_those_of_the_world():
    assert text.parse("a teal pentagon", OTHER) == Ask("colors", (Noun(1, "teal", "pentagon"),))
    for prompt, world in (("a teal pentagon", SECOND), ("an orange circle", OTHER), ("two large hearts", OTHER)):
        with pytest.raises(ValueError, match="not a prompt of the shapes world"):
            text.parse(prompt, world)


def test_phrase_and_parse_are_inverse():
    for category in text.CATEGORIES:
        for i, ask in enumerate(text.all_asks(category, SECOND)):
            if category != "color_attribution" or i % 7 == 0:
                assert text.parse(text.phrase(np.random.default_rng(i), ask), SECOND) == ask


RED, LARGE_RED = Item("circle", "red", 0.2, 0.2, 0.19), Item("circle", "red", 0.2, 0.2, 0.29)
BLUE_STAR = Item("star", "blue", 0.8, 0.2, 0.29)
REASONS = [
    ("a small red circle", (RED,), {"Yes, there is a small red circle.", "Yes, the picture shows a small red circle."}),
    (
        "a small red circle",
        (LARGE_RED,),
        {"No, the circle is large, not small.", "No, the circle is large instead of small."},
    ),
    (
        "a small circle",
        (BLUE_STAR,),
        {"No, there is a large star, not a small circle.", "No, it shows a large star instead of a small circle."},
    ),
    ("a circle", (RED, BLUE_STAR), {"No, there is also a star.", "No, the star should not be there."}),
    (
        "three small circles",
        (RED, RED),
        {"No, there are two small circles, not three.", "No, it shows two small circles instead of three."},
    ),
    ("an orange star", (BLUE_STAR,), {"No, the star is blue, not orange.", "No, the star is blue instead of orange."}),
    (
        "an orange star",
        (RED,),
        {"No, there is a red circle, not an orange star.", "No, it shows a red circle instead of an orange star."},
    ),
]


@pytest.mark.parametrize("prompt, items, expected", REASONS)
def test_reasons_by_hand(prompt, items, expected):
    ask, reading = text.parse(prompt, SECOND), Reading(items)
    assert {reasons.reason(np.random.default_rng(seed), ask, reading, SECOND) for seed in range(20)} == expected
    assert verify.matches(ask, reading) == min(expected).startswith("Yes")


CONTRADICTIONS = [
    ("a blue cross", "Yes, there is a blue circle.", True),
    ("a blue cross", "Yes, there is a blue cross.", False),
    ("a blue cross", "No, the picture shows a blue cross.", True),
    ("a blue cross", "No, there is a blue circle, not a blue cross.", False),
    ("a blue cross", "No, there is a blue circle, not a red cross.", True),
    ("a blue cross", "No, the cross is red, not blue.", False),
    ("a blue cross", "No, the cross is red, not yellow.", True),
    ("a blue cross", "No, there is no cross.", False),
    ("a blue cross", "No, there is no star.", True),
    ("a blue cross", "No, one shape is not clear.", False),
    ("a blue cross", "No, the star should not be there.", False),
    ("three circles", "No, there are two circles, not three.", False),
    ("three circles", "No, there are two circles, not four.", True),
    ("a star above a heart", "No, the star is below the heart, not above.", False),
    ("a star above a heart", "No, the star is above the heart.", True),
    ("a star above a heart", "No, the star is not above the heart.", False),
]


@pytest.mark.parametrize("prompt, said, expected", CONTRADICTIONS)
def test_words_that_contradict_their_verdict(prompt, said, expected):
    assert reasons.contradicts(text.parse(prompt, SECOND), said) == expected


@EVERY
def test_truthful_reasons_contradict_nothing(world):
    for i in range(1500):
        rng = np.random.default_rng([i, 23])
        ask = draw_ask(rng, i, world)
        for compose in (scene.compose, scene.near_miss):
            reason = reasons.reason(rng, ask, Reading(compose(rng, ask, world).items), world)
            assert not reasons.contradicts(ask, reason), (ask, reason)
            said = ("No" if reason.startswith("Yes") else "Yes") + reason[reason.index(",") :]
            assert reasons.contradicts(ask, said) or not said.startswith("Yes"), (ask, said)


# ---------------------------------------------------------------- pictures


def test_colours_are_far_apart():
    colors = [render.rgb(*hsv) for hsv in SECOND.colors.values()]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(colors, 2)) > 2 * verify.NEAR_COLOR
    assert min(np.linalg.norm(a - 240.0) for a in colors) > 1.4 * verify.FOREGROUND


@pytest.mark.parametrize("read", [verify.read, moments.read])
def test_both_verifiers_read_what_was_rendered(read):
    wrong = 0
    for i in range(600):
        rng = np.random.default_rng([i, 25])
        ask, right = draw_ask(rng, i, SECOND), i // 6 % 2 == 0
        picture = (scene.compose if right else scene.near_miss)(rng, ask, SECOND)
        reading = read(render.render(picture, rng=rng, world=SECOND), SECOND)
        wrong += verify.matches(ask, reading) != right
    assert wrong <= 3


def put(shape, x=48, y=48, width=28, height=28, color="red", picture=None):
    """A picture of 96 px with one shape of any name and extents, in pixels; color None: in that of the ground."""
    picture = np.full((96, 96, 3), 240.0, np.float32) if picture is None else picture
    alpha = render.coverage(shape, x, y, width, height, 96)[..., None]
    return picture * (1 - alpha) + (render.rgb(*SECOND.colors[color]) if color else 240.0) * alpha


def as_picture(pixels):
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


FOREIGN = {
    "pentagon": put("pentagon"),
    "small pentagon": put("pentagon", width=19, height=19),
    "hexagon": put("hexagon"),
    "small hexagon": put("hexagon", width=19, height=19),
    "hexagon on its side": put("sideways hexagon"),
    "triangle on its head": put("inverted triangle"),
    "heart on its head": put("inverted heart"),
    "small triangle on its head": put("inverted triangle", width=19, height=19),
    "circle on a square": put("circle", y=42, width=18, height=18, picture=put("square", y=56, width=18, height=12)),
    "circle over a square": put("circle", y=40, width=20, height=20, picture=put("square", y=54, width=24, height=16)),
    "circle in a square": put("circle", width=16, height=16, color="blue", picture=put("square", width=26, height=26)),
    "two crosses": put("cross", x=54, y=54, picture=put("cross", x=46, y=46)),
    "tall circle": put("circle", width=20, height=30),
    "flat diamond": put("diamond", width=30, height=20),
    "half a circle": np.concatenate([put("circle")[:48], np.full((48, 96, 3), 240.0)]),
    "bitten circle": put("square", x=57, y=57, width=14, height=14, picture=put("circle"), color=None),
    "ring": put("circle") + (240 - put("circle")) * render.coverage("circle", 48, 48, 12, 12, 96)[..., None],
}


@pytest.mark.parametrize("read", [verify.read, moments.read])
@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_and_composite_shapes_are_not_clear(name, read):
    reading = read(as_picture(FOREIGN[name]), SECOND)
    assert reading.unclear and not reading.items


def test_an_outline_by_hand():
    """Length over area, in a box of side 1."""
    assert verify._outline("circle") == pytest.approx(4, rel=0.03) and verify._outline("square") == pytest.approx(
        4, rel=0.03
    )
    assert verify._outline("triangle") == pytest.approx((1 + 5**0.5) / 0.5, rel=0.03)


@pytest.mark.parametrize("read", [verify.read, moments.read])
def test_a_foreign_colour_is_not_clear(read):
    for hsv in ((85, 0.8, 0.8), (25, 0.6, 0.4), (0, 0, 0.5), (255, 0.75, 0.8), (41, 0.9, 0.97)):
        alpha = render.coverage("circle", 48, 48, 28, 28, 96)[..., None]
        picture = 240.0 * (1 - alpha) + render.rgb(*hsv) * alpha
        assert read(as_picture(picture), SECOND).unclear, hsv


@pytest.mark.parametrize("read", [verify.read, moments.read])
def test_every_kind_is_read_alone(read):
    for shape, color, size in itertools.product(SECOND.shapes, SECOND.colors, SECOND.sizes):
        item = scene.in_cell(np.random.default_rng(0), (shape, color, size), 1, 1, SECOND)
        (found,) = read(render.render(Scene((item,)), world=SECOND), SECOND).items
        assert (found.shape, found.color, scene.size_word(found)) == (shape, color, size)
        np.testing.assert_allclose((found.x, found.y), (item.x, item.y), atol=0.02)
        np.testing.assert_allclose(found.size, item.size, atol=0.025)  # a mended picture is drawn from it


def test_a_crowd_has_more_objects_than_any_prompt():
    """Each in a cell of its own, and all of them read."""
    counts = set()
    for seed in range(40):
        shown = scene.crowd(np.random.default_rng(seed), SECOND)
        assert len({(int(item.x * 3), int(item.y * 3)) for item in shown.items}) == len(shown.items)
        counts.add(len(shown.items))
        found = verify.read(render.render(shown, world=SECOND), SECOND)
        kinds = [sorted((item.shape, item.color) for item in items) for items in (found.items, shown.items)]
        assert kinds[0] == kinds[1] and not found.unclear
    assert counts == set(range(scene.MAX_ITEMS, scene.GRID**2 + 1))
