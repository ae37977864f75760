"""Pictures of fresh prompts, with the labels of the scenes that they were rendered from.

The verifier takes up to three times as long to read a picture as rendering, encoding and decoding it take together; a
scene says what it shows. So there can be so many pictures that training sees hardly any twice. What the tokenizer
spoils, one picture of sixty, is labelled as if it had not.
"""

import dataclasses
import itertools

import numpy as np

from janus_jax.data import cache, labels
from janus_jax.shapes import edit, edit_pairs, mend, reasons, scene, text
from janus_jax.shapes.render import render
from janus_jax.shapes.scene import Scene
from janus_jax.shapes.verify import Reading, match, matches
from janus_jax.shapes.world import SHIPPED, World

NEAR = 2  # near misses per prompt
TRIES = 8  # to mend one so that its objects stand in the order of their names
# How often prompts are of a category; those of two objects have the most to say, and are learnt last.
SHARES = {
    "single_object": 0.04,
    "two_object": 0.26,
    "counting": 0.14,
    "colors": 0.06,
    "position": 0.2,
    "color_attribution": 0.3,
}
FREE = 0.35  # the share of prompts that is freely composed


def fresh_prompt(rng, world: World = SHIPPED) -> str:
    """A random training prompt, as often of a category as SHARES says, or freely composed."""
    if rng.random() < FREE:
        return text.free_prompt(rng, world=world)
    categories, shares = zip(*SHARES.items(), strict=True)
    return text.train_prompt(rng, str(rng.choice(categories, p=shares)), world)


def scenes(rng, prompt: str, world: World = SHIPPED, ordered: bool = False) -> tuple[Scene | None, ...]:
    """Scenes of a prompt: a right one, NEAR near misses, and each of these mended; None for a near miss that cannot be
    mended, or that is right by chance. ordered: all of them as `draws` has them, the mended ones where one of a few
    tries does."""
    ask = text.parse(prompt, world)
    near = [scene.near_miss(rng, ask, world, ordered) for _ in range(NEAR)]
    right = [_mended(rng, ask, Reading(miss.items), world, ordered) for miss in near]
    near = [miss if to is None else _kept_first(miss, to) for miss, to in zip(near, right, strict=True)]
    return _right(rng, ask, world, ordered), *near, *right


def _mended(rng, ask, reading, world, ordered):
    if matches(ask, reading):
        return None
    for _ in range(TRIES if ordered else 1):
        mended = mend.mend(rng, ask, reading, world)
        if mended is None or _in_order(ask, mended):
            break
    return mended


def _in_order(ask, shown) -> bool:
    """Whether the objects of a right scene stand, row by row, as the prompt names them, if it does not place them."""
    if ask.relation:
        return True
    cells = [[scene.cell_of(item) for item in items] for items in match(ask, Reading(shown.items)).found]
    return all(max(before) < min(after) for before, after in itertools.pairwise(cells))


def _right(rng, ask, world, ordered) -> Scene:
    """A right scene that shows nothing held out."""
    while True:
        shown = scene.compose(rng, ask, world, ordered)
        if not text.shows_held_out(Reading(shown.items), world):
            return shown


def _kept_first(miss: Scene, mended: Scene) -> Scene:
    """A near miss with what its mending keeps in front, as it is there: `render` jitters colours object by object, and
    what is kept shall look the same."""
    kept = {id(item) for item in mended.items}
    return dataclasses.replace(miss, items=tuple(sorted(miss.items, key=lambda item: id(item) not in kept)))


def judged(
    rng, prompts, encode, decode, room: int, side: int, world: World = SHIPPED, ordered: bool = False
) -> cache.Groups:
    """Groups of the `scenes` of prompts, as the tokenizer reproduces them. encode(pictures u8[P, K, side, side, 3]) ->
    codes i32[P, K, I], decode(codes) -> such pictures; room: P, at least the number of prompts."""
    made = [scenes(rng, prompt, world, ordered) for prompt in prompts]
    seeds = rng.integers(2**32, size=len(prompts))  # one jitter of colours for a near miss and for it mended
    pictures = np.zeros((room, 1 + 2 * NEAR, side, side, 3), np.uint8)
    for p, of_prompt in enumerate(made):
        for k, one in enumerate(of_prompt):
            if one is not None:
                jitter = np.random.default_rng([seeds[p], k and 1 + (k - 1) % NEAR])
                pictures[p, k] = render(one, side, jitter, world)
    codes = encode(pictures)
    there = np.array([[one is not None for one in of_prompt] for of_prompt in made])
    owner, number = np.nonzero(there)
    groups, kept = labels.label_each(
        *(rng, prompts, owner, codes[owner, number], decode(codes)[owner, number], world),
        readings=[Reading(made[p][k].items) for p, k in zip(owner, number, strict=True)],
    )
    place = np.full(there.shape, -1)
    place[owner[kept], number[kept]] = np.arange(len(kept))
    mends = np.full(there.shape, -1)
    mends[:, 1 : 1 + NEAR] = place[:, 1 + NEAR :]
    return cache.packed(dataclasses.replace(groups, mended=mends[owner[kept], number[kept]]))


def draws(rng, prompts, encode, room: int, side: int, world: World = SHIPPED) -> cache.Groups:
    """Groups of one right picture each, to learn drawing from: objects stand in the order in which the prompt names
    them, so that the number of objects already drawn says which one comes next. Arguments as of `judged`, K = 1."""
    readings, pictures = [], np.zeros((room, 1, side, side, 3), np.uint8)
    for p, prompt in enumerate(prompts):
        shown = _right(rng, text.parse(prompt, world), world, True)
        readings.append(Reading(shown.items))
        pictures[p, 0] = render(shown, side, rng, world)
    owner = np.arange(len(prompts))
    codes, pictures = encode(pictures)[owner, 0], pictures[owner, 0]
    return cache.packed(labels.label_each(rng, prompts, owner, codes, pictures, world, readings)[0])


def _without(rng, shape, void, world) -> Scene:
    """A near miss of an edit that shows nothing held out, and not that shape."""
    while True:
        miss = edit_pairs.near_miss(rng, void, world)
        if shape not in {item.shape for item in miss.items} and not text.shows_held_out(Reading(miss.items), world):
            return miss


def voids(rng, edits, encode, decode, room: int, side: int, world: World = SHIPPED) -> cache.Groups:
    """Groups of edits of a shape that their pictures do not show (edit_pairs.void_edit): the source, which is what
    comes out, and a near miss of it, which shows no such shape either. Arguments as of `judged`, K = 2."""
    pictures, shown, said = np.zeros((room, 2, side, side, 3), np.uint8), [], []
    for p, void in enumerate(edits):
        there = {item.shape for item in void.source.items}
        absent = next(noun.shape for noun in void.nouns if noun.shape not in there)
        miss = _without(rng, absent, void, world)
        source, _, missed = edit.draw(void, side, rng, (miss,), world)
        pictures[p] = source, missed
        shown += [Reading(void.source.items), Reading(miss.items)]
        said += [f"Yes, there is no {absent}.", f"No, there is no {absent}, and something has changed."]
    codes, count = encode(pictures), len(edits)
    return cache.packed(
        cache.Groups(
            prompts=[void.instruction for void in edits],
            start=np.arange(0, 2 * count + 1, 2),
            codes=codes[:count].reshape(2 * count, -1),
            pixels=decode(codes)[:count].reshape(2 * count, side, side, 3),
            score=np.tile(np.array([1, 0], np.float32), count),
            reasons=said,
            captions=[reasons.caption(reading, world) for reading in shown],
            source=np.arange(0, 2 * count, 2),
        )
    )
