"""Group-relative advantages by hand."""

import importlib
import importlib.metadata
import math
import pathlib
import sys
import types
import unittest.mock

import numpy as np
import pytest

from janus_jax.rl.advantages import dr_grpo, gae, grpo, rloo


def test_by_hand():
    # mean 1/2, unbiased variance 4 x 1/4 / 3
    a = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    got = grpo([0, 1, 1, 0])
    np.testing.assert_allclose(got, [-a, a, a, -a], rtol=1e-6)
    assert got.dtype == np.float32
    # groups lie on the last axis and know nothing of each other
    np.testing.assert_allclose(grpo([[0, 1, 1, 0], [0, 10, 0, 10]])[0], got)
    b = 5 / (math.sqrt(100 / 3) + 1e-4)
    np.testing.assert_allclose(grpo([[0, 1, 1, 0], [0, 10, 0, 10]])[1], [-b, b, -b, b], rtol=1e-6)


def test_missing_members_do_not_count():
    full = grpo([0.0, 1.0, 0.5])
    for garbage in (0.0, 100.0, np.nan, np.inf):
        got = grpo([0.0, garbage, 1.0, 0.5], [True, False, True, True])
        np.testing.assert_allclose(got, [full[0], 0, full[1], full[2]], rtol=1e-6)
    # a failed reward is not a zero: with a zero in its place the others would look better
    assert not np.allclose(grpo([0.0, 0.0, 1.0, 0.5])[[0, 2, 3]], full)


def test_rloo_and_dr_grpo_by_hand():
    # against the mean of the others: 0 - 2/3, 1 - 1/3
    np.testing.assert_allclose(rloo([0, 1, 1, 0]), [-2 / 3, 2 / 3, 2 / 3, -2 / 3], rtol=1e-6)
    np.testing.assert_allclose(rloo([3.0, 1.0]), [2, -2])
    np.testing.assert_allclose(dr_grpo([0, 1, 1, 0]), [-0.5, 0.5, 0.5, -0.5])
    np.testing.assert_allclose(dr_grpo([0, 10, 0, 10]), [-5, 5, -5, 5])  # no division by the spread
    rewards = np.random.default_rng(1).random((3, 5))
    others = (rewards.sum(-1, keepdims=True) - rewards) / 4
    np.testing.assert_allclose(rloo(rewards), rewards - others, atol=1e-6)


@pytest.mark.parametrize("estimator", [rloo, dr_grpo])
def test_missing_members_count_in_no_estimator(estimator):
    full = estimator([0.0, 1.0, 0.5])
    got = estimator([0.0, np.nan, 1.0, 0.5], [True, False, True, True])
    np.testing.assert_allclose(got, [full[0], 0, full[1], full[2]], rtol=1e-6)
    assert not estimator([0.7, 0.1], [True, False]).any()


def test_gae_by_hand():
    # gamma 1/2, lambda 1/2: d = [0 + .5 * 2 - 1, 4 + 0 - 2] = [0, 2], A = [0 + .25 * 2, 2]
    advantages, returns = gae([0.0, 4.0], [1.0, 2.0], 0.5, 0.5)
    np.testing.assert_allclose(advantages, [0.5, 2])
    np.testing.assert_allclose(returns, [1.5, 4])
    assert advantages.dtype == returns.dtype == np.float32
    # nothing after the last token changes those before it; rows know nothing of each other
    rows = gae([[0.0, 4.0, 0.0], [1.0, 0.0, 0.0]], [[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]], 0.5, 0.5)
    np.testing.assert_allclose(rows, [[[0.5, 2, 0], [-2, 0, 0]], [[1.5, 4, 0], [1, 0, 0]]])


def test_gae_without_discount_and_values_is_the_reward_to_come():
    rng = np.random.default_rng(2)
    rewards = rng.random((4, 7))
    to_come = rewards[:, ::-1].cumsum(-1)[:, ::-1]
    np.testing.assert_allclose(gae(rewards, np.zeros((4, 7)))[0], to_come, atol=1e-5)
    values = rng.random((4, 7))
    np.testing.assert_allclose(gae(rewards, values)[0], to_come - values, atol=1e-5)
    np.testing.assert_allclose(gae(rewards, values)[1], to_come, atol=1e-5)  # returns do not depend on values
    one_step = gae(rewards, values, lam=0.0)[0]
    after = np.concatenate([values[:, 1:], np.zeros((4, 1))], axis=1)
    np.testing.assert_allclose(one_step, rewards + after - values, atol=1e-5)


@pytest.mark.parametrize(
    "rewards, valid",
    [
        ([0.3, 0.3, 0.3], None),
        ([0.7, 0.1, 0.2], [True, False, False]),  # one member is no group
        ([0.7, 0.1, 0.2], [False, False, False]),
        ([0.4], None),
    ],
)
def test_groups_without_a_spread_teach_nothing(rewards, valid):
    np.testing.assert_allclose(grpo(rewards, valid), np.zeros(len(rewards)), atol=1e-3)
    assert np.isfinite(grpo(rewards, valid)).all()


def test_permuting_the_members_permutes_the_advantages():
    rng = np.random.default_rng(0)
    rewards, valid = rng.random((5, 8)), rng.random((5, 8)) < 0.8
    order = rng.permutation(8)
    np.testing.assert_allclose(grpo(rewards[:, order], valid[:, order]), grpo(rewards, valid)[:, order], atol=1e-6)
    # centred, whoever is missing
    np.testing.assert_allclose(grpo(rewards, valid).sum(-1), np.zeros(5), atol=1e-5)


@pytest.fixture
def tunix(monkeypatch):
    """The arithmetic of google-tunix alone: its packages' own __init__ want half a dozen others that have nothing to do
    with it (launch/test.sh --parity installs it without them)."""
    root = importlib.metadata.distribution("google-tunix").locate_file("")
    for name in ("tunix", "tunix.rl", "tunix.sft"):
        package = types.ModuleType(name)
        package.__path__ = [str(pathlib.Path(root, *name.split(".")))]
        monkeypatch.setitem(sys.modules, name, package)
    aside = unittest.mock.MagicMock()
    monkeypatch.setitem(sys.modules, "tunix.sft.utils", aside)
    sys.modules["tunix.sft"].utils = aside
    yield importlib.import_module("tunix.rl.algo_core")
    for name in [name for name in sys.modules if name.startswith("tunix.")]:
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parity
def test_as_google_tunix_has_them(tunix):
    rewards = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    rewards[1] = rewards[1] > 0
    rewards[2] = 0.5  # a group whose members fare alike
    flat = rewards.reshape(-1)

    def theirs(compute):
        return np.asarray(compute(flat, 8)).reshape(5, 8)

    np.testing.assert_allclose(rloo(rewards), theirs(tunix.compute_rloo_advantages), atol=1e-6)
    np.testing.assert_allclose(dr_grpo(rewards), theirs(tunix.compute_drgrpo_advantages), atol=1e-6)
    # GRPO but for the constant that keeps the division finite: 1e-4 here, as in the released code, 1e-6 there
    std = rewards.std(-1, ddof=1, keepdims=True)
    ours = grpo(rewards) * (std + 1e-4) / (std + 1e-6)
    np.testing.assert_allclose(ours, theirs(tunix.compute_advantages), atol=2e-6)


@pytest.mark.parity
def test_gae_as_google_tunix_has_it(tunix):
    rng = np.random.default_rng(1)
    rewards, values = rng.normal(size=(2, 3, 7)).astype(np.float32)
    _, returns = tunix.compute_gae_advantages(rewards, values, np.ones((3, 7), np.float32), 0.9, 0.8)
    # its advantages are whitened; its returns are not
    np.testing.assert_allclose(gae(rewards, values, 0.9, 0.8)[1], returns, atol=1e-5)
