"""Rewards of trajectories from a judge that may fail: what is missing is NaN, and too much of it stops the clock."""

import functools
import queue
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

from janus_jax.rewards.judge import Judge


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
    if not trajectories:  # of many processes some have none
        return []
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


class Pending:
    """`appraise` under way in a thread of its own, so that there is something else to do meanwhile, and so that a
    signal need not wait for a judge's retries; the thread ends with the process."""

    def __init__(self, judge: Judge, trajectories, most_missing: float = 1.0, pause_s: float = 60.0):
        self._ask = functools.partial(appraise, judge, trajectories, most_missing, pause_s)
        self._said, self._outcome = queue.SimpleQueue(), queue.SimpleQueue()
        self._abandoned = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        try:
            self._outcome.put((self._ask(self._abandoned.is_set, self._said.put), None))
        except BaseException as error:  # raised again where it is waited for
            self._outcome.put((None, error))

    def poll(self, seconds: float = 0.1):
        """(rewards, or None where they are not there after so long; lines that were said meanwhile). Not again
        once the rewards are there."""
        try:
            rewards, error = self._outcome.get(timeout=seconds)
        except queue.Empty:
            rewards = error = None
        said = []
        while not self._said.empty():
            said.append(self._said.get())
        if error is not None:
            raise error
        return rewards, said

    def abandon(self) -> None:
        """Lets the thread end at its next look."""
        self._abandoned.set()

    def wait(self, stop: Callable[[], bool] = lambda: False, tell: Callable[[str], None] = _tell):
        """The rewards as of `appraise`, once they are there; None where stop() became true before. tell(line) is called
        in this thread. Once only."""
        while True:
            rewards, said = self.poll()
            for line in said:
                tell(line)
            if rewards is not None:
                return rewards
            if stop():
                self.abandon()
                return None
