"""Advantages token by token, by hand."""

import numpy as np
import pytest
from trajectories import made, rollout_of, table

from janus_jax.rl import ppo
from janus_jax.rl.credit import trajectory_rewards

I = len(made(True).rounds[0].codes)  # noqa: E741  codes per picture


def test_tokens_in_time():
    got = ppo.steps_of(rollout_of([made(True), made(False, True)]), np.array([[0.5, np.nan], [0.2, 0.9]]), 1, 2)
    assert [step[:3] for step in got] == [(0, 0, I), (1, 0, 3), (0, I, 2 * I), (1, 3, 6)]
    assert [step[3] for step in got] == pytest.approx([0.2, 0.8, 0.9, 0.9])


@pytest.mark.parametrize(
    "verdicts, rewards", [([True], [1.0]), ([False, True], [0.2, 0.9]), ([False] * 3, [0.1, 0.3, 1.0])]
)
def test_rewards_add_up_to_the_paper_s(verdicts, rewards):
    """So that a right picture and a Yes at once are worth as much as can be had."""
    rollout, known = rollout_of([made(*verdicts)], 3), table([rewards], 3)
    total = sum(last for *_, last in ppo.steps_of(rollout, known, 0, 3))
    assert [total] == pytest.approx(trajectory_rewards(known, rollout, 3))


def test_advantages_by_hand():
    """With lam = gamma = 1 a return is the sum of all rewards to come, and the advantage that less the value."""
    trajectories, rewards = [made(False, True), made(True)], [[0.2, 0.9], [1.0]]
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 2 * I + 1)).astype(np.float32), rng.normal(size=(2, 7)).astype(np.float32)
    (codes, words), (code_returns, word_returns) = ppo.advantages(
        rollout_of(trajectories), table(rewards), 2, values, lam=1.0
    )
    np.testing.assert_allclose(code_returns[0, :I], 0.2 + 0.8 + 0.9 + 0.9, atol=1e-5)
    np.testing.assert_allclose(word_returns[0, :3], 0.8 + 0.9 + 0.9, atol=1e-5)
    np.testing.assert_allclose(code_returns[0, I : 2 * I], 0.9 + 0.9, atol=1e-5)
    np.testing.assert_allclose(word_returns[0, 3:6], 0.9, atol=1e-5)
    np.testing.assert_allclose(code_returns[1, :I], 1 + 2 + 1, atol=1e-5)
    assert np.isnan(codes[1, I:]).all() and np.isnan(words[1, 3:]).all() and np.isnan(codes[0, 2 * I :]).all()
    raw = [code_returns - values[0], word_returns - values[1]]
    known = [np.isfinite(codes), np.isfinite(words)]
    both = np.concatenate([r[k] for r, k in zip(raw, known, strict=True)])
    for got, r, k in zip((codes, words), raw, known, strict=True):
        np.testing.assert_allclose(got[k], (r[k] - both.mean()) / both.std(), atol=1e-4)


def test_without_values_and_discounts_it_is_reinforce():
    """gamma = lambda = 1 and a value of zero: each token is credited with the sum of the rewards that follow it."""
    trajectories, rewards = [made(False, True), made(True), made(False, False)], [[0.2, 0.9], [1.0], [0.1, 0.6]]
    values = np.zeros((3, 2 * I), np.float32), np.zeros((3, 6), np.float32)
    got, _ = ppo.advantages(rollout_of(trajectories), table(rewards), 2, values, gamma=1.0, lam=1.0)
    following = [np.full(v.shape, np.nan) for v in values]
    rollout, known = rollout_of(trajectories), table(rewards)
    for i, paper in enumerate(trajectory_rewards(known, rollout, 2)):
        pieces = ppo.steps_of(rollout, known, i, 2)
        for n, (role, first, end, _) in enumerate(pieces):
            following[role][i, first:end] = sum(reward for *_, reward in pieces[n:])
        assert following[0][i, 0] == pytest.approx(paper)
    every = np.concatenate([x[np.isfinite(x)] for x in following])
    for mine, expected in zip(got, following, strict=True):
        # but for the scale of the batch, as a baseline and a learning rate would do
        np.testing.assert_allclose(mine, (expected - every.mean()) / every.std(), atol=1e-5)


def test_short_sight():
    """lam = 0: one step ahead, reward + next value - value."""
    t, values = made(True), (np.arange(I, dtype=np.float32)[None] ** 2, np.full((1, 3), 5.0, np.float32))
    (codes, words), _ = ppo.advantages(rollout_of([t]), table([[1.0]]), 1, values, lam=0.0)
    ahead = np.concatenate([np.diff(values[0][0]), [1.0 + 5.0 - (I - 1) ** 2], [0.0, 0.0, 1.0 - 5.0]])
    got = np.concatenate([codes[0], words[0]])
    np.testing.assert_allclose(got, (ahead - ahead.mean()) / ahead.std(), atol=1e-4)


def test_a_missing_reward():
    trajectories, rewards = [made(False, True), made(True)], [[np.nan, 0.9], [1.0]]
    values = np.zeros((2, 2 * I), np.float32), np.zeros((2, 6), np.float32)
    (codes, words), _ = ppo.advantages(rollout_of(trajectories), table(rewards), 2, values)
    assert np.isnan(codes[0]).all() and np.isnan(words[0]).all()
    assert np.isfinite(codes[1, :I]).all() and np.isfinite(words[1, :3]).all()


def test_the_value_head_comes_and_goes():
    params = {"llama": {"x": np.ones(2)}}
    assert ppo.without_value_head(ppo.with_value_head(params, 4)) == params
