"""Rewards that may be missing."""

import threading
import time

import numpy as np
import pytest
from test_credit import made

from janus_jax.rewards.judge import Judged
from janus_jax.rewards.pending import Pending, appraise

TRAJECTORIES = [made(False, True), made(True), made(False, False)]


class Flaky:
    """Gives the number of the picture as its score; fails for some, the first times it is asked."""

    def __init__(self, fails: dict[int, int]):
        self.pictures = [shot.image for t in TRAJECTORIES for shot in t.rounds]
        self.fails, self.asked = dict(fails), []

    def __call__(self, prompts, images):
        numbers = [next(i for i, own in enumerate(self.pictures) if own is image) for image in images]
        self.asked.append(numbers)
        assert prompts == ["two red circles"] * len(numbers)
        scores, errors = [], []
        for n in numbers:
            failing = self.fails.get(n, 0) > 0
            self.fails[n] = self.fails.get(n, 0) - 1
            scores.append(np.nan if failing else n / 10)
            errors.append("503" if failing else "")
        return Judged(np.array(scores, np.float32), tuple(errors))


def test_rewards_go_to_their_pictures():
    judge = Flaky({2: 1})
    rewards = appraise(judge, TRAJECTORIES)
    np.testing.assert_allclose(np.concatenate(rewards), [0, 0.1, np.nan, 0.3, 0.4], atol=1e-6)
    assert [len(r) for r in rewards] == [2, 1, 2] and len(judge.asked) == 1


def test_asks_again_about_what_is_missing_alone():
    judge, lines = Flaky({0: 1, 1: 2, 4: 9}), []
    rewards = appraise(judge, TRAJECTORIES, most_missing=0.2, pause_s=0, tell=lines.append)
    assert judge.asked == [[0, 1, 2, 3, 4], [0, 1, 4], [1, 4]]  # one of five may stay unknown
    np.testing.assert_allclose(np.concatenate(rewards), [0, 0.1, 0.2, 0.3, np.nan], atol=1e-6)
    assert [line.split(" rewards")[0] for line in lines] == ["3 of 5", "2 of 5"]
    assert all("503" in line and "\n" not in line for line in lines)


def test_stops_while_it_waits():
    asked = Flaky({0: 9})
    assert (
        appraise(asked, TRAJECTORIES, most_missing=0.0, pause_s=60, stop=lambda: True, tell=lambda line: None) is None
    )
    assert len(asked.asked) == 1


def test_pending_is_the_same_and_lets_others_work():
    go = threading.Event()
    flaky = Flaky({0: 1, 1: 2, 4: 9})

    def judge(prompts, images):
        assert go.wait(10) and threading.current_thread() is not threading.main_thread()
        return flaky(prompts, images)

    lines = []
    pending = Pending(judge, TRAJECTORIES, most_missing=0.2, pause_s=0)
    assert not flaky.asked  # nothing has waited for it
    go.set()
    rewards = pending.wait(tell=lambda line: lines.append((line, threading.current_thread())))
    np.testing.assert_allclose(np.concatenate(rewards), [0, 0.1, 0.2, 0.3, np.nan], atol=1e-6)
    assert [line.split(" rewards")[0] for line, _ in lines] == ["3 of 5", "2 of 5"]
    assert {thread for _, thread in lines} == {threading.main_thread()}


def test_pending_gives_up_at_once():
    """A signal does not wait for a judge that takes its time; what the judge raises is raised where it is awaited."""
    pending = Pending(lambda prompts, images: time.sleep(30), TRAJECTORIES)
    begin = time.monotonic()
    assert pending.wait(stop=lambda: True) is None and time.monotonic() - begin < 5

    def broken(prompts, images):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Pending(broken, TRAJECTORIES).wait()
