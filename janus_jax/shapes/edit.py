"""Edit pairs of the embedded world: an instruction, a source and a target scene, and exact scores read from pictures.

    edit = random_edit(rng); source, target = draw(edit, rng=rng)
    following(edit, read(source), read(picture)), preserving(edit, read(source), read(picture))

Both scores compare two readings, that of the source picture and that of the edited one, and never look at a scene:
a copy of the source has (0, 1), the true target (1, 1).
"""

import dataclasses
import functools
import itertools
import re

import numpy as np

from janus_jax.shapes import text
from janus_jax.shapes.render import render
from janus_jax.shapes.scene import (
    RELATIONS,
    Ask,
    Item,
    Noun,
    Scene,
    alike,
    cell_of,
    near,
    place,
    relation_holds,
)
from janus_jax.shapes.verify import Reading
from janus_jax.shapes.world import SHIPPED, SPLITS, World

KINDS = ("recolor", "add", "remove", "move", "swap")
MOST = 3  # objects of a picture that is edited
# (row, column) of the grid; the middles of the edges are left out, "to the left" may mean a direction
CORNERS = {"top left": (0, 0), "top right": (0, 2), "bottom left": (2, 0), "bottom right": (2, 2), "center": (1, 1)}
WORDINGS = {
    "recolor": ("make {a} {color}", "change {a} to {color}", "paint {a} {color}", "turn {a} {color}"),
    "add": ("add {new}", "put {new} into the picture", "draw {new} as well", "place {new} in the picture"),
    "remove": ("remove {a}", "delete {a}", "erase {a}", "take away {a}"),
    "move": ("move {a} {where}", "shift {a} {where}", "bring {a} {where}"),
    "swap": ("swap {a} and {b}", "exchange {a} and {b}", "let {a} and {b} trade places"),
}


@dataclasses.dataclass(frozen=True)
class Edit:
    """`nouns`: the object to change (add: to be added), then swap's other object or the one a move refers to, each
    with its colour, also where the instruction leaves it out. `color`: the new colour of a recolouring. `where`: of a
    move, a relation to the second noun or one of CORNERS. source, target: None where the instruction alone is known;
    the scores do not look at them."""

    instruction: str
    kind: str
    source: Scene | None
    target: Scene | None
    nouns: tuple[Noun, ...]
    color: str | None = None
    where: str | None = None


def random_edit(
    rng, kind: str | None = None, held_out: bool = False, world: World = SHIPPED, objects: int | None = None
) -> Edit:
    """A random edit of a scene of `objects`, None = one to MOST. Unless `held_out`, none that names or shows what
    evaluation holds out, nor any that shows a held-out pair of colour and shape beside what it names. Raises ValueError
    for an unknown kind, and for a number of objects that it does not go with.
    """
    if kind not in (None, *KINDS):
        raise ValueError(f"unknown kind of edit {kind!r}; the kinds are {', '.join(KINDS)}")
    kind = kind or str(rng.choice(KINDS))
    if objects is not None and not least_objects(kind) <= objects <= MOST:
        raise ValueError(f"{kind} goes with {least_objects(kind)} to {MOST} objects, not {objects}")
    while True:
        edit = _draw_edit(rng, kind, world, objects)
        if edit is not None and (held_out or not (is_held_out(edit, world) or _shows_held_out_pair(edit, world))):
            return edit


def _shows_held_out_pair(edit, world) -> bool:
    """Whether its pictures show a held-out pair of colour and shape. If they did, it would always stay as it is, since
    no instruction of training is about one, and that is what would be learnt."""
    items = (*edit.source.items, *edit.target.items)
    return any((item.color, item.shape) in world.held_out.colors for item in items)


def least_objects(kind: str) -> int:
    """How many objects a picture has at least that is edited so: a removed one leaves one."""
    return 2 if kind in ("remove", "swap") else 1


def _draw_edit(rng, kind, world, objects):
    """One try: None where the scene does not admit the edit."""
    count = int(rng.integers(least_objects(kind), MOST + 1)) if objects is None else objects
    kinds = list(itertools.product(world.shapes, world.colors))
    kinds = [kinds[i] for i in rng.permutation(len(kinds))[: count + 1]]
    # one object more than the source has: what is added, or the free place where something moves
    scene = place(rng, kinds, world=world)
    *items, spare = scene.items
    first, second = items[-1], items[0] if count > 1 else None  # the last, so that the others keep their jitter
    color = where = None
    after = list(items)
    nouns = [first]
    if kind == "recolor":
        color = str(rng.choice([name for name in world.colors if name != first.color]))
        after[-1] = dataclasses.replace(first, color=color)
        if (first.shape, color) in kinds:
            return None
    elif kind == "add":
        nouns = [spare]
        after = [*items, spare]
    elif kind == "remove":
        after = items[:-1]
    elif kind == "move":
        moved = dataclasses.replace(first, x=spare.x, y=spare.y)
        after[-1] = moved
        if second is not None and rng.random() < 0.5:
            nouns = [first, second]
            where = next((r for r in RELATIONS if _lies(r, moved, second) > 0), None)
            if where is None or _lies(where, first, second) >= 0:  # a diagonal is neither
                return None
        else:
            where = next((name for name, cell in CORNERS.items() if cell == cell_of(moved)), None)
            if where is None:
                return None
    elif kind == "swap":
        nouns = [first, second]
        after[-1] = dataclasses.replace(first, x=second.x, y=second.y)
        after[0] = dataclasses.replace(second, x=first.x, y=first.y)
    nouns = tuple(Noun(1, item.color, item.shape) for item in nouns)
    return Edit(
        instruction=instruct(rng, kind, nouns, items, color, where),
        kind=kind,
        source=Scene(tuple(items), scene.background),
        target=Scene(tuple(after), scene.background),
        nouns=nouns,
        color=color,
        where=where,
    )


def instruct(rng, kind, nouns, items, color, where):
    """One wording of an edit of a kind of KINDS; nouns, color, where: as in Edit, items: those of the source
    picture. A colour is named where the shape alone would not tell which object is meant, and now and then."""

    def the(noun):
        alone = sum(item.shape == noun.shape for item in items) <= 1
        return f"the {noun.shape}" if alone and rng.random() < 0.6 else f"the {noun.color} {noun.shape}"

    names = {"new": text.noun_text(nouns[0])} if kind == "add" else {"a": the(nouns[0])}
    if len(nouns) == 2:
        names["b"] = the(nouns[1])
    if kind == "move":
        joint = f"{rng.choice(text.PLACES[where])} {names['b']}" if where in RELATIONS else f"to the {where}"
        names["where"] = joint
    return str(rng.choice(WORDINGS[kind])).format(color=color, **names)


def is_held_out(edit: Edit, world: World = SHIPPED) -> bool:
    """Whether an edit names a held-out pair of colour and shape or placement, or shows what training never shows."""
    return split_of(edit, world) != SPLITS[0]


def split_of(edit: Edit, world: World = SHIPPED) -> str | None:
    """The split that an edit belongs to, by what it names (pairs of colour and shape, placements) and shows (pairs of
    shapes, counts): "validation" or "test" where some of that is held out for that one alone, "train" where nothing is;
    None where some is of both."""
    named = [*edit.nouns, *([Noun(1, edit.color, edit.nouns[0].shape)] if edit.color else [])]
    asks = [Ask("colors", (noun,)) for noun in named]
    if edit.where in RELATIONS:
        asks.append(Ask("position", edit.nouns, edit.where))
    shown = (Reading(edit.source.items), Reading(edit.target.items))
    of = [
        name
        for name in SPLITS[1:]
        if any(text.combinations(ask, getattr(world, name)) for ask in asks)
        or any(text.shows(each, getattr(world, name)) for each in shown)
    ]
    return None if len(of) > 1 else (of or SPLITS[:1])[0]


def draw(edit: Edit, side: int | None = None, rng=None, others=(), world: World = SHIPPED):
    """The source and the target picture u8[side, side, 3], side: None for the
    world's; what the edit leaves alone is the same to the pixel.
    others: further scenes, drawn alike."""
    seed = None if rng is None else int(rng.integers(2**32))
    scenes = (edit.source, edit.target, *others)
    rngs = (None if seed is None else np.random.default_rng(seed) for _ in scenes)
    return tuple(render(scene, side, each, world) for scene, each in zip(scenes, rngs, strict=True))


@functools.cache
def _patterns(world):
    """(kind, pattern) of every wording; the groups are those of `parse`."""
    patterns = []

    def noun(name):
        colors, shapes = ("|".join(words) for words in (world.colors, world.shapes))
        return rf"(?:the|an?) (?:(?P<{name}_color>{colors}) )?(?P<{name}_shape>{shapes})"

    joints = "|".join(word for words in text.PLACES.values() for word in words)
    where = rf"(?:to the (?P<corner>{'|'.join(CORNERS)})|(?P<joint>{joints}) {noun('b')})"
    for kind, wordings in WORDINGS.items():
        for wording in wordings:
            b = "" if kind == "move" else noun("b")
            color = rf"(?P<color>{'|'.join(world.colors)})"
            plain = wording.format(a=noun("a"), new=noun("a"), b=b, color=color, where=where)
            patterns.append((kind, re.compile(plain)))
    return patterns


def parse(instruction: str, source: Reading, world: World = SHIPPED) -> Edit:
    """The edit that an instruction of a world asks for, of a source picture: objects that it names by their shape
    alone are those of the picture. Raises ValueError for any other text, or where the picture has no such object, or
    several."""
    plain = " ".join(instruction.lower().split()).rstrip(".")
    kind, found = next(((k, m) for k, pattern in _patterns(world) if (m := pattern.fullmatch(plain))), (None, None))
    if not found:
        raise ValueError(f"not an instruction of the shapes world: {instruction!r} (try: 'make the red circle blue')")
    groups, nouns = found.groupdict(), []
    for name in ("a", "b"):
        shape, color = groups.get(f"{name}_shape"), groups.get(f"{name}_color")
        if shape and not color:
            colors = [item.color for item in source.items if item.shape == shape]
            if kind == "add" or len(colors) != 1:
                raise ValueError(f"{instruction!r} does not say which {shape}: name its colour")
            (color,) = colors
        nouns += [Noun(1, color, shape)] if shape else []
    joint = groups.get("joint")
    where = next(r for r in RELATIONS if joint in text.PLACES[r]) if joint else groups.get("corner")
    return Edit(instruction, kind, None, None, tuple(nouns), groups.get("color"), where)


def applies(edit: Edit, source: Reading) -> bool:
    """Whether a source picture clearly shows what the edit is about; only then are the scores defined."""
    counts = [sum(noun.fits(item) for item in source.items) for noun in edit.nouns]
    return source.unclear == 0 and counts == ([0] if edit.kind == "add" else [1] * len(counts))


def following(edit: Edit, source: Reading, edited: Reading) -> float:
    """How much of the instruction is done, in [0, 1]: all or nothing, except that a swap has two halves. A picture with
    anything unclear in it has done nothing.

    Raises ValueError where the source picture does not show what the edit is about.
    """
    old = _addressed(edit, source)
    if edited.unclear:
        return 0.0
    noun = edit.nouns[0]
    mine = [[item for item in edited.items if noun.fits(item)] for noun in edit.nouns]
    if edit.kind == "add":
        done = len(mine[0]) == 1
    elif edit.kind == "recolor":
        new = [item for item in edited.items if item.shape == noun.shape and near(item, old[0])]
        done = [item.color for item in new] == [edit.color]
    elif edit.kind == "remove":
        done = not mine[0] and not any(near(item, old[0]) for item in edited.items)
    elif edit.kind == "swap":
        halves = [len(items) == 1 and near(items[0], there) for items, there in zip(mine, reversed(old), strict=True)]
        return sum(halves) / 2
    elif edit.where in RELATIONS:  # to where the other object was: moving that one instead is not asked for
        done = len(mine[0]) == 1 and relation_holds(edit.where, mine[0][0], old[1])
    else:
        done = len(mine[0]) == 1 and cell_of(mine[0][0]) == CORNERS[edit.where]
    return float(done)


def preserving(edit: Edit, source: Reading, edited: Reading) -> float:
    """How much of what the instruction does not touch is unchanged, in [0, 1]: the objects that kept shape, colour and
    place, among those that should have and whatever else has appeared. (The ground is plain in any clear reading; its
    grey is not compared.)

    Raises ValueError where the source picture does not show what the edit is about.
    """
    touched = _addressed(edit, source)[: 2 if edit.kind == "swap" else 1]
    keep = [item for item in source.items if all(item is not other for other in touched)]
    left = list(edited.items)
    kept = sum(_take(left, lambda item, old=old: alike(item, old) and near(item, old)) for old in keep)
    # the objects the instruction is about, changed or not, are no business of this score
    if edit.kind == "add":
        _take(left, edit.nouns[0].fits)
    for old in touched:
        if edit.kind == "recolor":
            _take(left, lambda item, old=old: item.shape == old.shape and near(item, old))
        elif edit.kind == "remove":
            _take(left, lambda item, old=old: alike(item, old) and near(item, old))
        else:
            _take(left, lambda item, old=old: alike(item, old))
    total = len(keep) + len(left) + edited.unclear
    return kept / total if total else 1.0


def score(edit: Edit, source: Reading, edited: Reading) -> float:
    """Both as one, as verify.score has it: 1 where all is done and nothing else, else 0.4 times the lesser, and so
    under one half. Raises ValueError as they do."""
    least = min(following(edit, source, edited), preserving(edit, source, edited))
    return 1.0 if least == 1 else 0.4 * least


def _addressed(edit, source):
    """The source picture's object for each noun; none for what is to be added."""
    if not applies(edit, source):
        raise ValueError(f"the source picture does not show what {edit.instruction!r} is about: leave the pair out")
    found = (next((item for item in source.items if noun.fits(item)), None) for noun in edit.nouns)
    return [item for item in found if item is not None]


def _take(items, fits):
    """Removes the first item that fits, if any; whether there was one."""
    for i, item in enumerate(items):
        if fits(item):
            del items[i]
            return True
    return False


def _lies(relation: str, first: Item, second: Item) -> int:
    """By how many cells `first` lies more to that side of `second` than crosswise: 0 on a diagonal."""
    (row0, column0), (row1, column1) = cell_of(first), cell_of(second)
    down, right = row0 - row1, column0 - column1
    along, across = (right, down) if relation in ("left", "right") else (down, right)
    return (-along if relation in ("left", "above") else along) - abs(across)
