"""Worlds: which shapes, colours and sizes there are, how large a picture is, and which combinations are held out.

A world is a value, and functions take it. A checkpoint names the world that it was trained on (see
checkpoints/loading.world_of).

Held out are combinations, never single words: (colour, shape) pairs, (count, shape) pairs, pairs of shapes, and
placements. Those of *validation*, on which choices are made, and those of *test*, which no choice has seen, are
disjoint; training texts name none of either. No shape, colour or number is held out altogether.
"""

import dataclasses
from types import MappingProxyType

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The combinations that one split alone names. places: (first, relation, second) with relation left or above; the
    mirrored wording is the same placement. wordings: the single-object category has no combination to hold out, there
    the wordings are: those whose checksum leaves one of these remainders by 4."""

    colors: frozenset[tuple[str, str]]
    counts: frozenset[tuple[int, str]]
    pairs: frozenset[frozenset[str]]
    places: frozenset[tuple[str, str, str]]
    wordings: frozenset[int]

    def __or__(self, other: "HeldOut") -> "HeldOut":
        return HeldOut(*(getattr(self, f.name) | getattr(other, f.name) for f in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """side: of a picture, in pixels; colors: {name: (hue in degrees, saturation, value)}, black has no hue; sizes:
    {word: (least, most)} sides of an object's bounding square, as fractions of the picture's; jitter: of a place, as a
    fraction of the picture's side, of a hue, in degrees, and of saturation and value, as a share; pieces: how many its
    text tokenizer has.

    Of the verifier (verify.py): least_overlap of an object with the shape that it is taken for; slack, how far its
    outline may lie from that of the shape on average, as a fraction of the picture's side; slenderness, the most
    that one side of its box may be of the other; decoys, shapes that this world has no word for and that are told apart
    from those that it has."""

    name: str
    side: int
    shapes: tuple[str, ...]
    colors: MappingProxyType
    sizes: MappingProxyType
    jitter: tuple[float, float, float]
    pieces: int
    validation: HeldOut
    test: HeldOut
    least_overlap: float
    slack: float
    slenderness: float
    decoys: tuple[str, ...]

    @property
    def held_out(self) -> HeldOut:
        """What training names nothing of."""
        return self.validation | self.test


def _pairs(*pairs: str) -> frozenset:
    return frozenset(frozenset(pair.split()) for pair in pairs)


def _places(*places: str) -> frozenset:
    return frozenset(tuple(place.split()) for place in places)


# Nearest colours are 97 apart in RGB, of 442; the palest is 147 from the ground.
SECOND = World(
    name="second",
    side=96,
    shapes=("circle", "square", "triangle", "cross", "diamond", "heart", "star"),
    colors=MappingProxyType(
        {
            "red": (355.0, 0.86, 0.88),
            "orange": (28.0, 0.95, 1.0),
            "yellow": (55.0, 0.88, 0.93),
            "green": (130.0, 0.75, 0.62),
            "cyan": (187.0, 0.78, 0.85),
            "blue": (225.0, 0.80, 0.86),
            "purple": (283.0, 0.70, 0.72),
            "pink": (328.0, 0.58, 0.98),
            "black": (0.0, 0.0, 0.12),
        }
    ),
    sizes=MappingProxyType({"small": (0.19, 0.20), "large": (0.285, 0.295)}),
    jitter=(0.004, 2.0, 0.02),
    pieces=512,
    validation=HeldOut(
        colors=frozenset({("yellow", "circle"), ("purple", "square"), ("cyan", "diamond")}),
        counts=frozenset({(3, "circle"), (2, "diamond"), (4, "cross")}),
        pairs=_pairs("cross heart", "square diamond"),
        places=_places(
            *("circle left square", "heart left star", "cross left triangle"),
            *("diamond above cross", "square above heart"),
        ),
        wordings=frozenset({1}),
    ),
    test=HeldOut(
        colors=frozenset({("red", "triangle"), ("orange", "heart"), ("blue", "cross"), ("pink", "star")}),
        counts=frozenset({(3, "triangle"), (2, "square"), (4, "circle"), (3, "star"), (2, "heart")}),
        pairs=_pairs("circle cross", "square star", "triangle diamond", "circle heart"),
        places=_places(
            *("square left triangle", "triangle left circle", "star left circle", "diamond left heart"),
            *("cross left star", "cross above square", "circle above triangle", "heart above square"),
            *("star above diamond", "triangle above star"),
        ),
        wordings=frozenset({0}),
    ),
    least_overlap=0.7,
    slack=0.0078,  # three quarters of a pixel
    slenderness=1.2,
    decoys=("hexagon", "sideways hexagon", "inverted triangle", "inverted heart"),
)

WORLDS = {SECOND.name: SECOND}
SHIPPED = SECOND  # that of the shipped models
