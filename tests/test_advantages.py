"""Group-relative advantages by hand."""

import math

import numpy as np
import pytest

from janus_jax.advantages import grpo


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
