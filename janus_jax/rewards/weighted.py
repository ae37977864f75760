"""A weighted sum of judges."""

from collections.abc import Sequence

import numpy as np

from janus_jax.rewards.judge import Judge, Judged


def make_judge(parts: Sequence[tuple[float, Judge]]) -> Judge:
    """The judge whose scores are sum of weight x score over the parts, one after the other. A reward is missing where
    any part's is; parts of weight 0 are not asked. Weights are taken as they are: where a verdict is compared with the
    reward, they should sum to 1. Raises ValueError where all weights are 0."""
    parts = [(weight, part) for weight, part in parts if weight]
    if not parts:
        raise ValueError("a weighted judge needs a part with a weight other than 0")

    def judge(prompts, images) -> Judged:
        judged = [part(prompts, images) for _, part in parts]
        scores = sum(
            weight * np.asarray(one.scores, np.float64) for (weight, _), one in zip(parts, judged, strict=True)
        )
        errors = tuple(next(filter(None, each), "") for each in zip(*(one.errors for one in judged), strict=True))
        return Judged(np.asarray(scores, np.float32), errors)

    return judge
