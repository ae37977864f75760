"""`evaluate` keeps its pictures and their page, also where it was stopped."""

import contextlib
import json

import numpy as np
import pytest
from tiny import processor

from janus_jax import evaluate
from janus_jax.errors import UserError
from janus_jax.results import compare
from janus_jax.sampling.rollout import Rollout


@pytest.fixture
def drawn(monkeypatch):
    """Grey pictures in place of a model's, five at a time; the work that was asked for."""
    asked = []

    def rollouts(model, params, processor, work, rounds, *args, **settings):
        asked.append(len(work))
        for begin in range(0, len(work), 5):
            requests, samples = zip(*work[begin : begin + 5], strict=True)
            rollout = Rollout.empty(requests, samples, rounds, reason=1, codes=4, side=48)
            rollout.rounds[:] = rounds
            rollout.images[:] = 200
            rollout.verdict[:, -1] = True
            yield rollout

    monkeypatch.setattr(evaluate, "rollouts", rollouts)
    monkeypatch.setattr(evaluate.flags, "loaded", lambda args: contextlib.nullcontext((None, None, processor())))
    return asked


def run(out, samples, *more):
    flags = ["--checkpoint", "shapes-rl", "--prompts-per-category", "1", "--samples", str(samples)]
    rounds = [] if "--rounds" in more else ["--rounds", "2"]
    evaluate.main([*flags, *rounds, "--out", str(out), *more])
    return json.loads(out.read_text())


def test_pictures_and_their_page(drawn, tmp_path, capsys):
    out, folder = tmp_path / "e.json", tmp_path / "e.pictures"
    once = run(out, 1)
    assert capsys.readouterr().out.startswith(f"{folder / 'index.html'}\n")
    assert len(list(folder.glob("*.png"))) == 2 * once["n"] == 12
    twice = run(out, 2)  # goes on with the second sample
    assert drawn == [6, 6] and twice["n"] == 12
    page = (folder / "index.html").read_text()
    assert page.count("<img") == len(list(folder.glob("*.png"))) == 24
    assert page.count("verifier: wrong") == 24 and page.count("said-yes chosen") == 12
    lines = [json.loads(line) for line in (tmp_path / "e.trajectories.jsonl").read_text().splitlines()]
    assert all(
        line["images"] == [f"{n % 6:04d}_{n // 6}_{turn}.png" for turn in (0, 1)] for n, line in enumerate(lines)
    )
    assert np.mean([line["right"] for line in lines]) == 0


def test_without_pictures(drawn, tmp_path):
    run(tmp_path / "e.json", 1, "--no-pictures")
    assert not (tmp_path / "e.pictures").exists() and "images" not in (tmp_path / "e.trajectories.jsonl").read_text()


def test_fresh_samples_in_place_of_redraws(drawn, tmp_path):
    """Three single pictures a sample; both ways go on from what is drawn, and compare takes what comes out."""
    report = run(tmp_path / "e.json", 2, "--again", "best", "--rounds", "3")
    assert drawn == [6 * 2 * 3] and report["n"] == 12 and report["rounds_used"] == 3
    report = run(tmp_path / "e.json", 2, "--again", "fresh", "--rounds", "3")
    assert drawn == [36] and report["n"] == 12 and report["rounds_used"] == 1  # all that is drawn here is a Yes
    assert len(compare.read(tmp_path / "e.json")[1]) == 12 and not (tmp_path / "e.pictures").exists()
    with pytest.raises(UserError, match="--again best is for --suite shapes"):
        run(tmp_path / "f.json", 2, "--again", "best", "--suite", "shapes_edit")
