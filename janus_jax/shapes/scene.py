"""Scenes: a few coloured shapes on a plain background, and how to compose one for a prompt.

Lengths are fractions of the picture's side, x to the right and y downwards, so that one scene can be drawn at any
resolution. Objects sit in a 3 x 3 grid of cells with jitter, which keeps them apart without a packing search.
"""

import dataclasses
import math

import numpy as np

from janus_jax.shapes.world import SHIPPED, World

RELATIONS = ("left", "right", "above", "below")
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
MAX_ITEMS = 4
GRID = 3
NEAR = 0.1  # centres that are no farther apart are in one place; the cells of the grid are a third apart
SMALL = 0.225  # the side of a bounding square under which an object is small


@dataclasses.dataclass(frozen=True)
class Item:
    """One object: its centre (x, y) and the side `size` of its bounding square, as fractions of the picture."""

    shape: str
    color: str
    x: float
    y: float
    size: float


@dataclasses.dataclass(frozen=True)
class Scene:
    """Items on a background of grey level `background` in [0, 255]."""

    items: tuple[Item, ...]
    background: float = 240.0


@dataclasses.dataclass(frozen=True)
class Noun:
    """`count` objects of one shape; `color` None leaves the colour free, `shape` None the shape, `size` None the
    size."""

    count: int
    color: str | None
    shape: str | None
    size: str | None = None

    def fits(self, item) -> bool:
        of = self.shape in (None, item.shape) and self.color in (None, item.color)
        return of and self.size in (None, size_word(item))


@dataclasses.dataclass(frozen=True)
class Ask:
    """What a prompt asks for: exactly these objects; `relation` places the first noun relative to the second."""

    category: str
    nouns: tuple[Noun, ...]
    relation: str | None = None

    def __post_init__(self):
        if self.relation is not None and (len(self.nouns) != 2 or self.relation not in RELATIONS):
            raise ValueError(f"a relation needs two nouns and one of {RELATIONS}, not {self.relation!r}")


def size_word(item: Item) -> str:
    """What an object's size is called."""
    return "small" if item.size < SMALL else "large"


def alike(item: Item, other: Item) -> bool:
    """Whether two objects are of one kind and size."""
    return (item.shape, item.color, size_word(item)) == (other.shape, other.color, size_word(other))


def near(item: Item, other: Item) -> bool:
    """Whether two objects are in one place."""
    return math.hypot(item.x - other.x, item.y - other.y) <= NEAR


def same(item: Item, other: Item) -> bool:
    """Whether two objects are of one kind and size and in one place."""
    return alike(item, other) and near(item, other)


def cell_of(item: Item) -> tuple[int, int]:
    """(row, column) of the grid cell that an object's centre lies in."""
    return tuple(min(int(place * GRID), GRID - 1) for place in (item.y, item.x))


def relation_holds(relation: str, first, second) -> bool:
    """Whether `first` lies clearly to that side of `second`: by more than an eighth, and more so than crosswise."""
    dx, dy = first.x - second.x, first.y - second.y
    along, across = (dx, dy) if relation in ("left", "right") else (dy, dx)
    if relation in ("left", "above"):
        along = -along
    return along > 0.125 and along > abs(across)


def _cells(rng, count, relation):
    """Distinct grid cells (row, column) for the objects, obeying the relation between the first two."""
    cells = [(row, column) for row in range(GRID) for column in range(GRID)]
    while True:
        picked = [cells[i] for i in rng.permutation(len(cells))[:count]]
        if relation is None:
            return picked
        (row0, column0), (row1, column1) = picked[:2]
        along, across = (column1 - column0, row1 - row0)
        if relation in ("above", "below"):
            along, across = across, along
        if relation in ("right", "below"):
            along = -along
        if along > abs(across):
            return picked


def place(rng, kinds, relation=None, world: World = SHIPPED, ordered: bool = False) -> Scene:
    """Puts objects of the given kinds, (shape, color) or (shape, color, size word), into random cells, with jitter in
    place and size. ordered: row by row in their order, unless there is a relation."""
    items, cells = [], _cells(rng, len(kinds), relation)
    if ordered and relation is None:
        cells = sorted(cells)
    for kind, (row, column) in zip(kinds, cells, strict=True):
        items.append(in_cell(rng, kind, row, column, world))
    return Scene(tuple(items))


def in_cell(rng, kind, row: int, column: int, world: World = SHIPPED) -> Item:
    """An object of a kind in a cell of the grid, with jitter in place and size; a size that is not said is free."""
    shape, color, size = (*kind, None)[:3]
    size = size or str(rng.choice(list(world.sizes)))
    far = world.jitter[0]
    x, y = ((np.array([column, row]) + 0.5) / GRID + rng.uniform(-far, far, 2)).tolist()
    return Item(shape, color, x, y, float(rng.uniform(*world.sizes[size])))


def crowd(rng, world: World = SHIPPED) -> Scene:
    """Objects of any kinds, four to as many as there are cells: more than any prompt asks for."""
    count = int(rng.integers(MAX_ITEMS, GRID**2 + 1))
    kinds = [(str(rng.choice(world.shapes)), str(rng.choice(list(world.colors)))) for _ in range(count)]
    return place(rng, kinds, world=world)


def kinds_for(rng, ask: Ask, world: World = SHIPPED) -> list[tuple[str, str, str | None]]:
    """(shape, color, size word or None) of every object of a right picture; a free colour is drawn once per noun, a
    free shape once per object."""
    kinds = []
    for noun in ask.nouns:
        color = noun.color or str(rng.choice(list(world.colors)))
        shapes = [noun.shape or str(rng.choice(world.shapes)) for _ in range(noun.count)]
        kinds += [(shape, color, noun.size) for shape in shapes]
    return kinds


def compose(rng, ask: Ask, world: World = SHIPPED, ordered: bool = False) -> Scene:
    """A random scene that is exactly what the prompt asks for. ordered: its objects stand as one reads, row by row, in
    the order in which the prompt names them, where it does not place them itself."""
    return place(rng, kinds_for(rng, ask, world), ask.relation, world, ordered)


def _moves(ask, kinds):
    """The changes that make a scene wrong, each as often as it is to be tried."""
    moves = ["shape", "add"] + (["remove"] if len(kinds) > 1 else [])
    if any(noun.color for noun in ask.nouns):
        moves += ["color"] * 2
    if any(noun.size for noun in ask.nouns):
        moves += ["size"] * 2
    if ask.category == "color_attribution" and ask.nouns[0].shape != ask.nouns[1].shape:
        moves += ["swap"] * 2
    if ask.category == "counting":
        moves += ["count"] * 3
    if ask.relation:
        moves += ["relation"] * 4
    return moves


def near_miss(rng, ask: Ask, world: World = SHIPPED, ordered: bool = False) -> Scene:
    """A scene that differs from a right one in one fact: a shape, a colour, a size, a count, an object or the
    relation. ordered: see compose."""
    kinds = kinds_for(rng, ask, world)
    move = rng.choice(_moves(ask, kinds))
    relation = ask.relation
    i = int(rng.integers(len(kinds)))

    def said(attribute):  # only what the prompt names can be wrong
        return int(rng.choice([n for n in range(len(kinds)) if getattr(_noun_of(ask, n), attribute)]))

    if move == "shape":
        kinds[i] = (_other(rng, world.shapes, kinds[i][0]), *kinds[i][1:])
    elif move == "color":
        i = said("color")
        kinds[i] = (kinds[i][0], _other(rng, tuple(world.colors), kinds[i][1]), kinds[i][2])
    elif move == "size":
        i = said("size")
        kinds[i] = (*kinds[i][:2], _other(rng, world.sizes, kinds[i][2]))
    elif move == "swap":
        (shape0, color0, size0), (shape1, color1, size1) = kinds
        kinds = [(shape0, color1, size0), (shape1, color0, size1)]
    elif move == "remove":
        del kinds[i]
    elif move == "add":
        kinds.append((str(rng.choice(world.shapes)), str(rng.choice(list(world.colors))), None))
    elif move == "count":
        count = int(rng.choice([n for n in range(1, MAX_ITEMS + 1) if n != len(kinds)]))
        kinds = [kinds[0]] * count
    elif move == "relation":
        relation = str(rng.choice([r for r in RELATIONS if r != ask.relation]))
    if len(kinds) < 2:
        relation = None
    return place(rng, kinds, relation, world, ordered)


def _noun_of(ask, index):
    for noun in ask.nouns:
        if index < noun.count:
            return noun
        index -= noun.count
    raise IndexError(index)


def _other(rng, options, current):
    return str(rng.choice([option for option in options if option != current]))
