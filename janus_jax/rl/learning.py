"""What a step of stage 2 says of itself: the scalars of its updates and of its experience."""

import math

import jax
import jax.numpy as jnp

from janus_jax.rl import monitor, ppo, rollouts
from janus_jax.rl.scored import Scored, advantages
from janus_jax.rl.stage import Stage
from janus_jax.sequences.batch import padding


def learnt(updates) -> dict:
    """The metrics of a step from those of its updates, as they lie on the devices: the last one's, but max_logp_gap and
    lost of the first, before which nothing was learnt; skipped: the share that was."""
    updates = jax.device_get(updates)
    values = updates[-1] | {name: updates[0][name] for name in ("max_logp_gap", "lost")}
    values["skipped"] = sum(each["skipped"] for each in updates) / len(updates)  # exactly 1 where all were
    values = {name: float(value) for name, value in values.items()}
    for name in ("codes", "text"):  # in nats per token, whatever the modality's share of the weights
        values[f"entropy_{name}"] /= max(values.pop(f"share_{name}"), 1e-9)
    return values


@jax.jit
def copied(params):
    """The model's parameters in buffers of their own: those of the state are given away from step to step."""
    return jax.tree.map(jnp.copy, ppo.without_value_head(params))


def described(config, stage: Stage, found: rollouts.Experience, scored: Scored, seconds) -> dict:
    """Scalars of a step's experience. Of all that was drawn: groups that were chosen for their spread would tell
    another story. max_logp_gap is among them where the trainer's own figure is none."""
    rollout, rewards = found.drawn
    segments = stage.credit.segment_rewards(rollout, rewards.total, config.rounds, rewards.truth)
    credited = advantages(config, stage, rollout, rewards)
    values = monitor.describe(rollout, rewards, segments, credited, config.group)
    values |= monitor.by_task(rollout, rewards)
    values |= {f"seconds_{phase}": spent for phase, spent in seconds.items()}
    values["tokens_per_second"] = monitor.sampled_tokens(rollout) / seconds.total()
    values["groups_drawn"] = len(rollout) // config.group
    values["padding"] = padding(scored.host)
    # drawn by earlier parameters, the trainer's own figure is of today's; not known, there is nothing to differ from
    if found.scored is not None or not scored.sampled:
        values["max_logp_gap"] = scored.gap if scored.sampled else math.nan
    return values
