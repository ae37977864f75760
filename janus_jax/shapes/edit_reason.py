"""Truthful reasons of the verdict on an edit, in the words of the world's other texts. No held-out pair of colour and
shape is named but where the instruction names it."""

from janus_jax.shapes import edit as edits
from janus_jax.shapes import text
from janus_jax.shapes.edit import Edit
from janus_jax.shapes.scene import RELATIONS, same
from janus_jax.shapes.verify import Reading
from janus_jax.shapes.world import SHIPPED, World


def reason(rng, edit: Edit, source: Reading, edited: Reading, world: World = SHIPPED) -> str:
    """A verdict with its reason, beginning with "Yes" or "No": what is done of the instruction, else what is done
    besides it. Raises ValueError where the source picture does not show what the edit is about."""

    def pick(*options):
        return str(rng.choice(options))

    done, kept = edits.following(edit, source, edited), edits.preserving(edit, source, edited)
    if edited.unclear:
        return pick("No, one shape is not clear.", "No, the picture has an unclear shape.")
    if done < 1:
        return _not_done(pick, edit, edited)
    return _done(pick, edit) if kept == 1 else _not_kept(pick, edit, source, edited, world)


def _noun(noun):
    return f"{noun.color} {noun.shape}"


def _place(edit):
    if edit.where in RELATIONS:
        return f"{text.PLACES[edit.where][0]} the {_noun(edit.nouns[1])}"
    return f"in the {edit.where}"


def _done(pick, edit):
    what = _noun(edit.nouns[0])
    if edit.kind == "recolor":
        shape = edit.nouns[0].shape
        return pick(f"Yes, the {shape} is {edit.color}.", f"Yes, there is {text.a(edit.color)} {shape}.")
    if edit.kind == "add":
        return pick(f"Yes, there is {text.a(what)}.", f"Yes, the picture shows {text.a(what)}.")
    if edit.kind == "remove":
        return pick(f"Yes, there is no {what}.", f"Yes, the {what} is not there.")
    if edit.kind == "move":
        return f"Yes, the {what} is {_place(edit)}."
    return f"Yes, the {what} and the {_noun(edit.nouns[1])} are swapped."


def _not_done(pick, edit, edited):
    """What the instruction asks for and the picture does not show."""
    what = _noun(edit.nouns[0])
    there = sum(edit.nouns[0].fits(item) for item in edited.items)
    if edit.kind == "recolor":
        shape = edit.nouns[0].shape
        elsewhere = any((item.shape, item.color) == (shape, edit.color) for item in edited.items)
        return f"No, the {shape} should not be there." if elsewhere else f"No, the {shape} is not {edit.color}."
    if edit.kind == "remove":
        if there:
            return pick(f"No, there is {text.a(what)}.", f"No, the {what} should not be there.")
        return f"No, there is a shape instead of the {what}."
    lost = next((noun for noun in edit.nouns[: 2 if edit.kind == "swap" else 1] if not _shows(edited, noun)), None)
    if lost is not None:
        return pick(f"No, there is no {_noun(lost)}.", f"No, the {_noun(lost)} is missing.")
    if there > 1:
        return f"No, there is more than one {what}."
    if edit.kind == "move":
        return f"No, the {what} is not {_place(edit)}."
    return f"No, the {what} and the {_noun(edit.nouns[1])} are not swapped."


def _shows(reading, noun):
    return any(noun.fits(item) for item in reading.items)


def _not_kept(pick, edit, source, edited, world):
    """What else is not as it was: of the objects that the instruction is not about, the first that is gone or has
    become another, else the first that is new."""
    named = edit.nouns[: 2 if edit.kind == "swap" else 1]
    for old in source.items:
        if any(noun.fits(old) for noun in named) or any(same(old, item) for item in edited.items):
            continue
        if any((item.shape, item.color) == (old.shape, old.color) for item in edited.items):
            return f"No, the {_kind(old, world)} should not be there."
        return pick(f"No, there is no {_kind(old, world)}.", f"No, the {_kind(old, world)} is missing.")
    return _new(pick, edit, source, edited, named, world)


def _new(pick, edit, source, edited, named, world):
    new = next(
        (
            item
            for item in edited.items
            if not any(same(item, old) for old in source.items)
            and not any(noun.fits(item) for noun in named)
            and not (edit.kind == "recolor" and (item.shape, item.color) == (named[0].shape, edit.color))
        ),
        None,
    )
    if new is None:  # one more of what the instruction names
        return "No, one shape should not be there."
    return pick(f"No, there is also {text.a(_kind(new, world))}.", f"No, the {_kind(new, world)} should not be there.")


def _kind(item, world):
    """An object in words, its colour left out where that would name a held-out pair."""
    return item.shape if (item.color, item.shape) in world.held_out.colors else f"{item.color} {item.shape}"
