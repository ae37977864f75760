"""Both stages' steps on eight devices give the loss, the gradients and the parameters of one."""

import functools

import jax
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from steps import PLAIN, pg_batch, sft_batch, sft_loss, sft_prepare
from tiny import MODEL

from janus_jax.models.janus import Janus, init_params
from janus_jax.parallel import sharding
from janus_jax.training import logps, losses
from janus_jax.training.logps import token_logps
from janus_jax.training.step import build, trainable_leaves

pytestmark = pytest.mark.usefixtures("quick_compiles")

WIDE = Janus(MODEL.cfg.changed({"llama": {"heads": 8, "kv_heads": 8}}))  # for a tensor axis of 8
SGD = optax.sgd(0.02, momentum=0.9)
MESHES = [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)]


@functools.cache
def start():
    return jax.tree.map(np.asarray, init_params(WIDE, jax.random.key(0)))


def pg_loss(outputs, batch):
    t = batch.codes
    terms = (outputs["codes"], t.old_logps, t.ref_logps, t.advantage, t.weight)
    return losses.pg_loss(*terms, beta=0.1, clip_low=0.2, clip_high=0.2)


def pg_prepare(batch):
    t = batch.codes
    (weight,) = losses.pg_weights([(t.weight, t.group)], 3, "trajectory")
    return batch._replace(codes=t._replace(weight=weight))


def old_and_reference(batch):
    """A batch that is neither on policy nor at the reference."""
    rng, t = np.random.default_rng(0), batch.codes
    old, ref = (t.old_logps + 0.1 * rng.normal(size=t.old_logps.shape).astype(np.float32) for _ in range(2))
    return batch._replace(codes=t._replace(old_logps=old, ref_logps=ref))


STAGES = {
    "sft": (sft_batch, sft_loss, sft_prepare),
    "pg": (lambda: old_and_reference(pg_batch(np.linspace(-1, 1, 8)[:, None])), pg_loss, pg_prepare),
}


@functools.cache
def after_one_step(stage, shape, micro_batches=1):
    """(parameters, momentum = gradient, metrics) of a step on a mesh, as numpy."""
    make, loss, prepare = STAGES[stage]
    mesh = sharding.make_mesh(*shape)
    with jax.set_mesh(mesh):
        by_row = NamedSharding(mesh, P(("data", "fsdp")))
        built = build(
            lambda params, batch: token_logps(WIDE, params, batch, PLAIN),
            loss,
            SGD,
            start(),
            trainable_leaves(start(), ("siglip/.*", "vq/.*")),
            mesh,
            by_row,
            prepare=prepare,
            micro_batches=micro_batches,
        )
        state, metrics = built.step(built.initial(start()), jax.device_put(make(), by_row))
    return jax.device_get((state.params, state.opt_state, metrics))


@pytest.mark.parametrize("shape", MESHES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("stage", ["sft", pytest.param("pg", marks=pytest.mark.slow)])
def test_a_mesh_gives_the_numbers_of_one_device(stage, shape):
    got, expected = after_one_step(stage, shape), after_one_step(stage, (1, 1, 1))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5, rtol=0), got[:2], expected[:2])
    for name, value in expected[2].items():
        assert float(got[2][name]) == pytest.approx(float(value), abs=1e-5, rel=1e-5), name
    assert expected[2]["grad_norm"] > 0.1


def test_on_a_mesh_logits_in_parts_give_them_too(monkeypatch):
    """Two rows a device, five places' words at a time."""
    expected = after_one_step("sft", (1, 1, 1))
    monkeypatch.setattr(logps, "WHOLE", 4 * 2 * 5 * 480)
    got = after_one_step.__wrapped__("sft", (2, 2, 2))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5, rtol=0), got[:2], expected[:2])
