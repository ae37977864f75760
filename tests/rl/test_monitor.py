"""What a rollout shows, by hand."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from trajectories import made, rollout_of, table

from janus_jax.rl import monitor
from janus_jax.rl.advantages import ESTIMATORS, grpo
from janus_jax.rl.credit import CREDITS, FIRST
from janus_jax.rl.rewards import Rewards
from janus_jax.sequences.request import Request


def test_calibration_error_by_hand():
    # two bins: {0.1, 0.2}, none true: gap 0.15; {0.9, 0.8}, one true: gap |0.5 - 0.85| = 0.35
    assert monitor.calibration_error([0.1, 0.2, 0.9, 0.8], [0, 0, 1, 0], bins=2) == pytest.approx(0.25)
    assert monitor.calibration_error([1.0, 0.0], [1, 0]) == 0
    assert np.isnan(monitor.calibration_error([], []))


def test_diversity_by_hand():
    # pairs (a, b), (a, c), (b, c) differ in 1, 2 and 1 of two places
    assert monitor.diversity([[0, 0], [0, 1], [1, 1]]) == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert monitor.diversity(np.zeros((3, 4, 5), int)) == 0
    assert np.isnan(monitor.diversity(np.zeros((3, 1, 5), int)))


def test_spread_and_idle_groups():
    assert monitor.spread([0.0, 1.0, 0.3, 0.3], 2) == pytest.approx(0.25)
    assert monitor.spread([0.0, 1.0, 0.3, np.nan], 2) == pytest.approx(0.25)
    idle = monitor.idle_groups([0.0, 1e-9, 0.5, -0.5, np.nan, np.nan, np.nan, 0.7], 2)
    assert idle.tolist() == [True, False, True, False]


def test_every_metric_has_its_reason():
    """Of nothing known, the reason is that there is no reward; some know better."""
    assert monitor.why("spoil_rate") == "no first picture was right" != monitor.why("repair_rate")
    assert monitor.why("reward_first") == monitor.why("anything") == "no picture has its reward"


@pytest.mark.parametrize("estimator", [each.compare for each in ESTIMATORS.values()])
@pytest.mark.parametrize("reward", [0.3, 2 / 3, 0.9])
def test_members_that_fare_alike_teach_nothing(estimator, reward):
    """In groups of seven, too, whose f32 mean is not the reward."""
    trajectories = [made(True) for _ in range(7)]
    credit = CREDITS["trajectory"]
    got = credit.advantages(rollout_of(trajectories, 2), table([[reward]] * 7, 2), 2, 7, estimator)
    assert monitor.idle_groups(got, 7).all() and monitor.dropped(got[:, FIRST], 7) == 0


def described(kind, trajectories, rewards, scores=None):
    rollout, total, credit = rollout_of(trajectories, 2), table(rewards, 2), CREDITS[kind]
    segments = credit.segment_rewards(rollout, total, 2)
    credited = credit.advantages(rollout, total, 2, 2, grpo)
    return monitor.describe(rollout, Rewards(total, scores or {"match": total}, total), segments, credited, 2)


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
    assert monitor.sampled_tokens(rollout_of(trajectories)) == 6 * (codes + 3)


def test_describe_nothing_known():
    trajectories = [dataclasses.replace(made(True), sample=i) for i in range(2)]
    rewards = [[np.nan], [np.nan]]
    figures = described("trajectory", trajectories, rewards)
    assert figures["failed"] == 1 and np.isnan(figures["right_first"]) and figures["idle_first"] == 1


def test_scores_are_shown_where_there_are_several():
    """Of the pictures that were chosen; what is not known is left out."""
    trajectories = [made(False, True), made(True)]
    scores = {"looks": table([[0.1, 0.3], [0.5]], 2), "match": table([[0.2, np.nan], [0.8]], 2)}
    figures = described("trajectory", trajectories, [[0.2, 0.6], [1.0]], scores)
    assert figures["score_looks"] == pytest.approx(0.4) and figures["score_match"] == pytest.approx(0.8)
    # one group: 0.3 and 0.5; of "match" one is known
    assert figures["spread_score_looks"] == pytest.approx(0.1) and figures["spread_score_match"] == 0
    assert figures["alike_score_looks"] == 0 and np.isnan(figures["alike_score_match"])
    assert not any(name.startswith("score_") for name in described("trajectory", trajectories, [[0.2, 0.6], [1.0]]))


def test_figures_of_each_task():
    """Where there are both. Right is what the truth says, not the reward."""
    edit = Request("make it red", Image.new("RGB", (4, 4)))
    trajectories = [made(True), made(True), made(False, True), made(False, True)]
    rollout = rollout_of(trajectories[:2] + [dataclasses.replace(t, request=edit) for t in trajectories[2:]])
    total, truth = table([[1.0], [0.0], [1.0, 1.5], [1.0, 1.0]]), table([[1.0], [0.0], [0.0, 1.0], [0.0, 0.0]])
    figures = monitor.by_task(rollout, Rewards(total, {}, truth))
    assert figures["draw_right_first"] == figures["draw_right_final"] == figures["draw_agreement"] == 0.5
    assert figures["edit_right_first"] == 0 and figures["edit_right_final"] == figures["edit_repair_rate"] == 0.5
    assert figures["edit_agreement"] == 0.75 and figures["edit_yes_rate"] == 0.5 and figures["draw_yes_rate"] == 1
    assert monitor.by_task(rollout.take([0, 1]), Rewards(total[:2], {}, truth[:2])) == {}


def test_groups_that_are_alike():
    assert monitor.alike([1.0, 1.0, 0.0, 1.0, np.nan, 0.5, 0.2, 0.2], 2) == pytest.approx(2 / 3)
    assert np.isnan(monitor.alike([np.nan, 1.0], 2))


def test_the_trajectories_that_tell_most():
    """Those that changed most, then the best, then the worst; none twice, none whose rewards are unknown."""
    trajectories = [made(False, True) for _ in range(6)]
    total = table([[0.1, 0.2], [0.9, 0.0], [0.6, 0.6], [0.2, 0.2], [np.nan, 0.9], [0.7, 0.7]])
    rollout, rewards = rollout_of(trajectories), Rewards(total, {}, total)
    assert monitor.telling(rollout, rewards, 2) == [1, 0, 5, 2, 3]
    assert monitor.telling(rollout, rewards, 1) == [1, 5, 0]
    assert monitor.telling(rollout, rewards, 4) == [1, 0, 5, 2, 3]  # of two that changed, and no others
    unknown = Rewards(nothing := np.full_like(total, np.nan), {}, nothing)
    assert monitor.telling(rollout, unknown, 2) == [0, 1]
