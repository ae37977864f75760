"""Pictures around edits: wrong ones for training, edits of what is not there, and those held out for evaluation."""

import dataclasses
import math

import numpy as np

from janus_jax.shapes import edit as edits
from janus_jax.shapes import verify
from janus_jax.shapes.edit import Edit
from janus_jax.shapes.scene import Noun, Scene, place
from janus_jax.shapes.world import SHIPPED, World

CHANGES = ("add", "remove", "move", "color", "shape")


def near_miss(rng, edit: Edit, world: World = SHIPPED) -> Scene:
    """The target with one object changed, which is too much, or as often the source, which is another edit. (By chance
    it may be right; the scores say so.)"""
    base = edit.target if rng.random() < 0.5 else edit.source
    items, change = list(base.items), str(rng.choice(CHANGES))
    i = int(rng.integers(len(items)))
    if change == "remove":
        del items[i]
    elif change == "color":
        items[i] = dataclasses.replace(
            items[i], color=str(rng.choice([c for c in world.colors if c != items[i].color]))
        )
    elif change == "shape":
        items[i] = dataclasses.replace(
            items[i], shape=str(rng.choice([s for s in world.shapes if s != items[i].shape]))
        )
    else:
        new = _beside(rng, items, world)
        if change == "add":
            items.append(new)
        else:
            items[i] = dataclasses.replace(items[i], x=new.x, y=new.y)
    return Scene(tuple(items), base.background)


def _beside(rng, items, world):
    """A random object in a free cell of the grid."""
    while True:
        kind = (str(rng.choice(world.shapes)), str(rng.choice(list(world.colors))))
        (new,) = place(rng, [kind], world=world).items
        if all(math.hypot(new.x - item.x, new.y - item.y) > 0.2 for item in items):
            return new


def edits_of(split: str, per_kind: int, seed: int = 0, world: World = SHIPPED):
    """Edits of a split (edit.split_of), `per_kind` of each kind, in the order of edit.KINDS: (Edit, source, target),
    the pictures as large as the world's, u8[side, side, 3]. Instructions are distinct; the verifier reads all three as
    they are meant.

    Raises ValueError where a kind has fewer than that many.
    """
    found = []
    for index, kind in enumerate(edits.KINDS):
        rng, of_kind, tries = np.random.default_rng([seed, 5, index]), {}, 0
        while len(of_kind) < per_kind:
            edit = edits.random_edit(rng, kind, True, world)
            if edits.split_of(edit, world) == split and edit.instruction not in of_kind:
                pictures = edits.draw(edit, rng=rng, world=world)
                if _is_clear(edit.instruction, *(verify.read(each, world) for each in pictures), world):
                    of_kind[edit.instruction] = (edit, *pictures)
            tries += 1
            if tries > 1000 + 200 * len(of_kind):
                raise ValueError(
                    f"kind {kind} has only about {len(of_kind)} {split} edits, not {per_kind}: ask for fewer"
                )
        found += of_kind.values()
    return found


def void_edit(rng, world: World = SHIPPED) -> Edit:
    """An edit of a shape that its picture does not show: the target is the source. Nothing held out is named or shown.
    Raises ValueError for a world of one shape.

    What an instruction means can be told by contrast where it is there, so shapes that no picture of training shows
    together need not be told apart; they need to where one is asked for and the other stands there. A colour that is
    not there is never asked of a shape that is: that would teach to leave alone what a new pair of them names."""
    if len(world.shapes) < 2:
        raise ValueError("a world of one shape has no edits of a shape that is not there")
    while True:
        edit = edits.random_edit(rng, str(rng.choice(("recolor", "remove", "move"))), world=world)
        items, nouns = edit.source.items, list(edit.nouns)
        missing = [shape for shape in world.shapes if all(item.shape != shape for item in items)]
        if not missing:
            continue
        which = int(rng.integers(len(nouns)))
        nouns[which] = Noun(1, nouns[which].color, str(rng.choice(missing)))
        words = edits.instruct(rng, edit.kind, nouns, items, edit.color, edit.where)
        void = dataclasses.replace(edit, instruction=words, target=edit.source, nouns=tuple(nouns))
        if not edits.is_held_out(void, world):
            return void


def clear_edit(rng, kind: str | None = None, side: int | None = None, world: World = SHIPPED):
    """A random edit of the training side that words and pictures say clearly: (Edit, source, target), the pictures
    u8[side, side, 3], side: None for the world's."""
    while True:
        edit = edits.random_edit(rng, kind, world=world)
        pictures = edits.draw(edit, side, rng, world=world)
        if _is_clear(edit.instruction, *(verify.read(each, world) for each in pictures), world):
            return (edit, *pictures)


def _is_clear(instruction, before, after, world) -> bool:
    """Whether the words and the two pictures say what the edit is."""
    try:
        return edits.score(edits.parse(instruction, before, world), before, after) == 1
    except ValueError:
        return False
