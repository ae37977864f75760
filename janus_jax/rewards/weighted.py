"""A weighted sum of judges."""

from collections.abc import Mapping, Sequence

import numpy as np

from janus_jax.errors import UserError
from janus_jax.rewards.judge import MATCH, Judge, Judged, are_edits, combine, of_task


def make_judge(parts: Sequence[tuple[float, Judge, Mapping[str, float]]]) -> Judge:
    """The judge whose scores are the sum of weight x score over the parts (weight, judge, weights of its scores), one
    after the other.

    A part with weights of its own counts as the one score that they make of it, "match"; of others each score is summed
    under its name, so that edits keep "following" and "preserving" for the weights of the whole. Parts of weight 0 are
    not asked. Weights are taken as they are: where a verdict is compared with the reward, they should sum to 1. Raises
    ValueError where all are 0; the judge, UserError where the parts' names differ."""
    parts = [part for part in parts if part[0]]
    if not parts:
        raise ValueError("a weighted judge needs a part with a weight other than 0")

    def judge(requests, pictures) -> Judged:
        edits, asked = are_edits(requests), [part(requests, pictures) for _, part, _ in parts]
        named = [
            {MATCH: combine(judged, of_task(weights, judged, edits))} if weights else judged
            for judged, (*_, weights) in zip(asked, parts, strict=True)
        ]
        names = list(named[0])
        if any(set(scores) != set(names) for scores in named):
            raise UserError(
                f"the parts of the reward give different scores ({'; '.join(', '.join(one) for one in named)}): give "
                "each part weights, which make one of them"
            )
        sums = {
            name: sum(
                weight * np.asarray(one[name], np.float64) for (weight, *_), one in zip(parts, named, strict=True)
            )
            for name in names
        }
        errors = [next(filter(None, each), "") for each in zip(*(one.errors for one in asked), strict=True)]
        return Judged(sums, errors)

    return judge
