"""Editing against the PyTorch reference: the rows, the supervised loss, greedy edits, the policy gradient.

As in test_goldens_released.py. The sources are image_a and wide, as codes (editing.npz).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import GOLDEN, SPEC, close, from_original, golden_model, golden_weights
from test_goldens_released import grammar, picture, processor, same_gradient

from janus_jax.models.janus import abstract_params
from janus_jax.rl import objective
from janus_jax.rl.advantages import grpo
from janus_jax.sampling.density import Sampling
from janus_jax.sequences.batch import DRAW, TEXT, targets_of, with_targets
from janus_jax.sequences.request import Request
from janus_jax.sequences.row import Row, collate
from janus_jax.training import losses, sft
from janus_jax.training import step as train_step
from janus_jax.training.logps import token_logps

INSTRUCTIONS = ("make the background yellow and add a clock", "add two white boats on the river")
SOURCES = ("image_a", "wide")


@pytest.fixture(scope="module")
def model():
    return golden_model()


@pytest.fixture(scope="module")
def editing():
    return np.load(GOLDEN / "editing.npz")


@pytest.fixture(scope="module")
def stage2():
    return np.load(GOLDEN / "editing_grpo.npz")


def edit_row(n, source, codes, dropped=False, **fields):
    """The n-th edit with its picture."""
    row = Row()
    grammar().ask(row, Request(INSTRUCTIONS[n], picture(SOURCES[n])), np.asarray(source), dropped)
    grammar().draw(row, codes, DRAW, **fields)
    return row


def of_text(row, name="ids"):
    """A row's ids, and where its text stands."""
    ids = np.concatenate([getattr(piece, name) for piece in row.pieces])
    return ids, np.concatenate([np.full(len(piece.ids), piece.kind == TEXT) for piece in row.pieces])


def test_rows(editing, stage2):
    """What stands around the source; guidance and dropping take the instruction away, and nothing else."""
    for n in range(2):
        row = edit_row(n, editing["edit.source_ids"][n], [])
        ids, text = of_text(row)
        expected = editing["edit.input_ids"][n][-len(row) :]
        assert editing["edit.attention_mask"][n].sum() == len(row)
        np.testing.assert_array_equal(ids[text], expected[text])
        np.testing.assert_array_equal(text, ~editing["edit.image_seq_mask"][n][-len(row) :].astype(bool))
        rows = stage2["prompt_ids"][4 * n : 4 * n + 2, -len(row) :]
        for name, wanted in zip(("ids", "uncond"), rows, strict=True):
            np.testing.assert_array_equal(of_text(row, name)[0][text], wanted[text])
    dropped, text = of_text(edit_row(0, editing["edit.source_ids"][0], [], dropped=True))
    np.testing.assert_array_equal(dropped[text], editing["edit.dropped_ids"][-len(dropped) :][text])


def test_sft(model, editing):
    janus, params, _ = model
    rows = [edit_row(n, editing["edit.source_ids"][n], editing["edit.target_ids"][n]) for n in range(2)]
    batch = collate(rows, max(map(len, rows)), processor().special.pad, code_targets=576)
    kept, frozen = train_step.split(params, train_step.trainable_leaves(params, (r"vq/.*", r"siglip/.*")))
    forward, prepare = sft.make_forward(janus), sft.make_prepare(losses.sft_shares(1, 0, 0))

    @jax.jit
    def loss_of(kept, frozen, batch):
        batches = prepare((batch,))
        return sft.loss(forward(train_step.merge(kept, frozen), batches), batches)[0]

    value, gradient = jax.value_and_grad(loss_of)(kept, frozen, jax.tree.map(jnp.asarray, batch))
    assert float(value) == pytest.approx(float(editing["edit.loss"]), abs=1e-5)
    same_gradient(gradient, editing, "edit.")


def test_greedy_edits(model, editing, stage2):
    """Scored instead of drawn: where only the likeliest code is possible, the reference's have log-probability 0."""
    janus, params, _ = model
    rows = [edit_row(n, editing["edit.source_ids"][n], stage2["greedy.ids"][n]) for n in range(2)]
    batch = collate(rows, max(map(len, rows)), processor().special.pad, code_targets=576, guided=True)
    sampling = Sampling(cfg_weight=float(stage2["greedy.cfg_weight"]), image_top_k=1)
    logps = jax.jit(lambda params, batch: token_logps(janus, params, batch, sampling)["codes"])(params, batch)
    np.testing.assert_array_equal(logps, np.zeros_like(logps))


@pytest.mark.slow
def test_policy_gradient(model, editing, stage2):
    janus, params, _ = model
    tensors = {name: golden_weights.tensor(name, shape, seed=1) for name, shape in SPEC.items()}
    reference = from_original(tensors, abstract_params(janus))
    reference = {**reference, "vq": params["vq"], "siglip": params["siglip"]}
    rewards = (stage2["weights"][:, None] * stage2["scores"]).sum(0).reshape(2, 2)
    advantages = grpo(rewards).reshape(-1)
    np.testing.assert_allclose(advantages, stage2["advantages"], atol=1e-5)
    rows = [
        edit_row(
            i // 2,
            editing["edit.source_ids"][i // 2],
            stage2["ids"][i],
            advantage=np.full(576, advantages[i]),
            old_logps=np.full(576, np.nan),
        )
        for i in range(4)
    ]
    fields = ("advantage", "old_logps", "ref_logps")
    batch = collate(rows, 608 + 576, processor().special.pad, code_targets=576, fields=fields, guided=True)
    mask = stage2["prompt_and_completion_mask"].astype(bool)
    np.testing.assert_array_equal(batch.mask, mask[::2])
    # the released log-probabilities: guided logits divided by w; contexts are embedded with gradients here
    weight = float(stage2["guidance_scale"])
    forward = objective.make_forward(janus, Sampling(weight, temperature=weight), None)
    loss = objective.make_loss(float(stage2["beta"]), 0.2, 0.2)
    prepare = objective.make_prepare("segment")
    kept, frozen = train_step.split(params, train_step.trainable_leaves(params, (r"vq/.*", r"siglip/.*")))
    batches = jax.tree.map(jnp.asarray, (batch,))
    score = jax.jit(lambda params, batches: forward(params, batches)[0]["codes"])
    for name, weights in (("logps", params), ("ref_logps", reference)):
        close(np.asarray(score(weights, batches)), stage2[name])
    batches = with_targets(batches, ref_logps=[score(reference, batches)] * len(targets_of(batches)))

    @jax.jit
    def loss_of(kept, frozen, batches):
        prepared = prepare(batches)
        return loss(forward(train_step.merge(kept, frozen), prepared), prepared)

    (value, metrics), gradient = jax.value_and_grad(loss_of, has_aux=True)(kept, frozen, batches)
    assert float(value) == pytest.approx(float(stage2["loss"]), abs=1e-5)
    assert float(metrics["kl"]) == pytest.approx(float(stage2["mean_kl"]), rel=1e-4)
    same_gradient(gradient, stage2, "")
