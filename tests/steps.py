"""Batches of both stages on the tiny model, with what stage 1 makes of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from tiny import EOS, MODEL, NO, PAD, SEES, YES, I, codes, params, picture, processor

from janus_jax.sampling.density import Sampling
from janus_jax.sequences import tokens
from janus_jax.sequences.batch import DRAW, REASON, REDRAW, VERDICT
from janus_jax.sequences.row import Row, collate
from janus_jax.training import losses
from janus_jax.training.logps import token_logps

PLAIN = Sampling(cfg_weight=1.0)


def sft_batch():
    """Eight rows, uneven on purpose: a micro-batch of two may hold one trained word, or 32 codes, or both."""
    rows = []
    prompts = ["two red circles", "a blue square", "a green cross", "one red circle and one blue square"]
    for n in range(8):
        prompt = tokens.prompt_ids(processor().tokenizer, prompts[n % 4])
        row = Row()
        row.add_text(prompt)
        if n in (0, 1, 6):  # judge
            row.add_seen(picture(n), SEES)
            words = [YES if n else NO, *range(50, 50 + 3 * n), EOS][: 1 if n == 1 else None]
            row.add_text(words, [VERDICT, *[REASON] * (len(words) - 1)])
        elif n in (2, 5):  # redraw
            row.add_codes(codes(n))
            row.add_text([7, 60, 6])
            row.add_codes(codes(n + 10), REDRAW)
        else:
            row.add_codes(codes(n), DRAW)
        rows.append(row)
    return collate(rows, 64, PAD, text_targets=20, code_targets=I, pictures=1)


def sft_prepare(batch):
    weights = losses.sft_weights(
        [(t.weight, t.group) for t in (batch.text, batch.codes)], losses.sft_shares(10, 10, 15)
    )
    return batch._replace(text=batch.text._replace(weight=weights[0]), codes=batch.codes._replace(weight=weights[1]))


def sft_loss(outputs, batch):
    text, drawn = (losses.sft_loss(outputs[n], getattr(batch, n).weight) for n in ("text", "codes"))
    rarest = jnp.max(jnp.where(batch.codes.weight > 0, -outputs["codes"], 0.0))
    return text + drawn, {"text": text, "codes": drawn, "max_surprise": rarest}


def forward(params, batch):
    return token_logps(MODEL, params, batch, PLAIN)


def draw_batch(fields=()):
    """Eight draw rows of equal length."""
    prompt = tokens.prompt_ids(processor().tokenizer, "two red circles")
    rows = []
    for n in range(8):
        row = Row()
        row.add_text([*prompt[:3], 40 + n, *prompt[4:]])
        row.add_codes(codes(n), DRAW)
        rows.append(row)
    return collate(rows, len(rows[0]), PAD, code_targets=I, fields=fields)


@functools.cache
def draw_logps():
    return np.asarray(jax.jit(forward)(params(), draw_batch())["codes"])


def pg_batch(advantage):
    """The same rows as sampled ones, on policy: old log-probabilities are the model's own."""
    batch = draw_batch(("advantage", "old_logps", "ref_logps"))
    logps = draw_logps()
    advantage = np.broadcast_to(advantage, logps.shape).astype(np.float32)
    return batch._replace(codes=batch.codes._replace(advantage=advantage, old_logps=logps, ref_logps=logps))
