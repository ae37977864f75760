"""Dense and splash attention against jax.nn.dot_product_attention: numbers, gradients, caches, meshes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from janus_jax.models import attention, decoder
from janus_jax.models.kv_cache import init_cache
from janus_jax.models.llama import Llama, LlamaConfig
from janus_jax.parallel import sharding

pytestmark = pytest.mark.usefixtures("quick_compiles")

B, T, N, H = 2, 150, 4, 32
CFG = LlamaConfig(vocab_size=64, width=64, layers=2, heads=4, kv_heads=2, head_dim=32, mlp=64, max_positions=1024)


def draws(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def holes():
    """Left padding in one row, a hole in the middle of the other."""
    mask = np.ones((B, T), bool)
    mask[0, :37] = False
    mask[1, 60:90] = False
    return jnp.asarray(mask)


def dot(q, k, v, mask):
    seen = mask[:, None, None, :] & np.tril(np.ones((T, T), bool))[None, None]
    with jax.numpy_dtype_promotion("standard"):
        return jax.nn.dot_product_attention(q, k, v, mask=seen)


def live(out, mask):
    return jnp.where(mask[..., None, None], out, 0)


def test_when_it_is_taken():
    assert not attention.splashes("auto", 500)  # this is a CPU
    assert attention.splashes("splash", 128) and not attention.splashes("splash", 127)
    assert not attention.splashes("dot", 500)


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("attend, queries", [(attention.splash, 128), (attention.dense, 128), (attention.dense, 40)])
def test_numbers_and_gradients(attend, queries, kv_heads, monkeypatch):
    """Dense in one block, and in three."""
    monkeypatch.setattr(attention, "QUERIES", queries)
    q, k, v, g = draws((B, T, N, H), (B, T, kv_heads, H), (B, T, kv_heads, H), (B, T, N, H))
    mask = holes()

    def value(attend, *qkv):
        return jnp.sum(live(attend(*qkv, mask), mask) * g)

    np.testing.assert_allclose(live(attend(q, k, v, mask), mask), live(dot(q, k, v, mask), mask), rtol=2e-5, atol=2e-6)
    ours, theirs = (jax.grad(value, argnums=(1, 2, 3))(attend, q, k, v) for attend in (attend, dot))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=2e-4, atol=2e-5)


def outputs(choice, mesh=None, rows=B, gradient=False):
    """Hidden states of real tokens of a decoder; the last of them with what came before in a cache."""
    model = Llama(CFG, attention=choice)
    (embeds,) = draws((rows, T, CFG.width))
    mask = jnp.tile(holes(), (rows // B, 1))
    params = model.init(jax.random.key(1), embeds[:, :1], mask[:, :1], method="__call__")

    def run(embeds):
        hidden = model.apply(params, embeds, mask)
        if gradient:
            return jnp.where(mask[..., None], hidden, 0), None
        cache = init_cache(CFG, rows, 2 * T)
        laid = decoder.decode_params({"llama": params["params"]})["llama"]
        first, cache = decoder.decode(CFG, laid, embeds[:, :20], mask[:, :20], None, cache, choice)
        second, cache = decoder.decode(CFG, laid, embeds[:, 20:], mask[:, 20:], None, cache, choice)
        pieces = jnp.concatenate([first, second], axis=1)
        keep = mask[..., None]
        return jnp.where(keep, hidden, 0), jnp.where(keep, pieces, 0)

    if gradient:
        run = jax.grad(lambda embeds, run=run: jnp.sum(jnp.sin(run(embeds)[0])))
    if mesh is None:
        return jax.jit(run)(embeds)
    with jax.set_mesh(mesh):
        return jax.jit(run)(embeds)


@pytest.mark.parametrize("gradient", [False, True])
def test_a_decoder(gradient):
    """Splash after a cache that is empty, and after one that is not; a prefill with it is the full forward pass."""
    expected, got = outputs("dot", gradient=gradient), outputs("splash", gradient=gradient)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=2e-5), got, expected)
    if not gradient:
        np.testing.assert_allclose(*got, rtol=1e-3, atol=2e-5)


def test_on_a_mesh():
    """Each device its rows and heads."""
    expected = outputs("splash", rows=4)
    got = outputs("splash", sharding.make_mesh(2, 2, 2), rows=4)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=2e-5), got, expected)


def test_an_unknown_choice():
    from janus_jax.models.janus import JanusConfig

    with pytest.raises(ValueError, match="attention is 'flash': it must be one of auto, dot, splash"):
        dataclasses.replace(JanusConfig.preset("shapes"), attention="flash")
