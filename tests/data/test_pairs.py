"""Pictures with prompts, and labels, from a JSON lines file."""

import json

import numpy as np
import pytest
from PIL import Image

from janus_jax.data.pairs import read_pairs
from janus_jax.errors import UserError
from janus_jax.rl.monitor import listed_pictures


def written(tmp_path, *entries):
    for name, colour in (("a.png", (255, 0, 0)), ("b.png", (0, 0, 255))):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n\n".join(json.dumps(entry) for entry in entries) + "\n")
    return path


RIGHT = {"image": "a.png", "prompt": " a red ground ", "right": True}
WRONG = {"image": "b.png", "prompt": "a red ground", "right": False}


def test_labelled_pictures(tmp_path):
    path = written(tmp_path, RIGHT, WRONG)
    assert read_pairs(path) == [(tmp_path / "a.png", "a red ground", True), (tmp_path / "b.png", "a red ground", False)]
    labelled = listed_pictures(path)
    assert labelled.prompts == ["a red ground"] * 2 and labelled.right.tolist() == [True, False]
    assert labelled.right.dtype == bool and np.asarray(labelled.images[1])[0, 0].tolist() == [0, 0, 255]
    assert read_pairs(written(tmp_path, {"image": "a.png", "prompt": "x"}))[0].right is None


@pytest.mark.parametrize(
    "entries, words",
    [
        ([RIGHT, {"image": "b.png", "prompt": "x"}], "line 3: expected"),
        ([RIGHT, {**WRONG, "right": 0}], "line 3: expected"),
        ([RIGHT, RIGHT], "of one kind alone"),
        ([{**RIGHT, "image": "c.png"}], "line 1: the picture"),
        ([{**RIGHT, "prompt": " "}], "line 1: the prompt is empty"),
        ([], "holds no pair"),
    ],
)
def test_no_labelled_pictures(tmp_path, entries, words):
    with pytest.raises(UserError, match=words):
        listed_pictures(written(tmp_path, *entries))
