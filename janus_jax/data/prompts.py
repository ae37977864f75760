"""Prompts of stage 2 from a file, one per line, in an order that is a function of (seed, step) alone (numpy)."""

import numpy as np

from janus_jax.data import records
from janus_jax.errors import UserError


def read_prompts(path, most_bad: float = records.MOST_BAD) -> list[str]:
    """The lines of a UTF-8 file, stripped, without empty ones; see records.lines. most_bad: the share of lines that may
    be no text. Raises UserError where there are none."""
    tally = records.Tally(path, most_bad)
    prompts = records.read(path, str.strip, tally)
    tally.close()
    if not prompts:
        raise UserError(f"{path} holds no prompt: write one per line")
    return prompts


def of_step(total: int, count: int, seed: int, step: int) -> list[int]:
    """Which of `total` prompts step `step` takes: `count` numbers. Steps one after another go through a permutation of
    all prompts, then through another one, and so on."""
    numbers = range(step * count, (step + 1) * count)
    orders = {epoch: _order(total, seed, epoch) for epoch in {number // total for number in numbers}}
    return [int(orders[number // total][number % total]) for number in numbers]


def _order(total, seed, epoch):
    return np.random.default_rng([seed, epoch]).permutation(total)
