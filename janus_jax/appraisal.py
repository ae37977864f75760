"""Rewards of trajectories from a judge that may fail: what is missing is NaN, and too much of it stops the clock."""

import sys
import time
from collections.abc import Callable

import numpy as np

from janus_jax.rewards.judged import Judge


def _tell(line):
    print(line, file=sys.stderr, flush=True)


def appraise(
    judge: Judge,
    trajectories,
    most_missing: float = 1.0,
    pause_s: float = 60.0,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = _tell,
) -> list[np.ndarray] | None:
    """Rewards f32[rounds] of each trajectory, one per picture, NaN where the judge gave none.

    While more than the share `most_missing` of them is missing, says so in one line, waits `pause_s` seconds, and asks
    again about those. Returns None where stop() became true before enough was known.
    """
    shots = [(t.prompt, shot.image) for t in trajectories for shot in t.rounds]
    scores = np.full(len(shots), np.nan, np.float32)
    while True:
        missing = np.flatnonzero(np.isnan(scores))
        judged = judge([shots[i][0] for i in missing], [shots[i][1] for i in missing])
        scores[missing] = judged.scores
        failed = np.isnan(scores).sum()
        if failed <= most_missing * len(scores):
            break
        tell(
            f"{failed} of {len(scores)} rewards are missing ({judged.first_error}); "
            f"training waits and asks again in {pause_s:g} s"
        )
        end = time.monotonic() + pause_s
        while time.monotonic() < end and not stop():
            time.sleep(min(1.0, max(end - time.monotonic(), 0.0)))
        if stop():
            return None
    return np.split(scores, np.cumsum([len(t.rounds) for t in trajectories])[:-1])
