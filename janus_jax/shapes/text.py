"""Texts of the embedded world: prompts in six categories, their parsing, and which of them is whose.

A prompt's text and its `Ask` determine each other: `phrase` writes one of many wordings, `parse` reads any of them.
What a world holds out (world.py) is never *named* in a training text; the pairs of shapes and the counts are never
*shown* in a training picture either. (An uncoloured prompt may show, say, a red triangle: which codes draw a red
slanted edge can be learnt from nothing else.) So that words can be learnt apart from each other, there are further
training prompts, freely composed: each noun says a shape, a colour, or both, and "shape" stands for any shape ("a red
shape above a blue circle"), see `free_prompt`.
"""

import dataclasses
import functools
import itertools
import re
import zlib

import numpy as np

from janus_jax.shapes.scene import MAX_ITEMS, OPPOSITE, RELATIONS, Ask, Noun
from janus_jax.shapes.verify import Reading
from janus_jax.shapes.world import SHIPPED, SPLITS, HeldOut, World

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


ANY = "shape"  # the word for a free shape
QUESTION = "What is in the picture?"


def plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def a(what: str) -> str:
    """With its indefinite article."""
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what}"


def noun_text(noun: Noun, one: str = "a") -> str:
    """A noun in words; one: what stands before a single object."""
    plain = " ".join(word for word in (noun.size, noun.color, noun.shape or ANY) if word)
    if noun.count > 1:
        return f"{NUMBER_NAMES[noun.count]} {plural(plain)}"
    return a(plain) if one == "a" else f"{one} {plain}"


def phrase(rng, ask: Ask) -> str:
    """One wording of the prompt."""
    ones = ONES if ask.category == "single_object" else ONES[:3]
    texts = [noun_text(noun, str(rng.choice(ones))) for noun in ask.nouns]
    joint = str(rng.choice(PLACES[ask.relation])) if ask.relation else str(rng.choice(("and", "with")))
    return str(rng.choice(PREFIXES)) + f" {joint} ".join(texts)


JOINTS = {joint: relation for relation, joints in PLACES.items() for joint in joints} | {"and": None, "with": None}


@functools.cache
def _pattern(world):
    """What prompts of a world look like."""
    numbers, colors, sizes = ("|".join(words) for words in (NUMBERS, world.colors, world.sizes))
    noun = (
        rf"(?P<n{{0}}>a single|exactly one|just one|an?|{numbers}) (?:(?P<z{{0}}>{sizes}) )?"
        rf"(?:(?P<c{{0}}>{colors}) )?(?P<s{{0}}>{'|'.join((*world.shapes, ANY))})(?:e?s)?"
    )
    return re.compile(
        rf"(?:{'|'.join(p for p in PREFIXES if p)})?{noun.format(0)}"
        rf"(?: (?P<joint>{'|'.join(sorted(JOINTS, key=len, reverse=True))}) {noun.format(1)})?"
    )


def parse(text: str, world: World = SHIPPED) -> Ask:
    """Reads a prompt of a world. Raises ValueError for any other text."""
    found = _pattern(world).fullmatch(" ".join(text.lower().split()).rstrip("."))
    if not found:
        raise ValueError(f"not a prompt of the shapes world: {text!r} (try: 'a red circle and a blue square')")
    groups = found.groupdict()
    nouns = tuple(
        Noun(
            NUMBERS.get(groups[f"n{i}"], 1),
            groups[f"c{i}"],
            None if groups[f"s{i}"] == ANY else groups[f"s{i}"],
            groups[f"z{i}"],
        )
        for i in range(2)
        if groups[f"s{i}"]
    )
    if len(nouns) == 2 and any(noun.shape is None and noun.color is None for noun in nouns):
        raise ValueError(
            f"not a prompt of the shapes world: {text!r} (say which of two shapes is which: give a colour)"
        )
    relation = JOINTS[groups["joint"]] if groups["joint"] else None
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


def placement(first: str, relation: str, second: str) -> tuple[str, str, str]:
    """A placement of two shapes, with relation left or above."""
    return (first, relation, second) if relation in ("left", "above") else (second, OPPOSITE[relation], first)


def names_held_out_place(first: str, relation: str, second: str, held: HeldOut = SHIPPED.held_out) -> bool:
    """Whether a placement of two shapes is held out, or they are a held-out pair."""
    return placement(first, relation, second) in held.places or frozenset({first, second}) in held.pairs


def _sized(world, nouns):
    """The nouns as they are, then with each size."""
    return [*nouns, *(dataclasses.replace(noun, size=size) for size in world.sizes for noun in nouns)]


@functools.cache
def all_asks(category: str, world: World = SHIPPED) -> list[Ask]:
    """Every question of a category (do not change the list: it is kept)."""
    one = [Noun(1, None, shape) for shape in world.shapes]
    colored = [Noun(1, color, shape) for color in world.colors for shape in world.shapes]
    if category == "single_object":
        return [Ask(category, (noun,)) for noun in _sized(world, one)]
    if category == "two_object":
        pairs = itertools.permutations(_sized(world, one), 2)
        return [Ask(category, pair) for pair in pairs if pair[0].shape != pair[1].shape]
    if category == "counting":
        looks = [(color, None) for color in (None, *world.colors)] + [(None, size) for size in world.sizes]
        return [
            Ask(category, (Noun(n, color, shape, size),))
            for n in range(2, MAX_ITEMS + 1)
            for color, size in looks
            for shape in world.shapes
        ]
    if category == "colors":
        return [Ask(category, (noun,)) for noun in _sized(world, colored)]
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
def free_kinds(category, world: World = SHIPPED):
    """Questions of freely composed prompts, a list for each kind: which nouns say a shape, a colour, or both."""
    free = [Noun(1, color, None) for color in world.colors]
    if category == "colors":
        return [[Ask(category, (noun,)) for noun in free]]
    if category == "counting":
        return [
            [Ask(category, (Noun(n, color, None),)) for n in range(2, MAX_ITEMS + 1) for color in (None, *world.colors)]
        ]
    if category not in FREE_CATEGORIES:
        raise ValueError(f"category {category!r} has no free prompts; these have: {', '.join(FREE_CATEGORIES)}")
    nouns = {
        "shape": [Noun(1, None, shape) for shape in world.shapes],
        "color": free,
        "both": [Noun(1, color, shape) for color in world.colors for shape in world.shapes],
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
    return [[ask for ask in kind if not held_out(ask, world)] for kind in asks]


def combinations(ask: Ask, held: HeldOut) -> list[str]:
    """The held-out combinations that a question names, in words."""
    nouns = ask.nouns
    named = [f"{n.color} {n.shape}" for n in nouns if (n.color, n.shape) in held.colors]
    for noun in nouns:
        count = sum(n.count for n in nouns if n.shape == noun.shape)
        named += [f"{count} {plural(noun.shape)}"] if (count, noun.shape) in held.counts else []
    if len(nouns) == 2 and frozenset(noun.shape for noun in nouns) in held.pairs:
        named.append(" and ".join(sorted(noun.shape for noun in nouns)))
    if ask.relation and (place := placement(nouns[0].shape, ask.relation, nouns[1].shape)) in held.places:
        named.append(" ".join(place))
    return list(dict.fromkeys(named))


def held_out(ask: Ask, world: World = SHIPPED) -> bool:
    """Whether the question names a combination that training names nothing of."""
    return bool(combinations(ask, world.held_out))


def combination(ask: Ask, world: World = SHIPPED) -> str:
    """What a question's failure has in common with that of others: the held-out combinations that it names, or else
    its nouns without their wording."""
    named = combinations(ask, world.held_out)
    joint = f" {ask.relation or 'and'} "
    return "; ".join(sorted(named)) if named else joint.join(noun_text(noun) for noun in ask.nouns)


def shows(reading: Reading, held: HeldOut) -> bool:
    """Whether a picture shows a pair of shapes, or a count, of those held out."""
    shapes = [item.shape for item in reading.items]
    return any(pair <= set(shapes) for pair in held.pairs) or any(
        (shapes.count(shape), shape) in held.counts for shape in set(shapes)
    )


def shows_held_out(reading: Reading, world: World = SHIPPED) -> bool:
    """Whether a picture shows a combination that training pictures never show: a pair of shapes, or a count."""
    return shows(reading, world.held_out)


def split_of(text: str, world: World = SHIPPED) -> str | None:
    """The split that a prompt belongs to: "validation" or "test" where it names combinations of that one alone,
    "train" where it names none; None where it names some of both."""
    return _split(parse(text, world), text, world)


def _split(ask, text, world):
    if ask.category == "single_object":
        rest = zlib.crc32(text.encode()) % 4
        of = [name for name in SPLITS[1:] if rest in getattr(world, name).wordings]
    else:
        of = [name for name in SPLITS[1:] if combinations(ask, getattr(world, name))]
    return None if len(of) > 1 else (of or SPLITS[:1])[0]


def train_prompt(rng, category: str | None = None, world: World = SHIPPED) -> str:
    """A random training prompt; categories are equally frequent."""
    category = category or str(rng.choice(CATEGORIES))
    asks = all_asks(category, world)
    while True:
        ask = asks[int(rng.integers(len(asks)))]
        text = phrase(rng, ask)
        if _split(ask, text, world) == "train":
            return text


def free_prompt(rng, category: str | None = None, world: World = SHIPPED) -> str:
    """A random, freely composed training prompt, of a category or as often as FREE_CATEGORIES says; kinds of nouns are
    equally frequent. It names no held-out combination."""
    if category is None:
        shares = np.array(list(FREE_CATEGORIES.values()), float)
        category = str(rng.choice(list(FREE_CATEGORIES), p=shares / shares.sum()))
    kinds = free_kinds(category, world)
    asks = kinds[int(rng.integers(len(kinds)))]
    return phrase(rng, asks[int(rng.integers(len(asks)))])


def held_out_prompts(per_category: int, seed: int = 0, split: str = "test", world: World = SHIPPED) -> list[str]:
    """Distinct prompts of the test or the validation split, or such of the training split, `per_category` of each of
    the six categories, in category order; every question of a category is asked about equally often.

    Raises ValueError where a category has fewer than that many.
    """
    prompts = []
    for index, category in enumerate(CATEGORIES):
        rng = np.random.default_rng([seed, index, *([SPLITS.index(split)] if split != "test" else [])])
        asks = [
            ask for ask in all_asks(category, world) if category == "single_object" or _split(ask, "", world) == split
        ]
        if split == "train":
            asks = [asks[i] for i in rng.permutation(len(asks))]
        texts, tries = {}, 0
        while asks and len(texts) < per_category:
            ask = asks[tries % len(asks)]
            text = phrase(rng, ask)
            tries += 1
            if _split(ask, text, world) == split:
                texts.setdefault(text)
            if tries > 1000 + 40 * len(texts):
                break
        if len(texts) < per_category:
            raise ValueError(
                f"category {category} has only about {len(texts)} prompts of the {split} split, not {per_category}: "
                "ask for fewer"
            )
        prompts += list(texts)
    return prompts
