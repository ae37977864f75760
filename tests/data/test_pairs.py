"""Pictures with prompts, and labels, from a JSON lines file."""

import json

import pytest
from PIL import Image

from janus_jax.data import records
from janus_jax.data.pairs import Pair, label_in, read_pairs
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
    a, b = (Pair(tmp_path / name, "a red ground") for name in ("a.png", "b.png"))
    assert read_pairs(path) == [a, b]
    assert read_pairs(path, label="right") == [a._replace(right=True), b._replace(right=False)]


def test_edit_triples(tmp_path):
    one = {"source": "a.png", "image": "b.png", "text": "make it blue"}
    other = {"image1": "a.png", "image": "b.png", "prompt": "make it blue"}
    got = read_pairs(written(tmp_path, one, other))
    assert got == [Pair(tmp_path / "b.png", "make it blue", None, tmp_path / "a.png")] * 2
    assert got[0].request().source.getpixel((0, 0)) == (255, 0, 0)
    assert read_pairs(written(tmp_path, RIGHT))[0].request().source is None
    with pytest.raises(UserError, match=r"line 1: the picture .*c\.png cannot be read"):
        read_pairs(written(tmp_path, {**one, "source": "c.png"}))


@pytest.mark.parametrize(
    "value, right",
    [
        *((value, True) for value in (True, 1, 1.0, 0.5, "yes", " TRUE ", "1", "0.7", 10**400)),
        *((value, False) for value in (False, 0, 0.49, -3, "no", "False", "0")),
    ],
)
def test_labels(value, right):
    assert label_in({"x": value}, "x") is right


def test_a_score_is_right_from_a_threshold_on():
    assert [label_in({"x": score}, "x", 4) for score in (3.9, 4, "5", True, "no")] == [False, True, True, True, False]


@pytest.mark.parametrize("value", ["maybe", "", None, [True], float("nan"), "nan", {}])
def test_no_labels(value):
    with pytest.raises(records.BadRecord, match="'x' is .*: neither yes nor no, true nor false, nor a number"):
        label_in({"x": value}, "x")


@pytest.mark.parametrize(
    "entries, words",
    [
        ([RIGHT, {"image": "b.png", "prompt": "x"}], "line 3: 'right' is missing"),
        ([RIGHT, {**WRONG, "right": "?"}], "line 3: 'right' is '\\?': neither"),
        ([RIGHT, RIGHT], "of one kind alone"),
        ([{**RIGHT, "image": "c.png"}], "line 1: the picture"),
        ([{**RIGHT, "prompt": " "}], "line 1: the prompt is empty"),
        ([], "holds no pair"),
    ],
)
def test_no_labelled_pictures(tmp_path, entries, words):
    with pytest.raises(UserError, match=words):
        read_pairs(written(tmp_path, *entries), label="right")


def test_bad_pairs_are_left_out_up_to_a_share(tmp_path, capsys):
    path = written(tmp_path, *[RIGHT] * 9, {**RIGHT, "image": "gone.png"}, WRONG)
    assert len(read_pairs(path, label="right")) == 10
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
