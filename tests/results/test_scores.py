"""Scores: standard errors clustered by prompt, and the rates on a hand-made evaluation."""

import math

import numpy as np
import pytest

from janus_jax.results.scores import clustered, rates


def test_one_value_per_cluster_is_the_ordinary_standard_error():
    values = np.random.default_rng(0).standard_normal(20)
    mean, error = clustered(values, np.arange(20))
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(20))


def test_copies_of_a_value_add_no_certainty():
    values = np.random.default_rng(0).standard_normal(20)
    honest = clustered(values, np.arange(20))
    copied = clustered(np.repeat(values, 4), np.repeat(np.arange(20), 4))
    assert copied == pytest.approx(honest)
    # what it would be if the copies were independent
    naive = clustered(np.repeat(values, 4), np.arange(80))
    assert copied[1] > 1.9 * naive[1]


def test_clustered_by_hand_and_its_edges():
    # residuals -1/2, 1/2 | -1/2, 1/2 | 1/2, -1/2 cancel in every cluster
    assert clustered([0, 1, 0, 1, 1, 0], list("aabbcc")) == (0.5, 0.0)
    # sums of residuals -1, 1: sqrt(2 x 2/1) / 4
    assert clustered([0, 0, 1, 1], ["x", "x", "y", "y"]) == pytest.approx((0.5, 0.5))
    # clusters of different size: mean 1/4, sums of residuals 3/4 and -3/4
    assert clustered([1, 0, 0, 0], [0, 1, 1, 1]) == pytest.approx((0.25, math.sqrt(2 * 0.75**2 * 2) / 4))
    mean, error = clustered([1.0, 0.0], [3, 3])
    assert mean == 0.5 and math.isnan(error)
    assert all(math.isnan(x) for x in clustered([], []))


def test_rates_by_hand():
    # prompt a: right at once; wrong, then repaired.  prompt b: wrong throughout; right, spoilt by a wrong No.
    got = rates(
        prompts=["a", "a", "b", "b"],
        categories=["single", "single", "counting", "counting"],
        right=[[True], [False, True], [False, False], [True, False]],
        verdicts=[[True], [False, True], [False, True], [False, False]],
        finals=[0, 1, 1, 1],
    )
    means = {name: value[0] for name, value in got.items() if name != "categories"}
    assert means == pytest.approx(
        {
            "first": 2 / 4,
            "final": 2 / 4,
            "gain": 0.0,
            "repair": 1 / 2,
            "spoil": 1 / 2,
            # pictures: T/T | F/F T/T | F/F F/T | T/F F/F
            "agreement": 5 / 7,
            # right ones 2 of 3, wrong ones 3 of 4
            "agreement_balanced": (2 / 3 + 3 / 4) / 2,
            "rounds": 7 / 4,
        }
    )
    assert got["categories"]["single"]["final"][0] == 1.0
    assert got["categories"]["counting"]["first"][0] == 0.5
    assert got["categories"]["single"]["yes_of_wrong"][0] == 0.0  # one wrong picture, a No
    assert got["categories"]["counting"]["yes_of_wrong"][0] == pytest.approx(1 / 3)
    assert list(got["categories"]) == ["single", "counting"]
    # gains of prompt a: 0, 1; of b: 0, -1. Sums 1 and -1 about the mean 0: sqrt(2 x 2) / 4.
    assert got["gain"][1] == pytest.approx(0.5)


def test_the_comparison_is_paired():
    # final is exactly first plus one for every prompt: the gain has no spread though both scores have
    right = [[False, True]] * 6
    got = rates(list("abcdef"), ["x"] * 6, right, [[False, True]] * 6, [1] * 6)
    assert got["gain"] == (1.0, 0.0)
    assert got["repair"][0] == 1.0 and math.isnan(got["spoil"][0])
