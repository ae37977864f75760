"""Agreement of probabilities with labels: every figure by hand."""

import math

import numpy as np
import pytest

from janus_jax.results import agreement
from janus_jax.rl import monitor

P_YES = [0.9, 0.8, 0.4, 0.3, 0.6, 0.1]
RIGHT = [True, True, True, False, False, False]
EACH = range(6)  # every answer a cluster of its own


def test_confusion_and_accuracies_by_hand():
    assert agreement.confusion(P_YES, RIGHT) == {"right": {"yes": 2, "no": 1}, "wrong": {"yes": 1, "no": 2}}
    assert agreement.accuracy(P_YES, RIGHT, EACH)[0] == pytest.approx(4 / 6)
    # three right pictures, two of them found; one wrong picture, and that one found
    few = P_YES[:4], RIGHT[:4], EACH[:4]
    assert agreement.accuracy(*few)[0] == pytest.approx(3 / 4)
    assert agreement.balanced_accuracy(*few)[0] == pytest.approx((2 / 3 + 1) / 2)
    # at a threshold that is met exactly, Yes is said
    assert agreement.confusion(P_YES, RIGHT, 0.4)["right"] == {"yes": 3, "no": 0}
    assert agreement.balanced_accuracy(P_YES, RIGHT, EACH, 0.4)[0] == pytest.approx((1 + 2 / 3) / 2)


def test_saying_yes_to_all_is_chance_when_balanced():
    right = [True] * 9 + [False]
    assert agreement.accuracy([1.0] * 10, right, range(10))[0] == pytest.approx(0.9)
    assert agreement.balanced_accuracy([1.0] * 10, right, range(10))[0] == 0.5


def test_errors_of_the_balanced_accuracy_by_hand():
    """Agreements 1, 0 | 1, 0 with weights of 1/4: residuals 1/8, -1/8, 1/8, -1/8."""
    p_yes, right = [1.0, 0.0, 0.0, 1.0], [True, True, False, False]
    apart = agreement.balanced_accuracy(p_yes, right, [0, 1, 2, 3])
    assert apart == pytest.approx((0.5, math.sqrt(4 / 64 * 4 / 3)))
    # sums 1/4 and -1/4: a prompt whose both pictures are judged well, and one whose both are judged badly
    assert agreement.balanced_accuracy(p_yes, right, list("abab")) == pytest.approx((0.5, math.sqrt(2 / 16 * 2)))
    # they cancel
    assert agreement.balanced_accuracy(p_yes, right, list("aabb")) == pytest.approx((0.5, 0.0))


def test_one_label_alone_has_no_balanced_accuracy():
    assert all(map(math.isnan, agreement.balanced_accuracy([0.9, 0.2], [True, True], [0, 1])))
    assert agreement.confusion([0.9, 0.2], [True, True])["wrong"] == {"yes": 0, "no": 0}
    with pytest.raises(ValueError, match="both labels"):
        agreement.best_threshold([0.9, 0.2], [False, False])


def test_reliability_by_hand():
    curve = agreement.reliability([0.95, 0.95, 0.05, 0.55, 1.0], [True, False, False, True, True])
    assert curve.count.tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 3]  # 1.0 lies in the last bin
    assert curve.p_yes[[0, 5, 9]] == pytest.approx([0.05, 0.55, 2.9 / 3])
    assert curve.right[[0, 5, 9]] == pytest.approx([0, 1, 2 / 3])
    assert np.isnan(curve.right[1:5]).all() and np.isnan(curve.p_yes[1:5]).all()
    assert curve.error == pytest.approx((0.05 + 0.45 + 3 * 0.9 / 3) / 5)
    assert math.isnan(agreement.reliability([], []).error)
    halves = agreement.reliability([0.2, 0.4, 0.5], [False, True, True], bins=2)
    assert halves.count.tolist() == [2, 1]
    assert halves.error == pytest.approx((2 * 0.2 + 0.5) / 3)


def test_the_error_is_that_which_stage_2_shows():
    rng = np.random.default_rng(0)
    p_yes = rng.random(500)
    right = rng.random(500) < p_yes**2
    assert agreement.reliability(p_yes, right).error == pytest.approx(monitor.calibration_error(p_yes, right))


def test_the_best_threshold_by_hand():
    # between 0.3 and 0.4: 3/3 and 1/3... of the wrong ones 0.1 and 0.3 are refused: 5/6; between 0.6 and 0.8: 5/6, too
    assert agreement.best_threshold(P_YES, RIGHT) == pytest.approx(0.35)
    assert agreement.best_threshold([0.9, 0.8, 0.3], [True, True, False]) == pytest.approx(0.55)
    # a judge that says No too often, yet knows
    assert agreement.best_threshold([0.04, 0.03, 0.01, 0.01], [True, True, False, False]) == pytest.approx(0.02)
    # equal probabilities cannot be told apart, and a judge that is wrong throughout is left at Yes to all
    assert agreement.best_threshold([0.5, 0.5], [True, False]) == 0.0
    assert agreement.best_threshold([0.1, 0.9], [True, False]) == 0.0


def test_no_other_threshold_is_better():
    rng = np.random.default_rng(1)
    right = rng.random(60) < 0.3
    p_yes = np.round(np.clip(0.2 * right + 0.5 * rng.random(60), 0, 1), 2)
    found = agreement.best_threshold(p_yes, right)
    balanced = [agreement.balanced_accuracy(p_yes, right, range(60), at)[0] for at in np.linspace(0, 1, 401)]
    assert agreement.balanced_accuracy(p_yes, right, range(60), found)[0] == pytest.approx(max(balanced))
