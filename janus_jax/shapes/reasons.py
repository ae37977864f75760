"""Truthful words about pictures of the embedded world: verdicts with their reasons, and captions.

No held-out pair of colour and shape, count or placement is named, but where the prompt names it.
"""

import dataclasses
import re

from janus_jax.shapes.scene import RELATIONS, Ask, relation_holds, size_word
from janus_jax.shapes.text import (
    NUMBER_NAMES,
    PLACES,
    SIDES,
    a,
    names_held_out_place,
    noun_text,
    plural,
)
from janus_jax.shapes.verify import Reading, match, matches
from janus_jax.shapes.world import SHIPPED, World


def _item_text(ask, item, world, article=True):
    """An item in words; its colour or size is left out where none was asked about, its colour also where it would name
    a held-out pair."""
    colored = any(noun.color for noun in ask.nouns) and (item.color, item.shape) not in world.held_out.colors
    sized = any(noun.size for noun in ask.nouns)
    words = (size_word(item) if sized else "", item.color if colored else "", item.shape)
    plain = " ".join(word for word in words if word)
    return a(plain) if article else plain


def reason(rng, ask: Ask, reading: Reading, world: World = SHIPPED) -> str:
    """A truthful verdict with its reason, beginning with "Yes" or "No": what the picture shows, against the prompt."""

    def pick(*options):
        return str(rng.choice(options))

    if matches(ask, reading):
        return pick(*why_right(ask))
    if reading.unclear:
        return pick("No, one shape is not clear.", "No, the picture has an unclear shape.")
    if not reading.items:
        return pick("No, the picture is empty.", "No, there is nothing in the picture.")
    noun = ask.nouns[0]
    if ask.category == "counting" and sum(noun.fits(item) for item in reading.items) != noun.count:
        return _wrong_count(pick, noun, reading, world)
    matched = match(ask, reading)
    if matched.missing or matched.extra:
        return _wrong_objects(pick, ask, matched, world)
    return _wrong_place(pick, ask, matched, world)


def _the(ask, noun):
    """A noun of two with its article: the shape alone, where that tells them apart."""
    shapes = [other.shape for other in ask.nouns]
    apart = None not in shapes and len(set(shapes)) == len(shapes)
    return f"the {noun.shape}" if noun.shape and (apart or not noun.color) else noun_text(noun, "the")


def why_right(ask: Ask) -> tuple[str, ...]:
    """The reasons of a Yes."""
    if ask.relation:
        first, second = ask.nouns
        side = PLACES[ask.relation][0]
        return (
            f"Yes, {_the(ask, first)} is {side} {_the(ask, second)}.",
            f"Yes, there is {noun_text(first)} {side} {noun_text(second)}.",
        )
    what = " and ".join(noun_text(noun) for noun in ask.nouns)
    verb = "are" if ask.nouns[0].count > 1 else "is"
    return f"Yes, there {verb} {what}.", f"Yes, the picture shows {what}."


def _wrong_count(pick, noun, reading, world):
    count = sum(noun.fits(item) for item in reading.items)
    want = NUMBER_NAMES[noun.count]
    plain = noun_text(dataclasses.replace(noun, count=1), "")[1:]
    if count == 0:
        return pick(f"No, there is no {plain}.", f"No, there are no {plural(plain)}.")
    has = NUMBER_NAMES.get(count, "many")
    what = plain if count == 1 else plural(plain)
    verb = "is" if count == 1 else "are"
    if (count, noun.shape) in world.held_out.counts:
        return pick(f"No, there are not {want} {what}.", f"No, it does not show {want} {what}.")
    return pick(f"No, there {verb} {has} {what}, not {want}.", f"No, it shows {has} {what} instead of {want}.")


def _wrong_objects(pick, ask, matched, world):
    if not matched.extra:
        lost = noun_text(matched.missing[0], "")[1:]
        return pick(f"No, there is no {lost}.", f"No, the {lost} is missing.")
    if not matched.missing:
        other = matched.extra[0]
        return pick(
            f"No, there is also {_item_text(ask, other, world)}.",
            f"No, the {_item_text(ask, other, world, article=False)} should not be there.",
        )
    lost = matched.missing[0]
    other = next((item for item in matched.extra if item.shape == lost.shape), matched.extra[0])
    if other.shape != lost.shape:
        shown = _item_text(ask, other, world)
        return pick(
            f"No, there is {shown}, not {noun_text(lost)}.", f"No, it shows {shown} instead of {noun_text(lost)}."
        )
    # of the right shape: then the colour or the size is what is wrong
    if lost.color in (None, other.color):
        has, want = size_word(other), lost.size
    elif (other.color, other.shape) in world.held_out.colors:
        return f"No, the {lost.shape} is not {lost.color}."
    else:
        has, want = other.color, lost.color
    return pick(f"No, the {lost.shape} is {has}, not {want}.", f"No, the {lost.shape} is {has} instead of {want}.")


def _wrong_place(pick, ask, matched, world):
    first, second = (found[0] for found in matched.found)
    one, other = (_the(ask, noun) for noun in ask.nouns)
    actual = next((r for r in RELATIONS if relation_holds(r, first, second)), None)
    if actual is None or names_held_out_place(ask.nouns[0].shape, actual, ask.nouns[1].shape, world.held_out):
        return f"No, {one} is not {PLACES[ask.relation][0]} {other}."
    return pick(
        f"No, {one} is {PLACES[actual][0]} {other}, not {SIDES[ask.relation]}.",
        f"No, {one} is {PLACES[actual][0]} {other}.",
    )


def contradicts(ask: Ask, said: str) -> bool:
    """Whether the words of a verdict contradict it: a Yes that says something else than what the prompt asks for, a No
    that says just that, or that misses what nobody asked for."""
    words = " ".join(said.lower().split())
    rights = [text.lower() for text in why_right(ask)]
    if words.startswith("yes"):
        return words not in rights
    if words.replace("no, ", "yes, ", 1) in rights:
        return True
    found = next((m for pattern in _MISSED if (m := pattern.search(words))), None)
    return found is not None and found[1] not in _asked(ask)


_MISSED = tuple(
    map(re.compile, (r"there (?:is|are) no (.+)\.$", r"the (.+) is missing\.$", r"(?:\bnot|instead of) (.+)\.$"))
)


def _asked(ask):
    """What a No may say that is missing: parts of the prompt, and what does not depend on it."""
    words = {"clear", "be there"}
    for noun in ask.nouns:
        one = dataclasses.replace(noun, count=1)
        plain = noun_text(one, "")[1:]
        words |= {
            noun_text(noun),
            noun_text(one),
            plain,
            plural(plain),
            noun.color,
            noun.size,
            NUMBER_NAMES[noun.count],
        }
        words |= {noun.shape, *(plural(noun.shape) for _ in range(bool(noun.shape)))}
        counted = {f"{NUMBER_NAMES[noun.count]} {each}" for each in (plain, plural(plain))}
        words |= counted | {f"show {each}" for each in counted}
    if ask.relation:
        words |= {SIDES[ask.relation]} | {f"{side} {_the(ask, ask.nouns[1])}" for side in PLACES[ask.relation]}
    return words


def caption(reading: Reading, world: World = SHIPPED) -> str:
    """What a picture shows and where, in reading order: the answer to QUESTION. A colour that would name a held-out
    pair is left out."""
    places = []
    for item in reading.items:
        row, column = (min(int(3 * place), 2) for place in (item.y, item.x))
        where = f"{('top', 'middle', 'bottom')[row]} {('left', 'center', 'right')[column]}"
        color = "" if (item.color, item.shape) in world.held_out.colors else item.color
        places.append((row, column, " ".join(word for word in (size_word(item), color, item.shape, where) if word)))
    words = [what for _, _, what in sorted(places)]
    words += ["unclear"] * reading.unclear
    return ", ".join(words or ["nothing"]) + "."
