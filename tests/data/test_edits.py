"""Pictures with instructions from a JSON lines file."""

import json
import re

import pytest
from commands import CONFIGS, refused
from PIL import Image

from janus_jax import train_rl
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


def test_the_released_lines_and_another_folder(tmp_path):
    """As stage 2 reads them: one instruction each, files relative to the folder that is named."""
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (4, 6)).save(tmp_path / "pictures" / "a.png")
    path = tmp_path / "edits.jsonl"
    line = json.dumps({"image1": "a.png", "text": " make it red "})
    path.write_text("\n".join([line] * 9 + [json.dumps({"image1": "gone.png", "text": "x"})]))
    edits = read_edits(path, folder=tmp_path / "pictures", turns=False)
    assert edits == [(tmp_path / "pictures" / "a.png", ["make it red"])] * 9
    with pytest.raises(UserError, match="the picture .*a.png cannot be read: No such file"):
        read_edits(path)
    path.write_text(json.dumps({"image": "a.png", "instruction": ["x", "y"]}))
    assert read_edits(path, folder=tmp_path / "pictures")[0].instructions == ["x", "y"]
    with pytest.raises(UserError, match="several instructions"):
        read_edits(path, folder=tmp_path / "pictures", turns=False)


@pytest.mark.parametrize(
    "entry, words",
    [
        ({"image1": "a.png", "text": "  "}, "line 1: the text is empty"),
        ({"image1": "a.png"}, "line 1: 'instruction' is missing"),
        ({"image1": "gone.png", "text": "x"}, "line 1: the picture .*gone.png cannot be read: No such file"),
        ({"image1": "half.png", "text": "x"}, "line 1: the picture .*half.png cannot be read: not a whole picture"),
        ({"image1": "../a.png", "text": "x"}, "line 1: the path '../a.png' leads out of"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_stage_2_refuses_bad_edits(tmp_path, entry, words):
    """In one line, before a model is loaded."""
    Image.new("RGB", (64, 64), (9, 200, 3)).save(tmp_path / "a.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "edits.jsonl").write_text(json.dumps(entry))
    flags = [f"--config.edit_prompts={tmp_path / 'edits.jsonl'}", "--config.task=edit", "--config.init=nothing"]
    line = refused(train_rl.main, "--config", CONFIGS / "shapes_edit_rl.py", "--workdir", tmp_path / "w", *flags)
    assert re.search(words, line), line
    assert not (tmp_path / "w").exists()
