"""Rewards of a rollout whose pictures several hosts judge."""

import dataclasses
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from trajectories import made, rollout_of

from janus_jax.errors import UserError
from janus_jax.rewards.judge import Judged
from janus_jax.rl import rewards
from janus_jax.sequences.request import Request

ROLLOUT = rollout_of([made(False, True), made(True), made(True)])
SHARES = (3, 1)  # pictures of each of two hosts: those of trajectories 0 and 2, and of 1
ODD = ("preserving", "following the\ninstruction", "Treue ü", "x" * 300)


@pytest.fixture
def of_hosts(monkeypatch):
    """of_hosts(a Judged, or one of each task, for each host, weights) -> what of_all gives each, or the line with which
    it refuses."""

    def of_hosts(*judged, weights, rollout=ROLLOUT):
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
                each = judged[index] if isinstance(judged[index], list) else [judged[index]]
                return rewards.of_all(rollout, each, weights)
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


def of_both():
    """Two trajectories that draw and two that edit, of two rounds and of one each."""
    edit = Request("make it red", Image.new("RGB", (4, 4)))
    trajectories = [made(False, True), made(True), made(False, True), made(True)]
    return rollout_of(trajectories[:2] + [dataclasses.replace(t, request=edit) for t in trajectories[2:]])


def asked_of(judge, weights, rollout=None):
    rollout = rollout or of_both()
    pending = rewards.ask(ConfigDict({"most_missing": 1.0, "pause_seconds": 0.0}), judge, rollout)
    return rewards.of_all(rollout, rewards.awaited(pending, lambda: False, print), weights)


def test_both_tasks_have_their_own_scores():
    """Each is asked by itself; one set of weights serves both; a verdict on an edit is compared with its lesser score,
    which a copy does not have for all that it preserves."""
    calls = []

    def judge(requests, pictures):
        calls.append([request.source is not None for request in requests])
        if not calls[-1][0]:
            return Judged({"match": [0.1, 0.9, 0.5]})
        return Judged({"following": [0.0, 0.8, np.nan], "preserving": [1.0, 0.6, 1.0]})

    found = asked_of(judge, {"match": 2.0, "following": 0.5, "preserving": 1.0})
    assert calls == [[False] * 3, [True] * 3]
    nan = np.nan
    np.testing.assert_allclose(found.total, [[0.2, 1.8], [1.0, nan], [1.0, 1.0], [nan, nan]], rtol=1e-6)
    np.testing.assert_allclose(found.truth, [[0.2, 1.8], [1.0, nan], [0.0, 0.6], [nan, nan]], rtol=1e-6)
    assert list(found.scores) == ["match", "following", "preserving"]
    np.testing.assert_allclose(found.scores["match"], [[0.1, 0.9], [0.5, nan], [nan] * 2, [nan] * 2], rtol=1e-6)
    np.testing.assert_allclose(found.scores["preserving"], [[nan] * 2, [nan] * 2, [1.0, 0.6], [1.0, nan]], rtol=1e-6)
    part = found.take([2, 0])
    np.testing.assert_array_equal(part.truth, found.truth[[2, 0]])
    again = rewards.Rewards.join([found.take([0, 1]), found.take([2, 3])])
    for mine, its in zip(again, found, strict=True):
        np.testing.assert_equal(mine, its)


def test_hosts_share_both_tasks(of_hosts):
    """Each has every other trajectory of each task, of two rounds or one."""
    first = [Judged({"match": [0.1, 0.2]}), Judged({"following": [1.0, 0.0], "preserving": [1.0, 0.5]})]
    second = [Judged({"match": [0.3]}), Judged({"preserving": [0.9], "following": [0.7]})]
    one, other = of_hosts(first, second, weights={"following": 1.0, "preserving": 1.0}, rollout=of_both())
    nan = np.nan
    np.testing.assert_allclose(one.total, [[0.1, 0.2], [0.3, nan], [2.0, 0.5], [1.6, nan]], rtol=1e-6)
    np.testing.assert_allclose(one.truth, [[0.1, 0.2], [0.3, nan], [1.0, 0.0], [0.7, nan]], rtol=1e-6)
    for mine, its in zip(one, other, strict=True):
        np.testing.assert_equal(mine, its)


def test_a_judge_may_say_whether_an_edit_is_right():
    def judge(requests, pictures):
        if requests[0].source is None:
            return Judged({"match": [1.0] * len(requests)})
        return Judged({"following": [1.0] * 3, "preserving": [0.75] * 3, "whole": [0.3] * 3})

    found = asked_of(judge, {"following": 1.0, "preserving": 0.25})
    np.testing.assert_allclose(found.truth[2], [0.3, 0.3], rtol=1e-6)
    np.testing.assert_allclose(found.total[2], [1.1875] * 2, rtol=1e-6)
    alone = of_both().take([2, 3])
    with pytest.raises(UserError, match="weights names other, which the judge does not give; it gives whole"):
        asked_of(lambda requests, pictures: Judged({"whole": [1.0] * 3}), {"match": 1.0, "other": 1.0}, alone)
