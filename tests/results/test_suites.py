"""What an evaluation asks, and its figures of edits."""

import json

import numpy as np
import pytest
from PIL import Image

from janus_jax import evaluate
from janus_jax.checkpoints import loading
from janus_jax.results import suites
from janus_jax.sampling.rollout import Rollout
from janus_jax.sequences.processor import Processor
from janus_jax.sequences.request import Request
from janus_jax.shapes import edit as edits
from janus_jax.shapes import text
from janus_jax.shapes.render import render
from janus_jax.shapes.scene import Scene, in_cell
from janus_jax.shapes.vocabulary import train_tokenizer
from janus_jax.shapes.world import SECOND


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
    rollout = Rollout.empty(asked.requests, np.zeros(n), rounds=2, reason=1, codes=4, side=96)
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
    assert result["categories"]["swap"] == {"first": 0.0, "final": 0.5, "yes_of_wrong": 0.5}


def test_both_is_of_one_picture():
    outcomes = [
        {"prompt": "a", "final": 0, "following": [1.0], "preserving": [0.0]},
        {"prompt": "b", "final": 0, "following": [0.0], "preserving": [1.0]},
    ]
    figures = suites.edit_figures(outcomes, {"a": "add", "b": "add"})["add"]
    assert [figures[name][0] for name in suites.EDIT_SCORES] == [0.5, 0.5, 0]


def test_prompts_have_the_outcomes_they_had():
    (one,) = suites.suite("shapes", 1).requests[:1]
    rollout = Rollout.empty([one], [0], rounds=1, reason=1, codes=4, side=96)
    rollout.images[:] = np.asarray(Image.new("RGB", (96, 96), (240, 240, 240)))
    rollout.rounds[:] = 1
    (outcome,) = evaluate.outcomes_of(rollout)
    assert set(outcome) == {"prompt", "sample", "right", "verdicts", "p_yes", "final"}
    assert outcome["right"] == [False]


def test_splits_of_a_world():
    for split in ("validation", "test"):
        asked = suites.suite("shapes", 3, SECOND, split)
        assert {text.split_of(request.prompt, SECOND) for request in asked.requests} == {split}
        assert asked.world is SECOND and set(asked.combinations) == set(asked.categories)
    shown = {split: suites.suite("shapes_edit", 1, SECOND, split) for split in ("train", "validation", "test")}
    assert {asked.targets.shape for asked in shown.values()} == {(len(edits.KINDS), 96, 96, 3)}
    assert len({prompt for asked in shown.values() for prompt in asked.categories}) > 2 * len(edits.KINDS)


def test_words_and_a_second_verifier_by_hand():
    """Of three pictures one is right; one Yes is about something else than the prompt."""
    prompts = ["a red triangle", "a blue cross", "a pink star"]
    said = ["Yes, there is a red triangle.", "Yes, there is a blue circle.", "No, there is no pink star."]
    tokenizer = train_tokenizer(sentences=400, world=SECOND)
    words = [tokenizer.encode(each, bos=False) for each in said]
    rollout = Rollout.empty([Request(p) for p in prompts], [0, 0, 0], 1, max(map(len, words)), codes=4, side=96)
    shown = [("triangle", "red"), ("circle", "blue")]
    rollout.images[:] = 240
    for i, kind in enumerate(shown):
        item = in_cell(np.random.default_rng(i), (*kind, "large"), 1, 1, SECOND)
        rollout.images[i, 0] = render(Scene((item,)), world=SECOND)
    for i, ids in enumerate(words):
        rollout.reason_ids[i, 0, : len(ids)], rollout.words[i, 0] = ids, len(ids)
    rollout.rounds[:], rollout.verdict[:, 0] = 1, [True, True, False]
    outcomes = evaluate.outcomes_of(rollout, Processor(tokenizer, 96, 96), SECOND)
    assert [one["reasons"] for one in outcomes] == [[each] for each in said]
    assert [one["contradicts"] for one in outcomes] == [[False], [True], [False]]
    assert [one["second"] for one in outcomes] == [one["right"] for one in outcomes] == [[True], [False], [False]]
    categories = dict.fromkeys(prompts, "colors")
    figures = evaluate.figures_of(outcomes, categories)
    assert figures["contradictions"][0] == pytest.approx(1 / 3) and figures["verifiers"][0] == 1
    # two of three prompts are of one combination: residuals 1/3 and -1/3 of two clusters
    by_combination = evaluate.figures_of(outcomes, categories, dict(zip(prompts, "aab", strict=True)))
    assert by_combination["first"] == (figures["first"][0], pytest.approx(np.sqrt(2 * 2 / 9) / 3))
    result = evaluate.report(figures, by_combination, split="test")
    assert result["stderr_by_combination"]["first"] == pytest.approx(np.sqrt(4 / 9) / 3, abs=1e-5)
    assert result["overall"]["first"] == pytest.approx(1 / 3, abs=1e-5) and result["verifier_agreement"] == 1
    (head, accuracy, rates) = evaluate.lines(result)
    assert "by the combinations" in head and accuracy.startswith("first 0.333 ± 0.333 and ± 0.222")
    assert "contradictions 0.333" in rates and "verifier agreement 1.000" in rates


def test_the_tokenizer_s_bound(asked):
    model, params, _ = loading.load("shapes-sft")
    bound = suites.edit_bound(model, params, asked)
    assert list(bound) == list(edits.KINDS)
    assert np.mean([row["both"][0] for row in bound.values()]) >= 0.8
