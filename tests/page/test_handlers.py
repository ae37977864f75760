"""The page's buttons without gradio: what they show on the way and at the end, and how they refuse."""

import functools
import html
import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import MODEL, params, processor
from trajectories import draw

from janus_jax.errors import UserError
from janus_jax.models.janus import Janus
from janus_jax.page import limits, view
from janus_jax.page.handlers import Handlers
from janus_jax.sampling.answer import GREEDY_ANSWER, chat, judge
from janus_jax.sampling.density import Sampling
from janus_jax.sequences.request import Request

pytestmark = pytest.mark.usefixtures("quick_compiles")
SAMPLING = Sampling(max_reason_tokens=5)
NUMBERS = (2, 2, 4.0, 1.0, 7)  # samples, rounds, guidance, temperature, seed


def handlers(**changed):
    settings = {"checkpoint": "here", "model": MODEL, "params": params(), "processor": processor()}
    return Handlers(**{**settings, "sampling": SAMPLING, "seconds": 600, **changed})


@functools.cache
def drawn():
    return list(handlers().draw(" two <b>red</b> circles ", *NUMBERS))


@pytest.fixture
def file(tmp_path):
    def write(name="a.png", size=(20, 16), seed=0):
        pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        return str(tmp_path / name)

    return write


def test_the_drawn_pictures_are_those_of_introspect():
    sampling = Sampling(cfg_weight=4.0, temperature=1.0, max_reason_tokens=5)
    expected = draw(["two <b>red</b> circles"], 2, 2, sampling=sampling, seed=7, batch=64)
    status, page = drawn()[-1]
    assert page.startswith(view.trajectories(expected, 16, True)[: -len("</div>")])
    assert status.startswith("Done in") and f"Yes to {sum(t.rounds[t.final].verdict for t in expected)} of 2" in status
    assert page.count("chosen") == 4  # a class and a word for each sample


def test_pictures_and_words_come_as_they_are_made():
    begun = [page for _, page in drawn()]
    assert begun[0] == "" and "about a minute" in drawn()[0][0]
    assert [re.findall(r"drawing: (\d+) of 16", page) for page in begun[1:4]] == [["4", "4"], ["8", "8"], ["12", "12"]]
    assert "looking at it" in begun[4]
    words = [view_text(page) for page in begun[5:]]
    assert any("Yes" in text or "No" in text for text in words)
    assert [status for status, _ in drawn()][1] == "Picture 1 of at most 2"


def view_text(page):
    return html.unescape(re.sub(r"<[^>]+>", " ", page))


@pytest.mark.parametrize(("name", "request_"), [("generate", "it's $(x)"), ("edit", "make the circle blue")])
def test_the_command_draws_the_same(name, request_, monkeypatch, file):
    """The line below the pictures asks the command for what the page drew."""
    command = importlib.import_module(f"janus_jax.{name}")
    asked = []

    def rollouts(model, params, processor, work, rounds, sampling, seed, **_):
        asked.append(([request.prompt for request, _ in work], rounds, sampling, seed))
        raise UserError("enough")

    monkeypatch.chdir(Path(file()).parent)
    monkeypatch.setattr(command, "rollouts", rollouts)
    sampling = Sampling(cfg_weight=4.0, temperature=0.7)
    words = ("generate", "--prompt") if name == "generate" else ("edit", "--image", "a.png", "--instruction")
    told = {"samples": 2, "rounds": 3, "seed": 7}
    line = shlex.split(handlers(checkpoint="shapes-rl")._command((*words, request_), sampling, told))
    assert line[:3] == ["python", "-m", command.__name__]
    with pytest.raises(UserError, match="enough"):
        command.main(line[3:])
    assert asked == [([request_] * 2, 3, sampling, 7)]
    assert "--dtype" not in line
    halved = handlers(model=Janus(MODEL.cfg.changed({"dtype": "bfloat16"})))
    assert halved._command((*words, request_), sampling, told).endswith("--dtype bfloat16")


def test_editing(file):
    *_, (status, page) = handlers().edit(file(), "make the circle blue", 1, 1, 5.0, 1.0, 0)
    assert status.startswith("Done in") and "janus_jax.edit" in page
    assert 'alt="Source"' in page and "In its place" in page  # the picture is no square
    *_, (_, page) = handlers().edit(file("b.png", (16, 16)), "make the circle blue", 1, 1, 5.0, 1.0, 0)
    assert "In its place" not in page


def test_asking(file):
    path, question = file(), "What <is> it?"
    expected = chat(MODEL, params(), processor(), [([Image.open(path)], question)], GREEDY_ANSWER)
    steps = list(handlers().ask(path, question))
    assert steps[-1] == ("Done.", view.answer(expected[0]))
    assert len(steps) > 3
    *_, (_, page) = handlers().ask(None, question)
    assert page == view.answer(chat(MODEL, params(), processor(), [([], question)], GREEDY_ANSWER)[0])


def test_judging(file):
    path, before = file(), file("before.png", seed=1)
    for source in (None, before):
        request = Request("two red circles", source and Image.open(source).convert("RGB"))
        [(p_yes, reason)] = judge(MODEL, params(), processor(), [Image.open(path)], [request])
        *_, (_, page) = handlers().judge(path, "two red circles", source)
        assert page == view.verdict(p_yes, reason)
        assert f"{p_yes:.2f}" in page and ("Yes" if reason.startswith("Yes") else "No") in view_text(page)


def first(steps):
    with pytest.raises(UserError) as caught:
        for _ in steps:
            pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_input_is_one_line(file, tmp_path):
    here = handlers()
    assert "the prompt is empty" in first(here.draw(" ", *NUMBERS))
    assert "2000 at most" in first(here.draw("a " * 1001, *NUMBERS))
    assert "samples is 9: it must be a whole number at least 1 and at most 8" in first(here.draw("a", 9, *NUMBERS[1:]))
    assert "seed is empty" in first(here.draw("a", *NUMBERS[:4], None))
    assert "seed is -1" in first(here.draw("a", *NUMBERS[:4], -1))
    assert "temperature is 0" in first(here.draw("a", 1, 1, 1.0, 0, 0))
    assert "no picture" in first(here.edit(None, "blue", *NUMBERS))
    assert "the instruction is empty" in first(here.edit(file(), "", *NUMBERS))
    assert "the question is empty" in first(here.ask(None, None))
    text = tmp_path / "text.png"
    text.write_text("no picture")
    assert "the picture text.png cannot be read" in first(here.judge(str(text), "a circle", None))
    assert "no picture" in first(here.judge(None, "a circle", None))


def test_a_picture_that_is_too_large(file, monkeypatch):
    monkeypatch.setattr(limits, "PIXELS", 319)
    assert "20 x 16 pixels" in first(handlers().ask(file(), "What?"))


def test_a_request_ends_in_time():
    shown, closed = [], []

    def steps():
        try:
            yield from range(10)
        finally:
            closed.append(True)

    running = steps()  # held, so that it is not closed for want of a holder
    with pytest.raises(UserError, match="stopped after 0 s"):
        for step in limits.within(0, running):
            shown.append(step)
    assert shown == [0] and closed
    assert list(limits.within(60, steps())) == list(range(10))


def test_what_is_written_is_escaped():
    assert "<b>" not in drawn()[-1][1]
    assert view.answer("<script>") == view.answer("<script>").replace("<script>", "&lt;script&gt;")
    assert "<i>" not in view.verdict(0.5, "No, <i>")
    assert 'alt="&quot;' in view.picture(Image.new("RGB", (2, 2)), '"')
