"""Retention of what a model understands while it is trained to draw: how often its verdicts on a fixed set of labelled
pictures are right, and its answers to questions about pictures. The pictures are the embedded world's or a file's, not
the model's own, so that a change of the figure is a change of the judge.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from janus_jax.data.pairs import read_pairs
from janus_jax.errors import UserError
from janus_jax.parallel import shards
from janus_jax.sampling import decode
from janus_jax.sampling.answer import chat, yes_probabilities
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.rounds import TEXT_STEP, bucket
from janus_jax.sequences import images
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.request import Request, as_requests
from janus_jax.shapes import questions, render, scene, text, verify
from janus_jax.shapes.world import SHIPPED, World

BATCH = 128  # pictures that are judged at a time
GREEDY = Sampling(text_top_k=1, max_reason_tokens=questions.LONGEST_ANSWER)
SYSTEM = ""  # as the embedded world's models are taught


class Labelled(NamedTuple):
    """Pictures with what was asked for, and the truth: whether each is that, bool[N]; categories: those of the embedded
    world's prompts."""

    prompts: list[str | Request]
    images: list[Image.Image]
    right: np.ndarray
    categories: list[str] | None = None


def labelled_pictures(model, params, count: int, seed: int = 0, world: World = SHIPPED) -> Labelled:
    """`count` prompts of the embedded world's training side, each with a right picture and a near miss, as the model's
    tokenizer reproduces them; the verifier labels what came out."""
    rng = np.random.default_rng(seed)
    side = model.cfg.vq.image_size
    prompts, pixels = [], []
    for _ in range(count):
        prompt = text.train_prompt(rng, world=world)
        for compose in (scene.compose, scene.near_miss):
            prompts.append(prompt)
            pixels.append(render.render(compose(rng, text.parse(prompt, world), world), side, rng, world))
    codes = decode.encode_codes(model, params, np.stack(pixels) / np.float32(127.5) - 1)
    pixels = images.to_uint8(shards.whole(decode.decode_codes(model, params, codes)))
    asks = [text.parse(prompt, world) for prompt in prompts]
    right = [verify.matches(ask, verify.read(x, world)) for ask, x in zip(asks, pixels, strict=True)]
    return Labelled(prompts, [Image.fromarray(x) for x in pixels], np.array(right), [ask.category for ask in asks])


def listed_pictures(path) -> Labelled:
    """The labelled pictures of a file, see data/pairs.py. Raises UserError where it is none."""
    pairs = read_pairs(path, label="right")
    right = np.array([pair.right for pair in pairs])
    return Labelled([pair.request() for pair in pairs], [images.read(pair.image) for pair in pairs], right)


def check_lengths(model, processor, labelled: Labelled) -> None:
    """Raises UserError for the first prompt that is too long for the model to be judged, before its step comes."""
    grammar, there = Grammar.of(model.cfg, processor.tokenizer), model.cfg.llama.max_positions
    for number, request in enumerate(as_requests(labelled.prompts), 1):
        length = sum(map(len, grammar.prompt(request)))
        need = bucket(grammar.longest_judged(length, 1, 0, int(request.source is not None)), TEXT_STEP) + 1
        if need > there:
            raise UserError(
                f"picture {number} of config.retention_pairs has a prompt of {length} tokens: judging takes {need} "
                f"positions, the model has {there}; shorten it"
            )


def retention(model, params, processor, labelled: Labelled) -> dict[str, float]:
    """Balanced accuracy of the verdicts, the more probable word of {Yes, No}: {"retention": the mean over right and
    over wrong pictures, 0.5 by chance}, and of the embedded world's prompts {"retention_CATEGORY"} of each category
    that has both."""
    prompts = labelled.prompts
    p_yes = yes_probabilities(model, params, processor, labelled.images, prompts, batch=min(len(prompts), BATCH))
    agrees, right = (p_yes > 0.5) == labelled.right, labelled.right

    def balanced(some):
        return float(np.mean([agrees[some & right].mean(), agrees[some & ~right].mean()]))

    values = {"retention": balanced(np.ones(len(prompts), bool))}
    for name in dict.fromkeys(labelled.categories or ()):
        some = np.array(labelled.categories) == name
        if (some & right).any() and (some & ~right).any():
            values[f"retention_{name}"] = balanced(some)
    return values


def held_out_questions(
    per_kind: int, side: int, seed: int = 0, world: World = SHIPPED
) -> list[tuple[questions.Question, Image.Image]]:
    """Held-out questions with their pictures, `per_kind` of each kind in the order of KINDS. side: in pixels. The n-th
    of a kind is a function of (seed, kind, n)."""
    asked = []
    for number, kind in enumerate(questions.KINDS):
        for n in range(per_kind):
            rng = np.random.default_rng([seed, number, n])
            question, shown = questions.draw(rng, kind, held_out=True, world=world)
            asked.append((question, Image.fromarray(render.render(shown, side, rng, world))))
    return asked


def answers(model, params, processor, asked, batch: int = BATCH, seed: int = 0) -> list[str]:
    """What a model answers to questions with their pictures, as of held_out_questions; batch: at a time."""
    pairs = [([picture], question.text) for question, picture in asked]
    return chat(model, params, processor, pairs, GREEDY, seed, batch, system=SYSTEM)


def answered(model, params, processor, asked, world: World = SHIPPED) -> float:
    """The share of the questions that is answered right."""
    said = answers(model, params, processor, asked)
    right = [questions.right(question, answer, world) for (question, _), answer in zip(asked, said, strict=True)]
    return float(np.mean(right))
