"""A picture in parts, of one code at a time or several: always the same picture."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import MODEL, I, grammar, params

from janus_jax.models.janus import JanusConfig
from janus_jax.sampling import decode
from janus_jax.sampling.density import Sampling
from janus_jax.sequences.request import Request
from janus_jax.sequences.row import Row, collate

pytestmark = pytest.mark.usefixtures("quick_compiles")
TEXTS = ("two red circles", "a photo of a blue square to the left of a green triangle", "one cross")
KEYS = np.stack([decode.row_key(0, Request(text), 0, 0) for text in TEXTS])


def started(guided, slots=None):
    rows = [Row() for _ in TEXTS]
    for row, text in zip(rows, TEXTS, strict=True):
        grammar().ask(row, Request(text))
    batch = collate(rows, max(map(len, rows)), grammar().special.pad, guided=guided)
    return decode.prefill(MODEL, params(), batch, slots, guided)


def drawn(sampling, slots=None, **settings):
    guided = sampling.guided
    return decode.draw(MODEL, params(), *started(guided, slots), KEYS, sampling, guided, **settings)


@functools.cache
def reference(weight):
    """One code at a time, in a cache that never grows."""
    return drawn(Sampling(cfg_weight=weight), 128)


def same(got, expected):
    cache, codes, logps = got
    there, other, others = expected
    np.testing.assert_array_equal(codes, other)
    np.testing.assert_allclose(logps, others, atol=2e-4)
    assert cache.length == there.length and cache.count.tolist() == there.count.tolist()
    slots = int(cache.length)
    assert not cache.mask[:, slots:].any()
    np.testing.assert_array_equal(cache.mask[:, :slots], there.mask[:, :slots])
    real = np.asarray(there.mask[:, :slots])
    for name in ("k", "v"):
        for x, y in zip(getattr(cache, name), getattr(there, name), strict=True):
            x, y = (np.asarray(each).swapaxes(1, 2)[:, :slots][real] for each in (x, y))
            np.testing.assert_allclose(x, y, atol=2e-4)


@pytest.mark.parametrize("weight", [5.0, 1.0])
def test_in_parts(weight, monkeypatch):
    monkeypatch.setattr(decode, "PART", 5)  # one line of four
    monkeypatch.setattr(decode, "FIRST", 8)
    heard = []
    got = drawn(Sampling(cfg_weight=weight), on_codes=lambda *told: heard.append(told))
    assert heard == [(4, I), (8, I), (12, I), (I, I)]
    same(got, reference(weight))
    begin = int(got[0].length) - I
    assert got[0].slots == begin + I


def test_sizes():
    """Hand values: parts of whole lines, caches of a power of two or of what there is in the end."""
    vq = JanusConfig.preset("1b").vq
    assert vq.grid == 24 and decode.part_of(vq) == 48
    sizes = decode.parts(vq, 64)
    assert [first for first, _, _ in sizes] == list(range(0, 576, 48)) and {count for _, count, _ in sizes} == {48}
    assert [slots for *_, slots in sizes] == [128, *[256] * 3, *[512] * 5, *[640] * 3]
    assert [slots for *_, slots in decode.parts(vq, 750)] == [1024] * 5 + [1326] * 7  # the second picture
    assert decode.parts(JanusConfig.preset("shapes").vq, 32) == [(0, 36, 68)]
    assert {slots for *_, slots in decode.parts(vq, 64, ahead=4)} == {132, 260, 516, 644}


@pytest.mark.parametrize("weight", [5.0, 1.0])
@pytest.mark.parametrize("ahead", [2, 3, 8, 16])
def test_lookahead(weight, ahead):
    same(drawn(Sampling(cfg_weight=weight, lookahead=ahead)), reference(weight))


def test_lookahead_in_parts(monkeypatch):
    """Each part begins where the one before has ended."""
    monkeypatch.setattr(decode, "PART", 5)
    monkeypatch.setattr(decode, "FIRST", 8)
    same(drawn(Sampling(cfg_weight=5.0, lookahead=3)), reference(5.0))


def test_a_last_picture():
    """The same codes, the last of which nobody reads."""
    cache, codes, logps = drawn(Sampling(cfg_weight=5.0), more=False)
    whole, expected, others = reference(5.0)
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_allclose(logps, others, atol=2e-4)
    assert int(cache.length) == int(whole.length) - 1


def passes(ahead, **settings):
    sampling, (cache, hidden) = Sampling(cfg_weight=5.0, lookahead=ahead, **settings), started(True, 128)
    return int(decode.draw_part(MODEL, params(), cache, hidden, KEYS, sampling, True, 0, I)[-1])


def test_passes(monkeypatch):
    """As few as can be where every guess is right, and never more than codes."""
    assert passes(1) == I
    assert I // 4 < passes(4) <= I
    head = params()["gen_head"]["fc2"]
    sure = {"kernel": head["kernel"], "bias": head["bias"].at[3].set(1e4)}
    certain = {**params(), "gen_head": {**params()["gen_head"], "fc2": sure}}
    monkeypatch.setitem(globals(), "params", lambda: certain)
    assert [passes(ahead) for ahead in (1, 2, 4, 8, 16)] == [16, 8, 4, 2, 1]


def test_rows_at_their_own_pace():
    """A cache whose rows have different lengths: each row as it is alone."""
    rng = np.random.default_rng(0)
    embeds = jnp.asarray(rng.normal(size=(2, 9, MODEL.cfg.llama.width)), jnp.float32)
    lengths = [3, 5]

    def decoded(embeds, cache):
        mask = jnp.ones(embeds.shape[:2], bool)
        return MODEL.apply({"params": params()}, embeds, mask, None, cache, method="decode")

    decoded = jax.jit(decoded)
    empty = jax.jit(lambda: decode.init_cache(MODEL.cfg.llama, 2, 9))
    _, cache = decoded(embeds[:, :5], empty())
    behind = cache.replace(length=jnp.array(lengths, jnp.int32), count=jnp.array(lengths, jnp.int32))
    new = jnp.stack([embeds[i, n : n + 4] for i, n in enumerate(lengths)])
    hidden, after = decoded(new, behind)
    assert after.length.tolist() == [7, 9]
    whole, _ = decoded(embeds, empty())
    for i, n in enumerate(lengths):
        np.testing.assert_allclose(hidden[i], whole[i, n : n + 4], atol=1e-4)
