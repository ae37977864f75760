"""Question answering as an evaluation: the same pictures each time, figures by hand, going on after a stop."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from janus_jax import evaluate
from janus_jax.checkpoints import loading
from janus_jax.results import answers
from janus_jax.rl import retention
from janus_jax.rl.retention import held_out_questions
from janus_jax.shapes.questions import KINDS


def test_questions_are_held_out_and_always_the_same():
    asked, more = held_out_questions(2, 24), held_out_questions(3, 24)
    assert [question.kind for question, _ in asked] == [kind for kind in KINDS for _ in range(2)]
    assert all(question.held_out for question, _ in asked)
    for (question, picture), (other, same) in zip(asked[2:4], more[3:5], strict=True):
        assert question == other and np.array_equal(picture, same)
    pictures = [np.asarray(picture).tobytes() for _, picture in [*more, *held_out_questions(3, 24, seed=1)]]
    assert len(set(pictures)) == len(pictures) == 36


def test_shares_by_hand():
    answered = [{"kind": kind, "right": n < 2} for kind in KINDS for n in range(4)]
    answered[0]["right"] = False
    got = answers.report(answered, suite="x")
    assert got["n"] == 24 and got["overall"] == {"right": round(11 / 24, 5)}
    assert got["categories"]["count"] == {"right": 0.25} and got["categories"]["place"] == {"right": 0.5}
    assert got["stderr"]["categories"]["place"]["right"] == round((0.25 / 3) ** 0.5, 5)


def test_the_suite_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    model = SimpleNamespace(cfg=SimpleNamespace(vq=SimpleNamespace(image_size=24)))
    monkeypatch.setattr(loading, "load", lambda path, *rest: (model, {"llama": {"layers": ()}}, None))
    seen = []

    def chat(model, params, processor, asked, sampling, seed, batch, system):
        if len(seen) == 4:
            seen.append(None)
            raise KeyboardInterrupt
        seen.extend(text for _, text in asked)
        return ["yes" if text.startswith("is there") else "purple" for _, text in asked]

    monkeypatch.setattr(retention, "chat", chat)
    flags = ["--checkpoint", "shapes-sft", "--suite", "shapes_questions", "--prompts-per-category", "2", "--batch", "2"]
    with pytest.raises(KeyboardInterrupt):
        evaluate.main([*flags, "--out", str(tmp_path / "q.json")])
    assert len((tmp_path / "q.answers.jsonl").read_text().splitlines()) == 4 and not (tmp_path / "q.json").exists()
    evaluate.main([*flags, "--out", str(tmp_path / "q.json")])
    assert [text for text in seen if text] == [question.text for question, _ in held_out_questions(2, 24)]
    answered = [json.loads(line) for line in (tmp_path / "q.answers.jsonl").read_text().splitlines()]
    assert [one["n"] for one in answered] == list(range(12))
    for one in answered:
        assert one["right"] == (one["answer"] == ("yes" if one["kind"] == "present" else "purple"))
    result = json.loads((tmp_path / "q.json").read_text())
    assert result["overall"]["right"] == round(sum(one["right"] for one in answered) / 12, 5)
    assert "right " in capsys.readouterr().out
