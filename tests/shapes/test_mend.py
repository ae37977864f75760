"""A mended scene is right and keeps the rest; a changed prompt differs in one fact."""

import dataclasses

import numpy as np
import pytest

from janus_jax.shapes import mend, scene, text, verify
from janus_jax.shapes.scene import Item
from janus_jax.shapes.verify import Reading
from janus_jax.shapes.world import SECOND, WORLDS

RED = Item("circle", "red", 0.17, 0.17, 0.29)
BLUE = Item("circle", "blue", 0.17, 0.83, 0.29)
STAR = Item("star", "green", 0.83, 0.17, 0.19)


def mended(prompt, *items, seed=0):
    ask = text.parse(prompt, SECOND)
    return mend.mend(np.random.default_rng(seed), ask, Reading(items), SECOND)


def test_by_hand():
    """Each fault alone, and what is left of the picture."""
    assert mended("a blue circle", RED).items == (dataclasses.replace(RED, color="blue"),)
    assert mended("a star", RED).items == (dataclasses.replace(RED, shape="star"),)
    assert mended("a circle", RED, STAR).items == (RED,)
    (small,) = mended("a small circle", RED).items
    assert scene.size_word(small) == "small" and dataclasses.replace(small, size=RED.size) == RED
    first, second = mended("a red circle and a green star", RED).items
    assert first == RED and (second.shape, second.color) == ("star", "green")
    # colours exchanged, in their places
    items = mended("a blue circle and a red star", RED, dataclasses.replace(STAR, color="blue")).items
    assert items == (dataclasses.replace(RED, color="blue"), dataclasses.replace(STAR, color="red"))
    # a mirrored relation: the places are exchanged
    star, red = mended("a star left of a circle", RED, STAR).items
    assert (red.x, red.y, star.x, star.y) == (STAR.x, STAR.y, RED.x, RED.y)
    # another relation: one of them moves
    items = mended("a star below a circle", RED, STAR).items
    assert len({RED, STAR} & set(items)) == 1
    # a count
    items = mended("three circles", RED, BLUE).items
    assert items[:2] == (RED, BLUE) and len(items) == 3
    assert mended("a circle") is None


def test_what_is_not_clear_goes():
    ask = text.parse("a red circle", SECOND)
    assert mend.mend(np.random.default_rng(0), ask, Reading((RED,), unclear=1), SECOND).items == (RED,)


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_mended_scenes_are_right_and_keep_the_rest(world):
    count = 0
    for i in range(1500):
        rng = np.random.default_rng([i, 31])
        prompt = text.free_prompt(rng, world=world) if i % 2 else text.train_prompt(rng, world=world)
        ask = text.parse(prompt, world)
        wrong = Reading(scene.near_miss(rng, ask, world).items)
        if verify.matches(ask, wrong):
            continue
        found = mend.mend(rng, ask, wrong, world)
        if found is None:
            assert ask.relation
            continue
        count += 1
        assert verify.matches(ask, Reading(found.items))
        matched = verify.match(ask, wrong)
        right = [item for items in matched.found for item in items]
        if ask.relation and not (matched.missing or matched.extra):  # only the places are wrong
            assert sorted(map(kind, found.items)) == sorted(map(kind, wrong.items))
        elif not ask.relation:
            assert all(item in found.items for item in right)
            assert mend.kept(wrong, Reading(found.items)) >= len(right)
        cells = {(int(item.x * 3), int(item.y * 3)) for item in found.items}
        assert len(cells) == len(found.items)  # nothing over anything else
    assert count > 1200


def kind(item):
    return item.shape, item.color, item.size


def test_kept_counts_objects_in_their_places():
    moved = dataclasses.replace(BLUE, x=0.5)
    assert mend.kept(Reading((RED, BLUE, STAR)), Reading((RED, moved, dataclasses.replace(STAR, size=0.29)))) == 1
    assert mend.kept(Reading((RED, RED)), Reading((RED,))) == 1
    near = dataclasses.replace(RED, x=RED.x + 0.05)
    assert mend.kept(Reading((RED,)), Reading((near,))) == 1


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("a circle left of a star", {"a circle right of a star"}),
        ("a red circle and a blue star", {"a blue circle and a red star"}),
        ("two circles", {"three circles"}),
        ("three red stars", {"two red stars", "four red stars"}),
        ("a small circle and a large star", {"a large circle and a small star"}),
        ("a circle", set()),
        ("a circle and a star", set()),
        ("a red shape and a circle", set()),
    ],
)
def test_changed_by_hand(prompt, expected):
    ask = text.parse(prompt, SECOND)
    found = {mend.changed(np.random.default_rng(seed), ask) for seed in range(20)} - {None}
    assert found == {text.parse(each, SECOND) for each in expected}
    right = Reading(scene.compose(np.random.default_rng(0), ask, SECOND).items)
    assert not any(verify.matches(each, right) for each in found)
