"""What compiles anew: another prompt, temperature or weight needs no other program."""

import contextlib

import jax
import numpy as np
import pytest
from PIL import Image
from tiny import MODEL, params, processor
from trajectories import draw

from janus_jax.sampling.answer import chat
from janus_jax.sampling.density import Sampling

pytestmark = pytest.mark.usefixtures("quick_compiles")

COMPILED = "/jax/core/compile/backend_compile_duration"
counts = []


def _count(event, duration, **_):
    if event == COMPILED:
        counts.append(duration)


@pytest.fixture(scope="module", autouse=True)
def listening():
    jax.monitoring.register_event_duration_secs_listener(_count)
    yield
    jax.monitoring.unregister_event_duration_listener(_count)


@contextlib.contextmanager
def compilations(expected):
    before = len(counts)
    yield
    found = len(counts) - before
    assert found == expected if expected is not None else found > 0, f"{found} programs were compiled"


def drawing(prompts, **settings):
    sampling = Sampling(**{"cfg_weight": 4.0, "max_reason_tokens": 4, **settings})
    return draw(prompts=prompts, samples=2, rounds=2, batch=4, sampling=sampling, always=True)


def test_introspection():
    with compilations(None):  # the count counts
        first = drawing(["one red circle", "a blue cross"], text_top_k=7)
    others = ["a green square", "two red triangles"]
    with compilations(0):
        drawing(others, text_top_k=7)
    with compilations(0):
        hot = drawing(others, text_top_k=7, temperature=3.0)
    with compilations(0):
        guided = drawing(others, text_top_k=7, cfg_weight=2.0)
    with compilations(0):
        same = drawing(["one red circle", "a blue cross"], text_top_k=7)
    for a, b in zip(first, same, strict=True):
        np.testing.assert_array_equal(a.rounds[1].codes, b.rounds[1].codes)
    # the values were not lost with the programs: they do matter
    assert any((a.rounds[0].codes != b.rounds[0].codes).any() for a, b in zip(hot, guided, strict=True))
    with compilations(None):
        drawing(others, text_top_k=8)  # what a shape depends on is another program


def answered(question, listen=None, **settings):
    picture = Image.new("RGB", (16, 16), "red")
    sampling = Sampling(**{"text_top_k": 9, "max_reason_tokens": 4, **settings})
    return chat(MODEL, params(), processor(), [([picture], question)], sampling, batch=1, listen=listen)


def test_answers():
    answered("What is it?")
    with compilations(0):
        answered("Which colour?", temperature=2.0)


def test_streamed_answers():
    heard = []
    answered("What is it?", listen=lambda index, piece: heard.append(piece))
    with compilations(0):
        said = answered("Which colour?", listen=lambda index, piece: heard.append(piece))
    assert "".join(heard).endswith(said[0])
