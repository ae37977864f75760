"""What would make a wrong picture right: the scene that was read, with the faults mended and the rest kept; and prompts
that differ from a given one in one fact."""

import dataclasses
import itertools

from janus_jax.shapes.scene import (
    GRID,
    MAX_ITEMS,
    OPPOSITE,
    Ask,
    Item,
    Noun,
    Scene,
    cell_of,
    in_cell,
    relation_holds,
    same,
    size_word,
)
from janus_jax.shapes.verify import Reading, match, matches
from janus_jax.shapes.world import SHIPPED, World


def mend(rng, ask: Ask, reading: Reading, world: World = SHIPPED) -> Scene | None:
    """A right scene made from what a picture shows. What the prompt asks for stays as it is; an object too many becomes
    one that is missing, where it stands, or goes; one that is still missing comes to a free cell; of two that stand
    wrongly one moves, or they change places. What is not clear goes. None where there is nothing to keep, or no room.
    """
    if not reading.items:
        return None
    matched = match(ask, reading)
    extra, filled = list(matched.extra), [list(items) for items in matched.found]
    for noun, items in zip(ask.nouns, filled, strict=True):
        while len(items) < noun.count:
            one = dataclasses.replace(noun, count=1)
            if extra:
                items.append(_turned(rng, one, extra.pop(_nearest(one, extra)), world))
            elif (new := _new(rng, one, [item for some in filled for item in some], world)) is not None:
                items.append(new)
            else:
                return None
    if ask.relation and not relation_holds(ask.relation, filled[0][0], filled[1][0]):
        placed = _placed(rng, ask.relation, filled[0][0], filled[1][0], world)
        if placed is None:
            return None
        filled = [[item] for item in placed]
    items = _in_order(reading, [item for some in filled for item in some])
    return Scene(items) if matches(ask, Reading(items)) else None


def _nearest(noun: Noun, items) -> int:
    """The index of the item that has most of what is asked for."""

    def common(item):
        return (item.shape == noun.shape) + (item.color == noun.color) + (size_word(item) == noun.size)

    return max(range(len(items)), key=lambda i: common(items[i]))


def _turned(rng, noun: Noun, item: Item, world) -> Item:
    """The item with what the noun asks for in place of what it has, where it is."""
    size = item.size
    if noun.size not in (None, size_word(item)):
        size = float(rng.uniform(*world.sizes[noun.size]))
    return dataclasses.replace(item, shape=noun.shape or item.shape, color=noun.color or item.color, size=size)


def _kind(rng, noun: Noun, world):
    shape = noun.shape or str(rng.choice(world.shapes))
    return shape, noun.color or str(rng.choice(list(world.colors))), noun.size


def _free(rng, items):
    """The cells without an object, in a random order."""
    taken = {cell_of(item) for item in items}
    cells = [cell for cell in itertools.product(range(GRID), repeat=2) if cell not in taken]
    return [cells[i] for i in rng.permutation(len(cells))]


def _new(rng, noun: Noun, items, world) -> Item | None:
    """An object as asked for in a free cell; None where there is none."""
    cells = _free(rng, items)
    return in_cell(rng, _kind(rng, noun, world), *cells[0], world) if cells else None


def _placed(rng, relation, first, second, world):
    """The two objects so that the relation holds: with their places exchanged where that does it, else one of them in
    another cell. None where neither does."""
    swapped = dataclasses.replace(first, x=second.x, y=second.y), dataclasses.replace(second, x=first.x, y=first.y)
    if relation_holds(relation, *swapped):
        return swapped
    for row, column in _free(rng, (first, second)):
        x, y = (column + 0.5) / GRID, (row + 0.5) / GRID
        for pair in (
            (dataclasses.replace(first, x=x, y=y), second),
            (first, dataclasses.replace(second, x=x, y=y)),
        ):
            if relation_holds(relation, *pair):
                return pair
    return None


def _in_order(reading, items):
    """Kept objects in the order in which they were read, then the others."""
    kept = [item for item in reading.items if any(item is other for other in items)]
    return (*kept, *(item for item in items if not any(item is other for other in kept)))


def kept(before: Reading, after: Reading) -> int:
    """How many of the objects of a picture another one shows, too, of the same kind and size and where they were."""
    left, count = list(after.items), 0
    for item in before.items:
        there = next((other for other in left if same(item, other)), None)
        count += there is not None
        left = [other for other in left if other is not there]
    return count


def changed(rng, ask: Ask) -> Ask | None:
    """The question with one fact changed: the relation mirrored, the colours (else the sizes) of its two nouns
    exchanged, or the count off by one. None where there is none of them."""
    nouns = ask.nouns
    if ask.relation:
        return dataclasses.replace(ask, relation=OPPOSITE[ask.relation])
    if ask.category == "counting":
        (noun, *others) = nouns
        counts = [count for count in (noun.count - 1, noun.count + 1) if 2 <= count <= MAX_ITEMS]
        noun = dataclasses.replace(noun, count=int(rng.choice(counts)))
        return dataclasses.replace(ask, nouns=(noun, *others))
    for attribute in ("color", "size"):
        if len(nouns) == 2 and getattr(nouns[0], attribute) != getattr(nouns[1], attribute):
            first, second = (getattr(noun, attribute) for noun in nouns)
            pair = tuple(
                dataclasses.replace(noun, **{attribute: word})
                for noun, word in zip(nouns, (second, first), strict=True)
            )
            says = all(noun.shape or noun.color for noun in pair)
            return dataclasses.replace(ask, nouns=pair) if says else None
    return None
