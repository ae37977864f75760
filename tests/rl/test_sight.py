"""What a rollout shows, by hand."""

import dataclasses

import numpy as np
import pytest
from test_credit import made

from janus_jax.rl import sight
from janus_jax.rl.credit import ESTIMATORS, credit, segment_rewards


def test_calibration_error_by_hand():
    # two bins: {0.1, 0.2}, none true: gap 0.15; {0.9, 0.8}, one true: gap |0.5 - 0.85| = 0.35
    assert sight.calibration_error([0.1, 0.2, 0.9, 0.8], [0, 0, 1, 0], bins=2) == pytest.approx(0.25)
    assert sight.calibration_error([1.0, 0.0], [1, 0]) == 0
    assert np.isnan(sight.calibration_error([], []))


def test_diversity_by_hand():
    # pairs (a, b), (a, c), (b, c) differ in 1, 2 and 1 of two places
    assert sight.diversity([[0, 0], [0, 1], [1, 1]]) == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert sight.diversity(np.zeros((3, 4, 5), int)) == 0


def test_spread_and_idle_groups():
    assert sight.spread([0.0, 1.0, 0.3, 0.3], 2) == pytest.approx(0.25)
    assert sight.spread([0.0, 1.0, 0.3, np.nan], 2) == pytest.approx(0.25)
    assert sight.idle([0.0, 1e-9, 0.5, -0.5, np.nan, np.nan, np.nan, 0.7], 2) == 0.5


@pytest.mark.parametrize("estimator", ESTIMATORS.values())
@pytest.mark.parametrize("reward", [0.3, 2 / 3, 0.9])
def test_members_that_fare_alike_teach_nothing(estimator, reward):
    """In groups of seven, too, whose f32 mean is not the reward."""
    trajectories = [made(True) for _ in range(7)]
    got = credit("trajectory", trajectories, [[np.float32(reward)]] * 7, 7, 2, estimator)
    assert sight.idle(got.first, 7) == 1 and sight.dropped(got.first, 7) == 0


def described(kind, trajectories, rewards):
    segments = segment_rewards(kind, trajectories, rewards, 2)
    return sight.describe(trajectories, rewards, segments, credit(kind, trajectories, rewards, 2, 2), 2)


def test_describe_by_hand():
    # right and seen; wrong, mended; right, spoilt; its reward failed
    trajectories = [made(True), made(False, True), made(False, False), made(True)]
    rewards = [[1.0], [0.2, 1.0], [1.0, 0.4], [np.nan]]
    figures = described("trajectory", trajectories, rewards)
    assert figures["reward_first"] == pytest.approx((1 + 0.2 + 1) / 3)
    assert figures["reward_final"] == pytest.approx((1 + 1 + 0.4) / 3)
    assert figures["right_first"] == figures["right_final"] == pytest.approx(2 / 3)
    assert figures["repair_rate"] == 1 and figures["spoil_rate"] == 0.5
    # known pictures: right/Yes, wrong/No, right/Yes, right/No, wrong/No
    assert figures["agreement"] == pytest.approx(4 / 5) and figures["yes_rate"] == pytest.approx(2 / 5)
    assert figures["yes_of_right"] == pytest.approx(2 / 3) and figures["yes_of_wrong"] == 0
    assert figures["failed"] == pytest.approx(1 / 6)
    assert figures["rounds"] == 1.5 and figures["reason_length"] == 3
    assert figures["idle_first"] == figures["dropped_first"] == 0.5  # the second group has one known reward
    # the paper's: 2 x 1 + 2 x 1; 0.2 + 1 + 0.8 + 1; 1 + 0.4 + 0 + 0.6, of two rounds
    assert figures["trained_text"] == figures["trained_final"] == pytest.approx((4 + 3 + 2) / 3)
    assert figures["spread_trained_first"] == pytest.approx((0.5 + 0) / 2)
    assert all(isinstance(value, float) for value in figures.values())
    codes = len(trajectories[0].rounds[0].codes)
    assert sight.sampled_tokens(trajectories) == 6 * (codes + 3)


def test_describe_nothing_known():
    trajectories = [dataclasses.replace(made(True), sample=i) for i in range(2)]
    rewards = [[np.nan], [np.nan]]
    figures = described("trajectory", trajectories, rewards)
    assert figures["failed"] == 1 and np.isnan(figures["right_first"]) and figures["idle_first"] == 1
