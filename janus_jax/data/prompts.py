"""Prompts of stage 2 from a file, one per line, in an order that is a function of (seed, step) alone (numpy)."""

from pathlib import Path

import numpy as np

from janus_jax.errors import UserError


def read_prompts(path) -> list[str]:
    """The lines of a UTF-8 file, stripped, without empty ones. Raises UserError where there are none."""
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeError) as error:
        raise UserError(f"cannot read the prompts {path} ({error}): set --config.prompts to a UTF-8 file") from error
    lines = [line for line in lines if line]
    if not lines:
        raise UserError(f"{path} holds no prompt: write one per line")
    return lines


def of_step(total: int, count: int, seed: int, step: int) -> list[int]:
    """Which of `total` prompts step `step` takes: `count` numbers. Steps one after another go through a permutation of
    all prompts, then through another one, and so on."""
    numbers = range(step * count, (step + 1) * count)
    orders = {epoch: _order(total, seed, epoch) for epoch in {number // total for number in numbers}}
    return [int(orders[number // total][number % total]) for number in numbers]


def _order(total, seed, epoch):
    return np.random.default_rng([seed, epoch]).permutation(total)
