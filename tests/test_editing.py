"""The command that edits pictures: turns, edits that begin alike, and what goes on after a stop."""

import importlib
import json

import numpy as np
import pytest
from commands import refused
from PIL import Image
from tiny import MODEL, params, processor

edit = importlib.import_module("janus_jax.edit")  # janus_jax.edit is the function

pytestmark = pytest.mark.usefixtures("quick_compiles")


def edits(tmp_path, *entries):
    path = tmp_path / "edits.jsonl"
    path.write_text("\n".join(map(json.dumps, entries)))
    return path


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(OUT, flags) -> the instructions that were drawn, call by call of the sampler."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    monkeypatch.setattr(edit.flags.loading, "load", lambda *given: (MODEL, params(), processor()))
    sampler, drawn = edit.rollouts, []

    def watched(model, params, processor, work, *more, **settings):
        drawn.append([request.prompt for request, _ in work])
        return sampler(model, params, processor, work, *more, **settings)

    monkeypatch.setattr(edit, "rollouts", watched)

    def run(out, *flags):
        drawn.clear()
        line = ("--checkpoint", "shapes-rl", "--samples", 2, "--max-reason-tokens", 4, "--out", tmp_path / out, *flags)
        edit.main([str(arg) for arg in line])
        return list(drawn)

    return run


def placed(folder):
    return {path.name: np.asarray(Image.open(path)) for path in (folder / "placed").iterdir()}


def test_edits_that_begin_alike(run, tmp_path):
    """Are drawn once for all of them, and each goes on from there."""
    both = [{"image": "a.png", "instruction": ["blue", "add"]}, {"image": "a.png", "instruction": "blue"}]
    assert run("both", "--edits", edits(tmp_path, *both)) == [["blue"] * 2, ["add"] * 2]
    lines = [json.loads(line) for line in (tmp_path / "both" / "trajectories.jsonl").read_text().splitlines()]
    sources = {(line["prompt"], line["sample"]): line["source"] for line in lines if "prompt" in line}
    first = {line["sample"]: str(tmp_path / "both" / line["rounds"][0]["image"]) for line in lines[-4:-2]}
    assert {("add", s): sources["add", s] for s in (0, 1)} == {("add", s): first[s] for s in (0, 1)}
    got = placed(tmp_path / "both")
    for n, told in enumerate((["blue", "add"], ["blue"])):
        turns = [flag for turn in told for flag in ("--instruction", turn)]
        run(f"alone{n}", "--image", tmp_path / "a.png", *turns)
        for name, alone in placed(tmp_path / f"alone{n}").items():
            np.testing.assert_array_equal(got[name.replace("0000", f"{n:04d}")], alone)
    assert run("both", "--edits", edits(tmp_path, *both)) == []  # all is there


def test_several_pictures(run, tmp_path):
    """Are told alike; none is dropped."""
    Image.new("RGB", (16, 16), "blue").save(tmp_path / "b.png")
    told = ("--image", tmp_path / "a.png", "--image", tmp_path / "b.png", "--instruction", "red")
    assert run("out", *told) == [["red"] * 4]
    assert placed(tmp_path / "out").keys() == {f"000{n}_{sample}.png" for n in (0, 1) for sample in (0, 1)}


def test_bad_edits_are_left_out_up_to_a_share(run, tmp_path, capsys):
    path = edits(tmp_path, *[{"image": "a.png", "instruction": "blue"}] * 9, {"image": "a.png"})
    assert run("out", "--edits", path) == [["blue"] * 2]
    assert "left out 1 of 10 records: 1 x 'instruction' is missing" in capsys.readouterr().err
    assert len(placed(tmp_path / "out")) == 18
    flags = ("--checkpoint", "shapes-rl", "--out", tmp_path / "strict", "--edits", path, "--strict")
    assert "line 10: 'instruction' is missing" in refused(edit.main, *flags)
    assert not (tmp_path / "strict").exists()
