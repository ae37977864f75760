"""What an evaluation asks, and its figures of edits."""

import json

import numpy as np
import pytest
from PIL import Image

from janus_jax import evaluate
from janus_jax.checkpoints import loading
from janus_jax.results import suites
from janus_jax.sampling.rollout import Rollout
from janus_jax.shapes import edit as edits
from janus_jax.shapes import text


def test_prompts_are_the_held_out_ones():
    asked = suites.suite("shapes", 3)
    assert [request.prompt for request in asked.requests] == text.held_out_prompts(3)
    assert all(request.source is None for request in asked.requests) and asked.targets is None
    assert list(dict.fromkeys(asked.categories.values())) == list(text.CATEGORIES)
    assert len(suites.suite("shapes", suites.PER_CATEGORY["shapes"]).requests) == 600


@pytest.fixture(scope="module")
def asked():
    return suites.suite("shapes_edit", 2)


def test_edits_and_their_outcomes(asked):
    """A copy first, the true picture then: nothing is done but all is kept, then both."""
    assert [asked.categories[r.prompt] for r in asked.requests] == [kind for kind in edits.KINDS for _ in range(2)]
    n = len(asked.requests)
    rollout = Rollout.empty(asked.requests, np.zeros(n), rounds=2, reason=1, codes=4, side=48)
    rollout.images[:, 0] = [np.asarray(request.source) for request in asked.requests]
    rollout.images[:, 1] = asked.targets
    rollout.rounds[:] = 2
    rollout.rounds[-1] = 1  # a copy, and the model says Yes
    rollout.verdict[-1, 0] = True
    outcomes = evaluate.outcomes_of(rollout)
    assert outcomes[0]["right"] == [False, True] and outcomes[-1]["right"] == [False]
    assert outcomes[0]["following"] == [0, 1] and outcomes[0]["preserving"] == [1, 1]
    assert outcomes[-1]["following"] == [0] and outcomes[-1]["final"] == 0
    json.dumps(outcomes)
    figures = suites.edit_figures(outcomes, asked.categories)
    assert list(figures) == list(edits.KINDS)
    means = {kind: {name: pair[0] for name, pair in row.items()} for kind, row in figures.items()}
    assert means["recolor"] == {"following": 1, "preserving": 1, "both": 1}
    assert means["swap"] == {"following": 0.5, "preserving": 1, "both": 0.5}
    result = evaluate.report(evaluate.figures_of(outcomes, asked.categories))
    evaluate.add_edits(result, figures, figures)
    assert result["edits"]["swap"] == means["swap"] and result["edits_bound"] == result["edits"]
    assert result["stderr"]["edits"]["swap"]["both"] == pytest.approx(0.5)
    assert result["overall"] == {"first": 0.0, "final": 0.9}
    assert result["categories"]["swap"] == {"first": 0.0, "final": 0.5}


def test_both_is_of_one_picture():
    outcomes = [
        {"prompt": "a", "final": 0, "following": [1.0], "preserving": [0.0]},
        {"prompt": "b", "final": 0, "following": [0.0], "preserving": [1.0]},
    ]
    figures = suites.edit_figures(outcomes, {"a": "add", "b": "add"})["add"]
    assert [figures[name][0] for name in suites.EDIT_SCORES] == [0.5, 0.5, 0]


def test_prompts_have_the_outcomes_they_had():
    (one,) = suites.suite("shapes", 1).requests[:1]
    rollout = Rollout.empty([one], [0], rounds=1, reason=1, codes=4, side=48)
    rollout.images[:] = np.asarray(Image.new("RGB", (48, 48), (240, 240, 240)))
    rollout.rounds[:] = 1
    (outcome,) = evaluate.outcomes_of(rollout)
    assert set(outcome) == {"prompt", "sample", "right", "verdicts", "p_yes", "final"}
    assert outcome["right"] == [False]


def test_the_tokenizer_s_bound(asked):
    model, params, _ = loading.load("shapes-sft")
    bound = suites.edit_bound(model, params, asked)
    assert list(bound) == list(edits.KINDS)
    assert np.mean([row["both"][0] for row in bound.values()]) >= 0.8
