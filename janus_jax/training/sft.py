"""Stage 1's program: what it computes per step, and the step for a mesh, from parameters or from their shapes alone."""

import jax
import jax.numpy as jnp

from janus_jax import cli
from janus_jax.data import mixture
from janus_jax.errors import UserError
from janus_jax.models import flops
from janus_jax.models.janus import Janus, JanusConfig, abstract_params, differentiated
from janus_jax.parallel import sharding
from janus_jax.sampling import density
from janus_jax.sequences.batch import GROUPS, singly, targets_of, with_targets
from janus_jax.training import losses, optim
from janus_jax.training import step as train_step
from janus_jax.training.logps import token_logps
from janus_jax.training.program import Program, placed


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


def loss(outputs, batches):
    """Stage 1's loss over all buckets: (f32[], metrics), where the metrics are each group's part of it."""
    total = 0.0
    parts = dict.fromkeys(GROUPS, 0.0)
    for name, i, targets in targets_of(batches):
        logps = outputs[i][name]
        total += losses.sft_loss(logps, targets.weight)
        for group, label in enumerate(GROUPS):
            parts[label] += losses.sft_loss(logps, jnp.where(targets.group == group, targets.weight, 0.0))
    return total, parts


def configured_model(config) -> JanusConfig:
    """The sizes that a configuration asks for. Raises UserError for an unknown preset or entry."""
    try:
        preset = JanusConfig.preset(config.preset)
    except ValueError as error:
        raise UserError(f"{error}: set --config.preset") from error
    return preset.changed(config.model)


def check(config) -> None:
    """Raises UserError for settings that no stage 1 can have."""
    cli.config_at_least(1, config, "steps", "log_every", "save_every", "micro_batches")
    cli.config_at_least(0, config, "seed")
    if not sum(config.shares) > 0:
        raise UserError("all of config.shares are 0: give a task a share")


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
    shapes. Raises UserError for an unknown optimizer and for regexes that match nothing."""
    trainable = train_step.trainable_leaves(params, config.frozen)
    kept = train_step.split(params, trainable)[0]
    decays = sharding.match(optim.DECAY_RULES, kept)
    schedule = optim.warmup_cosine(
        config.learning_rate, config.final_learning_rate, config.warmup, config.decay_steps or config.steps
    )
    try:
        settings = {"weight_decay": config.weight_decay, "decay_mask": decays}
        tx = optim.named(config.optimizer, schedule, kept, **settings)
        tx = optim.stored_as(config.get("moments", "float32"), tx)
    except ValueError as error:
        raise UserError(f"{error}: set --config.optimizer and --config.moments") from error
    by_row = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp")))
    built = train_step.build(
        make_forward(model),
        loss,
        tx,
        params,
        trainable,
        mesh,
        by_row,
        prepare=make_prepare(losses.sft_shares(*config.shares, verdict_share=config.verdict_share)),
        parts=singly,
        computed=differentiated(model, config.get("gradients", "float32")),
        micro_batches=config.micro_batches,
    )
    return built, by_row


def programs(config, mesh) -> list[Program]:
    """What stage 1 runs on a mesh, from shapes alone. Raises UserError as `check`, `buckets_of` and `build` do."""
    check(config)
    buckets = buckets_of(config, mesh)
    model = Janus(configured_model(config))
    with jax.set_mesh(mesh):
        built, by_row = build(config, model, abstract_params(model), mesh)
    batches = mixture.blank(buckets, model.cfg.vq.tokens, model.cfg.siglip.image_size)
    given = built.abstract.params
    return [
        Program("begin", mesh, built.initial, (given,), {}, {"parameters": given}, {}, 0),
        Program(
            name="train step",
            mesh=mesh,
            function=built.step,
            args=(built.abstract, placed(batches, by_row)),
            kwargs={},
            holds={"parameters": built.abstract.params, "optimizer": built.abstract.opt_state},
            beside={},
            flops=sum(flops.scored(model.cfg, batch, trained=True) for batch in batches),
        ),
    ]
