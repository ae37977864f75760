"""Named scores: what a plain function may return, and the one reward that is made of them."""

import math

import numpy as np
import pytest
from PIL import Image

from janus_jax.errors import UserError
from janus_jax.rewards.judge import Judged, are_edits, as_judge, combine
from janus_jax.sequences.request import Request, as_requests

NAN = math.nan
PICTURES = [Image.new("RGB", (4, 4))] * 3
REQUESTS = as_requests(["a", "b", "c"])


def refused(function, *args):
    with pytest.raises(UserError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_judged():
    judged = Judged({"following": [0.5, NAN, 1], "preserving": [1, 0.5, NAN]}, ["", "503", "500"])
    assert list(judged) == ["following", "preserving"] and judged["preserving"].dtype == np.float32
    assert judged.valid.tolist() == [True, False, False] and judged.missing == 2
    assert judged.errors == ("", "503", "500") and judged.first_error == "503"
    assert Judged({"match": [1, NAN]}).errors == ("", "not scored")
    none = Judged({}, ())
    assert none.missing == 0 and none.first_error == ""
    assert Judged({"match": []}).missing == 0


def test_combine_by_hand():
    edits = {"following": np.float32([1, 0, NAN, 1]), "preserving": np.float32([0.5, 1, 1, NAN])}
    reward = combine(edits, {"following": 0.5, "preserving": 1.0})
    np.testing.assert_allclose(reward, [1, 1, NAN, NAN])
    assert reward.dtype == np.float32
    # what has no weight may be missing
    np.testing.assert_allclose(combine(edits, {"following": 0.5, "preserving": 0.0}), [0.5, 0, NAN, 0.5])
    np.testing.assert_allclose(combine(edits, {"following": 2.0}), [2, 0, NAN, 2])
    # one score alone needs no weight, whatever its name
    np.testing.assert_allclose(combine({"taste": np.float32([0.25, NAN])}, {}), [0.25, NAN])
    nothing = combine({}, {"match": 1.0})  # a process that has no pictures
    assert nothing.shape == (0,) and nothing.dtype == np.float32


def test_weights_that_do_not_fit():
    edits = {"following": np.float32([1]), "preserving": np.float32([1])}
    assert 'set config.reward.weights to the weight of each, as in {"following": 1.0}' in refused(combine, edits, {})
    said = refused(combine, edits, {"match": 1.0, "following": 1.0})
    assert "names match, which the judge does not give; it gives following, preserving" in said
    assert "all 0" in refused(combine, edits, {"following": 0.0})


def test_edits_are_judged_apart():
    edit = Request("make it red", PICTURES[0])
    assert are_edits([edit, edit]) and not are_edits(REQUESTS) and not are_edits([])
    assert "cannot be judged in one call" in refused(are_edits, [edit, *REQUESTS])


@pytest.mark.parametrize(
    "returned, match",
    [
        ({"match": [0.5, 1, 0]}, [0.5, 1, 0]),
        ([0.5, 1, NAN], [0.5, 1, NAN]),
        (np.array([1, 0, 1]), [1, 0, 1]),
        ((True, False, True), [1, 0, 1]),
        ({"match": np.float16([0.5, 0.25, 0])}, [0.5, 0.25, 0]),
    ],
)
def test_a_plain_function_is_a_judge(returned, match):
    seen = []

    def score(requests, pictures):
        seen.append((requests, pictures))
        return returned

    judged = as_judge(score)(REQUESTS, PICTURES)
    assert isinstance(judged, Judged) and judged["match"].dtype == np.float32
    np.testing.assert_allclose(judged["match"], match)
    assert judged.missing == np.isnan(match).sum() and seen == [(REQUESTS, PICTURES)]


def test_a_judge_is_taken_as_it_is():
    def score(requests, pictures):
        return Judged({"taste": [NAN] * 3, "match": [1] * 3}, ["busy"] * 3)

    judged = as_judge(score)(REQUESTS, PICTURES)
    assert list(judged) == ["taste", "match"] and judged.errors == ("busy",) * 3


@pytest.mark.parametrize(
    "returned, words",
    [
        ([0.5, 1], "gives match as [2] scores of 3 pictures: it must give [3]"),
        (0.5, "gives match as [] scores of 3"),
        (np.ones((3, 1)), "gives match as [3, 1] scores of 3"),
        ({"taste": [1, 1, 1], "match": [1]}, "gives match as [1] scores of 3"),
        (["a", "b", "c"], "gives match as <U1: it must give numbers"),
        ([0.5, None, 1], "gives match as object: it must give numbers, NaN where a score is missing"),
        ([[1], [1, 2], [1]], "gives match as what numpy cannot read"),
        ([1, 2j, 0], "gives match as complex128"),
        (None, "gives match as object"),
        ([1, math.inf, 0], "gives match as inf"),
        ([1, 7, 0], "gives match as 7: scores lie in [0, 1]"),
        ([1, -0.5, 0], "gives match as -0.5"),
        ({}, "names its scores []"),
        ({0: [1, 1, 1]}, "names its scores [0]"),
        ({"": [1, 1, 1]}, "names its scores ['']"),
    ],
)
def test_what_is_no_judge(returned, words):
    said = refused(as_judge(lambda requests, pictures: returned, "my_judge:score"), REQUESTS, PICTURES)
    assert said.startswith("the judge my_judge:score ") and words in said


def test_a_function_that_raises_or_is_none():
    def score(requests, pictures):
        raise ValueError("no\nweights here")

    said = refused(as_judge(score), REQUESTS, PICTURES)
    assert said.endswith("test_a_function_that_raises_or_is_none.<locals>.score raised ValueError: no weights here")
    assert "is no function" in refused(as_judge, 3)

    def mendable(requests, pictures):
        raise UserError("mend this")

    assert refused(as_judge(mendable), REQUESTS, PICTURES) == "mend this"

    def interrupted(requests, pictures):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        as_judge(interrupted)(REQUESTS, PICTURES)
