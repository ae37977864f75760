"""Pairs of a right and a wrong picture of the embedded world, to try a judge with."""

import numpy as np
from PIL import Image

from janus_jax.errors import UserError
from janus_jax.rewards import shapes
from janus_jax.rewards.judge import WHOLE
from janus_jax.sequences.request import Request
from janus_jax.shapes import edit, text
from janus_jax.shapes.render import render
from janus_jax.shapes.scene import Scene, compose, near_miss
from janus_jax.shapes.verify import Reading, matches

SIDE = 256  # pixels: enough for any judge's eye
PAIRS = 24  # of a right and a wrong picture for the same request


def drawings(seed: int = 0):
    """(requests, pictures) of PAIRS pairs, a right picture at the even places and a wrong one after it."""
    rng = np.random.default_rng(seed)
    requests, pictures = [], []
    while len(requests) < 2 * PAIRS:
        prompt = text.train_prompt(rng, text.CATEGORIES[len(requests) // 2 % len(text.CATEGORIES)])
        ask = text.parse(prompt)
        right, wrong = compose(rng, ask), near_miss(rng, ask)
        if matches(ask, Reading(wrong.items)):  # an uncoloured prompt forgives a change of colour, for one
            continue
        requests += [Request(prompt)] * 2
        pictures += [Image.fromarray(render(scene, SIDE, rng)) for scene in (right, wrong)]
    return requests, pictures


def edits(seed: int = 0):
    """The same of edits, the right picture of a pair the true target. The wrong one of the first half of the pairs is
    the source as it was, which follows nothing; of the second half the target without an object that the instruction
    has no business with."""
    rng = np.random.default_rng(seed)
    requests, pictures = [], []
    while len(requests) < 2 * PAIRS:
        kind = edit.KINDS[len(requests) // 2 % len(edit.KINDS)]
        asked = edit.random_edit(rng, kind)
        source, right = edit.draw(asked, SIDE, rng)
        wrong = source
        if len(requests) >= PAIRS:
            others = [item for item in asked.target.items if item in asked.source.items]
            if not others:
                continue
            kept = tuple(item for item in asked.target.items if item is not others[0])
            wrong = render(Scene(kept, asked.target.background), SIDE, rng)
        pair = [Image.fromarray(pixels) for pixels in (right, wrong)]
        twice = [Request(asked.instruction, Image.fromarray(source))] * 2
        try:
            judged = shapes.judge(twice, pair)
        except UserError:  # what touches in the source cannot be told apart
            continue
        if judged[WHOLE][0] == 1 > judged[WHOLE][1]:
            requests += twice
            pictures += pair
    return requests, pictures
