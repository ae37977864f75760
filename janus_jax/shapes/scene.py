"""Scenes: a few coloured shapes on a plain background, and how to compose one for a prompt.

Lengths are fractions of the picture's side, x to the right and y downwards, so that one scene can be drawn at any
resolution. Objects sit in a 3 x 3 grid of cells with jitter, which keeps them apart without a packing search.
"""

import dataclasses

import numpy as np

SHAPES = ("circle", "square", "triangle", "cross")
# name -> (hue in degrees, saturation, value); black has no hue.
COLORS = {
    "red": (0.0, 0.86, 0.88),
    "yellow": (52.0, 0.88, 0.93),
    "green": (130.0, 0.75, 0.64),
    "blue": (220.0, 0.80, 0.86),
    "purple": (285.0, 0.66, 0.70),
    "black": (0.0, 0.0, 0.12),
}
RELATIONS = ("left", "right", "above", "below")
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
MAX_ITEMS = 4
GRID = 3


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
    """`count` objects of one shape; `color` None leaves the colour free, `shape` None the shape."""

    count: int
    color: str | None
    shape: str | None

    def fits(self, item) -> bool:
        return self.shape in (None, item.shape) and self.color in (None, item.color)


@dataclasses.dataclass(frozen=True)
class Ask:
    """What a prompt asks for: exactly these objects; `relation` places the first noun relative to the second."""

    category: str
    nouns: tuple[Noun, ...]
    relation: str | None = None

    def __post_init__(self):
        if self.relation is not None and (len(self.nouns) != 2 or self.relation not in RELATIONS):
            raise ValueError(f"a relation needs two nouns and one of {RELATIONS}, not {self.relation!r}")


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


def place(rng, kinds, relation=None) -> Scene:
    """Puts objects of the given (shape, color) kinds into random cells, with jitter in place and size."""
    items = []
    for (shape, color), (row, column) in zip(kinds, _cells(rng, len(kinds), relation), strict=True):
        x, y = ((np.array([column, row]) + 0.5) / GRID + rng.uniform(-0.012, 0.012, 2)).tolist()
        items.append(Item(shape, color, x, y, float(rng.uniform(0.265, 0.295))))
    return Scene(tuple(items))


def kinds_for(rng, ask: Ask) -> list[tuple[str, str]]:
    """(shape, color) of every object of a right picture; a free colour is drawn once per noun, a free shape once per
    object."""
    kinds = []
    for noun in ask.nouns:
        color = noun.color or str(rng.choice(list(COLORS)))
        shapes = [noun.shape or str(rng.choice(SHAPES)) for _ in range(noun.count)]
        kinds += [(shape, color) for shape in shapes]
    return kinds


def compose(rng, ask: Ask) -> Scene:
    """A random scene that is exactly what the prompt asks for."""
    return place(rng, kinds_for(rng, ask), ask.relation)


def near_miss(rng, ask: Ask) -> Scene:
    """A scene that differs from a right one in one fact: a shape, a colour, a count, an object or the relation."""
    kinds = kinds_for(rng, ask)
    moves = ["shape", "add"] + (["remove"] if len(kinds) > 1 else [])
    if any(noun.color for noun in ask.nouns):
        moves += ["color"] * 2
    if ask.category == "color_attribution" and ask.nouns[0].shape != ask.nouns[1].shape:
        moves += ["swap"] * 2
    if ask.category == "counting":
        moves += ["count"] * 3
    if ask.relation:
        moves += ["relation"] * 4
    move = rng.choice(moves)
    relation = ask.relation
    i = int(rng.integers(len(kinds)))
    if move == "shape":
        kinds[i] = (_other(rng, SHAPES, kinds[i][0]), kinds[i][1])
    elif move == "color":
        # only a colour that the prompt names can be wrong
        i = int(rng.choice([n for n in range(len(kinds)) if _noun_of(ask, n).color]))
        kinds[i] = (kinds[i][0], _other(rng, tuple(COLORS), kinds[i][1]))
    elif move == "swap":
        (shape0, color0), (shape1, color1) = kinds
        kinds = [(shape0, color1), (shape1, color0)]
    elif move == "remove":
        del kinds[i]
    elif move == "add":
        kinds.append((str(rng.choice(SHAPES)), str(rng.choice(list(COLORS)))))
    elif move == "count":
        count = int(rng.choice([n for n in range(1, MAX_ITEMS + 1) if n != len(kinds)]))
        kinds = [kinds[0]] * count
    elif move == "relation":
        relation = str(rng.choice([r for r in RELATIONS if r != ask.relation]))
    if len(kinds) < 2:
        relation = None
    return place(rng, kinds, relation)


def _noun_of(ask, index):
    for noun in ask.nouns:
        if index < noun.count:
            return noun
        index -= noun.count
    raise IndexError(index)


def _other(rng, options, current):
    return str(rng.choice([option for option in options if option != current]))
