"""What stage 2 runs on the devices: the policy's log-probabilities, its loss and step, and where everything lies."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from janus_jax.errors import UserError
from janus_jax.models.janus import cast_params, differentiated
from janus_jax.parallel import sharding
from janus_jax.rl import credit, ppo
from janus_jax.sampling.density import Sampling
from janus_jax.sequences.batch import singly, targets_of, with_targets
from janus_jax.training import losses, optim
from janus_jax.training import step as train_step
from janus_jax.training.logps import token_logps

PPO = "ppo"  # the estimator that is none of rollout.ESTIMATORS: it credits tokens, not trajectories


def make_forward(model, sampling: Sampling, yes_no, released: bool = False):
    """forward(params, batches, policy=params) -> list of token_logps under the sampling density; released: as the
    released code does it, where `policy` embeds the contexts."""

    def forward(params, batches, policy=None):
        policy = (params if policy is None else policy) if released else None
        return [token_logps(model, params, batch, sampling, yes_no, policy) for batch in batches]

    return forward


def make_prepare(per: str):
    """prepare(batches): weights normalised over all roles, see losses.pg_weights."""

    def prepare(batches):
        targets = [(t.weight, t.group) for *_, t in targets_of(batches)]
        return with_targets(batches, weight=losses.pg_weights(targets, credit.SEGMENTS, per))

    return prepare


def make_loss(beta: float, clip_low: float, clip_high: float, value_weight: float = 0.0):
    """loss(outputs, batches) -> (f32[], metrics) over all roles. value_weight: of the value head's loss, if there is
    one. "lost": the weight of tokens that truncation lets the policy draw no more (with the parameters that drew them:
    that lie on the other side of the cut in the trainer's arithmetic); they are left out of loss and gap."""

    def loss(outputs, batches):
        total, metrics = 0.0, {}
        for name, i, targets in targets_of(batches):
            logps, old = outputs[i][name], targets.old_logps
            # the released layout knows no old probabilities: always on policy
            old = jnp.where(jnp.isnan(old), jax.lax.stop_gradient(logps), old)
            value, parts = losses.pg_loss(
                logps,
                old,
                targets.ref_logps,
                targets.advantage,
                targets.weight,
                beta=beta,
                clip_low=clip_low,
                clip_high=clip_high,
            )
            total += value
            if targets.returns is not None:
                parts["value_loss"] = losses.value_loss(outputs[i][f"{name}_value"], targets.returns, targets.weight)
                total += value_weight * parts["value_loss"]
            parts[f"entropy_{name}"] = jnp.sum(outputs[i][f"{name}_entropy"] * targets.weight)
            parts[f"share_{name}"] = jnp.sum(targets.weight)
            metrics |= {key: metrics.get(key, 0.0) + part for key, part in parts.items()}
            drawn, lost = targets.weight > 0, jnp.isneginf(logps)
            gap = jnp.max(jnp.where(drawn & ~lost, jnp.abs(logps - old), 0.0))
            metrics["max_logp_gap"] = jnp.maximum(metrics.get("max_logp_gap", 0.0), gap)
            metrics["lost"] = metrics.get("lost", 0.0) + jnp.sum(jnp.where(lost, targets.weight, 0.0))
        return total, metrics

    return loss


def sampling_of(config) -> Sampling:
    """The density that a configuration of stage 2 draws from and trains."""
    return Sampling(
        cfg_weight=config.cfg_weight,
        temperature=config.temperature,
        image_top_k=config.image_top_k or None,
        text_top_k=config.text_top_k or None,
        max_reason_tokens=config.max_reason_tokens,
    )


def check_rows(config, mesh) -> None:
    """Raises UserError where a step's trajectories do not divide over a mesh and its micro-batches."""
    rows = config.prompts_per_step * config.group
    if rows % (mesh.shape["data"] * mesh.shape["fsdp"] * config.micro_batches):
        raise UserError(
            f"{rows} trajectories per step do not divide by mesh x micro_batches: change "
            "--config.prompts_per_step or --config.micro_batches"
        )
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if config.get("rollout_rows", 0) % parts:
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
    cast(params) -> the model's own parameters as they draw: in the model's dtype, and not split over fsdp, since each
    token would gather them anew. to_draw(params): the same, and nothing is copied that lies so already.
    """

    built: train_step.Built
    refer: Callable
    score: Callable
    expect: Callable
    by_row: jax.sharding.NamedSharding
    cast: Callable
    to_draw: Callable


def make_programs(config, model, yes_no: tuple[int, int], params, mesh) -> Programs:
    """The programs for parameters like `params` (arrays, or jax.ShapeDtypeStructs: nothing is computed here), the
    model's own without a value head. yes_no: ids of the two verdicts. The mesh is that of the context."""
    initial = params
    if config.estimator == PPO:
        initial = jax.eval_shape(lambda params: ppo.with_value_head(params, model.cfg.llama.width), params)
    trainable = train_step.trainable_leaves(initial, config.frozen)
    schedule = optim.warmup_linear_then(
        config.schedule,
        config.learning_rate,
        config.turn_learning_rate,
        config.final_learning_rate,
        config.warmup * config.updates,
        config.turn_step * config.updates,
        config.steps * config.updates,
    )
    decays = sharding.match(optim.DECAY_RULES, train_step.split(initial, trainable)[0])
    tx = optim.adamw(schedule, weight_decay=config.weight_decay, decay_mask=decays, clip=config.clip_norm)
    try:
        tx = optim.stored_as(config.get("moments", "float32"), tx)
    except ValueError as error:
        raise UserError(f"{error}: set --config.moments") from error
    by_row = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp")))
    forward = make_forward(model, sampling_of(config), yes_no, config.released)
    # The reference is asked without truncation: it may have cut what the policy draws, and the KL would be infinite.
    whole = dataclasses.replace(sampling_of(config), image_top_k=None, text_top_k=None)
    untruncated = make_forward(model, whole, yes_no, config.released)
    # Dr.GRPO is also a mean over tokens, whatever their trajectory; so is PPO
    per = "token" if config.estimator in ("dr_grpo", PPO) else credit.PER[config.credit.split("/")[0]]
    built = train_step.build(
        forward,
        make_loss(config.beta, config.clip_low, config.clip_high, config.value_weight),
        tx,
        initial,
        trainable,
        mesh,
        by_row,
        rules=(*ppo.RULES, *sharding.PARAM_RULES) if config.estimator == PPO else sharding.PARAM_RULES,
        prepare=make_prepare(per),
        parts=singly,
        computed=differentiated(model, config.get("gradients", "float32")),
        micro_batches=config.micro_batches,
    )

    def scored(forward):
        def score(params, batches, policy):
            def part(batches):
                outputs = forward(params, batches, policy)
                return [outputs[i][name] for name, i, _ in targets_of(batches)]

            return in_parts(part, batches, config.micro_batches)

        return jax.jit(score, out_shardings=by_row)  # joins the batch, whose place the step states

    def expect(params, batches):
        def part(batches):
            outputs = forward(params, batches)
            return [outputs[i][f"{name}_value"] for name, i, _ in targets_of(batches)]

        return in_parts(part, batches, config.micro_batches)

    jitted = (scored(untruncated), scored(forward), jax.jit(expect, out_shardings=by_row))
    drawing = sharding.param_shardings(params, mesh, without=("fsdp",))
    cast = jax.jit(lambda params: cast_params(params, model.cfg.dtype), out_shardings=drawing)

    def to_draw(params):
        params = ppo.without_value_head(params)
        stored = {leaf.dtype for leaf in jax.tree.leaves(params)}
        # nothing to cast, then no copy either where the layouts are the same
        return jax.device_put(params, drawing) if stored <= {model.cfg.dtype} else cast(params)

    return Programs(built, *jitted, by_row, cast, to_draw)
