"""Retention of judging: how often the model's verdicts on a fixed set of labelled pictures are right, while it is
trained to draw. The pictures are the embedded world's or a file's, not the model's own, so that a change of the figure
is a change of the judge.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from janus_jax.data.pairs import read_pairs
from janus_jax.parallel import shards
from janus_jax.sampling import decode
from janus_jax.sampling.answer import yes_probabilities
from janus_jax.sequences import images
from janus_jax.sequences.request import Request
from janus_jax.shapes import render, scene, text, verify

BATCH = 128  # pictures that are judged at a time


class Labelled(NamedTuple):
    """Pictures with what was asked for, and the truth: whether each is that, bool[N]."""

    prompts: list[str | Request]
    images: list[Image.Image]
    right: np.ndarray


def labelled_pictures(model, params, count: int, seed: int = 0) -> Labelled:
    """`count` prompts of the embedded world's training side, each with a right picture and a near miss, as the model's
    tokenizer reproduces them; the verifier labels what came out."""
    rng = np.random.default_rng(seed)
    side = model.cfg.vq.image_size
    prompts, pixels = [], []
    for _ in range(count):
        prompt = text.train_prompt(rng)
        for compose in (scene.compose, scene.near_miss):
            prompts.append(prompt)
            pixels.append(render.render(compose(rng, text.parse(prompt)), side, rng))
    codes = decode.encode_codes(model, params, np.stack(pixels) / np.float32(127.5) - 1)
    pixels = images.to_uint8(shards.whole(decode.decode_codes(model, params, codes)))
    right = [verify.matches(text.parse(p), verify.read(x)) for p, x in zip(prompts, pixels, strict=True)]
    return Labelled(prompts, [Image.fromarray(x) for x in pixels], np.array(right))


def listed_pictures(path) -> Labelled:
    """The labelled pictures of a file, see data/pairs.py. Raises UserError where it is none."""
    pairs = read_pairs(path, label="right")
    right = np.array([pair.right for pair in pairs])
    return Labelled([pair.request() for pair in pairs], [images.read(pair.image) for pair in pairs], right)


def retention(model, params, processor, labelled: Labelled) -> float:
    """Balanced accuracy of the verdicts, the more probable word of {Yes, No}: the mean over right and over wrong
    pictures, 0.5 by chance."""
    prompts = labelled.prompts
    p_yes = yes_probabilities(model, params, processor, labelled.images, prompts, batch=min(len(prompts), BATCH))
    agrees = (p_yes > 0.5) == labelled.right
    return float(np.mean([agrees[labelled.right].mean(), agrees[~labelled.right].mean()]))
