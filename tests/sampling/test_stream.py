"""Introspection as it happens: at its end it is `introspect`, and on the way there it tells the truth."""

import functools

import numpy as np
import pytest
from PIL import Image
from tiny import EOS, MODEL, I, params, picture, processor
from trajectories import PROMPTS, SAMPLING, draw

from janus_jax.errors import UserError
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.introspect import introspect
from janus_jax.sampling.stream import stream
from janus_jax.sequences import images
from janus_jax.sequences.request import Request

pytestmark = pytest.mark.usefixtures("quick_compiles")
WIDTH = 4


def streamed(prompts=PROMPTS, samples=4, rounds=3, sampling=SAMPLING, **settings):
    return list(stream(MODEL, params(), processor(), list(prompts), samples, rounds, sampling, **settings))


@functools.cache
def seen():
    return streamed()


def identical(got, expected):
    assert [(t.prompt, t.sample, len(t.rounds)) for t in got] == [(t.prompt, t.sample, len(t.rounds)) for t in expected]
    for a, b in zip(got, expected, strict=True):
        for x, y in zip(a.rounds, b.rounds, strict=True):
            for name in ("codes", "context_codes", "reason_ids", "image"):
                np.testing.assert_array_equal(np.asarray(getattr(x, name)), np.asarray(getattr(y, name)))
            assert (x.verdict, x.reason) == (y.verdict, y.reason)
            np.testing.assert_allclose(x.p_yes, y.p_yes, rtol=1e-5)
            for name in ("code_logps", "reason_logps"):  # another program, and so another rounding
                np.testing.assert_allclose(getattr(x, name), getattr(y, name), atol=1e-5)


def test_the_end_is_what_introspect_returns():
    identical(seen()[-1], draw())


@pytest.mark.parametrize(
    "settings",
    [
        {"stride": 5},  # which does not divide the 16 codes
        {"stride": 100, "batch": 4, "context": "reencode", "always": True},
        {"sampling": Sampling(cfg_weight=1.0, temperature=0.7, text_top_k=5, max_reason_tokens=5), "seed": 3},
    ],
)
def test_with_other_settings_too(settings):
    expected = {name: value for name, value in settings.items() if name != "stride"}
    identical(streamed(**settings)[-1], draw(**expected))


def test_edits():
    source = Image.fromarray(images.to_uint8(picture(1)))
    requests = [Request("make the circle blue", source)]
    expected = introspect(MODEL, params(), processor(), requests, 2, 2, SAMPLING)
    identical(streamed(requests, 2, 2)[-1], expected)


def test_what_is_drawn_stays():
    """Codes and words only grow, and a finished round never changes."""
    for earlier, later in zip(seen(), seen()[1:], strict=False):
        for a, b in zip(earlier, later, strict=True):
            assert len(a.rounds) <= len(b.rounds) <= len(a.rounds) + 1
            for x, y in zip(a.rounds, b.rounds, strict=False):
                assert (y.codes[: len(x.codes)] == x.codes).all() and len(y.codes) <= I
                assert (y.reason_ids[: len(x.reason_ids)] == x.reason_ids).all()
                assert y.reason.startswith(x.reason)
                assert x.verdict is None or (x.verdict, x.p_yes) == (y.verdict, y.p_yes)


def test_pictures_fill_row_by_row():
    begun = [t[0].rounds[-1] for t in seen() if len(t[0].rounds) == 1]
    drawn = [len(shot.codes) for shot in begun if not len(shot.reason_ids)]
    assert drawn == [4, 8, 12, 16, 16]  # and once more when it is decoded
    final = np.asarray(begun[-1].image).astype(int)
    for shot, codes in zip(begun, drawn, strict=False):
        pixels = np.asarray(shot.image).astype(int)
        assert (pixels[codes:] == images.GREY).all()  # 16 codes, 16 rows of pixels: four a row of codes
        assert not (pixels[:codes] == images.GREY).all(axis=(1, 2)).any()
        assert shot.verdict is None and shot.p_yes is None and shot.reason == ""
    assert (np.asarray(begun[4].image) == final).all()


def test_words_come_one_by_one():
    begun = [t[0].rounds[0] for t in seen() if len(t[0].rounds) == 1]
    words = [len(shot.reason_ids) for shot in begun if len(shot.reason_ids)]
    assert words[:2] == [1, 2] and set(np.diff(words)) <= {0, 1}
    assert all(EOS not in shot.reason_ids[:-1] for shot in begun)


def test_another_stride_draws_nothing_else():
    identical(streamed(PROMPTS[:1], 1, 1, stride=1)[-1], draw(PROMPTS[:1], 1, 1))


def test_it_can_be_left():
    steps = stream(MODEL, params(), processor(), list(PROMPTS), 1, 3, SAMPLING)
    assert len(next(steps)[0].rounds[0].codes) == WIDTH
    steps.close()
    identical(streamed(PROMPTS[:1], 1, 1)[-1], draw(PROMPTS[:1], 1, 1))


def test_bad_input():
    with pytest.raises(UserError, match="no prompts"):
        streamed([])
    with pytest.raises(UserError, match="samples must be at least 1"):
        streamed(samples=0)
    with pytest.raises(UserError, match="neither 'codes' nor"):
        streamed(context="pixels")
    with pytest.raises(UserError, match="empty"):
        streamed([" "])
