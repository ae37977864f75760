"""Storyboards: what fits a screen, and whose opinion is drawn where."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from trajectories import made

from janus_jax.results import layout
from janus_jax.results.storyboard import MARGIN, NO, WIDTH, YES, storyboard
from janus_jax.sampling.rollout import Trajectory
from janus_jax.sequences.request import Request


def count(board, color):
    return int((np.asarray(board) == color).all(-1).sum())


def plain(*verdicts, prompt="two red circles", sample=0, source=None):
    """Grey pictures, on which each other colour is a frame or a mark."""
    shots = [
        dataclasses.replace(shot, image=Image.new("RGB", (16, 16), (90, 90, 90))) for shot in made(*verdicts).rounds
    ]
    return Trajectory(Request(prompt, source), sample, shots)


@pytest.mark.parametrize("rounds, samples", [(1, 12), (3, 8), (15, 2)])
def test_fits_a_screen(rounds, samples):
    boards = [plain(*[False] * (rounds - 1), True, prompt="a " * 60, sample=n) for n in range(samples)]
    board = storyboard(boards, title="t " * 300)
    assert board.width <= WIDTH + 2 * MARGIN


def test_rows_are_filled():
    """Twelve pictures of as many prompts take two rows, not twelve."""
    one = storyboard([plain(True, prompt="a")])
    many = storyboard([plain(True, prompt=f"{n}") for n in range(12)])
    assert many.height < 2.2 * one.height


def test_frames_are_the_model_s_opinion():
    yes, no = storyboard([plain(True)]), storyboard([plain(False)])
    assert count(yes, YES) > 4 * 160 and count(yes, NO) == 0
    assert count(no, NO) > 4 * 160 and count(no, YES) == 0
    both = storyboard([plain(False, True)])
    assert 0 < count(both, NO) < count(both, YES)  # the chosen one's frame is thicker


def test_marks_are_the_judge_s():
    """A Yes that the judge calls wrong: a green frame and a red mark; a missing score has neither colour."""
    without = storyboard([plain(True)])
    wrong = storyboard([plain(True)], scores=[[0.2]])
    assert count(without, NO) == 0 and 30 < count(wrong, NO) < 110
    assert count(wrong, YES) == count(without, YES)
    right = storyboard([plain(True)], scores=[[0.5]])
    assert count(right, YES) - count(without, YES) == count(wrong, NO)
    missing = storyboard([plain(True)], scores=[[float("nan")]])
    assert count(missing, NO) == 0 and count(missing, YES) == count(without, YES)


def test_an_edit_has_its_source_and_what_differs():
    source = Image.new("RGB", (16, 16), (90, 90, 250))
    board = storyboard([plain(True, source=source)])
    assert count(board, (90, 90, 250)) == 160 * 160  # the source, whole
    assert count(board, (0, 0, 160)) == 160 * 160


def test_more_than_the_limit_are_said(monkeypatch):
    said = []
    monkeypatch.setattr(layout.lettering, "write", lambda pen, place, text, *more: said.append(text))
    storyboard([plain(True, prompt=f"{n}") for n in range(5)], limit=3)
    assert any("3 of 5" in text for text in said) and "2" in said and "3" not in said


def test_those_of_a_prompt_stand_together(monkeypatch):
    said = []
    monkeypatch.setattr(layout.lettering, "write", lambda pen, place, text, *more: said.append(text))
    order = [("a", 0), ("b", 0), ("a", 3)]
    storyboard([plain(True, prompt=prompt, sample=n) for prompt, n in order], scores=[[1.0], [0.5], [0.25]])
    names = [text for text in said if text in ("a", "b") or text.startswith(("sample", "judge"))]
    assert names == ["a", "sample 0", "judge: 1.00", "sample 3", "judge: 0.25", "b", "sample 0", "judge: 0.50"]


def test_flow_breaks_rows_like_words():
    parts = [layout.Part(width, 10, lambda board, x, y: None) for width in (40, 50, 40)]
    assert layout.flow(parts, 100, 10, 5)[:2] == (100, 25)
    places = []
    parts = [layout.Part(w, 10, lambda board, x, y: places.append((x, y))) for w in (40, 50, 40)]
    layout.flow(parts, 100, 10, 5).paint(None, 0, 0)
    assert places == [(0, 0), (50, 0), (0, 15)]
    assert layout.stack(parts, 2)[:2] == (50, 34)
