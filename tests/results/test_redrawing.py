"""What looking and words are worth: redraws after other words, and the figures of them."""

import numpy as np
import pytest
from tiny import EOS, MODEL, NO, params, processor

from janus_jax.results import redrawing
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.introspect import redrawn, rollouts
from janus_jax.sequences.request import Request

pytestmark = pytest.mark.usefixtures("quick_compiles")
SAMPLING = Sampling(cfg_weight=2.0, max_reason_tokens=4)
WORK = [(Request(prompt), sample) for prompt in ("a circle", "two red squares", "a cross") for sample in range(2)]


@pytest.fixture(scope="module")
def twice():
    (rollout,) = rollouts(MODEL, params(), processor(), WORK, 2, SAMPLING, 0, batch=8, always=True)
    return rollout


def test_redrawn_is_what_introspection_draws_next(twice):
    """After the model's own words: its own second picture."""
    got = redrawn(MODEL, params(), processor(), twice, SAMPLING, 0, 4)
    levels = np.abs(got.astype(int) - twice.images[:, 1])
    assert levels.max() <= 1 and (levels > 0).mean() < 0.01


def test_words_matter_to_what_is_redrawn(twice):
    bare = redrawing.variants(twice, EOS)["bare"]
    got = redrawn(MODEL, params(), processor(), bare, SAMPLING, 0, 8)
    assert np.abs(got.astype(int) - twice.images[:, 1]).max() > 1


def test_variants_by_hand(twice):
    variants = redrawing.variants(twice, EOS)
    assert variants["own"] is twice
    prompts = [request.prompt for request in twice.requests]
    for i in range(len(twice)):
        ids, words = variants["another"].reason_ids[i], variants["another"].words[i]
        alike = [np.array_equal(twice.reason_ids[j], ids) and all(twice.words[j] == words) for j in range(len(twice))]
        same = np.flatnonzero(alike)
        assert any(prompts[j] != prompts[i] for j in same)
        bare = variants["bare"]
        assert bare.words[i].tolist() == [2] * 2 and bare.reason_ids[i, 0, :2].tolist() == [
            twice.reason_ids[i, 0, 0],
            EOS,
        ]
    assert NO != EOS
    alone = twice.take([0, 1])  # of one prompt: nobody else's words are there
    assert set(redrawing.variants(alone, EOS)) == {"own", "bare"}


def outcome(prompt, sample, right, shows=(), **second):
    return {"prompt": prompt, "sample": sample, "right": right, "verdict": right, "shows": list(shows), **second}


CIRCLE, MOVED = (["circle", "red", x, 0.2, 0.29] for x in (0.2, 0.8))
STAR = ["star", "red", 0.5, 0.5, 0.29]


def test_figures_by_hand():
    """Two wrong firsts of "a", whose other samples are right in one of two; one of "b" without a second picture."""
    second = {"own": [True, 2], "another": [False, 1], "bare": [True, 0]}
    found = [
        outcome("a", 0, False, [CIRCLE, STAR], **second),
        outcome("a", 1, False, [MOVED], **{**second, "own": [False, 0]}),
        outcome("a", 2, True, [CIRCLE]),
        outcome("b", 0, False, [CIRCLE]),
    ]
    got = {name: mean for name, (mean, _) in redrawing.figures(found, {"a": "a", "b": "b"}).items()}
    assert got["right_own"] == 0.5 and got["right_another"] == 0 and got["right_bare"] == 1
    assert got["right_fresh"] == 0.5 and got["own_less_fresh"] == 0
    assert got["own_less_another"] == 0.5 and got["own_less_bare"] == -0.5
    assert got["kept_own"] == pytest.approx((2 / 2 + 0 / 1) / 2)
    # of two objects the others show none and one; of the one that moved, none and none
    assert got["kept_fresh"] == pytest.approx((0.5 / 2 + 0) / 2)
    assert redrawing.figures([], {}) == {}
