"""The one training step: accumulation, frozen leaves, meshes, non-finite gradients, and how its two stages meet.

Parameters are compared after SGD: Adam divides by the gradient's size and would magnify rounding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from steps import PLAIN, draw_batch, forward, pg_batch, sft_batch, sft_loss, sft_prepare
from tiny import MODEL, I, params

from janus_jax.errors import UserError
from janus_jax.models.janus import Janus, differentiated
from janus_jax.parallel import sharding
from janus_jax.rl import learning
from janus_jax.training import losses
from janus_jax.training.logps import token_logps
from janus_jax.training.step import (
    abstract_state,
    build,
    cut,
    in_a_row,
    init_state,
    make_train_step,
    merge,
    split,
    trainable_leaves,
    uncut,
)

FROZEN = ("siglip/.*", "vq/.*")
RATE = 0.02


pytestmark = pytest.mark.usefixtures("quick_compiles")


@functools.cache
def trainable():
    return trainable_leaves(params(), FROZEN)


def fresh(tx, tree=None):
    """A state with buffers of its own: the step donates them."""
    return init_state(jax.tree.map(jnp.copy, tree or params()), tx, trainable())


def close(a, b, atol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=atol, rtol=0), a, b)


SGD = optax.sgd(RATE, momentum=0.9)


@functools.cache
def sft_step(micro_batches=1):
    return make_train_step(forward, sft_loss, SGD, trainable(), prepare=sft_prepare, micro_batches=micro_batches)


@functools.cache
def whole():
    """(parameters after one step over the whole batch, momentum = gradient, metrics), as numpy."""
    state, metrics = sft_step()(fresh(SGD), sft_batch())
    return jax.device_get((state.params, state.opt_state, metrics))


def test_split_and_merge():
    tree = {"a": 1, "b": {"c": 2, "d": 3}}
    kept, frozen = split(tree, {"a": True, "b": {"c": False, "d": True}})
    assert kept == {"a": 1, "b": {"c": None, "d": 3}} and frozen == {"a": None, "b": {"c": 2, "d": None}}
    assert merge(kept, frozen) == tree == merge(frozen, kept)


def test_the_step_follows_the_gradient():
    after, momentum, metrics = whole()
    prepared = sft_prepare(jax.tree.map(jnp.asarray, sft_batch()))
    kept, frozen = split(params(), trainable())

    def loss(kept):
        return sft_loss(forward(merge(kept, frozen), prepared), prepared)[0]

    value, grads = jax.jit(jax.value_and_grad(loss))(kept)
    assert metrics["loss"] == pytest.approx(float(value), abs=1e-5)
    assert metrics["loss"] == pytest.approx(float(metrics["text"] + metrics["codes"]), abs=1e-5)
    assert metrics["grad_norm"] == pytest.approx(float(optax.tree.norm(grads)), rel=1e-4)
    assert metrics["update_norm"] == pytest.approx(RATE * float(metrics["grad_norm"]), rel=1e-4)
    assert metrics["skipped"] == 0
    close(split(after, trainable())[0], jax.tree.map(lambda p, g: p - RATE * g, kept, grads))
    # every trained part really has a gradient
    for part in ("llama", "aligner", "gen_aligner", "gen_embed", "gen_head"):
        assert float(optax.tree.norm(grads[part])) > 1e-2, part


def test_accumulation_is_one_big_batch():
    parts = 4
    state, metrics = sft_step(parts)(fresh(SGD), sft_batch())
    after, momentum, expected = whole()
    close(state.params, after)
    close(state.opt_state, momentum, 1e-4)
    for name in expected:
        assert float(metrics[name]) == pytest.approx(float(expected[name]), rel=1e-4), name
    # Normalising each part for itself is something else; were it not, this test could not fail.
    text = sft_batch().text
    per_part = [float(w.sum()) for w in np.split(text.weight, parts)]
    assert len(set(per_part)) > 1


def test_cut():
    batch = {"a": np.arange(24).reshape(12, 2)}
    pieces = cut(batch, 3)
    assert pieces["a"].shape == (3, 4, 2) and pieces["a"][1, :, 0].tolist() == [2, 8, 14, 20]
    np.testing.assert_array_equal(uncut(pieces)["a"], batch["a"])


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_parts_add_up(micro_batches):
    """Two parts of a batch with other metrics each: sums are added, maxima taken, and what one part has alone stays."""
    first, second = np.arange(8.0, dtype=np.float32).reshape(4, 2), np.full((2, 2), 3.0, np.float32)
    sgd, w = optax.sgd(1.0, momentum=0.9), np.array([1.0, -2.0], np.float32)

    def loss(outputs, batch):
        (name,) = batch
        return jnp.sum(outputs), {
            f"only_{name}": jnp.sum(outputs),
            "max_seen": jnp.max(outputs),
            "all": jnp.sum(outputs),
        }

    def forward(params, batch):
        return jnp.square(jnp.sum(jnp.stack(list(batch.values())) * params["w"][None, None], axis=-1))

    def parts(batch):
        return [{name: rows} for name, rows in batch.items()]

    step = make_train_step(forward, loss, sgd, {"w": True}, parts=parts, micro_batches=micro_batches)
    state, metrics = step(init_state({"w": jnp.asarray(w)}, sgd, {"w": True}), {"a": first, "b": second})
    rows = np.concatenate([first, second])
    grad = (2 * (rows @ w)[:, None] * rows).sum(0)
    np.testing.assert_allclose(state.params["w"], w - grad, rtol=1e-6)
    squares = np.square(first @ w), np.square(second @ w)
    assert metrics["only_a"] == squares[0].sum() and metrics["only_b"] == squares[1].sum()
    assert metrics["loss"] == metrics["all"] == squares[0].sum() + squares[1].sum()
    assert metrics["max_seen"] == max(square.max() for square in squares)
    assert metrics["grad_norm"] == pytest.approx(np.linalg.norm(grad), rel=1e-6)


def test_gradients_in_bfloat16():
    """With respect to parameters cast once: what casting them before each use gives, rounded; the state stays f32."""
    model = Janus(MODEL.cfg.changed({"dtype": "bfloat16"}))

    def one(gradients):
        step = make_train_step(
            lambda params, batch: token_logps(model, params, batch, PLAIN),
            sft_loss,
            SGD,
            trainable(),
            prepare=sft_prepare,
            computed=differentiated(model, gradients),
            micro_batches=2,
        )
        with jax.numpy_dtype_promotion("standard"):  # jax.nn.dot_product_attention's own gradient asks for it
            state, metrics = step(fresh(SGD), sft_batch())
        assert {leaf.dtype.name for leaf in jax.tree.leaves((state.params, state.opt_state))} == {"float32"}
        return state.opt_state[0].trace, metrics

    (expected, exact), (got, metrics) = one("float32"), one("bfloat16")
    assert metrics["loss"] == exact["loss"]
    for (path, a), (_, b) in zip(sharding.paths(got), sharding.paths(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert np.linalg.norm(a - b) <= 2**-6 * np.linalg.norm(b) + 1e-6, path
    assert any(
        np.any(np.asarray(a) != np.asarray(b)) for a, b in zip(*map(jax.tree.leaves, (got, expected)), strict=True)
    )
    for wrong in (lambda: differentiated(MODEL, "bfloat16"), lambda: differentiated(model, "float16")):
        with pytest.raises(UserError, match="--config.gradients"):
            wrong()


def test_frozen_leaves_are_bit_identical_and_cost_the_optimizer_nothing():
    after, momentum, _ = whole()
    frozen = split(params(), trainable())[1]
    changed = jax.tree.map(lambda a, b: (np.asarray(a) != np.asarray(b)).any(), split(after, trainable())[1], frozen)
    assert len(jax.tree.leaves(changed)) > 20 and not any(jax.tree.leaves(changed))
    paths = {path for path, leaf in sharding.paths(momentum) if np.ndim(leaf)}
    assert paths and not any("siglip" in path or "vq/" in path for path in paths)
    sizes = [leaf.size for leaf in jax.tree.leaves(momentum)]
    assert sum(sizes) == sum(leaf.size for leaf in jax.tree.leaves(split(params(), trainable())[0]))
    # and the others moved, all of them
    for a, b in zip(*(jax.tree.leaves(split(tree, trainable())[0]) for tree in (after, params())), strict=True):
        assert (np.asarray(a) != np.asarray(b)).any()


@pytest.mark.parametrize("garbage", [np.nan, np.inf])
def test_a_non_finite_gradient_leaves_everything_as_it_was(garbage):
    batch = sft_batch()
    batch.pixels[0, 0, 0, 0] = garbage
    before, _ = sft_step()(fresh(SGD), sft_batch())  # momentum that is not zero
    kept = jax.device_get(before)
    after, metrics = sft_step()(before, batch)
    assert metrics["skipped"] == 1 and not np.isfinite(metrics["loss"])
    assert int(after.step) == 2
    for new, old in ((after.params, kept.params), (after.opt_state, kept.opt_state)):
        jax.tree.map(np.testing.assert_array_equal, new, old)
    # the next good batch goes on
    again, metrics = sft_step()(after, sft_batch())
    assert metrics["skipped"] == 0 and np.isfinite(metrics["loss"]) and int(again.step) == 3


def test_the_state_is_donated():
    state = fresh(SGD)
    leaves = jax.tree.leaves(state)
    new, _ = sft_step()(state, sft_batch())
    assert all(leaf.is_deleted() for leaf in leaves)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(params()))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(new))


@pytest.mark.parametrize("shape, parts", [((2, 2, 2), 2)])
def test_meshes_give_the_numbers_of_one_device(shape, parts):
    mesh = sharding.make_mesh(*shape)
    with jax.set_mesh(mesh):
        by_row = NamedSharding(mesh, P(("data", "fsdp")))
        abstract = abstract_state(lambda: init_state(params(), SGD, trainable()), mesh)
        places = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        step = make_train_step(
            forward,
            sft_loss,
            SGD,
            trainable(),
            prepare=sft_prepare,
            micro_batches=parts,
            state_shardings=places,
            batch_shardings=by_row,
        )
        state = jax.device_put(fresh(SGD), places)
        batch = jax.device_put(sft_batch(), by_row)
        state, metrics = step(state, batch)
        # outputs lie where they are said to lie: split over the mesh, moments like their parameters
        for (path, leaf), place in zip(sharding.paths(state), jax.tree.leaves(places), strict=True):
            assert leaf.sharding.is_equivalent_to(place, leaf.ndim), path
        split_of = lambda leaf: leaf.size // np.prod(leaf.sharding.shard_shape(leaf.shape))  # noqa: E731
        query = state.params["llama"]["layers"]["attn"]["q"]
        assert split_of(query) == shape[1] * shape[2]
        trace = dict(sharding.paths(state.opt_state))
        (moment,) = [leaf for path, leaf in trace.items() if path.endswith("layers/attn/q")]
        assert moment.sharding.is_equivalent_to(query.sharding, 4)
        assert all(value.sharding.is_fully_replicated for value in metrics.values())
    after, momentum, expected = whole()
    for name in expected:
        assert float(metrics[name]) == pytest.approx(float(expected[name]), abs=1e-5, rel=1e-5), name
    close(state.params, after)
    close(state.opt_state, momentum)


# Stage 2 through the same step


def gradient(step, batch):
    """(gradient of the trained leaves, metrics) of a step: the momentum after the first."""
    state, metrics = step(fresh(SGD), batch)
    return jax.device_get(optax.tree.get(state.opt_state, "trace")), jax.device_get(metrics)


def of_codes(weigh):
    def prepare(batch):
        (weight,) = weigh([(batch.codes.weight, batch.codes.group)])
        return batch._replace(codes=batch.codes._replace(weight=weight))

    return prepare


PER = ("segment", "trajectory", "token")


@functools.cache
def pg_step():
    """The step of stage 2; its batch is (Batch, beta), so that one compilation serves every beta."""
    weigh = of_codes(lambda targets: losses.pg_weights(targets, 3, "trajectory"))

    def loss(outputs, batch):
        t, beta = batch[0].codes, batch[1]
        return losses.pg_loss(
            outputs["codes"], t.old_logps, t.ref_logps, t.advantage, t.weight, beta=beta, clip_low=0.2, clip_high=0.2
        )

    return make_train_step(
        lambda params, batch: forward(params, batch[0]), loss, SGD, trainable(), prepare=lambda b: (weigh(b[0]), b[1])
    )


@functools.cache
def sft_draw_gradient():
    def loss(outputs, batch):
        return losses.sft_loss(outputs["codes"], batch.codes.weight), {}

    weigh = of_codes(lambda targets: losses.sft_weights(targets, losses.sft_shares(1, 0, 0)))
    return gradient(make_train_step(forward, loss, SGD, trainable(), prepare=weigh), draw_batch())


def test_on_policy_with_advantage_one_is_supervised_learning():
    expected, _ = sft_draw_gradient()
    got, metrics = gradient(pg_step(), (pg_batch(1.0), jnp.float32(0.0)))
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    assert scale > 0.01
    close(got, expected, 1e-5 * scale)
    assert metrics["ratio"] == pytest.approx(1.0, abs=1e-5) and metrics["clip_fraction"] == 0
    assert metrics["loss"] == pytest.approx(-1.0, abs=1e-5)
    # at equal lengths and with one segment the three means are one
    t = draw_batch().codes
    weights = [losses.pg_weights([(jnp.asarray(t.weight), jnp.asarray(t.group))], 3, per)[0] for per in PER]
    for weight in weights:
        close(weight, np.full((8, I), 1 / (8 * I)), 1e-7)


def test_the_kl_gradient_at_the_reference_is_zero():
    got, metrics = gradient(pg_step(), (pg_batch(0.0), jnp.float32(1.0)))
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["grad_norm"] < 1e-4 * sft_draw_gradient()[1]["grad_norm"]
    # away from it there is one
    batch = pg_batch(0.0)
    batch = batch._replace(codes=batch.codes._replace(ref_logps=batch.codes.ref_logps - 0.5))
    got, metrics = gradient(pg_step(), (batch, jnp.float32(1.0)))
    assert metrics["kl"] == pytest.approx(np.exp(-0.5) - 0.5, abs=1e-4)
    assert metrics["grad_norm"] > 0.1 * sft_draw_gradient()[1]["grad_norm"]


@pytest.mark.parametrize("stage", ["sft", "pg"])
def test_both_stages_in_explicit_mode(stage):
    """Shardings as types: a mistake in the tables would not trace. The decoder's rows alone, the numbers of one
    device."""

    def loss(outputs, batch):
        t = batch.codes
        if stage == "sft":
            return losses.sft_loss(outputs["codes"], t.weight), {}
        terms = (outputs["codes"], t.old_logps, t.ref_logps, t.advantage, t.weight)
        return losses.pg_loss(*terms, beta=0.1, clip_low=0.2, clip_high=0.2)

    weigh = {
        "sft": lambda targets: losses.sft_weights(targets, losses.sft_shares(1, 1, 1)),
        "pg": lambda targets: losses.pg_weights(targets, 3, "trajectory"),
    }[stage]
    batch = draw_batch() if stage == "sft" else pg_batch(np.linspace(-1, 1, 8)[:, None])
    prepare = of_codes(weigh)
    expected, _ = make_train_step(forward, loss, SGD, trainable(), prepare=prepare)(fresh(SGD), batch)
    mesh = sharding.make_mesh(2, 2, 2, explicit=True)
    with jax.set_mesh(mesh):
        by_row = NamedSharding(mesh, P(("data", "fsdp")))
        built = build(forward, loss, SGD, params(), trainable(), mesh, by_row, prepare=prepare)
        state, _ = built.step(built.initial(params()), jax.device_put(batch, by_row))
    close(state.params, expected.params)
    assert not np.allclose(state.params["gen_head"]["fc2"]["kernel"], params()["gen_head"]["fc2"]["kernel"])


@pytest.mark.parametrize("updates", [1, 2, 12])
def test_a_step_whose_updates_were_all_skipped_counts(updates):
    """Stage 2's steps of several updates: the share is exactly 1, and one good update ends a row of skipped steps."""
    names = ("loss", "max_logp_gap", "lost", "entropy_codes", "share_codes", "entropy_text", "share_text")

    def learnt(good):
        each = {"skipped": [jnp.float32(n not in good) for n in range(updates)], "kl": map(jnp.float32, range(updates))}
        named = [dict(zip(each, values, strict=True)) for values in zip(*each.values(), strict=True)]
        return learning.learnt([{**dict.fromkeys(names, jnp.float32(n)), **one} for n, one in enumerate(named)])

    values = learnt(good=())
    assert values["skipped"] == 1 and in_a_row(3, values) == 4
    assert in_a_row(3, learnt(good=(0,))) == 0
    # the last update's, but what is said of the sampler is of the first, before which nothing was learnt
    assert values["kl"] == updates - 1 and values["max_logp_gap"] == values["lost"] == 0
