"""Retention of judging: the labelled pictures, and the figure by hand."""

import json

import numpy as np
import pytest
from PIL import Image

from janus_jax.rl import retention
from janus_jax.rl.retention import Labelled, listed_pictures
from janus_jax.sequences.request import Request


def test_the_pictures_of_a_file(tmp_path):
    lines = []
    for name, colour in (("a.png", (255, 0, 0)), ("b.png", (0, 0, 255))):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
        lines.append(json.dumps({"image": name, "prompt": "a red ground", "right": name == "a.png"}))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    labelled = listed_pictures(tmp_path / "pairs.jsonl")
    assert labelled.prompts == [Request("a red ground")] * 2 and labelled.right.tolist() == [True, False]
    assert labelled.right.dtype == bool and np.asarray(labelled.images[1])[0, 0].tolist() == [0, 0, 255]


def test_balanced_accuracy_by_hand(monkeypatch):
    """Two of three right pictures are said to be right, the wrong one is not: the mean of 2/3 and 1."""
    labelled = Labelled(list("abcd"), [Image.new("RGB", (2, 2))] * 4, np.array([True, True, False, True]))
    asked = []

    def yes_probabilities(model, params, processor, images, prompts, batch):
        asked.append((prompts, batch))
        return np.float32([0.9, 0.6, 0.2, 0.4])

    monkeypatch.setattr(retention, "yes_probabilities", yes_probabilities)
    assert retention.retention(None, None, None, labelled) == pytest.approx((2 / 3 + 1) / 2)
    assert asked == [(list("abcd"), 4)]
