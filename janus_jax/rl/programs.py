"""The jitted programs of stage 2 on a mesh, and where their arguments lie."""

import dataclasses
import functools
from collections.abc import Callable

import jax

from janus_jax.errors import UserError
from janus_jax.models.decoder import DECODE_RULES, decode_params
from janus_jax.models.janus import cast_params, differentiated
from janus_jax.parallel import sharding
from janus_jax.rl import objective, ppo, released, requests
from janus_jax.rl.advantages import ESTIMATORS
from janus_jax.rl.credit import CREDITS
from janus_jax.sampling.density import Sampling
from janus_jax.sequences.batch import singly, targets_of
from janus_jax.training import optim
from janus_jax.training import step as train_step


def density_of(config) -> Sampling:
    """The density that a configuration of stage 2 draws from and trains."""
    return Sampling(
        cfg_weight=config.cfg_weight,
        temperature=config.temperature,
        image_top_k=config.image_top_k or None,
        text_top_k=config.text_top_k or None,
        max_reason_tokens=config.max_reason_tokens,
    )


def check_rows(config, mesh) -> None:
    """Raises UserError where a step's trajectories do not divide over a mesh and its micro-batches, or those of a task
    over the mesh."""
    rows = config.prompts_per_step * config.group
    if rows % (mesh.shape["data"] * mesh.shape["fsdp"] * config.micro_batches):
        raise UserError(
            f"{rows} trajectories per step do not divide by mesh x micro_batches: change "
            "--config.prompts_per_step or --config.micro_batches"
        )
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    draws, edits = requests.counts(config)
    if edits * config.group % parts or draws * config.group % parts:
        raise UserError(
            f"{draws * config.group} trajectories that draw and {edits * config.group} that edit do not divide over "
            f"{parts} parts of the mesh: change --config.edit_share"
        )
    if config.rollout_rows % parts:
        raise UserError(
            f"{config.rollout_rows} trajectories at a time do not divide over {parts} parts of the mesh: change "
            "--config.rollout_rows"
        )


def in_parts(function, batches, parts: int):
    """function(batches), rows in and rows out, one part of the rows after another, as a step's micro-batches are."""
    if parts == 1:
        return function(batches)
    return train_step.uncut(jax.lax.map(function, train_step.cut(batches, parts)))


@dataclasses.dataclass(frozen=True)
class Programs:
    """The jitted programs of stage 2 on a mesh, and where their arguments lie.

    built: the policy-gradient step over (painter's batch, judge's batch), with its state's form. refer(params, batches,
    policy) -> list of log-probabilities f32[B,N] of the batches' targets without truncation (policy: embeds the
    contexts in the released layout, else not looked at); score: the same under the density that was drawn from.
    expect(params, batches) -> list of values f32[B,N]. by_row: the batches' sharding.
    cast(params) -> the model's own parameters as they draw: decode_params of them, in the model's dtype, and not split
    over fsdp, since each token would gather them anew.
    """

    built: train_step.Built
    refer: Callable
    score: Callable
    expect: Callable
    by_row: jax.sharding.NamedSharding
    cast: Callable


def _optimizer(config, trained):
    """AdamW under stage 2's schedule, for the trainable leaves or their shapes."""
    schedule = optim.warmup_linear_then(
        config.schedule,
        config.learning_rate,
        config.turn_learning_rate,
        config.final_learning_rate,
        config.warmup * config.updates,
        config.turn_step * config.updates,
        config.steps * config.updates,
    )
    decays = sharding.match(optim.DECAY_RULES, trained)
    tx = optim.adamw(schedule, weight_decay=config.weight_decay, decay_mask=decays, clip=config.clip_norm)
    return optim.stored_as(config.moments, tx)


def _scorers(config, forward, untruncated, by_row):
    """(refer, score, expect), see Programs; what they return joins the batch, whose place the step states."""

    def each(forward, name, params, made, policy=None):
        def part(made):
            outputs = forward(params, made, policy)
            return [outputs[i][name.format(kind)] for kind, i, _ in targets_of(made)]

        return in_parts(part, made, config.micro_batches)

    def program(forward, name="{}"):
        return jax.jit(functools.partial(each, forward, name), out_shardings=by_row)

    return program(untruncated), program(forward), program(forward, "{}_value")


def make_programs(config, model, yes_no: tuple[int, int], params, mesh) -> Programs:
    """The programs for parameters like `params` (arrays, or jax.ShapeDtypeStructs: nothing is computed here), the
    model's own without a value head. yes_no: ids of the two verdicts. The mesh is that of the context."""
    initial, rules, estimator = params, sharding.PARAM_RULES, ESTIMATORS[config.estimator]
    if estimator.value_head:
        initial = jax.eval_shape(lambda params: ppo.with_value_head(params, model.cfg.llama.width), params)
        rules = (*ppo.RULES, *rules)
    trainable = train_step.trainable_leaves(initial, config.frozen)
    by_row = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp")))
    make_forward = (released if config.released else objective).make_forward
    forward = make_forward(model, density_of(config), yes_no)
    # The reference is asked without truncation: it may have cut what the policy draws, and the KL would be infinite.
    whole = dataclasses.replace(density_of(config), image_top_k=None, text_top_k=None)
    built = train_step.build(
        forward,
        objective.make_loss(config.beta, config.clip_low, config.clip_high, config.value_weight),
        _optimizer(config, train_step.split(initial, trainable)[0]),
        initial,
        trainable,
        mesh,
        by_row,
        rules=rules,
        prepare=objective.make_prepare(estimator.per or CREDITS[config.credit].per),
        parts=singly,
        computed=differentiated(model, config.gradients),
        micro_batches=config.micro_batches,
    )

    def cast(params):
        return decode_params(cast_params(ppo.without_value_head(params), model.cfg.dtype))

    drawing = sharding.param_shardings(jax.eval_shape(cast, params), mesh, DECODE_RULES, without=("fsdp",))
    cast = jax.jit(cast, out_shardings=drawing)
    scorers = _scorers(config, forward, make_forward(model, whole, yes_no), by_row)
    return Programs(built, *scorers, by_row, cast)
