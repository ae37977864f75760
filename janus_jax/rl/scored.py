"""A rollout's batch on the mesh, with the log-probabilities that the loss compares with: made once per step, before the
rewards are known; credit fills it in."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.parallel import agree, shards
from janus_jax.rl import batches, ppo
from janus_jax.rl.advantages import ESTIMATORS
from janus_jax.rl.phases import timed
from janus_jax.rl.rewards import Rewards
from janus_jax.rl.stage import Stage
from janus_jax.sampling.rollout import Rollout
from janus_jax.sequences.batch import Batch, targets_of, with_targets


@dataclasses.dataclass(frozen=True)
class Scored:
    """batches: (painter's, judge's) on the mesh, or those of the released layout, with `old_logps` under the parameters
    that drew and `ref_logps` under the reference; host: the rows this host made, as numpy. sampled: whether the
    sampler's log-probabilities are known, which the released layout leaves out. gap: the largest difference between
    these and what the trainer finds with the same parameters; NaN where that was not looked at."""

    batches: tuple[Batch, ...]
    host: tuple[Batch, ...]
    sampled: bool = True
    gap: float = math.nan


def build(stage: Stage, rollout: Rollout) -> Scored:
    """The batches of a rollout on the mesh, without the reference's log-probabilities. Each host makes the rows of its
    devices."""
    own = rollout.take(shards.rows(stage.programs.by_row, len(rollout)))
    side = stage.processor.understanding_size
    made = stage.make(stage.credit, own, stage.grammar, stage.layout, side, stage.guided)
    sampled = not all(np.isnan(targets.old_logps[targets.weight > 0]).all() for *_, targets in targets_of(made))
    return Scored(place(stage, made), made, sampled)


def place(stage: Stage, tree):
    """This host's rows, a tree of numpy arrays, as global arrays on the mesh."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(stage.programs.by_row, x), tree)


def score(stage: Stage, rollout: Rollout, params, reference, seconds, compare: bool = False) -> Scored:
    """The batches of a rollout that `params` drew, but for its credit. seconds: see phases.timed; compare: look at the
    gap, too, which takes a pass of its own."""
    programs, params = stage.programs, ppo.without_value_head(params)
    with timed(seconds, "rows"):
        made = build(stage, rollout)
        jax.block_until_ready(made.batches)
    with timed(seconds, "reference"):
        ref = jax.block_until_ready(programs.refer(reference, made.batches, params))
    old = [targets.old_logps for *_, targets in targets_of(made.batches)]
    # a picture's copy was never sampled in its second context: what the policy gave it there before any update
    unsampled = stage.make is batches.make and any(
        (np.isnan(targets.old_logps) & (targets.weight > 0)).any() for *_, targets in targets_of(made.host)
    )
    unsampled = bool(agree.gathered(np.array(unsampled)).any())
    if compare or unsampled:
        with timed(seconds, "old"):
            now = jax.block_until_ready(programs.score(params, made.batches, params))
        live = [targets.weight > 0 for *_, targets in targets_of(made.batches)]
        made = dataclasses.replace(made, gap=max(float(_gap(*each)) for each in zip(now, old, live, strict=True)))
        if unsampled:
            places = programs.by_row
            old = [jax.device_put(jnp.where(jnp.isnan(o), n, o), places) for o, n in zip(old, now, strict=True)]
    return dataclasses.replace(made, batches=with_targets(made.batches, old_logps=old, ref_logps=ref))


@jax.jit
def _gap(now, old, live):
    """The largest difference where there is anything to compare; the released layout and copies know no old ones."""
    return jnp.max(jnp.where(live & ~jnp.isnan(old) & ~jnp.isneginf(now), jnp.abs(now - old), 0.0))


def advantages(config, stage: Stage, rollout: Rollout, rewards: Rewards) -> np.ndarray:
    """Group-relative advantages f32[B,columns] as the configuration says. Of PPO it is what groups would say."""
    estimator = ESTIMATORS[config.estimator]
    minimum = 1 if estimator.value_head else config.min_group
    how = config.group, estimator.compare, minimum, rewards.truth
    return stage.credit.advantages(rollout, rewards.total, config.rounds, *how)


def with_credit(config, stage: Stage, rollout: Rollout, rewards: Rewards, scored: Scored, params) -> tuple[Batch, ...]:
    """The batches of a policy-gradient step, complete. params: those that are about to learn, whose values PPO's
    advantages are taken against."""
    own = shards.rows(stage.programs.by_row, len(rollout))
    fields = batches.credited(scored.host, advantages(config, stage, rollout, rewards)[own])
    if ESTIMATORS[config.estimator].value_head:
        values = shards.whole(stage.programs.expect(params, scored.batches))
        how = config.rounds, values, config.gamma, config.gae_lambda, rewards.truth
        each, returns = ppo.advantages(rollout, rewards.total, *how)
        fields["advantage"] = [np.nan_to_num(values)[own] for values in each]
        fields["returns"] = [values[own] for values in returns]
    return with_targets(scored.batches, **place(stage, fields))
