"""Retention of judging: the labelled pictures, and the figure by hand."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny import MODEL, OTHER, grammar, processor

from janus_jax.errors import UserError
from janus_jax.models.janus import Janus
from janus_jax.rl import retention
from janus_jax.rl.retention import Labelled, check_lengths, listed_pictures
from janus_jax.sequences.request import Request
from janus_jax.sequences.row import Row
from janus_jax.shapes import verify


def test_the_pictures_of_a_file(tmp_path):
    lines = []
    for name, colour in (("a.png", (255, 0, 0)), ("b.png", (0, 0, 255))):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
        lines.append(json.dumps({"image": name, "prompt": "a red ground", "right": name == "a.png"}))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    labelled = listed_pictures(tmp_path / "pairs.jsonl")
    assert labelled.prompts == [Request("a red ground")] * 2 and labelled.right.tolist() == [True, False]
    assert labelled.right.dtype == bool and np.asarray(labelled.images[1])[0, 0].tolist() == [0, 0, 255]


def test_a_prompt_that_is_too_long():
    """Is refused before training, where there is no room for it beside the picture and the question."""
    model = Janus(MODEL.cfg.changed({"llama": {"max_positions": 1024}}))
    requests = [Request("a circle"), Request("a red circle and " * 300)]
    labelled = Labelled(requests, [Image.new("RGB", (2, 2))] * 2, np.array([True, False]))
    check_lengths(model, processor(), labelled._replace(prompts=requests[:1]))
    with pytest.raises(UserError, match="picture 2 of config.retention_pairs has a prompt of .* tokens"):
        check_lengths(model, processor(), labelled)
    # just when judging it would
    fits = []
    for words in range(700, 1100, 10):
        request = Request("circle " * words)
        row = Row()
        grammar().ask(row, request, None)
        grammar().look(row, np.zeros((16, 16, 3), np.float32))
        fits.append(-(-len(row) // 32) * 32 + 1 <= model.cfg.llama.max_positions)
        try:
            check_lengths(model, processor(), labelled._replace(prompts=[request]))
            assert fits[-1]
        except UserError:
            assert not fits[-1]
    assert len(set(fits)) == 2


def test_balanced_accuracy_by_hand(monkeypatch):
    """Two of three right pictures are said to be right, the wrong one is not: the mean of 2/3 and 1."""
    labelled = Labelled(list("abcd"), [Image.new("RGB", (2, 2))] * 4, np.array([True, True, False, True]))
    asked = []

    def yes_probabilities(model, params, processor, images, prompts, batch):
        asked.append((prompts, batch))
        return np.float32([0.9, 0.6, 0.2, 0.4])

    monkeypatch.setattr(retention, "yes_probabilities", yes_probabilities)
    assert retention.retention(None, None, None, labelled) == {"retention": pytest.approx((2 / 3 + 1) / 2)}
    assert asked == [(list("abcd"), 4)]
    # of the categories those that have right and wrong pictures
    of = labelled._replace(categories=["counting", "position", "position", "position"])
    found = retention.retention(None, None, None, of)
    assert found == {"retention": pytest.approx(5 / 6), "retention_position": pytest.approx((1 / 2 + 1) / 2)}


def test_questions_of_another_world(monkeypatch):
    """Its own answers are right in that world; the shipped one knows neither pentagons nor teal."""
    asked = retention.held_out_questions(8, 72, world=OTHER)
    assert retention.held_out_questions(2, 72, world=OTHER)[-1][0] == asked[-7][0]  # the n-th of a kind
    words = " ".join(f"{question.text} {question.answer}" for question, _ in asked)
    assert "pentagon" in words and "teal" in words
    assert verify.read(np.asarray(asked[-1][1]), OTHER).unclear == 0
    monkeypatch.setattr(retention, "answers", lambda *_: [question.answer for question, _ in asked])
    assert retention.answered(None, None, None, asked, OTHER) == 1 > retention.answered(None, None, None, asked)


def test_the_share_of_questions_that_is_answered(monkeypatch):
    """All of one kind right, nothing else; asked greedily, as the world's models are taught."""
    asked, calls = retention.held_out_questions(2, 24), []

    def chat(model, params, processor, pairs, sampling, seed, batch, system):
        calls.append((pairs, sampling.text_top_k, system))
        return [question.answer if question.kind == "place" else "nothing" for question, _ in asked]

    monkeypatch.setattr(retention, "chat", chat)
    assert retention.answered(None, None, None, asked) == pytest.approx(2 / 12)
    assert calls == [([([picture], question.text) for question, picture in asked], 1, "")]
