"""Labels of pictures of the embedded world: the verifier's score, a truthful reason and a caption.

`readings` says what the pictures show, where the scenes that they were rendered from are known; otherwise the verifier
reads them, which takes up to three times as long as to render, encode and decode them together.
"""

from collections.abc import Sequence

import numpy as np

from janus_jax.data import cache
from janus_jax.shapes import edit, edit_reason, reasons, text, verify
from janus_jax.shapes.verify import Reading
from janus_jax.shapes.world import SHIPPED, World


def label(rng, prompts, codes, pixels, world: World = SHIPPED) -> cache.Groups:
    """Scores and explains decoded pictures u8[P, K, h, w, 3] with codes i32[P, K, I]; pictures that show a held-out
    combination are left out."""
    return _groups(prompts, _judges(rng, prompts, world), *_flat(codes, pixels), world)[0]


def label_each(
    rng, prompts, owner, codes, pixels, world: World = SHIPPED, readings: Sequence[Reading] | None = None
) -> tuple[cache.Groups, np.ndarray]:
    """The same of N pictures, of which the n-th is one of prompt owner[n], in ascending order: (groups, which of the N
    pictures are in them). readings: N, what the pictures show; None: the verifier reads them."""
    return _groups(prompts, _judges(rng, prompts, world), owner, codes, pixels, world, readings)


def label_edits(
    rng, instructions, sources, codes, pixels, world: World = SHIPPED, readings: Sequence[Reading] | None = None
) -> cache.Groups:
    """As `label`, of edits of source pictures u8[P, h, w, 3]. An instruction has no pictures where its source does not
    show what it is about, or shows what is held out. readings: P x K of them, flat; of each K the first is the
    source's."""
    each = codes.shape[1]

    def judge(p):
        source = verify.read(sources[p], world) if readings is None else readings[p * each]
        try:
            asked = edit.parse(str(instructions[p]), source, world)
        except ValueError:
            return None
        if text.shows_held_out(source, world) or not edit.applies(asked, source):
            return None
        return lambda reading: (
            edit.score(asked, source, reading),
            edit_reason.reason(rng, asked, source, reading, world),
        )

    judges = [judge(p) for p in range(len(instructions))]
    return _groups(instructions, judges, *_flat(codes, pixels), world, readings)[0]


def _judges(rng, prompts, world):
    def judge(prompt):
        ask = text.parse(str(prompt), world)
        return lambda reading: (verify.score(ask, reading), reasons.reason(rng, ask, reading, world))

    return [judge(prompt) for prompt in prompts]


def _flat(codes, pixels):
    """(the prompt of each picture, codes, pixels) of K pictures of each prompt."""
    P, K = codes.shape[:2]
    return np.repeat(np.arange(P), K), codes.reshape(P * K, -1), pixels.reshape(P * K, *pixels.shape[2:])


def _groups(prompts, judges, owner, codes, pixels, world, readings=None):
    """judges: of each prompt a function of a reading, which gives score and reason; None: no picture is kept."""
    kept, scores, texts, captions = [], [], [], []
    for n, p in enumerate(owner):
        if judges[p] is None:
            continue
        reading = verify.read(pixels[n], world) if readings is None else readings[n]
        if text.shows_held_out(reading, world):
            continue
        kept.append(n)
        score, reason = judges[p](reading)
        scores.append(score)
        texts.append(reason)
        captions.append(reasons.caption(reading, world))
    kept = np.array(kept, np.int64)
    counts = np.bincount(np.asarray(owner, np.int64)[kept], minlength=len(prompts))
    groups = cache.Groups(
        prompts=prompts,
        start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        codes=codes[kept].astype(np.int32),
        pixels=pixels[kept],
        score=np.array(scores, np.float32),
        reasons=texts,
        captions=captions,
    )
    return groups, kept
