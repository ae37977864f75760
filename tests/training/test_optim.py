"""Schedules at their corners; what decays and what is frozen, on the real trees."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from janus_jax.models.janus import Janus, JanusConfig, abstract_params
from janus_jax.parallel import sharding
from janus_jax.training import optim
from janus_jax.training.step import trainable_leaves


def at(schedule, step):
    return float(schedule(step))


def test_warmup_cosine_at_its_corners():
    schedule = optim.warmup_cosine(1.0, 0.1, 10, 110)
    expected = {0: 0.0, 5: 0.5, 10: 1.0, 60: 0.55, 110: 0.1, 500: 0.1}
    assert {step: at(schedule, step) for step in expected} == pytest.approx(expected, abs=1e-6)
    # a quarter of the way down: 0.1 + 0.9 (1 + cos(pi/4)) / 2
    assert at(schedule, 35) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi / 4)))
    # shorter than its own warm-up: still a schedule
    assert at(optim.warmup_cosine(1.0, 0.1, 10, 4), 4) == pytest.approx(0.4)


@pytest.mark.parametrize("kind, middle", [("linear", 0.125), ("cosine", 0.125)])
def test_warmup_linear_then_at_its_corners(kind, middle):
    schedule = optim.warmup_linear_then(kind, 1.0, 0.2, 0.05, 10, 50, 150)
    expected = {0: 0.0, 5: 0.5, 10: 1.0, 30: 0.6, 50: 0.2, 100: middle, 150: 0.05, 1000: 0.05}
    assert {step: at(schedule, step) for step in expected} == pytest.approx(expected, abs=1e-6)
    quarter = {"linear": 0.1625, "cosine": 0.05 + 0.075 * (1 + math.cos(math.pi / 4))}
    assert at(schedule, 75) == pytest.approx(quarter[kind], abs=1e-6)


def test_schedule_without_a_warmup():
    schedule = optim.warmup_linear_then("linear", 1.0, 0.5, 0.1, 0, 10, 20)
    assert [at(schedule, step) for step in (0, 10, 20)] == pytest.approx([1.0, 0.5, 0.1])


@pytest.mark.parametrize("name", ["shapes", "1b", "7b"])
def test_norms_and_biases_do_not_decay(name):
    # sharding.match also refuses a rule that no leaf uses
    decays = dict(sharding.paths(sharding.match(optim.DECAY_RULES, abstract_params(Janus(JanusConfig.preset(name))))))
    for path, decay in decays.items():
        assert decay == (path.rsplit("/", 1)[-1] not in ("bias", "scale")), path
    for path in (
        "llama/norm/scale",
        "llama/layers/attn_norm/scale",
        "llama/layers/mlp_norm/scale",
        "gen_head/fc2/bias",
        "siglip/layers/norm1/bias",
        "siglip/layers/qkv/bias",
        "vq/encoder/norm_out/scale",
    ):
        assert decays[path] is False, path
    for path in (
        "llama/embed_tokens",
        "llama/layers/attn/q",
        "llama/layers/mlp/down",
        "llama/lm_head",
        "gen_embed",
        "aligner/fc1/kernel",
        "siglip/layers/qkv/kernel",
        "gen_head/fc2/kernel",
    ):
        assert decays[path] is True, path


def test_frozen_table():
    tree = abstract_params(Janus(JanusConfig.preset("1b")))
    trainable = dict(sharding.paths(trainable_leaves(tree, ("siglip/.*", "vq/.*"))))
    towers = {path.split("/")[0] for path, keep in trainable.items() if not keep}
    trained = {path.split("/")[0] for path, keep in trainable.items() if keep}
    assert towers == {"siglip", "vq"}
    assert trained == {"llama", "aligner", "gen_aligner", "gen_embed", "gen_head"}
    assert all(value for _, value in sharding.paths(trainable_leaves(tree, ())))
    # of the 7B: the number of the recipe
    tree = abstract_params(Janus(JanusConfig.preset("7b")))
    trainable = jax.tree.leaves(trainable_leaves(tree, ("siglip/.*", "vq/.*")))
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)]
    assert sum(size for size, keep in zip(sizes, trainable, strict=True) if keep) == 7_032_201_216
    with pytest.raises(ValueError, match="no leaf uses the rule 'sigclip"):
        trainable_leaves(tree, ("sigclip/.*",))


def test_adamw_by_hand():
    # optax divides a float by an integer count: implicit promotion, which the tests refuse everywhere else
    with jax.numpy_dtype_promotion("standard"):
        adamw_by_hand()


def adamw_by_hand():
    params = {"a": {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}}
    decays = sharding.match(optim.DECAY_RULES, params)
    tx = optim.adamw(lambda step: 0.1, weight_decay=0.5, clip=1.0, decay_mask=decays)
    grads = {"a": {"kernel": jnp.array([30.0]), "bias": jnp.array([40.0])}}
    updates, _ = tx.update(grads, tx.init(params), params)
    # Adam's first step is the sign of the (clipped) gradient; the kernel decays by lr x 0.5 x 2 besides.
    np.testing.assert_allclose(updates["a"]["kernel"], [-0.1 - 0.1], atol=1e-5)
    np.testing.assert_allclose(updates["a"]["bias"], [-0.1], atol=1e-5)
    # clipped to norm 1 first: gradients of 0.6 and 0.8 against an eps as large tell
    tx = optim.adamw(lambda step: 1.0, eps=1.0, weight_decay=0.0, clip=1.0, decay_mask=decays)
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["a"]["kernel"], [-0.6 / 1.6], atol=1e-5)
    np.testing.assert_allclose(updates["a"]["bias"], [-0.8 / 1.8], atol=1e-5)


@pytest.mark.parametrize("name", ["shapes", "1b"])
def test_muon_takes_the_hidden_matrices(name):
    # sharding.match also refuses a rule that no leaf uses
    params = abstract_params(Janus(JanusConfig.preset(name)))
    match = jax.tree.leaves(
        sharding.match(optim.MUON_RULES, params),
        is_leaf=lambda leaf: leaf is None or isinstance(leaf, optim.MuonDimensionNumbers),
    )
    for (path, leaf), axes in zip(sharding.paths(params), match, strict=True):
        hidden = path.startswith(("llama/layers", "siglip/layers")) and not path.endswith(("scale", "bias"))
        between = path in ("aligner/fc2/kernel", "gen_aligner/fc2/kernel", "gen_head/fc1/kernel")
        assert (axes is not None) == (hidden or between), path
        if hidden:  # all axes but the layers', inputs first
            inputs, outputs = (np.ravel(side).tolist() for side in axes)
            assert inputs + outputs == list(range(1, len(leaf.shape))), path


def test_muon_steps_along_the_polar_factor_at_adamws_size():
    """A matrix's update is about lr 0.2 sqrt(max(m, n)) U V^T; each layer's own, and only the trainable ones'."""
    shapes = {"llama": {"layers": {"mlp": {"up": (2, 8, 24)}, "attn": {"q": (2, 8, 2, 4), "o": (2, 2, 4, 8)}}}}
    shapes |= {"gen_head": {"fc1": {"kernel": (8, 8)}, "bias": (8,)}}
    keys = iter(jax.random.split(jax.random.key(0), 8))
    params = jax.tree.map(lambda s: jnp.zeros(s), shapes, is_leaf=lambda s: isinstance(s, tuple))
    grads = jax.tree.map(lambda p: jax.random.normal(next(keys), p.shape), params)
    tx = optim.named("muon", lambda step: 0.5, params, weight_decay=0.0)
    with jax.numpy_dtype_promotion("standard"):  # optax multiplies a float by its step counter
        updates, _ = tx.update(grads, tx.init(params), params)
    layer = np.asarray(grads["llama"]["layers"]["attn"]["q"][1]).reshape(8, 8)
    U, _, Vt = np.linalg.svd(layer)
    step = -np.asarray(updates["llama"]["layers"]["attn"]["q"][1]).reshape(8, 8) / (0.5 * 0.2 * math.sqrt(8))
    assert np.linalg.norm(step - U @ Vt) < 0.35 * np.linalg.norm(U @ Vt)  # five iterations are not exact
    assert np.linalg.svd(step, compute_uv=False) == pytest.approx(np.ones(8), abs=0.35)
    up = np.asarray(updates["llama"]["layers"]["mlp"]["up"][0])
    assert np.linalg.svd(up, compute_uv=False) / (0.1 * math.sqrt(24)) == pytest.approx(np.ones(8), abs=0.35)
    # Adam's first step is lr, with Nesterov's look ahead lr (1 + b1 (1 - b1) / (1 - b1^2))
    assert np.abs(updates["gen_head"]["bias"]) == pytest.approx(np.full(8, 0.5 * (1 + 0.09 / 0.19)), rel=1e-3)
    with pytest.raises(ValueError, match="neither"):
        optim.named("lion", lambda step: 0.5, params)


def test_moments_kept_in_bfloat16():
    """The first update is that of f32 moments exactly, which start from zero; later ones are rounded once a step."""
    params = {"w": jnp.linspace(-1, 1, 64, dtype=jnp.float32)}
    plain = optim.adamw(lambda _: 1e-2)
    txs = plain, optim.stored_as("bfloat16", plain)
    states = [tx.init(params) for tx in txs]
    assert {x.dtype for x in jax.tree.leaves(states[1]) if x.shape} == {jnp.dtype("bfloat16")}
    rng = np.random.default_rng(0)
    for step in range(5):
        grads = {"w": jnp.asarray(rng.normal(size=64), jnp.float32)}
        with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic
            (one, states[0]), (two, states[1]) = (
                tx.update(grads, state, params) for tx, state in zip(txs, states, strict=True)
            )
        np.testing.assert_allclose(two["w"], one["w"], atol=0 if step == 0 else 2e-4)
    assert optim.stored_as("float32", plain) is plain
    with pytest.raises(ValueError, match="float16"):
        optim.stored_as("float16", plain)
