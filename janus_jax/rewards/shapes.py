"""The embedded world's judge: the verifier, which reads pictures."""

import numpy as np

from janus_jax.shapes import text, verify


class ShapesJudge:
    """Calls give (rewards, right) for trajectories: per trajectory a list of R_QA in [0, 1], and a list of bools,
    one per picture. Raises ValueError for a prompt that is not of this world."""

    def __call__(self, trajectories):
        rewards, right = [], []
        for t in trajectories:
            ask = text.parse(t.prompt)
            readings = [verify.read(np.asarray(shot.image)) for shot in t.rounds]
            rewards.append([verify.score(ask, reading) for reading in readings])
            right.append([verify.matches(ask, reading) for reading in readings])
        return rewards, right
