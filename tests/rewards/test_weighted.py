"""Sums of judges, by hand."""

import math

import numpy as np
import pytest
from stub_endpoint import picture

from janus_jax.errors import UserError
from janus_jax.rewards import weighted
from janus_jax.rewards.judge import Judged
from janus_jax.sequences.request import Request


def fixed(*scores):
    errors = tuple("lost" if math.isnan(score) else "" for score in scores)
    return lambda requests, pictures: Judged({"match": scores}, errors)


def test_weighted_by_hand():
    nan = math.nan
    judge = weighted.make_judge([(0.5, fixed(1, 0.5, nan, 0.2), {}), (2.0, fixed(0, 0.25, 1, nan), {})])
    judged = judge([Request("a")] * 4, [picture()] * 4)
    np.testing.assert_allclose(judged["match"], [0.5, 0.75, nan, nan])
    assert judged.errors == ("", "", "lost", "lost") and judged["match"].dtype == np.float32
    # what counts for nothing is not asked, and its failures are nobody's
    only = weighted.make_judge([(0.0, None, {}), (1.0, fixed(0.5), {})])
    np.testing.assert_allclose(only([Request("a")], [picture()])["match"], [0.5])
    with pytest.raises(ValueError, match="weight"):
        weighted.make_judge([(0.0, fixed(1), {})])


def of_edits(following, preserving):
    return lambda requests, pictures: Judged({"following": following, "preserving": preserving})


def test_edits_keep_their_names():
    """Until the weights of the whole, or of a part, make one score of them."""
    requests, pictures = [Request("make it red", picture())] * 2, [picture()] * 2
    first, second = of_edits([1, 0], [0.5, 1]), of_edits([0, 1], [math.nan, 0])
    judged = weighted.make_judge([(0.5, first, {}), (2.0, second, {})])(requests, pictures)
    np.testing.assert_allclose(judged["following"], [0.5, 2])
    np.testing.assert_allclose(judged["preserving"], [math.nan, 0.5])
    assert judged.errors == ("not scored", "")
    weights = {"following": 0.5, "preserving": 1.0}
    summed = weighted.make_judge([(2.0, first, weights), (1.0, fixed(0.25, 0), {})])(requests, pictures)
    np.testing.assert_allclose(summed["match"], [2 * (0.5 + 0.5) + 0.25, 2 * 1])
    assert list(summed) == ["match"]
    with pytest.raises(UserError, match="different scores .following, preserving; match.: give each part weights"):
        weighted.make_judge([(1.0, first, {}), (1.0, fixed(1, 1), {})])(requests, pictures)
