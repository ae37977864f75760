"""How parameters lie while they draw: nothing of them is gathered in the loop that draws a picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from janus_jax.aot import hlo
from janus_jax.models.janus import Janus, JanusConfig, abstract_params, cast_params, init_params
from janus_jax.models.kv_cache import init_cache, take_rows
from janus_jax.parallel import sharding
from janus_jax.sampling import decode
from janus_jax.sampling.density import Sampling
from janus_jax.training.program import placed

CFG = JanusConfig.preset("shapes").changed(
    {
        "llama": {"width": 64, "layers": 2, "heads": 4, "kv_heads": 4, "head_dim": 16, "mlp": 128},
        "siglip": {"width": 32, "layers": 1, "heads": 2, "mlp": 64},
    }
)
MODEL, ROWS = Janus(CFG), 8


def drawn(without, lookahead=1):
    """The compiled text of the loop that draws a picture, on a mesh of 2x2x2, parameters split over all axes but
    `without`."""
    mesh = sharding.make_mesh(2, 2, 2)
    shapes = abstract_params(MODEL)
    params = placed(shapes, sharding.param_shardings(shapes, mesh, without=without))

    def shape(dtype, *sizes):
        return jax.ShapeDtypeStruct(sizes, dtype)

    cache = jax.eval_shape(lambda: init_cache(CFG.llama, 2 * ROWS, 64, CFG.dtype))
    by_row = jax.NamedSharding(mesh, jax.P(("data", "fsdp"), "tensor"))
    cache = cache.replace(k=placed(cache.k, by_row), v=placed(cache.v, by_row))
    rest = shape(CFG.dtype, 2 * ROWS, CFG.llama.width), shape(jnp.uint32, ROWS, 2), Sampling(lookahead=lookahead), True
    with jax.set_mesh(mesh):
        return decode.draw_part.lower(MODEL, params, cache, *rest, 0, CFG.vq.tokens).compile().as_text()


def of_parameters(text):
    """Types of gathered arrays that are, but for axes of size 1, a parameter or one layer of it."""
    leaves = jax.tree.leaves(abstract_params(MODEL)["llama"]["layers"])
    others = jax.tree.leaves({name: abstract_params(MODEL)[name] for name in ("gen_head", "gen_aligner", "gen_embed")})
    shapes = {leaf.shape[1:] for leaf in leaves} | {leaf.shape for leaf in (*leaves, *others)}
    shapes = {tuple(size for size in shape if size > 1) for shape in shapes}
    return [
        type_text
        for type_text in hlo.gathered(text)
        if any(tuple(size for size in shape if size > 1) in shapes for _, shape in hlo._arrays(type_text))
    ]


def test_no_parameter_is_gathered():
    text = drawn(without=("fsdp",))
    assert not of_parameters(text)
    # two sums per layer and token, behind the attention and behind the MLP, and what the heads need
    sent = hlo.collectives(text)
    assert sent["all-reduce"].count >= 2 * CFG.llama.layers * CFG.vq.tokens
    # the codes that are chosen, too, come of reductions; no row asks another device for its unconditional one
    assert set(sent) == {"all-reduce"}


def test_the_training_layout_would_gather_them():
    assert of_parameters(drawn(without=()))


def test_each_device_decodes_its_own_pictures():
    mesh, shapes = sharding.make_mesh(2, 2, 2), abstract_params(MODEL)
    params = placed(shapes, sharding.param_shardings(shapes, mesh, without=("fsdp",)))
    codes = jax.ShapeDtypeStruct((ROWS, CFG.vq.tokens), jnp.int32)
    with jax.set_mesh(mesh):
        split = decode.decode_codes.lower(MODEL, params, codes).compile().as_text()
    whole = decode.decode_codes.lower(MODEL, shapes, codes).compile().as_text()
    assert hlo.flops(split) == pytest.approx(hlo.flops(whole) / 4, rel=0.05)


def test_the_cast_changes_no_number():
    # as many codes; bf16 convolutions take a CPU long
    small = {"image_size": 12, "patch": 1, "channels": 16, "channel_multipliers": (1, 1), "groups": 16}
    model = Janus(CFG.changed({"dtype": "bfloat16", "vq": small}))
    params = init_params(model, jax.random.key(0))

    @jax.jit
    def moved(params):  # norms that are not all one, which bf16 could hold
        return jax.tree.map(lambda x: x + 0.01 * jax.random.normal(jax.random.key(1), x.shape), params)

    params = moved(params)
    cast = cast_params(params, model.cfg.dtype)
    rng = np.random.default_rng(0)
    ids = jnp.asarray(rng.integers(0, 256, (2, 5)), jnp.int32)
    codes = jnp.asarray(rng.integers(0, CFG.vq.codebook_size, (2, CFG.vq.tokens)), jnp.int32)
    seen = jnp.asarray(rng.normal(size=(2, 96, 96, 3)), jnp.float32)

    @jax.jit
    def numbers(params):
        def apply(method, *args):
            return model.apply({"params": params}, *args, method=method)

        embeds = [apply("embed_text", ids), apply("understand", seen), apply("embed_codes", codes)]
        embeds = jnp.concatenate(embeds, axis=1)
        hidden = apply("decode", embeds, jnp.ones(embeds.shape[:2], bool))
        pixels = apply("decode_codes", codes)
        return apply("text_logits", hidden), apply("code_logits", hidden), pixels, apply("encode_codes", pixels)

    jax.tree.map(np.testing.assert_array_equal, numbers(cast), numbers(params))
    stored = {leaf.dtype for leaf in jax.tree.leaves(cast["llama"]["layers"]["mlp"])}
    assert stored == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("rows", [[3, 3, 0, 1], [0, 1, 2, 3], [2, 1], [1, 1, 1, 0, 2]])
def test_rows_of_a_cache(rows):
    """In place or not: keys, values, mask and count of the rows that are asked for."""
    rng = np.random.default_rng(0)
    cache = init_cache(CFG.llama, 4, 6)
    drawn = {name: [rng.normal(size=k.shape).astype(np.float32) for k in cache.k] for name in ("k", "v")}
    drawn |= {"mask": rng.random((4, 6)) < 0.5, "count": np.arange(4, dtype=np.int32)}
    taken = take_rows(cache.replace(**jax.tree.map(jnp.asarray, drawn)), np.array(rows, np.int32))
    for name in drawn:
        for got, given in zip(jax.tree.leaves(getattr(taken, name)), jax.tree.leaves(drawn[name]), strict=True):
            np.testing.assert_array_equal(got, given[np.array(rows)])
