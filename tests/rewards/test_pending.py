"""Scores that may be missing."""

import functools
import threading
import time

import numpy as np
import pytest
from PIL import Image

from janus_jax.errors import UserError
from janus_jax.rewards.judge import Judged
from janus_jax.rewards.pending import Pending, appraise
from janus_jax.sequences.request import Request

PICTURES = [Image.new("RGB", (2, 2)) for _ in range(5)]
REQUESTS = [Request(f"prompt {n}") for n in range(5)]


class Flaky:
    """Gives the number of the picture as its score; fails for some, the first times it is asked."""

    def __init__(self, fails: dict[int, int]):
        self.fails, self.asked = dict(fails), []

    def __call__(self, requests, pictures):
        numbers = [next(i for i, own in enumerate(PICTURES) if own is picture) for picture in pictures]
        self.asked.append(numbers)
        assert [request.prompt for request in requests] == [f"prompt {n}" for n in numbers]
        match, errors = [], []
        for n in numbers:
            failing = self.fails.get(n, 0) > 0
            self.fails[n] = self.fails.get(n, 0) - 1
            match.append(np.nan if failing else n / 10)
            errors.append("503" if failing else "")
        return Judged({"match": match, "sure": [1.0] * len(numbers)}, errors)


def test_scores_go_to_their_pictures():
    judge = Flaky({2: 1})
    scores = appraise(judge, REQUESTS, PICTURES)
    assert list(scores) == ["match", "sure"] and scores["match"].dtype == np.float32
    np.testing.assert_allclose(scores["match"], [0, 0.1, np.nan, 0.3, 0.4], atol=1e-6)
    np.testing.assert_allclose(scores["sure"], np.ones(5))
    assert len(judge.asked) == 1 and scores.missing == 1 and scores.errors == ("", "", "503", "", "")


def test_of_no_pictures_nothing_is_asked():
    judge = Flaky({})
    assert appraise(judge, [], []) == {} and not judge.asked


def test_asks_again_about_what_is_missing_alone():
    judge, lines = Flaky({0: 1, 1: 2, 4: 9}), []
    scores = appraise(judge, REQUESTS, PICTURES, most_missing=0.2, pause_s=0, tell=lines.append)
    assert judge.asked == [[0, 1, 2, 3, 4], [0, 1, 4], [1, 4]]  # one of five may stay unknown
    np.testing.assert_allclose(scores["match"], [0, 0.1, 0.2, 0.3, np.nan], atol=1e-6)
    assert [line.split(" rewards")[0] for line in lines] == ["3 of 5", "2 of 5"]
    assert all("503" in line and "\n" not in line for line in lines)


def test_a_judge_keeps_to_its_names():
    names = iter(["match", "quality"])

    def judge(requests, pictures):
        return Judged({next(names): [np.nan] * len(requests)})

    with pytest.raises(UserError, match="gave match first and quality then"):
        appraise(judge, REQUESTS, PICTURES, most_missing=0.0, pause_s=0, tell=lambda line: None)


def test_stops_while_it_waits():
    asked, quiet = Flaky({0: 9}), {"stop": lambda: True, "tell": lambda line: None}
    assert appraise(asked, REQUESTS, PICTURES, most_missing=0.0, pause_s=60, **quiet) is None
    assert len(asked.asked) == 1


def test_pending_is_the_same_and_lets_others_work():
    go = threading.Event()
    flaky = Flaky({0: 1, 1: 2, 4: 9})

    def judge(requests, pictures):
        assert go.wait(10) and threading.current_thread() is not threading.main_thread()
        return flaky(requests, pictures)

    lines = []
    pending = Pending(functools.partial(appraise, judge, REQUESTS, PICTURES, 0.2, 0))
    assert not flaky.asked  # nothing has waited for it
    go.set()
    scores = pending.wait(tell=lambda line: lines.append((line, threading.current_thread())))
    np.testing.assert_allclose(scores["match"], [0, 0.1, 0.2, 0.3, np.nan], atol=1e-6)
    assert [line.split(" rewards")[0] for line, _ in lines] == ["3 of 5", "2 of 5"]
    assert {thread for _, thread in lines} == {threading.main_thread()}


def test_pending_gives_up_at_once():
    """A signal does not wait for a judge that takes its time; what the judge raises is raised where it is awaited."""
    pending = Pending(lambda stop, tell: time.sleep(30))
    begin = time.monotonic()
    assert pending.wait(stop=lambda: True) is None and time.monotonic() - begin < 5

    def broken(stop, tell):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Pending(broken).wait()
