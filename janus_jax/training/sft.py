"""Stage 1's program: what it computes per step, and the step for a mesh, from parameters or from their shapes alone."""

import functools

import jax
import jax.numpy as jnp

from janus_jax.data import mixture
from janus_jax.errors import UserError
from janus_jax.models.janus import Janus, JanusConfig, differentiated
from janus_jax.parallel import sharding
from janus_jax.sampling import density
from janus_jax.sequences.batch import GROUPS, singly, targets_of, with_targets
from janus_jax.training import losses, optim
from janus_jax.training import step as train_step
from janus_jax.training.logps import token_logps


def make_forward(model: Janus):
    """forward(params, batches) -> list of token_logps, one per bucket."""
    sampling = density.Sampling(cfg_weight=1.0)

    def forward(params, batches):
        return [token_logps(model, params, batch, sampling) for batch in batches]

    return forward


def make_prepare(shares):
    """prepare(batches): the weights normalised over all buckets, see losses.sft_weights."""

    def prepare(batches):
        targets = [(t.weight, t.group) for *_, t in targets_of(batches)]
        return with_targets(batches, weight=losses.sft_weights(targets, shares))

    return prepare


def loss(outputs, batches, groups: int = len(GROUPS)):
    """Stage 1's loss over all buckets: (f32[], metrics), where the metrics are each group's part of it. groups: how
    many of GROUPS there are, in order."""
    total = 0.0
    parts = dict.fromkeys(GROUPS[:groups], 0.0)
    for name, i, targets in targets_of(batches):
        logps = outputs[i][name]
        total += losses.sft_loss(logps, targets.weight)
        for group, label in enumerate(parts):
            parts[label] += losses.sft_loss(logps, jnp.where(targets.group == group, targets.weight, 0.0))
    return total, parts


def configured_model(config) -> JanusConfig:
    """The sizes that a configuration asks for. Raises UserError for an unknown preset or entry."""
    try:
        preset = JanusConfig.preset(config.preset)
    except ValueError as error:
        raise UserError(f"{error}: set --config.preset") from error
    return preset.changed(config.model)


def buckets_of(config, mesh) -> list[mixture.Bucket]:
    """The buckets of a configuration. Raises UserError where their rows do not divide over the mesh."""
    buckets = [mixture.Bucket(length, tuple(mixture.Kind(*kind) for kind in kinds)) for length, kinds in config.buckets]
    split_by = mesh.shape["data"] * mesh.shape["fsdp"] * config.micro_batches
    for bucket in buckets:
        if bucket.rows % split_by:
            raise UserError(
                f"a bucket of {bucket.rows} rows does not divide by mesh x micro_batches = {split_by}: "
                "change config.buckets"
            )
    return buckets


def build(config, model: Janus, params, mesh) -> tuple[train_step.Built, jax.sharding.NamedSharding]:
    """(the step with its state's form, where a batch's rows lie) for a mesh in the context; params: arrays, or their
    shapes. Raises UserError for a regex of config.frozen that matches nothing."""
    trainable = train_step.trainable_leaves(params, config.frozen)
    kept = train_step.split(params, trainable)[0]
    decays = sharding.match(optim.DECAY_RULES, kept)
    schedule = optim.warmup_cosine(
        config.learning_rate, config.final_learning_rate, config.warmup, config.decay_steps or config.steps
    )
    tx = optim.named(config.optimizer, schedule, kept, weight_decay=config.weight_decay, decay_mask=decays)
    tx = optim.stored_as(config.moments, tx)
    by_row = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp")))
    shares = losses.sft_shares(*config.shares, verdict_share=config.verdict_share)
    built = train_step.build(
        make_forward(model),
        functools.partial(loss, groups=len(shares)),
        tx,
        params,
        trainable,
        mesh,
        by_row,
        prepare=make_prepare(shares),
        parts=singly,
        computed=differentiated(model, config.gradients),
        micro_batches=config.micro_batches,
    )
    return built, by_row
