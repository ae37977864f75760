"""Rewards to advantages, by hand."""

import numpy as np
import pytest
from trajectories import made, rollout_of, table, until_yes

from janus_jax.rl import monitor
from janus_jax.rl.advantages import ESTIMATORS, grpo
from janus_jax.rl.credit import CREDITS, FINAL, FIRST, TEXT, by_segment, trajectory_rewards
from janus_jax.rl.ppo import steps_of


def credit(kind, trajectories, rewards, group, rounds, estimator=grpo, minimum=2):
    """Advantages f32[B,columns] of lists of rewards."""
    rollout, rewards = rollout_of(trajectories, rounds), table(rewards, rounds)
    return CREDITS[kind].advantages(rollout, rewards, rounds, group, estimator, minimum)


@pytest.mark.parametrize(
    "verdicts, rewards, expected",
    [
        # K = 1: 3 x 0.2, and 3/1 (1 - 0.8)
        ([1], [0.2], 0.6 + 0.6),
        # K = 2: 0.2 + 2 x 0.6, and 3/2 ((1 - 0.2) + (1 - 0.4))
        ([0, 1], [0.2, 0.6], 1.4 + 2.1),
        # K = 3: 0.2 + 0.6 + 0.9, and (0.8 + 0.4 + 0.9)
        ([0, 0, 1], [0.2, 0.6, 0.9], 1.7 + 2.1),
        # no Yes: K = 3 too, but the last verdict is wrong
        ([0, 0, 0], [0.2, 0.6, 0.9], 1.7 + 1.3),
        # pictures drawn after the first Yes do not count
        ([1, 0, 1], [0.2, 0.6, 0.9], 0.6 + 0.6),
        # a perfect painter that knows it: 3 and 3, whatever K
        ([1], [1.0], 6.0),
        ([0, 1], [0.0, 1.0], 2.0 + 3.0),
    ],
)
def test_trajectory_reward_by_hand(verdicts, rewards, expected):
    got = trajectory_rewards(table([rewards], 3), rollout_of([made(*map(bool, verdicts))], 3), 3)
    assert got == pytest.approx([expected])


@pytest.mark.parametrize(
    "kind, final",
    [
        # the final picture: the first one after a Yes, else the second
        ("released/own_prompt", [0.9, 0.6, 0.3, 1.0]),
        ("released/regen_prompt", [0.9, 0.6, 0.3, 1.0]),
        # always the second
        ("released/always_second", [0.1, 0.6, 0.4, 1.0]),
    ],
)
def test_released_credit_by_hand(kind, final):
    trajectories = [made(True, False), made(False, False), made(True, True), made(False, True)]
    rewards = [[0.9, 0.1], [0.2, 0.6], [0.3, 0.4], [0.0, 1.0]]
    got = credit(kind, trajectories, rewards, 2, 2)
    np.testing.assert_allclose(got[:, FIRST], grpo([[0.9, 0.2], [0.3, 0.0]]).reshape(-1), atol=1e-6)
    # 1 - |reward - verdict| of the first picture
    np.testing.assert_allclose(got[:, TEXT], grpo([[0.9, 0.8], [0.3, 1.0]]).reshape(-1), atol=1e-6)
    np.testing.assert_allclose(got[:, FINAL], grpo(np.reshape(final, (2, 2))).reshape(-1), atol=1e-6)
    if kind != "released/always_second":  # nothing is drawn after a Yes: the same
        short = [until_yes(t) for t in trajectories]
        again = credit(kind, short, [r[: len(t.rounds)] for r, t in zip(rewards, short, strict=True)], 2, 2)
        np.testing.assert_array_equal(again, got)


def test_trajectory_credit_is_one_advantage():
    trajectories = [made(True), made(False, True), made(False, False, True), made(False, False, False)]
    rewards = [[0.2], [0.2, 0.6], [0.2, 0.6, 0.9], [0.2, 0.6, 0.9]]
    got = credit("trajectory", trajectories, rewards, 4, 3)
    np.testing.assert_allclose(got[:, FIRST], grpo([1.2, 3.5, 3.8, 3.0]), atol=1e-6)
    for other in got.T[1:]:  # one column for words, and one for each later picture
        np.testing.assert_array_equal(got[:, FIRST], other)
    assert got.shape == (4, FINAL + 2)


def test_improvement_by_hand():
    trajectories = [made(True), made(False, True), made(False, False), made(True)]
    rewards = [[1.0], [0.2, 0.7], [0.4, 0.3], [0.3]]
    got = credit("improvement", trajectories, rewards, 4, 2)
    np.testing.assert_allclose(got[:, FIRST], grpo([1.0, 0.2, 0.4, 0.3]), atol=1e-6)
    # 1 - |r - verdict|, its mean over two rounds twice, and a premature Yes
    text = [1.0, ((1 - 0.2) + 0.7) / 2, ((1 - 0.4) + (1 - 0.3)) / 2, 0.3 - 1]
    np.testing.assert_allclose(got[:, TEXT], grpo(text), atol=1e-6)
    # better by 0.5 and worse by 0.1, compared with each other alone
    np.testing.assert_allclose(got[1:3, FINAL], grpo([0.5, -0.1]), atol=1e-6)
    assert np.isnan(got[[0, 3], FINAL:]).all()


def test_improvement_over_three_rounds():
    """Each later picture against the one before it, among the trajectories that have it; the batch has them so."""
    trajectories = [made(False, False, True), made(False, False, False), made(False, True), made(True)]
    rewards = [[0.2, 0.9, 0.5], [0.1, 0.3, 0.8], [0.6, 0.6], [1.0]]
    segments = CREDITS["improvement"].segment_rewards(rollout_of(trajectories, 3), table(rewards, 3), 3)
    np.testing.assert_allclose(segments[:, FINAL:], [[0.7, -0.4], [0.2, 0.5], [0, np.nan], [np.nan, np.nan]], atol=1e-6)
    got = credit("improvement", trajectories, rewards, 4, 3)
    np.testing.assert_allclose(got[:3, FINAL], grpo([0.7, 0.2, 0.0]), atol=1e-6)
    np.testing.assert_allclose(got[:2, FINAL + 1], grpo([-0.4, 0.5]), atol=1e-6)
    assert np.isnan(got[3, FINAL:]).all() and np.isnan(got[2, FINAL + 1])
    assert not monitor.idle_groups(got[:, FINAL:], 4).any() and monitor.dropped(got[:, FINAL:], 4) == 0


@pytest.mark.parametrize("estimator", [each.compare for each in ESTIMATORS.values()])
def test_missing_rewards_train_nothing(estimator):
    """A group with a failed reward has the statistics of the others; one with too few known rewards has none."""
    trajectories = [made(True) for _ in range(8)]
    rewards = [[0.9], [np.nan], [0.2], [0.4], [np.nan], [np.nan], [np.nan], [1.0]]
    got = credit("trajectory", trajectories, rewards, 4, 3, estimator)[:, FIRST]
    whole = credit("trajectory", trajectories[:3], [rewards[i] for i in (0, 2, 3)], 3, 3, estimator)[:, FIRST]
    np.testing.assert_allclose(got[[0, 2, 3]], whole, atol=1e-6)
    assert np.isnan(got[[1, 4, 5, 6, 7]]).all()
    assert np.isnan(credit("trajectory", trajectories, rewards, 4, 3, estimator, minimum=4)).all()
    # under released credit only the segments that needed the missing reward
    part = credit(
        "released/own_prompt", [made(False, True)] * 4, [[0.1, np.nan], [0.2, 0.5], [0.3, 0.7], [0.4, 0.6]], 4, 2
    )
    assert np.isfinite(part[:, [FIRST, TEXT]]).all()
    assert np.isnan(part[:, FINAL]).tolist() == [True, False, False, False]


def test_segments_are_columns():
    columns = np.arange(8).reshape(2, 4)
    got = {name: values.tolist() for name, values in by_segment(columns).items()}
    assert got == {"first": [[0], [4]], "text": [[1], [5]], "final": [[2, 3], [6, 7]]}


def test_what_the_schemes_are():
    assert {name: (each.per, each.judged, each.rounds, each.always) for name, each in CREDITS.items()} == {
        "released/own_prompt": ("segment", 1, 2, False),
        "released/regen_prompt": ("segment", 1, 2, False),
        "released/always_second": ("segment", 1, 2, True),
        "trajectory": ("trajectory", None, None, False),
        "improvement": ("segment", None, None, False),
        "pictures": ("segment", None, None, False),
    }


def test_verdicts_are_compared_with_the_truth():
    """Of edits the reward, 1.0, is not how right they are, 0.2 and 0.4: No is the verdict that is paid."""
    rollout = rollout_of([made(True, False), made(False, True)], 2)
    rewards, truth = table([[1.0, 1.0]] * 2), table([[0.2, 0.4]] * 2)
    released = CREDITS["released/always_second"].segment_rewards(rollout, rewards, 2, truth)
    np.testing.assert_allclose(released, [[1.0, 0.2, 1.0], [1.0, 0.8, 1.0]], rtol=1e-6)
    better = CREDITS["improvement"].segment_rewards(rollout, rewards, 2, truth)
    # (0.2 + 0.6) / 2; (0.8 + 0.4) / 2, less 1 for a Yes that ends it
    np.testing.assert_allclose(better, [[1.0, 0.4, 0.0], [1.0, 0.6 - 1, 0.0]], rtol=1e-6)
    # R_1 twice and T/K (1 - |0.2 - 1|); R_1 + R_2 and both verdicts
    np.testing.assert_allclose(trajectory_rewards(rewards, rollout, 2, truth), [2 + 2 * 0.2, 2 + 0.8 + 0.4], rtol=1e-6)
    assert sum(last for *_, last in steps_of(rollout, rewards, 1, 2, truth)) == pytest.approx(3.2, rel=1e-6)
