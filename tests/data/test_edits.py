"""Pictures with instructions from a JSON lines file."""

import json

import pytest
from PIL import Image

from janus_jax.data import records
from janus_jax.data.edits import read_edits
from janus_jax.errors import UserError

ONE = {"image": "a.png", "instruction": " make it blue "}


def written(tmp_path, *entries):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    path = tmp_path / "edits.jsonl"
    path.write_text("\n\n".join(json.dumps(entry) for entry in entries) + "\n")
    return path


def test_edits_and_turns(tmp_path):
    path = written(tmp_path, ONE, {**ONE, "instruction": ["blue ", "add"]})
    assert read_edits(path) == [(tmp_path / "a.png", ["make it blue"]), (tmp_path / "a.png", ["blue", "add"])]


@pytest.mark.parametrize(
    "entries, words",
    [
        ([ONE, {"image": "a.png"}], "line 3: 'instruction' is missing"),
        ([{**ONE, "instruction": []}], "line 1: the list of instructions is empty"),
        ([{**ONE, "instruction": ["blue", 3]}], "line 1: 'instruction' is no text"),
        ([{**ONE, "instruction": ["blue", " "]}], "line 1: the instruction is empty"),
        ([{**ONE, "image": "c.png"}], "line 1: the picture"),
        ([{**ONE, "image": "../a.png"}], "line 1: the path .* leads out"),
        ([["a.png", "blue"]], "line 1: it is no JSON object"),
        ([], "holds no edit"),
    ],
)
def test_no_edits(tmp_path, entries, words):
    with pytest.raises(UserError, match=words):
        read_edits(written(tmp_path, *entries))


def test_bad_edits_are_left_out_up_to_a_share(tmp_path, capsys):
    path = written(tmp_path, *[ONE] * 9, {**ONE, "image": "gone.png"})
    assert len(read_edits(path)) == 9
    assert "left out 1 of 10 records: 1 x a picture cannot be read" in capsys.readouterr().err
    with pytest.raises(UserError, match="line 19: the picture .*gone.png cannot be read"):
        read_edits(path, records.Tally(path, 0.0))


def test_pictures_stay_in_their_folder(tmp_path):
    (tmp_path / "in").mkdir()
    written(tmp_path)
    path = tmp_path / "in" / "edits.jsonl"
    path.write_text(json.dumps({**ONE, "image": "../a.png"}))
    with pytest.raises(UserError, match="allow it with --allow-outside"):
        read_edits(path)
    assert len(read_edits(path, allow_outside=True)) == 1
