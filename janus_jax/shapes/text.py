"""Texts of the embedded world: prompts in six categories, their parsing, truthful reasons, and what is held out.

A prompt's text and its `Ask` determine each other: `phrase` writes one of many wordings, `parse` reads any of them.
Held out for evaluation are combinations, never single words: four (colour, shape) pairs, three (count, shape) pairs,
one pair of shapes, four placements. A held-out combination is never *named* in a training text; the pair of shapes and
the counts are never *shown* in a training picture either. (An uncoloured prompt may show, say, a red triangle: which
codes draw a red slanted edge can be learnt from nothing else.) So that words can be learnt apart from each other, there
are further training prompts, freely composed: each noun says a shape, a colour, or both, and "shape" stands for any
shape ("a red shape above a blue circle"), see `free_prompt`. The single-object category has no combination to hold out;
there the wordings are held out.
"""

import functools
import itertools
import re
import zlib

import numpy as np

from janus_jax.shapes.scene import COLORS, MAX_ITEMS, OPPOSITE, RELATIONS, SHAPES, Ask, Noun, relation_holds
from janus_jax.shapes.verify import Reading, match, matches

# the categories with freely composed prompts, and how often: those of two nouns have the most to say
FREE_CATEGORIES = {"colors": 1, "counting": 1, "position": 3, "color_attribution": 3}
CATEGORIES = ("single_object", "two_object", "counting", "colors", "position", "color_attribution")
PREFIXES = (
    "",
    "a picture of ",
    "an image of ",
    "a drawing of ",
    "a photo of ",
    "draw ",
    "please draw ",
    "show me ",
    "paint ",
    "make a picture of ",
    "create ",
    "i would like ",
)
ONES = ("a", "one", "a single", "exactly one", "just one")
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}
NUMBER_NAMES = {n: name for name, n in NUMBERS.items()}
PLACES = {
    "left": ("to the left of", "on the left of", "left of"),
    "right": ("to the right of", "on the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
SIDES = {"left": "to the left", "right": "to the right", "above": "above", "below": "below"}

HELD_OUT_COLORS = frozenset({("red", "triangle"), ("yellow", "circle"), ("blue", "cross"), ("purple", "square")})
HELD_OUT_COUNTS = frozenset({(3, "triangle"), (2, "square"), (4, "circle")})
HELD_OUT_PAIR = frozenset({"circle", "cross"})
# (first, relation, second) with relation left or above; the mirrored wording is the same placement
HELD_OUT_PLACES = frozenset(
    {
        ("square", "left", "triangle"),
        ("triangle", "left", "circle"),
        ("cross", "above", "square"),
        ("circle", "above", "triangle"),
    }
)


ANY = "shape"  # the word for a free shape


def plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def _noun_text(noun: Noun, one="a"):
    color = f"{noun.color} " if noun.color else ""
    shape = noun.shape or ANY
    if noun.count > 1:
        return f"{NUMBER_NAMES[noun.count]} {color}{plural(shape)}"
    return f"{one} {color}{shape}"


def phrase(rng, ask: Ask) -> str:
    """One wording of the prompt."""
    ones = ONES if ask.category == "single_object" else ONES[:3]
    texts = [_noun_text(noun, str(rng.choice(ones))) for noun in ask.nouns]
    joint = str(rng.choice(PLACES[ask.relation])) if ask.relation else str(rng.choice(("and", "with")))
    return str(rng.choice(PREFIXES)) + f" {joint} ".join(texts)


_NOUN = (
    rf"(?P<n{{0}}>a single|exactly one|just one|an?|{'|'.join(NUMBERS)}) "
    rf"(?:(?P<c{{0}}>{'|'.join(COLORS)}) )?(?P<s{{0}}>{'|'.join((*SHAPES, ANY))})(?:e?s)?"
)
_JOINTS = {joint: relation for relation, joints in PLACES.items() for joint in joints} | {"and": None, "with": None}
_PROMPT = re.compile(
    rf"(?:{'|'.join(p for p in PREFIXES if p)})?{_NOUN.format(0)}"
    rf"(?: (?P<joint>{'|'.join(sorted(_JOINTS, key=len, reverse=True))}) {_NOUN.format(1)})?"
)


def parse(text: str) -> Ask:
    """Reads a prompt of this world. Raises ValueError for any other text."""
    found = _PROMPT.fullmatch(" ".join(text.lower().split()).rstrip("."))
    if not found:
        raise ValueError(f"not a prompt of the shapes world: {text!r} (try: 'a red circle and a blue square')")
    groups = found.groupdict()
    nouns = tuple(
        Noun(NUMBERS.get(groups[f"n{i}"], 1), groups[f"c{i}"], None if groups[f"s{i}"] == ANY else groups[f"s{i}"])
        for i in range(2)
        if groups[f"s{i}"]
    )
    if len(nouns) == 2 and any(noun.shape is None and noun.color is None for noun in nouns):
        raise ValueError(
            f"not a prompt of the shapes world: {text!r} (say which of two shapes is which: give a colour)"
        )
    relation = _JOINTS[groups["joint"]] if groups["joint"] else None
    if relation and any(noun.count > 1 for noun in nouns):
        raise ValueError(f"not a prompt of the shapes world: {text!r} (a placement is of one object to one other)")
    return Ask(_category(nouns, relation), nouns, relation)


def _category(nouns, relation):
    if relation:
        return "position"
    if any(noun.count > 1 for noun in nouns):
        return "counting"
    if len(nouns) == 2:
        return "color_attribution" if all(noun.color for noun in nouns) else "two_object"
    return "colors" if nouns[0].color else "single_object"


def _place(first, relation, second):
    return (first, relation, second) if relation in ("left", "above") else (second, OPPOSITE[relation], first)


def names_held_out_place(first: str, relation: str, second: str) -> bool:
    """Whether a placement of two shapes is held out, or they are the held-out pair."""
    return _place(first, relation, second) in HELD_OUT_PLACES or {first, second} == HELD_OUT_PAIR


@functools.cache
def all_asks(category: str) -> list[Ask]:
    """Every question of a category (do not change the list: it is kept)."""
    one = [Noun(1, None, shape) for shape in SHAPES]
    colored = [Noun(1, color, shape) for color in COLORS for shape in SHAPES]
    if category == "single_object":
        return [Ask(category, (noun,)) for noun in one]
    if category == "two_object":
        return [Ask(category, pair) for pair in itertools.permutations(one, 2)]
    if category == "counting":
        return [
            Ask(category, (Noun(n, color, shape),))
            for n in range(2, MAX_ITEMS + 1)
            for color in (None, *COLORS)
            for shape in SHAPES
        ]
    if category == "colors":
        return [Ask(category, (noun,)) for noun in colored]
    if category == "position":
        return [Ask(category, pair, relation) for pair in itertools.permutations(one, 2) for relation in RELATIONS]
    if category == "color_attribution":
        return [
            Ask(category, (a, b))
            for a, b in itertools.permutations(colored, 2)
            if a.shape != b.shape and a.color != b.color
        ]
    raise ValueError(f"unknown category {category!r}; the categories are {', '.join(CATEGORIES)}")


def _says_no_more(one: Noun, other: Noun) -> bool:
    """Whether whatever is the other is also the one: "a circle" says no more than "a red circle"."""
    return one.color in (None, other.color) and one.shape in (None, other.shape)


@functools.cache
def free_kinds(category):
    """Questions of freely composed prompts, a list for each kind: which nouns say a shape, a colour, or both."""
    free = [Noun(1, color, None) for color in COLORS]
    if category == "colors":
        return [[Ask(category, (noun,)) for noun in free]]
    if category == "counting":
        return [[Ask(category, (Noun(n, color, None),)) for n in range(2, MAX_ITEMS + 1) for color in (None, *COLORS)]]
    if category not in FREE_CATEGORIES:
        raise ValueError(f"category {category!r} has no free prompts; these have: {', '.join(FREE_CATEGORIES)}")
    nouns = {
        "shape": [Noun(1, None, shape) for shape in SHAPES],
        "color": free,
        "both": [Noun(1, color, shape) for color in COLORS for shape in SHAPES],
    }
    kinds = set(itertools.product(nouns, repeat=2)) - {("shape", "shape")}
    if category == "color_attribution":
        kinds -= {("both", "both")}  # the category itself
    asks = [
        [
            Ask(_category((a, b), relation), (a, b), relation)
            for a, b in itertools.product(nouns[first], nouns[second])
            if not _says_no_more(a, b) and not _says_no_more(b, a)
            for relation in (RELATIONS if category == "position" else (None,))
        ]
        for first, second in sorted(kinds)
    ]
    return [[ask for ask in kind if not held_out(ask)] for kind in asks]


def held_out(ask: Ask) -> bool:
    """Whether the question names a held-out combination."""
    nouns = ask.nouns
    return (
        any((noun.color, noun.shape) in HELD_OUT_COLORS for noun in nouns)
        or any((sum(n.count for n in nouns if n.shape == noun.shape), noun.shape) in HELD_OUT_COUNTS for noun in nouns)
        or (len(nouns) == 2 and {noun.shape for noun in nouns} == HELD_OUT_PAIR)
        or (ask.relation is not None and _place(nouns[0].shape, ask.relation, nouns[1].shape) in HELD_OUT_PLACES)
    )


def _held_out_text(text):
    """Half of the single-object wordings, fixed by their checksum."""
    return zlib.crc32(text.encode()) % 2 == 0


def shows_held_out(reading: Reading) -> bool:
    """Whether a picture shows a combination that training pictures never show: the pair of shapes, or a count."""
    shapes = [item.shape for item in reading.items]
    return HELD_OUT_PAIR <= set(shapes) or any((shapes.count(shape), shape) in HELD_OUT_COUNTS for shape in set(shapes))


def is_held_out_prompt(text: str) -> bool:
    """Whether a prompt text belongs to the evaluation side."""
    ask = parse(text)
    if ask.category == "single_object":
        return _held_out_text(text)
    return held_out(ask)


def train_prompt(rng, category: str | None = None) -> str:
    """A random training prompt; categories are equally frequent."""
    category = category or str(rng.choice(CATEGORIES))
    asks = all_asks(category)
    while True:
        text = phrase(rng, asks[int(rng.integers(len(asks)))])
        if not is_held_out_prompt(text):
            return text


def free_prompt(rng, category: str | None = None) -> str:
    """A random, freely composed training prompt, of a category or as often as FREE_CATEGORIES says; kinds of nouns are
    equally frequent. It names no held-out combination."""
    if category is None:
        shares = np.array(list(FREE_CATEGORIES.values()), float)
        category = str(rng.choice(list(FREE_CATEGORIES), p=shares / shares.sum()))
    kinds = free_kinds(category)
    asks = kinds[int(rng.integers(len(kinds)))]
    return phrase(rng, asks[int(rng.integers(len(asks)))])


def held_out_prompts(per_category: int, seed: int = 0) -> list[str]:
    """Distinct held-out prompts, `per_category` of each of the six, in category order.

    Raises ValueError where a category has fewer than that many.
    """
    prompts = []
    for index, category in enumerate(CATEGORIES):
        rng = np.random.default_rng([seed, index])
        asks = [ask for ask in all_asks(category) if category == "single_object" or held_out(ask)]
        texts, tries = {}, 0
        while len(texts) < per_category:
            text = phrase(rng, asks[tries % len(asks)])  # in turn, so that every combination is asked about equally
            tries += 1
            if category != "single_object" or _held_out_text(text):
                texts.setdefault(text)
            if tries > 1000 + 40 * len(texts):
                raise ValueError(
                    f"category {category} has only about {len(texts)} held-out prompts, "
                    f"not {per_category}: ask for fewer"
                )
        prompts += list(texts)
    return prompts


def _item_text(item, named, article=True):
    """An item in words; its colour is left out where it was not asked about or would name a held-out pair."""
    color = f"{item.color} " if named and (item.color, item.shape) not in HELD_OUT_COLORS else ""
    return f"{'a ' if article else ''}{color}{item.shape}"


def reason(rng, ask: Ask, reading: Reading) -> str:
    """A truthful verdict with its reason, beginning with "Yes" or "No": what the picture shows, against the prompt."""

    def pick(*options):
        return str(rng.choice(options))

    if matches(ask, reading):
        return _why_right(pick, ask)
    if reading.unclear:
        return pick("No, one shape is not clear.", "No, the picture has an unclear shape.")
    if not reading.items:
        return pick("No, the picture is empty.", "No, there is nothing in the picture.")
    noun = ask.nouns[0]
    if ask.category == "counting" and sum(noun.fits(item) for item in reading.items) != noun.count:
        return _wrong_count(pick, noun, reading)
    matched = match(ask, reading)
    if matched.missing or matched.extra:
        return _wrong_objects(pick, ask, matched)
    return _wrong_place(pick, ask, matched)


def _the(ask, noun):
    """A noun of two with its article: the shape alone, where that tells them apart."""
    shapes = [other.shape for other in ask.nouns]
    apart = None not in shapes and len(set(shapes)) == len(shapes)
    return f"the {noun.shape}" if noun.shape and (apart or not noun.color) else _noun_text(noun, "the")


def _why_right(pick, ask):
    if ask.relation:
        first, second = ask.nouns
        side = PLACES[ask.relation][0]
        return pick(
            f"Yes, {_the(ask, first)} is {side} {_the(ask, second)}.",
            f"Yes, there is {_noun_text(first)} {side} {_noun_text(second)}.",
        )
    what = " and ".join(_noun_text(noun) for noun in ask.nouns)
    verb = "are" if ask.nouns[0].count > 1 else "is"
    return pick(f"Yes, there {verb} {what}.", f"Yes, the picture shows {what}.")


def _wrong_count(pick, noun, reading):
    count = sum(noun.fits(item) for item in reading.items)
    color = f"{noun.color} " if noun.color else ""
    want = NUMBER_NAMES[noun.count]
    shape = noun.shape or ANY
    if count == 0:
        return pick(f"No, there is no {color}{shape}.", f"No, there are no {color}{plural(shape)}.")
    has = NUMBER_NAMES.get(count, "many")
    what = f"{color}{shape if count == 1 else plural(shape)}"
    verb = "is" if count == 1 else "are"
    if (count, noun.shape) in HELD_OUT_COUNTS:
        return pick(f"No, there are not {want} {what}.", f"No, it does not show {want} {what}.")
    return pick(f"No, there {verb} {has} {what}, not {want}.", f"No, it shows {has} {what} instead of {want}.")


def _wrong_objects(pick, ask, matched):
    named = any(noun.color for noun in ask.nouns)
    if not matched.extra:
        lost = _noun_text(matched.missing[0])[2:]
        return pick(f"No, there is no {lost}.", f"No, the {lost} is missing.")
    if not matched.missing:
        other = matched.extra[0]
        return pick(
            f"No, there is also {_item_text(other, named)}.",
            f"No, the {_item_text(other, named, article=False)} should not be there.",
        )
    lost = matched.missing[0]
    other = next((item for item in matched.extra if item.shape == lost.shape), matched.extra[0])
    if other.shape != lost.shape:
        return pick(
            f"No, there is {_item_text(other, named)}, not {_noun_text(lost)}.",
            f"No, it shows {_item_text(other, named)} instead of {_noun_text(lost)}.",
        )
    # of the right shape: then the colour is what is wrong
    if (other.color, other.shape) in HELD_OUT_COLORS:
        return f"No, the {lost.shape} is not {lost.color}."
    return pick(
        f"No, the {lost.shape} is {other.color}, not {lost.color}.",
        f"No, the {lost.shape} is {other.color} instead of {lost.color}.",
    )


def _wrong_place(pick, ask, matched):
    first, second = (found[0] for found in matched.found)
    one, other = (_the(ask, noun) for noun in ask.nouns)
    actual = next((r for r in RELATIONS if relation_holds(r, first, second)), None)
    if actual is None or _place(ask.nouns[0].shape, actual, ask.nouns[1].shape) in HELD_OUT_PLACES:
        return f"No, {one} is not {PLACES[ask.relation][0]} {other}."
    return pick(
        f"No, {one} is {PLACES[actual][0]} {other}, not {SIDES[ask.relation]}.",
        f"No, {one} is {PLACES[actual][0]} {other}.",
    )


QUESTION = "What is in the picture?"


def caption(reading: Reading) -> str:
    """What a picture shows and where, in reading order: the answer to QUESTION. A colour that would name a held-out
    pair is left out."""
    places = []
    for item in reading.items:
        row, column = (min(int(3 * place), 2) for place in (item.y, item.x))
        where = f"{('top', 'middle', 'bottom')[row]} {('left', 'center', 'right')[column]}"
        places.append((row, column, f"{_item_text(item, named=True, article=False)} {where}"))
    words = [what for _, _, what in sorted(places)]
    words += ["unclear"] * reading.unclear
    return ", ".join(words or ["nothing"]) + "."
