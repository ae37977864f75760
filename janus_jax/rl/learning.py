"""The updates of a step of stage 2, and the scalars that describe it."""

import jax
import jax.numpy as jnp

from janus_jax.rl import monitor, ppo, rollouts
from janus_jax.rl.scored import advantages
from janus_jax.rl.stage import Stage


def learn(config, stage: Stage, state, made):
    """`config.updates` steps on one batch: (state, metrics of the last, but max_logp_gap and lost of the first, before
    which nothing was learnt; skipped: the share that was)."""
    begun, skipped = None, 0.0
    for _ in range(config.updates):
        state, values = stage.programs.built.step(state, made)
        skipped += values["skipped"]
        begun = begun or {name: values[name] for name in ("max_logp_gap", "lost")}
    values = {name: float(value) for name, value in jax.device_get({**values, **begun}).items()}
    values["skipped"] = float(skipped) / config.updates  # exactly 1 where all were
    if config.released:  # no old probability to differ from
        values["max_logp_gap"] = float("nan")
    for name in ("codes", "text"):  # in nats per token, whatever the modality's share of the weights
        values[f"entropy_{name}"] /= max(values.pop(f"share_{name}"), 1e-9)
    return state, values


@jax.jit
def copied(params):
    """The model's parameters in buffers of their own: those of the state are given away from step to step."""
    return jax.tree.map(jnp.copy, ppo.without_value_head(params))


def described(config, stage: Stage, found: rollouts.Experience, seconds) -> dict:
    """Scalars of a step's experience. Of all that was drawn: groups that were chosen for their spread would tell
    another story."""
    rollout, rewards = found.drawn
    segments = stage.credit.segment_rewards(rollout, rewards.total, config.rounds)
    credited = advantages(config, stage, rollout, rewards)
    values = monitor.describe(rollout, rewards, segments, credited, config.group)
    values |= {f"seconds_{phase}": spent for phase, spent in seconds.items()}
    values["tokens_per_second"] = monitor.sampled_tokens(rollout) / seconds.total()
    values["groups_drawn"] = len(rollout) // config.group
    if found.scored is not None:  # drawn by earlier parameters: the trainer's own figure is of today's
        values["max_logp_gap"] = found.scored.gap
    return values
