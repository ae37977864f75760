"""Rewards of a rollout whose pictures several hosts judge."""

import threading
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from trajectories import made, rollout_of

from janus_jax.errors import UserError
from janus_jax.rewards.judge import Judged
from janus_jax.rl import rewards

ROLLOUT = rollout_of([made(False, True), made(True), made(True)])
SHARES = (3, 1)  # pictures of each of two hosts: those of trajectories 0 and 2, and of 1
ODD = ("preserving", "following the\ninstruction", "Treue ü", "x" * 300)


@pytest.fixture
def of_hosts(monkeypatch):
    """of_hosts(a Judged for each host, weights) -> what of_all gives each, or the line with which it refuses."""

    def of_hosts(*judged, weights):
        here, meet, sent = threading.local(), threading.Barrier(len(judged), timeout=20), [None] * len(judged)

        def gathered(values):
            sent[here.index] = np.asarray(values)
            meet.wait()
            every = np.stack(sent)
            meet.wait()
            return every

        def one(index):
            here.index = index
            try:
                return rewards.of_all(ROLLOUT, judged[index], weights)
            except UserError as error:
                return str(error)

        of_jax = {"process_index": lambda: here.index, "process_count": lambda: len(judged)}
        monkeypatch.setattr(rewards, "jax", types.SimpleNamespace(**of_jax))
        monkeypatch.setattr(rewards, "agree", types.SimpleNamespace(gathered=gathered))
        with ThreadPoolExecutor(len(judged)) as hosts:
            return list(hosts.map(one, range(len(judged))))

    return of_hosts


def scores(host, names):
    return {name: np.arange(SHARES[host]) + 10.0 * host + 100.0 * ODD.index(name) for name in names}


def test_any_names_in_any_order(of_hosts):
    weights = {name: 1.0 for name in ODD}
    first, second = of_hosts(Judged(scores(0, ODD)), Judged(scores(1, ODD[::-1])), weights=weights)
    assert list(first.scores) == list(second.scores) == sorted(ODD)
    for name in ODD:
        base = 100.0 * ODD.index(name)
        expected = [[base, base + 1], [base + 10, np.nan], [base + 2, np.nan]]
        np.testing.assert_array_equal(first.scores[name], expected)
        np.testing.assert_array_equal(second.scores[name], expected)
    np.testing.assert_array_equal(first.total, second.total)


def test_a_host_without_pictures_learns_the_names(of_hosts):
    each = of_hosts(Judged(scores(0, ODD[:1])), Judged({}), weights={})
    assert [list(one.scores) for one in each] == [[ODD[0]]] * 2


def test_different_judges(of_hosts):
    lines = of_hosts(Judged(scores(0, ODD[:2])), Judged(scores(1, ODD[2:3])), weights={})
    assert lines[0] == lines[1] and "\n" not in lines[0]
    assert r'different scores ("Treue ü"; "following the\ninstruction", "preserving"): use one judge' in lines[0]
