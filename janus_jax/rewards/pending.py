"""Scores from a judge that may fail: what is missing is NaN, and too much of it stops the clock."""

import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from janus_jax.errors import UserError
from janus_jax.rewards.judge import Judge, Judged
from janus_jax.sequences.request import Request


def _tell(line):
    print(line, file=sys.stderr, flush=True)


def appraise(
    judge: Judge,
    requests: Sequence[Request],
    pictures: Sequence[Image.Image],
    most_missing: float = 1.0,
    pause_s: float = 60.0,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = _tell,
) -> Judged | None:
    """The scores of N pictures, each with its request: name -> f32[N], NaN where the judge gave none; of no pictures
    no names (of many processes some may have none).

    While more than the share `most_missing` of the pictures lacks a score, says so in one line, waits `pause_s`
    seconds, and asks again about those. Returns None where stop() became true before enough was known. Raises UserError
    where the judge gives other names when it is asked again.
    """
    count, scores = len(pictures), {}
    errors, missing = np.full(count, "", object), np.arange(count)
    while len(missing):
        judged = judge([requests[i] for i in missing], [pictures[i] for i in missing])
        scores = scores or {name: np.full(count, np.nan, np.float32) for name in judged}
        if set(judged) != set(scores):
            raise UserError(f"the judge gave {', '.join(scores)} first and {', '.join(judged)} then: give the same")
        for name, values in judged.items():
            scores[name][missing] = values
        errors[missing] = judged.errors
        missing = missing[~judged.valid]
        if len(missing) <= most_missing * count:
            break
        tell(
            f"{len(missing)} of {count} rewards are missing ({judged.first_error}); "
            f"training waits and asks again in {pause_s:g} s"
        )
        end = time.monotonic() + pause_s
        while time.monotonic() < end and not stop():
            time.sleep(min(1.0, max(end - time.monotonic(), 0.0)))
        if stop():
            return None
    return Judged(scores, errors)


class Pending:
    """`appraise`, or several of them, under way in a thread of its own, so that there is something else to do
    meanwhile, and so that a signal need not wait for a judge's retries; the thread ends with the process."""

    def __init__(self, ask: Callable):
        """ask(stop, tell) -> the scores, or None where stop() became true before, as `appraise` has it."""
        self._ask = ask
        self._said, self._outcome = queue.SimpleQueue(), queue.SimpleQueue()
        self._abandoned = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        try:
            self._outcome.put((self._ask(self._abandoned.is_set, self._said.put), None))
        except BaseException as error:  # raised again where it is waited for
            self._outcome.put((None, error))

    def poll(self, seconds: float = 0.1):
        """(the scores, or None where they are not there after so long; lines that were said meanwhile). Not again once
        the scores are there."""
        try:
            scores, error = self._outcome.get(timeout=seconds)
        except queue.Empty:
            scores = error = None
        said = []
        while not self._said.empty():
            said.append(self._said.get())
        if error is not None:
            raise error
        return scores, said

    def abandon(self) -> None:
        """Lets the thread end at its next look."""
        self._abandoned.set()

    def wait(self, stop: Callable[[], bool] = lambda: False, tell: Callable[[str], None] = _tell):
        """The scores, once they are there; None where stop() became true before. tell(line) is called
        in this thread. Once only."""
        while True:
            scores, said = self.poll()
            for line in said:
                tell(line)
            if scores is not None:
                return scores
            if stop():
                self.abandon()
                return None
