"""Edit pairs: what the scores say about copies, targets and everything between, on pictures."""

import dataclasses

import numpy as np
import pytest

from janus_jax.shapes import edit as edits
from janus_jax.shapes import render, text, verify
from janus_jax.shapes.scene import Item, Noun, Scene
from janus_jax.shapes.world import SHIPPED

CIRCLE, SQUARE = Item("circle", "red", 0.17, 0.17, 0.27), Item("square", "blue", 0.83, 0.5, 0.27)
TRIANGLE = Item("triangle", "green", 0.5, 0.83, 0.27)
RED_CIRCLE, BLUE_SQUARE = Noun(1, "red", "circle"), Noun(1, "blue", "square")


def see(*items):
    return verify.read(render.render(Scene(items)))


def moved(item, x, y):
    return dataclasses.replace(item, x=x, y=y)


def painted(item, color):
    return dataclasses.replace(item, color=color)


def hand(kind, *nouns, **facts):
    return edits.Edit("", kind, Scene(()), Scene(()), nouns, **facts)  # no scene: the scores must not look at one


@pytest.mark.parametrize("kind", edits.KINDS)
def test_copy_and_target(kind):
    """A copy follows nothing and preserves all, the target does both, and an edit is what its kind says."""
    wordings, pairs = set(), 0
    for seed in range(60):
        rng = np.random.default_rng([seed, 1])
        edit = edits.random_edit(rng, kind)
        wordings.add(edit.instruction.split()[0])
        before, after = (verify.read(picture) for picture in edits.draw(edit, rng=rng))
        if not edits.applies(edit, before) or after.unclear:
            continue  # two neighbours touch: a fact of the renderer, counted below
        pairs += 1
        assert 1 <= len(before.items) <= 3
        assert len(after.items) - len(before.items) == {"add": 1, "remove": -1}.get(kind, 0)
        assert (edits.following(edit, before, before), edits.preserving(edit, before, before)) == (0, 1), edit
        assert (edits.following(edit, before, after), edits.preserving(edit, before, after)) == (1, 1), edit
    assert pairs >= 58
    assert len(wordings) == len({wording.split()[0] for wording in edits.WORDINGS[kind]})


def test_unrelated_picture_preserves_little():
    scores = []
    for seed in range(200):
        rng = np.random.default_rng([seed, 2])
        edit, other = edits.random_edit(rng), edits.random_edit(rng)
        before, after = verify.read(edits.draw(edit, rng=rng)[0]), verify.read(edits.draw(other, rng=rng)[1])
        if edits.applies(edit, before) and len(before.items) > 1:
            scores.append(edits.preserving(edit, before, after))
    assert np.mean(scores) < 0.1
    assert np.mean(np.array(scores) > 0.5) < 0.02


def test_untouched_objects_are_the_same_to_the_pixel():
    side = SHIPPED.side
    for seed in range(40):
        rng = np.random.default_rng([seed, 3])
        edit = edits.random_edit(rng)
        source, target = edits.draw(edit, rng=rng)
        touched = np.zeros((side, side), bool)
        for item in set(edit.source.items) ^ set(edit.target.items):
            box = (length * side for length in (item.x, item.y, item.size, item.size))
            touched |= render.coverage("square", *box, side) > 0
        assert (source[touched] != target[touched]).any()
        np.testing.assert_array_equal(source[~touched], target[~touched])


TO_BLUE = hand("recolor", RED_CIRCLE, color="blue")
ADD_CROSS, CROSS = hand("add", Noun(1, "black", "cross")), Item("cross", "black", 0.5, 0.5, 0.27)
# (edit, what the edited picture shows, following, preserving); the source: red circle, blue square, green triangle
CASES = {
    "recolored": (TO_BLUE, (painted(CIRCLE, "blue"), SQUARE, TRIANGLE), 1, 1),
    "wrong color": (TO_BLUE, (painted(CIRCLE, "green"), SQUARE, TRIANGLE), 0, 1),
    "recolored elsewhere": (TO_BLUE, (painted(moved(CIRCLE, 0.5, 0.5), "blue"), SQUARE, TRIANGLE), 0, 2 / 3),
    "another shape": (TO_BLUE, (Item("cross", "blue", 0.17, 0.17, 0.27), SQUARE, TRIANGLE), 0, 2 / 3),
    "all recolored": (TO_BLUE, (painted(CIRCLE, "blue"), SQUARE, painted(TRIANGLE, "blue")), 1, 1 / 3),
    "added": (ADD_CROSS, (CIRCLE, SQUARE, TRIANGLE, CROSS), 1, 1),
    "added twice": (
        ADD_CROSS,
        (CIRCLE, SQUARE, TRIANGLE, Item("cross", "black", 0.5, 0.17, 0.27), Item("cross", "black", 0.17, 0.83, 0.27)),
        0,
        3 / 4,
    ),
    "added, another lost": (ADD_CROSS, (CIRCLE, SQUARE, CROSS), 1, 2 / 3),
    "removed": (hand("remove", RED_CIRCLE), (SQUARE, TRIANGLE), 1, 1),
    "removed another": (hand("remove", RED_CIRCLE), (CIRCLE, SQUARE), 0, 1 / 2),
    "removed all": (hand("remove", RED_CIRCLE), (), 1, 0),
    "hidden elsewhere": (hand("remove", RED_CIRCLE), (moved(CIRCLE, 0.17, 0.83), SQUARE, TRIANGLE), 0, 2 / 3),
    "painted over": (hand("remove", RED_CIRCLE), (painted(CIRCLE, "black"), SQUARE, TRIANGLE), 0, 2 / 3),
    "moved": (hand("move", RED_CIRCLE, where="bottom left"), (moved(CIRCLE, 0.17, 0.83), SQUARE, TRIANGLE), 1, 1),
    "moved too little": (
        hand("move", RED_CIRCLE, where="bottom left"),
        (moved(CIRCLE, 0.17, 0.5), SQUARE, TRIANGLE),
        0,
        1,
    ),
    "copied there": (
        hand("move", RED_CIRCLE, where="bottom left"),
        (CIRCLE, moved(CIRCLE, 0.17, 0.83), SQUARE, TRIANGLE),
        0,
        2 / 3,
    ),
    "moved below": (
        hand("move", RED_CIRCLE, BLUE_SQUARE, where="below"),
        (moved(CIRCLE, 0.83, 0.83), SQUARE, TRIANGLE),
        1,
        1,
    ),
    "moved the other": (
        hand("move", RED_CIRCLE, BLUE_SQUARE, where="above"),
        (CIRCLE, moved(SQUARE, 0.17, 0.83), TRIANGLE),
        0,
        1 / 3,
    ),
    "swapped": (
        hand("swap", RED_CIRCLE, BLUE_SQUARE),
        (moved(CIRCLE, 0.83, 0.5), moved(SQUARE, 0.17, 0.17), TRIANGLE),
        1,
        1,
    ),
    "half a swap": (
        hand("swap", RED_CIRCLE, BLUE_SQUARE),
        (moved(CIRCLE, 0.83, 0.5), moved(SQUARE, 0.5, 0.5), TRIANGLE),
        1 / 2,
        1,
    ),
    "swapped the wrong two": (
        hand("swap", RED_CIRCLE, BLUE_SQUARE),
        (moved(CIRCLE, 0.5, 0.83), SQUARE, moved(TRIANGLE, 0.17, 0.17)),
        0,
        0,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_hand_cases(case):
    edit, shown, followed, preserved = CASES[case]
    before, after = see(CIRCLE, SQUARE, TRIANGLE), see(*shown)
    assert not before.unclear and not after.unclear
    assert edits.following(edit, before, after) == followed
    assert edits.preserving(edit, before, after) == pytest.approx(preserved)


def test_a_smear_is_no_removal():
    before = see(CIRCLE, SQUARE)
    after = dataclasses.replace(see(SQUARE), unclear=1)
    edit = hand("remove", RED_CIRCLE)
    assert (edits.following(edit, before, after), edits.preserving(edit, before, after)) == (0, 1 / 2)


def test_scores_need_a_source_that_shows_the_object():
    edit = hand("remove", RED_CIRCLE)
    for before in (see(SQUARE), see(CIRCLE, moved(CIRCLE, 0.83, 0.83)), verify.Reading((CIRCLE,), unclear=1)):
        assert not edits.applies(edit, before)
        for score in (edits.following, edits.preserving):
            with pytest.raises(ValueError, match="leave the pair out"):
                score(edit, before, before)


def test_instructions_address_one_object_each():
    """Read back by hand: the words of an instruction fit exactly one object of the source."""
    for seed in range(300):
        edit = edits.random_edit(np.random.default_rng([seed, 4]))
        words = edit.instruction.split()
        for i, word in enumerate(words):
            if word != "the" or words[i + 1] not in (*SHIPPED.shapes, *SHIPPED.colors):
                continue
            color = words[i + 1] if words[i + 1] in SHIPPED.colors else None
            noun = Noun(1, color, words[i + 2] if color else words[i + 1])
            assert sum(noun.fits(item) for item in edit.source.items) == 1, edit


def test_training_edits_hold_out_what_evaluation_asks():
    named = 0
    for seed in range(300):
        rng = np.random.default_rng([seed, 5])
        edit = edits.random_edit(rng)
        for shown in (edit.source, edit.target):
            assert not text.shows_held_out(verify.Reading(shown.items))
        assert not any(f"{color} {shape}" in edit.instruction for color, shape in SHIPPED.held_out.colors)
        free = edits.random_edit(rng, held_out=True)
        named += any(f"{color} {shape}" in free.instruction for color, shape in SHIPPED.held_out.colors)
    assert named > 10


def test_random_edit_is_deterministic_and_refuses_unknown_kinds():
    assert edits.random_edit(np.random.default_rng(6)) == edits.random_edit(np.random.default_rng(6))
    assert {edits.random_edit(np.random.default_rng(seed)).kind for seed in range(60)} == set(edits.KINDS)
    with pytest.raises(ValueError, match="the kinds are recolor, add"):
        edits.random_edit(np.random.default_rng(0), "blur")
    for kind, objects in (("remove", 1), ("add", 4), ("add", 0)):
        with pytest.raises(ValueError, match=f"{kind} goes with . to 3 objects, not {objects}"):
            edits.random_edit(np.random.default_rng(0), kind, objects=objects)
    assert {len(edits.random_edit(np.random.default_rng(n), objects=2).source.items) for n in range(30)} == {2}


@pytest.mark.parametrize("kind", edits.KINDS)
def test_instructions_are_read_back(kind):
    """Of every wording the very edit, objects without a colour found in the picture."""
    said, unclear = set(), 0
    for seed in range(120):
        rng = np.random.default_rng([seed, 9])
        edit = edits.random_edit(rng, kind, held_out=True)
        source = verify.Reading(edit.source.items)
        found = edits.parse(edit.instruction.capitalize() + ".", source)
        assert (found.kind, found.nouns, found.color, found.where) == (edit.kind, edit.nouns, edit.color, edit.where)
        said.add(edit.instruction.split()[0])
        before, after = (verify.read(picture) for picture in edits.draw(edit, rng=rng))
        if not edits.applies(edit, before) or after.unclear:
            unclear += 1
            continue
        assert (edits.following(found, before, after), edits.preserving(found, before, after)) == (1, 1)
    assert unclear <= 4 and len(said) == len({wording.split()[0] for wording in edits.WORDINGS[kind]})


@pytest.mark.parametrize(
    "instruction, words",
    [
        ("make it nicer", "not an instruction of the shapes world"),
        ("make the red circle", "not an instruction"),
        ("move the red circle", "not an instruction"),
        ("add a circle", "does not say which circle"),
        ("remove the circle", "does not say which circle"),  # two of them
        ("remove the cross", "does not say which cross"),  # none
    ],
)
def test_instructions_that_are_none(instruction, words):
    with pytest.raises(ValueError, match=words):
        edits.parse(instruction, verify.Reading((CIRCLE, painted(CIRCLE, "blue"), SQUARE)))
