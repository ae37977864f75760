"""The requests of a step: of the checkpoint's world, and more of what fails."""

import collections
import json
import types

import pytest
from ml_collections import ConfigDict
from tiny import MODEL, OTHER, grammar

from janus_jax.errors import UserError
from janus_jax.rl import requests, rollouts
from janus_jax.shapes import text
from janus_jax.shapes.world import SECOND

CONFIG = ConfigDict(
    {"seed": 0, "prompts_per_step": 8, "free_prompts": 0.5, "prompt_tokens": 60, "task": "draw", "edit_share": 0.0}
)


def evaluation(path, **finals):
    finals = {name: finals.get(name, 1.0) for name in text.CATEGORIES}
    path.write_text(json.dumps({"categories": {name: {"first": 0, "final": x} for name, x in finals.items()}}))
    return str(path)


def test_weights_by_hand(tmp_path):
    one = evaluation(tmp_path / "a.json", position=0.4, counting=0.9)
    other = evaluation(tmp_path / "b.json", position=0.8)
    found = requests.weights_of([one, other])
    assert found["position"] == pytest.approx(0.4) and found["counting"] == pytest.approx(0.05)
    assert found["colors"] == requests.LEAST_WEIGHT
    assert requests.weights_of([]) is None


@pytest.mark.parametrize("content", ["", "{}", '{"categories": {"position": {"final": null}}}'])
def test_what_is_no_evaluation(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match="not an evaluation"):
        requests.weights_of([tmp_path / "x.json"])
    with pytest.raises(UserError, match="not an evaluation"):
        requests.weights_of([tmp_path / "none.json"])


def drawn(steps=60, **how):
    asked = (requests.of_step(CONFIG, grammar(), requests.Files(), 16, n, **how)[0] for n in range(steps))
    return [request.prompt for step in asked for request in step]


@pytest.mark.parametrize("world", [SECOND, OTHER])
def test_prompts_are_of_the_training_split_of_the_world(world):
    prompts = drawn(world=world)
    assert len(prompts) == 480 and {text.split_of(prompt, world) for prompt in prompts} == {"train"}
    assert drawn(2, world=world) == prompts[:16]  # functions of seed and step


def test_a_stage_asks_of_its_world():
    weights = {**dict.fromkeys(text.CATEGORIES, 0.1), "position": 0.9}
    stage = types.SimpleNamespace(grammar=grammar(), files=requests.Files(), model=MODEL, world=OTHER, weights=weights)
    asked, _ = rollouts.asked_at(CONFIG, stage, 1)
    assert [request.prompt for request in asked] == drawn(2, world=OTHER, weights=weights)[8:]
    assert [request.prompt for request in asked] != drawn(2, weights=weights)[8:]
    assert asked != rollouts.asked_at(CONFIG, stage, 1, 1)[0]


def test_what_fails_is_asked_for_more_often():
    weights = {**dict.fromkeys(text.CATEGORIES, 0.1), "position": 0.9}
    counts = collections.Counter(text.parse(prompt, SECOND).category for prompt in drawn(world=SECOND, weights=weights))
    # ordinary: 0.9 of 1.4; freely composed: 0.9 of 1.2, of four categories
    assert abs(counts["position"] / 480 - (0.9 / 1.4 + 0.9 / 1.2) / 2) < 0.08
    even = collections.Counter(text.parse(prompt, SECOND).category for prompt in drawn(world=SECOND))
    assert even["position"] < 0.45 * 480 and set(even) == set(text.CATEGORIES)
