"""The command `judge` with labels, on a judge that reads the red of a picture as its P(yes): figures by hand, going on
after a stop, edits, bad input. tests/sampling/test_answer.py has the model's own answers."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import refused
from PIL import Image
from tiny import processor

from janus_jax.checkpoints import loading
from janus_jax.sequences import images

COMMAND = importlib.import_module("janus_jax.judge")
REDS = {"a": 255, "b": 204, "c": 102, "d": 153, "e": 51, "f": 0}  # P(yes) 1.0 0.8 0.4 0.6 0.2 0.0
PARAMS = {"llama": {"layers": ()}}  # as they are when prepared
LABELS = {"a": True, "b": "yes", "c": 1, "d": "False", "e": 0, "f": "no"}


@pytest.fixture
def judged(monkeypatch):
    """What was asked of the judge: (picture's red, request)."""
    asked = []

    def judge(model, params, processor, pictures, requests, sampling, seed, batch):
        reds = [picture.getpixel((0, 0))[0] for picture in pictures]
        asked.extend(zip(reds, requests, strict=True))
        return [(red / 255, "Yes, it is." if red > 127 else "No, it is not.") for red in reds]

    monkeypatch.setattr(COMMAND, "judge", judge)
    monkeypatch.setattr(
        loading, "load", lambda *given: (None, PARAMS, SimpleNamespace(tokenizer=processor().tokenizer))
    )
    return asked


def written(folder, name="pairs.jsonl", names="abcdef", **more):
    for letter in names:
        Image.new("RGB", (8, 8), (REDS[letter], 0, 0)).save(folder / f"{letter}.png")
    lines = [{"image": f"{n}.png", "prompt": f"a {n}", "right": LABELS[n], **more} for n in names]
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / name


def call(*argv):
    COMMAND.main(["--checkpoint", "x", *map(str, argv)])


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_figures_by_hand(judged, tmp_path, capsys):
    """Of three right pictures two get a Yes, of three wrong ones one."""
    call("--pairs", written(tmp_path), "--label", "right")
    *said, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert [line["verdict"] for line in said] == [True, True, False, True, False, False]
    assert said[0].keys() == {"image", "prompt", "p_yes", "verdict", "reason"}
    got = last["agreement"]
    assert (got["n"], got["accuracy"], got["balanced_accuracy"]) == (6, round(4 / 6, 5), round(4 / 6, 5))
    assert got["confusion"] == {"right": {"yes": 2, "no": 1}, "wrong": {"yes": 1, "no": 2}}
    assert got["ece"] == round((0 + 0.2 + 0.6 + 0.6 + 0.2 + 0) / 6, 5)
    call("--pairs", tmp_path / "pairs.jsonl")
    assert [*map(json.loads, capsys.readouterr().out.splitlines())] == said


def test_a_folder_with_figures_and_curve(judged, tmp_path, capsys):
    call("--pairs", written(tmp_path), "--label", "right", "--out", tmp_path / "out")
    out = capsys.readouterr().out
    assert "accuracy 0.667 ± 0.211, balanced 0.667 ± " in out and "said yes" in out
    assert len(lines(tmp_path / "out" / "judged.jsonl")) == 6
    assert json.loads((tmp_path / "out" / "agreement.json").read_text())["confusion"]["right"] == {"yes": 2, "no": 1}
    assert images.read(tmp_path / "out" / "reliability.png").size[0] > 400


def test_labels_can_come_later(judged, tmp_path, monkeypatch):
    pairs = written(tmp_path)
    call("--pairs", pairs, "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "agreement.json").exists()
    monkeypatch.setattr(loading, "load", None)  # all is there: no model is needed
    call("--pairs", pairs, "--out", tmp_path / "out", "--label", "right")
    assert (tmp_path / "out" / "agreement.json").exists() and len(judged) == 6


def test_it_goes_on_where_it_was_stopped(judged, tmp_path, monkeypatch):
    pairs, whole = written(tmp_path), COMMAND.judge
    flags = ("--pairs", pairs, "--out", tmp_path / "out", "--label", "right", "--batch", 2)

    def stopped(*given):
        if len(judged) == 4:
            raise KeyboardInterrupt
        return whole(*given)

    monkeypatch.setattr(COMMAND, "judge", stopped)
    with pytest.raises(KeyboardInterrupt):
        call(*flags)
    assert len(lines(tmp_path / "out" / "judged.jsonl")) == 4
    assert not (tmp_path / "out" / "agreement.json").exists()
    monkeypatch.setattr(COMMAND, "judge", whole)
    call(*flags)
    assert [red for red, _ in judged] == list(REDS.values())
    call("--pairs", pairs, "--out", tmp_path / "straight", "--label", "right")
    for name in ("judged.jsonl", "agreement.json"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "straight" / name).read_text()
    assert "seed was 0, is 1" in refused(COMMAND.main, "--checkpoint", "x", *flags, "--seed", 1)


def test_a_threshold_from_other_pairs(judged, tmp_path, capsys):
    """There a right picture has 0.4 and a wrong one 0.2: from 0.3 on it is a Yes, and here one more is found."""
    pairs, dev = written(tmp_path, names="abdf"), written(tmp_path, "dev.jsonl", "ce")
    call("--pairs", pairs, "--label", "right", "--fit-threshold", dev)
    *said, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(said) == 4  # those of the other file are not printed
    assert last["agreement"]["fitted"]["threshold"] == pytest.approx(0.3)
    assert last["agreement"]["fitted"]["n_dev"] == 2
    call("--pairs", pairs, "--label", "right", "--fit-threshold", dev, "--out", tmp_path / "out")
    assert [line["p_yes"] for line in lines(tmp_path / "out" / "dev.jsonl")] == [0.4, 0.2]
    assert "P(yes) = 0.3 (fitted)" in capsys.readouterr().out


@pytest.mark.parametrize("pictures, prompts", [("ab", "xy"), ("a", "xy"), ("ab", "x"), ("abc", "xy"), ("ab", "xyz")])
def test_several_pictures_and_prompts(judged, tmp_path, capsys, pictures, prompts):
    """As many of both, or one of one kind: none is dropped."""
    written(tmp_path)
    flags = [flag for name in pictures for flag in ("--image", tmp_path / f"{name}.png")]
    flags += [flag for prompt in prompts for flag in ("--prompt", prompt)]
    if len(pictures) > 1 < len(prompts) != len(pictures):
        assert "do not go with" in refused(COMMAND.main, "--checkpoint", "x", *flags)
        return
    call(*flags)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    count = max(len(pictures), len(prompts))
    expected = list(zip((pictures * count)[:count], (prompts * count)[:count], strict=True))
    assert [(Path(line["image"]).stem, line["prompt"]) for line in lines] == expected
    assert [(red, request.prompt) for red, request in judged] == [(REDS[name], prompt) for name, prompt in expected]


def test_edits(judged, tmp_path, capsys):
    """Both spellings of a triple; the source goes with the request."""
    written(tmp_path)
    triples = [
        {"source": "f.png", "image": "a.png", "text": "make it red", "ok": 0.8},
        {"image1": "a.png", "image": "f.png", "text": "make it red", "ok": 0.2},
    ]
    path = tmp_path / "edits.jsonl"
    path.write_text("\n".join(map(json.dumps, triples)))
    call("--pairs", path, "--label", "ok")
    first, second, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["source"].endswith("f.png") and second["source"].endswith("a.png")
    assert [(red, request.prompt, request.source.getpixel((0, 0))[0]) for red, request in judged] == [
        (255, "make it red", 0),
        (0, "make it red", 255),
    ]
    assert last["agreement"]["accuracy"] == 1.0
    call("--pairs", path, "--label", "ok", "--label-threshold", 0.9)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["agreement"]["confusion"]["right"] == {
        "yes": 0,
        "no": 0,
    }


def test_bad_input(judged, tmp_path, capsys):
    pairs, dev = written(tmp_path), written(tmp_path, "dev.jsonl", "ad")
    look = (COMMAND.main, "--checkpoint", "x", "--pairs", pairs)
    assert "line 1: 'good' is missing" in refused(*look, "--label", "good")
    assert "line 1: 'prompt' is 'a a': neither yes nor no" in refused(*look, "--label", "prompt")
    assert "--fit-threshold needs --label" in refused(*look, "--fit-threshold", dev)
    same = tmp_path / "." / "pairs.jsonl"
    assert "is the file of --pairs" in refused(*look, "--label", "right", "--fit-threshold", same)
    assert "holds 2 of the pairs" in refused(*look, "--label", "right", "--fit-threshold", dev)
    alone = written(tmp_path, "alone.jsonl", "ab", prompt="x")
    assert "of one kind alone by 'right'" in refused(*look, "--label", "right", "--fit-threshold", alone)
    assert "absent" in refused(*look, "--label", "right", "--fit-threshold", tmp_path / "absent.jsonl")
    assert "--label-threshold is nan" in refused(*look, "--label", "right", "--label-threshold", "nan")
    one = (COMMAND.main, "--checkpoint", "x", "--image", tmp_path / "a.png", "--prompt", "x")
    assert "--label goes with --pairs" in refused(*one, "--label", "right")
    assert "--out goes with --pairs" in refused(*one, "--out", tmp_path / "out")
    (tmp_path / "file").write_text("")
    assert "--out" in refused(*look, "--out", tmp_path / "file")
    assert not judged and capsys.readouterr().out == "" and not (tmp_path / "out").exists()


def test_an_empty_bin_and_one_label_are_no_error(judged, tmp_path, capsys):
    call("--pairs", written(tmp_path, names="ab"), "--label", "right", "--out", tmp_path / "out")
    assert "balanced unknown" in capsys.readouterr().out
    assert images.read(tmp_path / "out" / "reliability.png").size[0] > 400
