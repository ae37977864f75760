"""Wrong pictures of edits, held-out edits, and reasons."""

import re

import numpy as np
import pytest
from tiny import OTHER

from janus_jax.shapes import edit as edits
from janus_jax.shapes import edit_pairs, verify
from janus_jax.shapes.edit_reason import reason
from janus_jax.shapes.scene import Item, Noun, Scene
from janus_jax.shapes.verify import Reading
from janus_jax.shapes.world import SECOND, SHIPPED

CIRCLE, SQUARE = Item("circle", "red", 0.17, 0.17, 0.27), Item("square", "blue", 0.83, 0.5, 0.27)
TRIANGLE = Item("triangle", "green", 0.5, 0.83, 0.27)
AWAY = Item("square", "blue", 0.17, 0.83, 0.27)
RED_CIRCLE, BLUE_SQUARE = Noun(1, "red", "circle"), Noun(1, "blue", "square")


def hand(kind, *nouns, **facts):
    return edits.Edit("", kind, None, None, nouns, **facts)


def item(shape, color, like):
    return Item(shape, color, like.x, like.y, like.size)


TO_BLUE = hand("recolor", RED_CIRCLE, color="blue")
ADD = hand("add", Noun(1, "black", "cross"))
CROSS = Item("cross", "black", 0.5, 0.5, 0.27)
REMOVE, SWAP = hand("remove", RED_CIRCLE), hand("swap", RED_CIRCLE, BLUE_SQUARE)
MOVE = hand("move", RED_CIRCLE, BLUE_SQUARE, where="right")
CASES = [
    (TO_BLUE, (CIRCLE, SQUARE), "No, the circle is not blue."),
    (TO_BLUE, (item("circle", "blue", CIRCLE), SQUARE), "Yes, (the circle is blue|there is a blue circle)."),
    (TO_BLUE, (item("circle", "blue", CIRCLE),), "No, (there is no blue square|the blue square is missing)."),
    (TO_BLUE, (item("circle", "blue", CIRCLE), AWAY), "No, the blue square should not be there."),
    (
        TO_BLUE,
        (item("circle", "blue", CIRCLE), SQUARE, TRIANGLE),
        "No, (there is also a green triangle|the green triangle should not be there).",
    ),
    (ADD, (CIRCLE, SQUARE), "No, (there is no black cross|the black cross is missing)."),
    (ADD, (CIRCLE, SQUARE, CROSS), "Yes, (there is|the picture shows) a black cross."),
    (REMOVE, (CIRCLE, SQUARE), "No, (there is a red circle|the red circle should not be there)."),
    (REMOVE, (SQUARE,), "Yes, (there is no red circle|the red circle is not there)."),
    (REMOVE, (item("square", "red", CIRCLE), SQUARE), "No, there is a shape instead of the red circle."),
    (SWAP, (CIRCLE, SQUARE), "No, the red circle and the blue square are not swapped."),
    (SWAP, (item("square", "blue", CIRCLE), item("circle", "red", SQUARE)), "Yes, .* are swapped."),
    (MOVE, (CIRCLE, SQUARE), "No, the red circle is not to the right of the blue square."),
    (MOVE, (SQUARE,), "No, (there is no red circle|the red circle is missing)."),
]


@pytest.mark.parametrize("edit, shown, words", CASES)
def test_reasons_by_hand(edit, shown, words):
    for seed in range(4):
        said = reason(np.random.default_rng(seed), edit, Reading((CIRCLE, SQUARE)), Reading(shown))
        assert re.fullmatch(words.replace(".", r"\.").replace(r"\.*", ".*"), said)


def test_what_is_not_clear():
    said = reason(np.random.default_rng(0), TO_BLUE, Reading((CIRCLE, SQUARE)), Reading((CIRCLE,), unclear=1))
    assert "clear" in said


def test_reasons_are_the_scores():
    """Of near misses: Yes where all is done and nothing else, and no held-out pair but what the instruction says."""
    pairs, right = {f"{color} {shape}" for color, shape in SHIPPED.held_out.colors}, []
    for seed in range(150):
        rng = np.random.default_rng([seed, 7])
        edit = edits.random_edit(rng)
        others = [edit_pairs.near_miss(rng, edit) for _ in range(2)]
        source, *shown = (verify.read(picture) for picture in edits.draw(edit, None, rng, others))
        if not edits.applies(edit, source):
            continue
        for reading in shown:
            said = reason(rng, edit, source, reading)
            assert said.startswith("Yes, " if edits.score(edit, source, reading) == 1 else "No, ")
            assert not any(pair in said for pair in pairs)
        right.append([edits.score(edit, source, reading) == 1 for reading in shown])
    rates = np.mean(right, axis=0)
    assert rates[0] > 0.97 and max(rates[1:]) < 0.25  # the target; near misses, some of which are right by chance


def test_score_is_one_or_under_a_half():
    source, gone = Reading((CIRCLE, SQUARE, TRIANGLE)), Reading((item("circle", "blue", CIRCLE), SQUARE))
    whole = Reading((item("circle", "blue", CIRCLE), SQUARE, TRIANGLE))
    assert edits.score(TO_BLUE, source, whole) == 1
    assert edits.score(TO_BLUE, source, gone) == pytest.approx(0.4 * 0.5)
    assert edits.score(TO_BLUE, source, source) == 0


def test_others_are_drawn_as_the_pair_is():
    edit = edits.random_edit(np.random.default_rng(0))
    plain = edits.draw(edit, None, np.random.default_rng(1))
    more = edits.draw(edit, None, np.random.default_rng(1), [edit.target, Scene(())])
    for a, b in zip((*plain, plain[1]), more[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    assert verify.read(more[3]).items == ()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_edits_of_a_split(split):
    found = edit_pairs.edits_of(split, 8)
    assert [edit.kind for edit, *_ in found] == [kind for kind in edits.KINDS for _ in range(8)]
    assert len({edit.instruction for edit, *_ in found}) == len(found)
    for edit, source, target in found:
        assert edits.split_of(edit) == split and edits.is_held_out(edit) == (split != "train")
        before, after = verify.read(source), verify.read(target)
        assert edits.score(edits.parse(edit.instruction, before), before, after) == 1
    again, other = edit_pairs.edits_of(split, 8), edit_pairs.edits_of(split, 8, seed=1)
    np.testing.assert_array_equal([s for _, s, _ in found], [s for _, s, _ in again])
    assert [e.instruction for e, *_ in found] != [e.instruction for e, *_ in other]


def test_training_sees_no_edit_of_another_split():
    drawn = [edits.random_edit(np.random.default_rng(seed)) for seed in range(300)]
    assert not any(edits.is_held_out(edit) for edit in drawn)
    shown = {(item.color, item.shape) for edit in drawn for item in (*edit.source.items, *edit.target.items)}
    assert len(shown) > 40 and not shown & SHIPPED.held_out.colors  # beside what is named neither
    with pytest.raises(ValueError, match="ask for fewer"):
        edit_pairs.edits_of("test", 10_000, world=OTHER)


@pytest.mark.parametrize(
    "shapes, color, split",
    [
        ("circle star", "green", "train"),
        ("cross heart", "green", "validation"),  # a pair of shapes
        ("circle cross", "green", "test"),
        ("circle cross heart", "green", None),
        ("diamond diamond", "green", "validation"),  # a count
        ("star circle", "yellow", "validation"),  # what is named: the last one
        ("circle star", "yellow", "train"),  # beside what is named
        ("circle cross", "blue", "test"),
        ("cross heart", "orange", None),
    ],
)
def test_the_split_of_an_edit(shapes, color, split):
    """By what it names, and by what source and target show; of both splits it is of none."""
    items = tuple(Item(shape, color, 0.17 + 0.33 * n, 0.5, 0.2) for n, shape in enumerate(shapes.split()))
    named = (Noun(1, color, items[-1].shape),)
    edit = edits.Edit("", "move", Scene(items), Scene(items), named, where="top left")
    assert edits.split_of(edit, SECOND) == split
    beside = edits.Edit("", "add", Scene(()), Scene(items), named)
    assert edits.split_of(beside, SECOND) == split


def test_a_held_out_place_is_of_its_split():
    items = (Item("heart", "green", 0.17, 0.5, 0.2), Item("star", "green", 0.83, 0.5, 0.2))
    named = tuple(Noun(1, "green", item.shape) for item in items)
    for where, split in (("left", "validation"), ("above", "train")):
        edit = edits.Edit("", "move", Scene(items), Scene(items), named, where=where)
        assert edits.split_of(edit, SECOND) == split


def test_clear_edits_are_of_the_training_side(monkeypatch):
    """What words and pictures do not say clearly is drawn anew."""
    rng = np.random.default_rng(0)
    for kind in edits.KINDS:
        for _ in range(6):
            drawn, source, target = edit_pairs.clear_edit(rng, kind, side=120)
            assert drawn.kind == kind and not edits.is_held_out(drawn) and source.shape == (120, 120, 3)
            before, after = verify.read(source), verify.read(target)
            assert edits.score(edits.parse(drawn.instruction, before), before, after) == 1
    answers = iter([False, False, True])
    monkeypatch.setattr(edit_pairs, "_is_clear", lambda *_: next(answers))
    edit_pairs.clear_edit(rng)
    assert next(answers, None) is None
