"""Questions about pictures of the embedded world, whose answers the scene knows (numpy).

A question is held out where it and its answer name a combination that no training text names (see world.py), or where
the whole picture is asked about and shows what no training picture shows.
"""

import dataclasses
import re

from janus_jax.shapes.reasons import caption
from janus_jax.shapes.scene import MAX_ITEMS, RELATIONS, Noun, Scene, place, relation_holds
from janus_jax.shapes.text import (
    NUMBER_NAMES,
    PLACES,
    QUESTION,
    names_held_out_place,
    noun_text,
    plural,
    shows_held_out,
)
from janus_jax.shapes.verify import Reading
from janus_jax.shapes.world import SHIPPED, World

KINDS = ("count", "color", "shape", "place", "present", "describe")
COUNTS = {0: ("no", "none", "zero", "0")} | {n: (name, str(n)) for n, name in NUMBER_NAMES.items()}
TRIES = 20_000
LONGEST_ANSWER = 40  # tokens of the world's tokenizer with the end of text: the longest description fits


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked, and the answer that is right; kind: one of KINDS."""

    kind: str
    text: str
    answer: str
    held_out: bool


def ask(rng, scene: Scene, kind: str, world: World = SHIPPED) -> Question | None:
    """A question of a kind about a scene; None where it has no single answer."""
    return _ASK[kind](rng, scene.items, world)


def _count(rng, items, world):
    shape = str(rng.choice(world.shapes))
    count = sum(item.shape == shape for item in items)
    held_out = (count, shape) in world.held_out.counts
    return Question("count", f"how many {plural(shape)} are there?", COUNTS[count][0], held_out)


def _color(rng, items, world):
    item = _only(rng, items, "shape")
    return item and _of_both(world, "color", f"what color is the {item.shape}?", item.color, item)


def _shape(rng, items, world):
    item = _only(rng, items, "color")
    return item and _of_both(world, "shape", f"which shape is {item.color}?", f"a {item.shape}", item)


def _present(rng, items, world):
    """What is asked for has the colour of an object; what is not there another's shape, where they differ in shape."""
    there = {(item.color, item.shape) for item in items}
    shapes = {item.shape for item in items}
    shapes = world.shapes if len(shapes) == 1 else shapes
    missing = {(item.color, shape) for item in items for shape in shapes} - there
    answer = "no" if missing and rng.random() < 0.5 else "yes"
    some = sorted(missing if answer == "no" else there)
    color, shape = some[int(rng.integers(len(some)))]
    asked = Noun(1, color, shape)
    return _of_both(world, "present", f"is there {noun_text(asked)}?", answer, asked)


def _place(rng, items, world):
    of, relation = _only(rng, items, "shape"), str(rng.choice(RELATIONS))
    found = [item for item in items if of and item is not of and relation_holds(relation, item, of)]
    if len(found) != 1:
        return None
    words, shape = str(rng.choice(PLACES[relation])), found[0].shape
    held_out = names_held_out_place(shape, relation, of.shape, world.held_out)
    return Question("place", f"what is {words} the {of.shape}?", f"a {shape}", held_out)


def _describe(rng, items, world):
    reading = Reading(items)
    return Question("describe", QUESTION, caption(reading, world), shows_held_out(reading, world))


_ASK = {
    "count": _count,
    "color": _color,
    "shape": _shape,
    "place": _place,
    "present": _present,
    "describe": _describe,
}


def _of_both(world, kind, text, answer, of):
    """of: an item or a noun."""
    return Question(kind, text, answer, (of.color, of.shape) in world.held_out.colors)


def _only(rng, items, attribute):
    """A random item that no other has the shape, or the colour, of; None where there is none."""
    values = [getattr(item, attribute) for item in items]
    alone = [item for item, value in zip(items, values, strict=True) if values.count(value) == 1]
    return alone[int(rng.integers(len(alone)))] if alone else None


def right(question: Question, said: str, world: World = SHIPPED) -> bool:
    """Whether an answer in words is the right one. It names the answer's count, colour or shape, and no other, or
    begins with its Yes or No. A description has to be the caption, whatever its case and spaces."""
    if question.kind == "describe":
        return said.lower().split() == question.answer.lower().split()
    words = re.findall(r"[a-z0-9]+", said.lower())
    if question.kind == "present":
        return words[:1] == [question.answer]
    if question.kind == "count":
        named = {count for count, names in COUNTS.items() if set(names) & set(words)}
        return named == {count for count, names in COUNTS.items() if question.answer in names}
    if words[:1] in (["yes"], ["no"]):  # a verdict is no answer
        return False
    known = world.colors if question.kind == "color" else world.shapes
    named = {name for name in known if name in words or plural(name) in words}
    if question.kind != "color":  # "the circle is left of the square" names what was asked, too
        named -= {name for name in known if name in question.text}
    return named == {question.answer.split()[-1]}


def random_scene(rng, world: World = SHIPPED) -> Scene:
    """One to MAX_ITEMS objects of any kinds; in half of the scenes they share a shape, so that there is to count."""
    count = int(rng.integers(1, MAX_ITEMS + 1))
    shapes = [str(shape) for shape in rng.choice(world.shapes, count)]
    if rng.random() < 0.5:
        shapes = shapes[:1] * count
    return place(rng, [(shape, str(rng.choice(list(world.colors)))) for shape in shapes], world=world)


def draw(rng, kind: str, held_out: bool, world: World = SHIPPED) -> tuple[Question, Scene]:
    """A random question of a kind with its scene, of the evaluation side or of the training side."""
    for _ in range(TRIES):
        scene = random_scene(rng, world)
        question = ask(rng, scene, kind, world)
        if question and question.held_out == held_out:
            return question, scene
    raise RuntimeError(f"no question of kind {kind} in {TRIES} scenes")
