"""The model layer: identities between programs that must agree, sizes, and where arrays live."""

import dataclasses
import functools
import json
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from janus_jax.models import decoder
from janus_jax.models import llama as llama_module
from janus_jax.models.janus import Janus, JanusConfig, abstract_params, init_params
from janus_jax.models.kv_cache import init_cache
from janus_jax.models.llama import Llama, LlamaConfig
from janus_jax.models.siglip import Siglip, SiglipConfig
from janus_jax.models.vq import VQ, VQConfig, from_patches, to_patches, unit
from janus_jax.parallel import sharding

TINY = LlamaConfig(vocab_size=32, width=32, layers=3, heads=4, kv_heads=2, head_dim=8, mlp=48)
TINY_JANUS = JanusConfig(
    llama=TINY,
    siglip=SiglipConfig(image_size=16, patch_size=8, width=16, layers=2, heads=2, mlp=32),
    vq=VQConfig(
        image_size=16,
        channels=8,
        channel_multipliers=(1, 2),
        res_blocks=1,
        z_channels=8,
        codebook_size=16,
        code_dim=4,
        groups=4,
    ),
)


pytestmark = pytest.mark.usefixtures("quick_compiles")


def fill(abstract, seed=0, std=0.3):
    """Parameters large enough for every part to matter; numpy, because compiling an init takes longer."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        x = rng.standard_normal(leaf.shape) * std
        return jnp.asarray(1 + x if path[-1].key == "scale" else x, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, abstract)


def llama(cfg=TINY, **settings):
    """(model, its parameters): the same parameters for every setting."""
    model = Llama(cfg, **settings)
    shapes = jax.ShapeDtypeStruct((1, 2, cfg.width), jnp.float32), jax.ShapeDtypeStruct((1, 2), bool)
    return model, fill(jax.eval_shape(model.init, jax.random.key(0), *shapes)["params"])


def embeds(B, T, D=TINY.width, seed=1):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((B, T, D)), jnp.float32)


def run(model, params, *args, jit=True):
    apply = functools.partial(model.apply, {"params": params})
    return (jax.jit(apply) if jit else apply)(*args)


def append(params, x, mask, cache, cfg=TINY):
    """(hidden, cache) of tokens appended to a cache."""
    return decoder.decode(cfg, decoder.decode_params({"llama": params})["llama"], x, mask, None, cache)


def close(a, b, atol=2e-5):
    np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), atol=atol, rtol=0)


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


# Sizes


@pytest.mark.parametrize("name, expected", [("1b", 2_076_636_811), ("7b", 7_407_773_323)])
def test_parameter_counts(name, expected):
    tree = abstract_params(Janus(JanusConfig.preset(name)))
    assert count(tree) == expected
    assert count(tree["vq"]) == 71_883_403
    assert count(tree["siglip"]) == 316_283_904 - 12_595_200
    assert set(tree) == {"llama", "siglip", "aligner", "vq", "gen_aligner", "gen_embed", "gen_head"}
    half = abstract_params(Janus(JanusConfig.preset(name)), dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype(jnp.bfloat16)}


def test_the_tree_does_not_depend_on_scan_or_remat():
    describe = lambda tree: [(path, leaf.shape) for path, leaf in sharding.paths(tree)]  # noqa: E731
    expected = describe(abstract_params(Janus(TINY_JANUS)))
    plain = TINY_JANUS.to_dict()
    for change in ({"scan": False}, {"remat": "full"}, {"scan": False, "remat": "dots"}):
        assert describe(abstract_params(Janus(JanusConfig.from_dict({**plain, **change})))) == expected


def test_config_round_trip_and_refusals():
    for name in ("shapes", "1b", "7b"):
        cfg = JanusConfig.preset(name)
        assert JanusConfig.from_dict(json.loads(json.dumps(cfg.to_dict()))) == cfg
        assert hash(cfg) == hash(JanusConfig.from_dict(cfg.to_dict()))
    assert JanusConfig(dtype="bfloat16") == JanusConfig(dtype=jnp.bfloat16)
    with pytest.raises(ValueError, match="'2b'.*shapes, 1b, 7b"):
        JanusConfig.preset("2b")
    with pytest.raises(ValueError, match="'llama.depth'"):
        JanusConfig.from_dict({"llama": {"depth": 3}})
    with pytest.raises(ValueError, match="'depth'"):
        JanusConfig.from_dict({"depth": 3})
    with pytest.raises(ValueError, match="'half'.*none, full, dots"):
        JanusConfig(remat="half")
    with pytest.raises(ValueError, match="3 kv_heads"):
        LlamaConfig(heads=4, kv_heads=3)


def test_methods_of_the_contract():
    cfg = JanusConfig.preset("shapes")
    model = Janus(cfg)
    params = abstract_params(model)
    f32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
    i32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)  # noqa: E731

    def out(method, *args):
        result = jax.eval_shape(lambda p, *a: model.apply({"params": p}, *a, method=method), params, *args)
        return result.shape, result.dtype.name

    assert out("encode_codes", f32(2, 96, 96, 3)) == ((2, 36), "int32")
    assert out("decode_codes", i32(2, 36)) == ((2, 96, 96, 3), "float32")
    assert out("understand", f32(2, 96, 96, 3)) == ((2, 36, 192), "float32")
    assert out("embed_text", i32(2, 7)) == ((2, 7, 192), "float32")
    assert out("embed_codes", i32(2, 7)) == ((2, 7, 192), "float32")
    mask = jax.ShapeDtypeStruct((2, 7), bool)
    assert out("decode", f32(2, 7, 192), mask) == ((2, 7, 192), "float32")
    assert out("decode", f32(2, 7, 192), mask, i32(2, 7)) == ((2, 7, 192), "float32")
    assert out("text_logits", f32(2, 7, 192)) == ((2, 7, 512), "float32")
    assert out("code_logits", f32(2, 7, 192)) == ((2, 7, 1024), "float32")
    cached = lambda p, x, m: model.apply(  # noqa: E731
        {"params": p}, x, m, cache=init_cache(cfg.llama, 2, 9, cfg.dtype), method="decode"
    )
    hidden, cache = jax.eval_shape(cached, params, f32(2, 7, 192), mask)
    assert hidden.shape == (2, 7, 192) and [k.shape for k in cache.k] == [(2, 4, 9, 48)] * 4


def test_bf16_everywhere_gives_f32_logits():
    # Mixed (f32 master weights) and pure; strict promotion is on, so an implicit cast would raise.
    model = Janus(JanusConfig.from_dict({**TINY_JANUS.to_dict(), "dtype": "bfloat16"}))
    args = jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 16, 16, 3)), jnp.ones((1, 3), jnp.int32)
    for dtype in (jnp.float32, jnp.bfloat16):
        params = abstract_params(model, dtype)
        out = jax.eval_shape(lambda p, *a: model.apply({"params": p}, *a), params, *args)
        assert {x.dtype.name for x in out.values()} == {"float32"}
        seen = jax.eval_shape(lambda p, x: model.apply({"params": p}, x, method="understand"), params, args[0])
        assert seen.dtype == jnp.bfloat16
    mask = jnp.asarray(MASK)
    (exact, params), (half, _) = llama(), llama(dtype=jnp.bfloat16)
    a, b = run(exact, params, embeds(3, 7), mask), run(half, params, embeds(3, 7), mask)
    assert b.dtype == jnp.bfloat16
    assert np.abs(np.asarray(a) - np.asarray(b, np.float32))[MASK].mean() < 0.05


# The decoder: identities

MASK = np.array([[1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 1, 1, 1]], bool)


@pytest.mark.parametrize("prefill", range(1, 8))
def test_cached_decode_equals_full_forward(prefill):
    model, params = llama()
    x, mask = embeds(3, 7), jnp.asarray(MASK)
    full = run(model, params, x, mask)
    step = jax.jit(lambda x, m, cache: append(params, x, m, cache))
    hidden, cache = step(x[:, :prefill], mask[:, :prefill], init_cache(TINY, 3, 9))
    parts = [hidden]
    for t in range(prefill, 7):
        hidden, cache = step(x[:, t : t + 1], mask[:, t : t + 1], cache)
        parts.append(hidden)
    close(np.concatenate(parts, axis=1)[MASK], np.asarray(full)[MASK])
    assert int(cache.length) == 7
    assert cache.count.tolist() == MASK.sum(1).tolist()
    assert cache.mask.tolist() == np.pad(MASK, ((0, 0), (0, 2))).tolist()


def test_a_chunk_appended_to_the_cache_equals_full_forward():
    model, params = llama()
    x, mask = embeds(3, 7), jnp.asarray(MASK)
    full = run(model, params, x, mask)
    _, cache = append(params, x[:, :3], mask[:, :3], init_cache(TINY, 3, 7))
    hidden, _ = append(params, x[:, 3:], mask[:, 3:], cache)
    close(np.asarray(hidden)[MASK[:, 3:]], np.asarray(full)[:, 3:][MASK[:, 3:]])
    with pytest.raises(ValueError, match="7 new tokens.*5 slots"):
        append(params, x, mask, init_cache(TINY, 3, 5))


def test_left_padding_changes_nothing():
    model, params = llama()
    x = embeds(2, 5)
    plain = run(model, params, x, jnp.ones((2, 5), bool))
    padded = jnp.concatenate([embeds(2, 4, seed=9), x], axis=1)
    mask = jnp.asarray([[False] * 4 + [True] * 5] * 2)
    hidden = run(model, params, padded, mask)
    assert np.isfinite(hidden).all()
    close(hidden[:, 4:], plain)
    # Given positions that count the padding too, only relative distances remain, and they are the same.
    slots = run(model, params, padded, mask, jnp.tile(jnp.arange(9, dtype=jnp.int32), (2, 1)))
    close(slots[:, 4:], plain)


def test_a_masked_gap_equals_the_sequence_without_it():
    model, params = llama()
    x, junk = embeds(2, 6), embeds(2, 3, seed=9)
    expected = run(model, params, x, jnp.ones((2, 6), bool))
    gapped = jnp.concatenate([x[:, :4], junk, x[:, 4:]], axis=1)
    mask = jnp.asarray([[True] * 4 + [False] * 3 + [True] * 2] * 2)
    hidden = run(model, params, gapped, mask)
    close(np.asarray(hidden)[:, [0, 1, 2, 3, 7, 8]], expected)
    # In the cache: a row that ended early writes masked slots while another still decodes.
    cache = init_cache(TINY, 2, 12)
    parts = []
    for chunk in (slice(0, 4), slice(4, 6), slice(6, 7), slice(7, 9)):
        hidden, cache = append(params, gapped[:, chunk], mask[:, chunk], cache)
        parts.append(hidden)
    close(np.concatenate(parts, axis=1)[:, [0, 1, 2, 3, 7, 8]], expected)
    assert cache.count.tolist() == [6, 6]
    # Positions that count the gap are another sequence; were they not, this test could not fail.
    slots = run(model, params, gapped, mask, jnp.tile(jnp.arange(9, dtype=jnp.int32), (2, 1)))
    assert np.abs(np.asarray(slots)[:, 7:] - np.asarray(expected)[:, 4:]).max() > 1e-2


def test_causality_by_gradient():
    model, params = llama()
    x, mask = embeds(1, 6), jnp.asarray([[False, True, True, False, True, True]])
    jacobian = jax.jit(jax.jacrev(lambda x: model.apply({"params": params}, x, mask)[0].sum(-1)))(x)
    sees = np.abs(np.asarray(jacobian)[:, 0]).sum(-1) > 0  # [query, key]
    drawn = """
        #.....
        .#....
        .##...
        .###..
        .##.#.
        .##.##
    """
    expected = np.array([[c == "#" for c in row] for row in drawn.split()])
    real = np.asarray(mask)[0]
    # Rows of masked queries say nothing; every other row is exactly as drawn.
    assert (sees[real] == expected[real]).all()
    assert np.isfinite(jacobian).all()


def test_scan_equals_unrolled_equals_blocks_by_hand():
    x, mask = embeds(3, 7), jnp.asarray(MASK)
    texts, outs = {}, {}
    for scan in (True, False):
        model, params = llama(scan=scan)
        apply = jax.jit(lambda x, mask, model=model, params=params: model.apply({"params": params}, x, mask))
        texts[scan], outs[scan] = apply.lower(x, mask).as_text(), apply(x, mask)
    assert "stablehlo.while" in texts[True] and "stablehlo.while" not in texts[False]
    close(outs[True], outs[False])

    sizes = {"width": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_width": 48}
    block = llama_module.Block(**sizes, eps=1e-6, out_std=1.0, kernel="auto", dtype=jnp.float32)
    positions = jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1
    angles = llama_module.rotary_angles(positions, 8, 1e4)
    carry = x
    for i in range(TINY.layers):
        layer = {"params": jax.tree.map(lambda w, i=i: w[i], params["layers"])}
        carry, _ = block.apply(layer, carry, angles, mask)
    by_hand = llama_module.RMSNorm(1e-6, jnp.float32).apply({"params": params["norm"]}, carry)
    close(np.asarray(by_hand)[MASK], np.asarray(outs[True])[MASK])


@pytest.mark.parametrize("tower, scan", [("llama", True), ("llama", False), ("siglip", True)])
def test_remat_equals_none(tower, scan):
    dots, grads = {}, {}
    for remat in ("none", "full", "dots"):
        if tower == "llama":
            cfg = LlamaConfig(vocab_size=8, width=16, layers=2, heads=2, kv_heads=1, head_dim=8, mlp=16)
            model, params = llama(cfg, scan=scan, remat=remat)
            args = embeds(3, 7, 16), jnp.asarray(MASK)
        else:
            model = Siglip(TINY_JANUS.siglip, scan=scan, remat=remat)
            args = (embeds(1, 16, 48).reshape(1, 16, 16, 3),)
            params = fill(jax.eval_shape(model.init, jax.random.key(0), *args)["params"])

        def loss(params, model=model, args=args):
            return jnp.square(jax.tree.leaves(model.apply({"params": params}, *args))[0]).mean()

        lowered = jax.jit(jax.grad(loss)).lower(params)
        dots[remat] = lowered.as_text().count("stablehlo.dot_general")
        grads[remat] = lowered.compile()(params)
    # Three programs: nothing, everything, or only the attention scores are computed a second time.
    assert dots["none"] < dots["dots"] < dots["full"]
    for remat in ("full", "dots"):
        jax.tree.map(close, grads[remat], grads["none"])


# Pictures


def test_vq_neighbours_by_brute_force_and_padding():
    cfg = TINY_JANUS.vq
    model = VQ(cfg)
    pixels = embeds(2, 16, 48).reshape(2, 16, 16, 3)
    params = {"params": fill(jax.eval_shape(model.init, jax.random.key(0), pixels)["params"])}
    z = np.asarray(model.apply(params, pixels, method="encode"))
    assert z.shape == (2, 8, 8, 4)
    norm = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    rows = norm(np.asarray(params["params"]["codebook"]))
    distance = np.square(norm(z)[..., None, :] - rows).sum(-1).reshape(2, 64, 16)
    codes = model.apply(params, pixels, method="encode_codes")
    assert (np.asarray(codes) == distance.argmin(-1)).all() and codes.dtype == jnp.int32
    close(model.apply(params, codes, method="lookup"), rows[np.asarray(codes)])
    # Not square: a picture twice as wide has its own number of codes, and its latents decode to its own size.
    wide = model.apply(params, jnp.concatenate([pixels, pixels], axis=2), method="encode")
    assert model.apply(params, wide, method="decode_latents").shape == (2, 16, 32, 3)
    with pytest.raises(ValueError, match="12 codes"):
        model.apply(params, jnp.zeros((1, 12), jnp.int32), method="decode_codes")
    assert np.isfinite(jax.grad(lambda x: unit(x).sum())(jnp.zeros((3,)))).all()


def test_siglip_refuses_another_picture_size():
    model = Siglip(TINY_JANUS.siglip)
    with pytest.raises(ValueError, match=r"\(24, 24, 3\).*\(16, 16, 3\)"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 24, 24, 3)))


# Where arrays live


@pytest.mark.parametrize("name", ["shapes", "1b", "7b"])
def test_parameter_rules_cover_every_model(name):
    tree = abstract_params(Janus(JanusConfig.preset(name)))
    specs = dict(sharding.paths(sharding.match(sharding.PARAM_RULES, tree)))
    assert specs["llama/embed_tokens"] == specs["gen_embed"] == P(("fsdp", "tensor"), None)
    assert specs["llama/layers/attn/q"] == P(None, "fsdp", "tensor", None)
    assert specs["llama/layers/attn/o"] == P(None, "tensor", None, "fsdp")
    assert specs["llama/layers/mlp/down"] == P(None, "tensor", "fsdp")
    assert specs["llama/lm_head"] == specs["gen_head/fc2/kernel"] == P("fsdp", "tensor")
    assert specs["llama/layers/attn_norm/scale"] == specs["llama/norm/scale"] == P()
    # Every mesh of eight that these sizes allow; all large leaves of the decoder are really split.
    for shape in ((8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)):
        mesh = sharding.make_mesh(*shape)
        shardings = dict(sharding.paths(sharding.param_shardings(tree, mesh)))
        rollout = dict(sharding.paths(sharding.param_shardings(tree, mesh, without=("fsdp",))))
        for path, leaf in sharding.paths(tree):
            share = math.prod(leaf.shape) // math.prod(shardings[path].shard_shape(leaf.shape))
            if path.startswith("llama/") and not path.endswith("scale"):
                assert share == shape[1] * shape[2], path
            assert "fsdp" not in str(rollout[path].spec), path


def test_tables_refuse_drift_in_one_line():
    tree = {"a": {"b": jnp.zeros((6, 4)), "c": jnp.zeros((4,))}}
    assert sharding.match([("a/b", 1), (".*", 2)], tree) == {"a": {"b": 1, "c": 2}}
    with pytest.raises(ValueError, match="no rule matches the leaf a/c$"):
        sharding.match([("a/b", 1)], tree)
    with pytest.raises(ValueError, match="no leaf uses the rule 'a/d'$"):
        sharding.match([("a/.", 1), ("a/d", 2)], tree)
    with pytest.raises(ValueError, match="no leaf uses the rule 'a/b'$"):
        sharding.match([("a/.", 1), ("a/b", 2)], tree)  # never first
    mesh = sharding.make_mesh(1, 4, 1)
    line = "^a/b: dimension 0 of size 6 does not divide over mesh axis fsdp of size 4: choose another mesh$"
    with pytest.raises(ValueError, match=line):
        sharding.param_shardings(tree, mesh, [("a/b", P("fsdp")), (".*", P())])
    lenient = [("a/b", sharding.OrReplicated(P("fsdp", None))), (".*", P())]
    assert sharding.param_shardings(tree, mesh, lenient)["a"]["b"].spec == P(None, None)
    with pytest.raises(ValueError, match="more entries"):
        sharding.param_shardings(tree, mesh, [("a/c", P(None, "fsdp")), (".*", P())])
    with pytest.raises(ValueError, match="needs 16 devices"):
        sharding.make_mesh(16)


def test_activation_table():
    mesh = sharding.make_mesh(2, 2, 2)
    spec = lambda names, shape: sharding.activation_spec(names, shape, mesh)  # noqa: E731
    assert spec(("batch", "length", "heads", "head_dim"), (8, 3, 4, 8)) == P(("data", "fsdp"), None, "tensor", None)
    assert spec(("batch", "length"), (2, 3)) == P("data", None)  # 2 rows on 4 places: the axes that divide
    assert spec(("batch", "length"), (3, 3)) == P(None, None)
    with pytest.raises(ValueError, match="'heads' and 'mlp' both map to mesh axis 'tensor'"):
        spec(("heads", "mlp"), (4, 4))
    with pytest.raises(ValueError, match="unknown logical dimension 'head'"):
        spec(("head",), (4,))
    with pytest.raises(ValueError, match="1 names"):
        spec(("batch",), (4, 4))


MESHES = [(False, (2, 2, 2)), (True, (2, 2, 2)), (True, (1, 4, 2))]


def place(tree, mesh):
    return jax.device_put(tree, sharding.param_shardings(tree, mesh, LLAMA_RULES))


# The decoder's own rules, for a tree that starts at the decoder.
LLAMA_RULES = [
    (re.sub("^llama/", "", rule).replace("|gen_embed", ""), spec)
    for rule, spec in sharding.PARAM_RULES
    if rule.startswith("llama/")
]


@pytest.mark.parametrize("explicit, shape", MESHES)
def test_decoder_without_mesh_equals_auto_equals_explicit(explicit, shape):
    model, params = llama()
    ids = jnp.asarray(np.random.default_rng(0).integers(0, 32, (8, 6)), jnp.int32)
    mask = jnp.asarray(np.arange(6)[None] >= np.arange(8)[:, None] % 4)

    def loss(params, ids, mask):
        x = model.apply({"params": params}, ids, method="embed")
        hidden = model.apply({"params": params}, x, mask)
        logits = model.apply({"params": params}, hidden, method="logits")
        return jnp.mean(jnp.square(nn.log_softmax(logits))), logits

    step = jax.value_and_grad(loss, has_aux=True)
    (value, logits), grads = jax.jit(step)(params, ids, mask)
    mesh = sharding.make_mesh(*shape, explicit=explicit)
    with jax.set_mesh(mesh):
        batch = jax.sharding.NamedSharding(mesh, P(("data", "fsdp"), None))
        placed = place(params, mesh)
        out = ((None, None), jax.tree.map(lambda x: x.sharding, placed))
        fn = jax.jit(step, out_shardings=None if explicit else out)
        (value2, logits2), grads2 = fn(placed, jax.device_put(ids, batch), jax.device_put(mask, batch))
        # Not merely equal numbers: the result is split, and gradients lie where the parameters lie.
        assert logits2.sharding.shard_shape(logits2.shape) == (8 // shape[0] // shape[1], 6, 32 // shape[2])
        assert jax.tree.leaves(
            jax.tree.map(lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim), grads2, placed)
        ) == [True] * len(jax.tree.leaves(params))
    close(value, value2)
    close(logits, logits2)
    jax.tree.map(close, grads, grads2)


@pytest.mark.parametrize("explicit", [False, True])
def test_the_three_helpers(explicit):
    x, w, table = embeds(4, 6, 8), embeds(1, 8, 16)[0], embeds(1, 16, 8)[0]
    ids = jnp.asarray([[0, 15], [3, 3], [1, 2], [7, 9]], jnp.int32)

    def f(x, w, table, ids):
        y = sharding.einsum("BTD,DF->BTF", x, w, ("batch", "length", "mlp"))
        rows = sharding.take(table, ids, ("batch", "length", "width"))
        return sharding.constrain(x, "batch", None, None), y, rows

    plain = jax.jit(f)(x, w, table, ids)
    close(plain[1], np.einsum("BTD,DF->BTF", x, w))
    close(plain[2], np.asarray(table)[np.asarray(ids)])
    mesh = sharding.make_mesh(2, 2, 2, explicit=explicit)
    put = lambda a, *spec: jax.device_put(a, jax.sharding.NamedSharding(mesh, P(*spec)))  # noqa: E731
    with jax.set_mesh(mesh):
        args = put(x), put(w, "fsdp", "tensor"), put(table, ("fsdp", "tensor")), put(ids, ("data", "fsdp"))
        placed = jax.jit(f)(*args)
        for a, b in zip(plain, placed, strict=True):
            close(a, b)
            assert b.sharding.shard_shape(b.shape)[0] == 1
        # Both modes state something: without constraints Auto would be free to choose.
        text = jax.jit(f).lower(*args).as_text()
        assert text.count("sdy.sharding_constraint") >= 3
    assert np.isnan(sharding.take(table, jnp.asarray([[16]], jnp.int32), (None, None, None))).all()


def test_decoding_on_a_mesh_equals_decoding_without():
    model, params = llama()
    x, mask = embeds(4, 5), jnp.asarray([[False, True, True, True, True]] * 4)

    @jax.jit
    def decode(params, x, mask):
        cache = init_cache(TINY, 4, 8)
        a, cache = append(params, x[:, :3], mask[:, :3], cache)
        b, cache = append(params, x[:, 3:], mask[:, 3:], cache)
        return jnp.concatenate([a, b], axis=1), cache

    hidden, cache = decode(params, x, mask)
    mesh = sharding.make_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        hidden2, cache2 = decode(place(params, mesh), x, mask)
        assert {k.sharding.shard_shape(k.shape) for k in cache2.k} == {(1, 1, 8, 8)}
    close(hidden, hidden2)
    jax.tree.map(close, cache, cache2)


def test_pictures_into_the_decoder_in_explicit_mode():
    # The parts of Janus that training differentiates besides the decoder: gen_embed, gen_aligner, gen_head, aligner.
    model = Janus(TINY_JANUS)
    params = fill(abstract_params(model))
    codes = jnp.asarray(np.random.default_rng(0).integers(0, 16, (8, 5)), jnp.int32)

    def loss(params, codes):
        apply = lambda method, *a: model.apply({"params": params}, *a, method=method)  # noqa: E731
        hidden = apply("decode", apply("embed_codes", codes), jnp.ones((8, 5), bool))
        return jnp.mean(jnp.square(nn.log_softmax(apply("code_logits", hidden))))

    grads = jax.jit(jax.grad(loss))(params, codes)
    mesh = sharding.make_mesh(2, 2, 2, explicit=True)
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, sharding.param_shardings(params, mesh))
        grads2 = jax.jit(jax.grad(loss))(placed, codes)
    jax.tree.map(close, grads, grads2)
    assert float(jnp.abs(grads["gen_embed"]).sum()) > 0 and float(jnp.abs(grads["gen_head"]["fc1"]["bias"]).sum()) > 0


def test_init_is_the_same_on_every_mesh_and_tells_codes_apart():
    model = Janus(TINY_JANUS)
    params = init_params(model, jax.random.key(3))
    placed = init_params(model, jax.random.key(3), mesh=sharding.make_mesh(2, 2, 2))
    assert placed["llama"]["lm_head"].sharding.spec == P("fsdp", "tensor")
    jax.tree.map(functools.partial(close, atol=0), params, placed)
    assert 0.7 < float(params["gen_embed"].std()) < 1.3  # 64 numbers
    # by fan-in 32, and what is added to the residual stream by 1 / sqrt(2 layers): 3072 numbers, so within 4%
    assert float(params["llama"]["layers"]["attn"]["o"].std()) == pytest.approx(1 / math.sqrt(32 * 6), rel=0.04)
    q = params["llama"]["layers"]["attn"]["q"]
    assert float(jnp.abs(q[0] - q[1]).max()) > 0.01  # layers start apart
    rows = model.apply({"params": params}, jnp.arange(16, dtype=jnp.int32)[None], method="embed_codes")[0]
    apart = jnp.linalg.norm(rows[:, None] - rows[None], axis=-1) + 10 * jnp.eye(16)
    assert float(apart.min()) > 0.3 * float(jnp.linalg.norm(rows, axis=-1).mean())


def test_with_local_norms_a_code_depends_on_its_surroundings_alone():
    cfg = dataclasses.replace(TINY_JANUS.vq, image_size=64, attention=False)
    pixels = jax.random.uniform(jax.random.key(0), (1, 64, 64, 3), minval=-1.0)
    changed = pixels.at[:, :8, :8].set(1.0)
    for local in (True, False):
        vq = VQ(dataclasses.replace(cfg, local_norm=local))
        params = vq.init(jax.random.key(1), pixels)
        before, after = (vq.apply(params, x, method="encode") for x in (pixels, changed))
        assert float(jnp.abs(before - after)[:, 0, 0].max()) > 1e-3
        moved = float(jnp.abs(before - after)[:, -4:, -4:].max())
        assert (moved == 0.0) == local


def test_patches_by_hand():
    """Two by two pixels become one position, row by row, and come back."""
    pixels = jnp.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    patches = to_patches(pixels, 2)
    assert patches.shape == (2, 2, 2, 12)
    np.testing.assert_array_equal(patches[1, 0, 1].reshape(2, 2, 3), pixels[1, :2, 2:])
    np.testing.assert_array_equal(from_patches(patches, 2), pixels)
    np.testing.assert_array_equal(to_patches(pixels, 1), pixels)


def test_a_tokenizer_with_patches():
    """Its codes are those of the patches' grid, its pictures as large as what it was given."""
    cfg = VQConfig(
        image_size=16,
        patch=2,
        channels=8,
        channel_multipliers=(1, 2),
        res_blocks=1,
        z_channels=8,
        codebook_size=16,
        code_dim=4,
        groups=4,
        attention=False,
    )
    assert (cfg.stride, cfg.grid, cfg.tokens) == (4, 4, 16)
    model, pixels = VQ(cfg), jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), pixels)
    assert variables["params"]["encoder"]["conv_in"]["kernel"].shape[2] == 12
    assert model.apply(variables, pixels).shape == pixels.shape
