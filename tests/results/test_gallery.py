"""Folders of pictures and files of records that grow, and go on where a kill left them."""

import json

import numpy as np
import pytest
from PIL import Image
from trajectories import made

from janus_jax.errors import UserError
from janus_jax.results.gallery import Gallery
from janus_jax.results.records import Records
from janus_jax.sampling.rollout import Trajectory
from janus_jax.sequences import images
from janus_jax.sequences.request import Request

SETTINGS = {"checkpoint": "x", "seed": 0, "cfg_weight": 5.0}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_grow_and_go_on(tmp_path):
    path = tmp_path / "a.jsonl"
    Records(path, SETTINGS).append([{"n": 0}, {"n": 1, "text": "\u2028 ähm"}])
    records = Records(path, SETTINGS)
    assert records.found == [{"n": 0}, {"n": 1, "text": "\u2028 ähm"}]
    records.append([{"n": 2}])
    assert [one["n"] for one in Records(path, SETTINGS).found] == [0, 1, 2]


def test_a_torn_line_is_taken_away(tmp_path):
    path = tmp_path / "a.jsonl"
    Records(path, SETTINGS).append([{"n": 0}, {"n": 1}])
    with open(path, "a") as file:
        file.write('{"n": 2, "te')
    records = Records(path, SETTINGS)
    assert [one["n"] for one in records.found] == [0, 1]
    records.append([{"n": 2}])
    assert lines(path) == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_other_settings_are_refused_and_named(tmp_path):
    path = tmp_path / "a.jsonl"
    Records(path, SETTINGS).append([{"n": 0}])
    with pytest.raises(UserError, match=r"made otherwise \(seed was 0, is 1\): choose another --out"):
        Records(path, {**SETTINGS, "seed": 1})
    (tmp_path / "b.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="made by something else"):
        Records(tmp_path / "b.jsonl", SETTINGS)


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    records = Records(path, SETTINGS)
    records.append([{"n": 0}])

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(UserError, match="No space left on device; make room, and start again"):
        records.append([{"n": 1}])
    monkeypatch.undo()
    assert lines(path) == [{"n": 0}]


def test_a_gallery_goes_on_with_what_is_missing(tmp_path):
    first, second = made(False, True), made(True)
    work = [(Request(first.prompt), 0), (Request("a circle"), 0), (Request("a circle"), 3)]
    gallery = Gallery(tmp_path, SETTINGS)
    assert gallery.missing(work) == work
    gallery.add([first], seed=0)
    again = Gallery(tmp_path, SETTINGS)
    assert again.missing(work) == work[1:]
    again.add([Trajectory(Request("a circle"), 3, second.rounds)], seed=0)
    assert again.missing(work) == work[1:2]
    assert {path.name for path in (tmp_path / "images").iterdir()} == {"0000_0_0.png", "0000_0_1.png", "0001_3_0.png"}
    shot = first.rounds[1]
    assert lines(tmp_path / "trajectories.jsonl")[0] == {
        "prompt": first.prompt,
        "sample": 0,
        "seed": 0,
        "rounds": [
            {"image": f"images/0000_0_{n}.png", "verdict": each.verdict, "p_yes": each.p_yes, "reason": each.reason}
            for n, each in enumerate(first.rounds)
        ],
        "final": 1,
    }
    np.testing.assert_array_equal(images.read(tmp_path / "images" / "0000_0_1.png"), shot.image)
    assert images.read(again.finish("title")).size[0] > 0


def test_edits_are_told_apart_by_their_source(tmp_path):
    a, b = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    sources = {id(a): "a.png", id(b): "b.png"}
    a.save(tmp_path / "a.png")
    work = [(Request("turn it", a), 0), (Request("turn it", b), 0)]
    gallery = Gallery(tmp_path / "out", SETTINGS)
    gallery.add([Trajectory(work[0][0], 0, made(True).rounds)], 0, sources)
    assert gallery.missing(work, sources) == work[1:]
    assert gallery.lines[0]["source"] == "a.png"


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="images of something else: choose another --out"):
        Gallery(tmp_path, SETTINGS)
