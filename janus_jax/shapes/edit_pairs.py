"""Pictures around edits: wrong ones for training, and the edits that are held out for evaluation."""

import dataclasses
import math

import numpy as np

from janus_jax.shapes import edit as edits
from janus_jax.shapes import verify
from janus_jax.shapes.edit import Edit
from janus_jax.shapes.scene import COLORS, SHAPES, Scene, place

CHANGES = ("add", "remove", "move", "color", "shape")


def near_miss(rng, edit: Edit) -> Scene:
    """The target with one object changed, which is too much, or as often the source, which is another edit. (By chance
    it may be right; the scores say so.)"""
    base = edit.target if rng.random() < 0.5 else edit.source
    items, change = list(base.items), str(rng.choice(CHANGES))
    i = int(rng.integers(len(items)))
    if change == "remove":
        del items[i]
    elif change == "color":
        items[i] = dataclasses.replace(items[i], color=str(rng.choice([c for c in COLORS if c != items[i].color])))
    elif change == "shape":
        items[i] = dataclasses.replace(items[i], shape=str(rng.choice([s for s in SHAPES if s != items[i].shape])))
    else:
        new = _beside(rng, items)
        if change == "add":
            items.append(new)
        else:
            items[i] = dataclasses.replace(items[i], x=new.x, y=new.y)
    return Scene(tuple(items), base.background)


def _beside(rng, items):
    """A random object in a free cell of the grid."""
    while True:
        (new,) = place(rng, [(str(rng.choice(SHAPES)), str(rng.choice(list(COLORS))))]).items
        if all(math.hypot(new.x - item.x, new.y - item.y) > 0.2 for item in items):
            return new


def held_out_edits(per_kind: int, seed: int = 0, side: int = 48):
    """Edits that name or show what is held out, `per_kind` of each kind, in the order of edit.KINDS: (Edit, source,
    target), the pictures u8[side, side, 3]. Instructions are distinct; the verifier reads all three as they are meant.

    Raises ValueError where a kind has fewer than that many.
    """
    found = []
    for index, kind in enumerate(edits.KINDS):
        rng, of_kind, tries = np.random.default_rng([seed, 5, index]), {}, 0
        while len(of_kind) < per_kind:
            edit = edits.random_edit(rng, kind, held_out=True)
            if edits.is_held_out(edit) and edit.instruction not in of_kind:
                pictures = edits.draw(edit, side, rng)
                if _is_clear(edit.instruction, *map(verify.read, pictures)):
                    of_kind[edit.instruction] = (edit, *pictures)
            tries += 1
            if tries > 1000 + 200 * len(of_kind):
                raise ValueError(
                    f"kind {kind} has only about {len(of_kind)} held-out edits, not {per_kind}: ask for fewer"
                )
        found += of_kind.values()
    return found


def _is_clear(instruction, before, after) -> bool:
    """Whether the words and the two pictures say what the edit is."""
    try:
        return edits.score(edits.parse(instruction, before), before, after) == 1
    except ValueError:
        return False
