"""Fresh samples in place of drawing again, by hand."""

import pytest

from janus_jax.results import fresh


def single(prompt, sample, right, verdict, p_yes):
    return {"prompt": prompt, "sample": sample, "right": [right], "verdicts": [verdict], "p_yes": [p_yes], "final": 0}


# two samples of up to three pictures: sample 0 has the pictures 0, 2 and 4, sample 1 the others
SINGLES = [
    single("a", 0, False, False, 0.2),
    single("a", 1, True, True, 0.9),
    single("a", 2, True, True, 0.7),
    single("a", 3, False, False, 0.1),
    single("a", 4, False, True, 0.8),
    single("a", 5, False, False, 0.3),
    *(single("b", n, n == 4, False, 0.1 if n < 4 else 0.4) for n in range(6)),
]


def test_until_the_first_yes():
    one, other, third, fourth = fresh.trajectories(SINGLES, 2, "fresh")
    assert (one["sample"], one["right"], one["verdicts"], one["final"]) == (0, [False, True], [False, True], 1)
    assert (other["sample"], other["right"], other["final"]) == (1, [True], 0)
    assert (third["prompt"], third["right"], third["final"]) == ("b", [False, False, True], 2)  # no Yes: the last
    assert (fourth["right"], fourth["final"]) == ([False] * 3, 2)


def test_the_likeliest():
    one, other, third, fourth = fresh.trajectories(SINGLES, 2, "best")
    assert (one["right"], one["p_yes"], one["final"]) == ([False, True, False], [0.2, 0.7, 0.8], 2)
    assert (other["final"], third["final"], fourth["final"]) == (0, 2, 2)
    assert fresh.trajectories(SINGLES[6:9], 1, "best")[0]["final"] == 0  # all alike


def test_pictures_that_do_not_divide():
    with pytest.raises(ValueError, match="6 pictures of a prompt do not divide into 4 samples"):
        fresh.trajectories(SINGLES, 4, "best")
