"""Weights of stage 2's tokens from the columns of their advantages."""

import numpy as np
import pytest
from tiny import I, grammar
from trajectories import made, rollout_of

from janus_jax.rl.batches import layout, make
from janus_jax.rl.credit import CREDITS
from janus_jax.rl.objective import make_prepare


@pytest.mark.parametrize("kind", CREDITS)
def test_weights_by_hand(kind):
    """A third of the weight for each segment, later pictures being one; or the same for all tokens of a trajectory."""
    credit = CREDITS[kind]
    rounds = credit.rounds or 3
    trajectories = [made(*[False] * rounds), made(False, True)]
    shapes = layout(credit, grammar(), len(grammar().prompt(trajectories[0].request)[0]), rounds, 3)
    painter, judge = make_prepare(credit.per)(make(credit, rollout_of(trajectories, rounds), grammar(), shapes, 16))
    codes, words = np.asarray(painter.codes.weight), np.asarray(judge.text.weight)
    for row, t in enumerate(trajectories):
        judged = credit.judged or len(t.rounds)
        first, later, said = codes[row, :I], codes[row, I : len(t.rounds) * I], words[row, : 3 * judged]
        if credit.per == "segment":  # of each a mean over two trajectories
            for part in (first, later, said):
                np.testing.assert_allclose(part, 0.5 / 3 / part.size, rtol=1e-5)
        else:
            each = 0.5 / (len(t.rounds) * I + 3 * judged)
            np.testing.assert_allclose(np.concatenate([first, later, said]), each, rtol=1e-5)
        assert not codes[row, len(t.rounds) * I :].any() and not words[row, 3 * judged :].any()
