"""Pictures with prompts, and labels, from a JSON lines file."""

import json

import pytest
from PIL import Image

from janus_jax.data import records
from janus_jax.data.pairs import read_pairs
from janus_jax.errors import UserError


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
    assert read_pairs(path, labelled=True) == read_pairs(path)
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
        read_pairs(written(tmp_path, *entries), labelled=True)


def test_bad_pairs_are_left_out_up_to_a_share(tmp_path, capsys):
    path = written(tmp_path, *[RIGHT] * 9, {**RIGHT, "image": "gone.png"}, WRONG)
    assert len(read_pairs(path, labelled=True)) == 10
    assert "left out 1 of 11 records: 1 x a picture cannot be read (first: line 19: " in capsys.readouterr().err
    with pytest.raises(UserError, match="line 19: the picture .*gone.png cannot be read"):
        read_pairs(path, tally=records.Tally(path, 0.0))


def test_pictures_stay_in_their_folder(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "out.png")
    path = tmp_path / "in" / "pairs.jsonl"
    path.write_text(json.dumps({"image": "../out.png", "prompt": "x"}))
    with pytest.raises(UserError, match="line 1: the path '../out.png' leads out of .*--allow-outside"):
        read_pairs(path)
    assert read_pairs(path, allow_outside=True)[0].prompt == "x"
