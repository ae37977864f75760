"""The batches of a policy-gradient step: trajectories, what their rewards credit them with, and the log-probabilities
that the loss compares with. The batch holds those of the parameters that drew, so the ratio is to those.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.models.janus import Janus
from janus_jax.parallel import hosts
from janus_jax.rl import credit as credits
from janus_jax.rl import ppo
from janus_jax.rl.objective import PPO, Programs
from janus_jax.sampling.density import Sampling
from janus_jax.sequences.batch import targets_of, with_targets
from janus_jax.sequences.processor import Processor


@dataclasses.dataclass(frozen=True)
class Stage:
    """What stays the same from step to step. prompts: the lines of the prompts' file, or None for the embedded
    world's; layout: shapes of the batches; look: called with the requests and pictures of all that was drawn, in
    all processes of a pod at once."""

    model: Janus
    processor: Processor
    sampling: Sampling
    prompts: list[str] | None
    layout: credits.Layout
    programs: Programs
    look: Callable[[list, list], None] = lambda requests, pictures: None


@dataclasses.dataclass(frozen=True)
class Scores:
    """Log-probabilities of a batch's targets, lists of f32[B,N] in the order of batch.targets_of: `old`, under the
    parameters that drew; `ref`, under the reference. gap: the largest difference between the sampler's own and
    those that the trainer finds with the same parameters; None where that was not looked at."""

    old: list
    ref: list
    gap: float | None = None


def credit(config, trajectories, rewards) -> credits.Credited:
    """rollout.credit as the configuration says. Of PPO it is what groups would say; see token_advantages."""
    estimator = credits.ESTIMATORS["grpo" if config.estimator == PPO else config.estimator]
    minimum = 1 if config.estimator == PPO else config.min_group
    return credits.credit(config.credit, trajectories, rewards, config.group, config.rounds, estimator, minimum)


def make_batches(config, stage: Stage, trajectories, credited: credits.Credited):
    """The batches of credited trajectories on the mesh: (painter's, judge's), or those of rollout.released_batches.
    old_logps are the sampler's, NaN where it has none. Each process makes the rows of its devices."""
    rows = hosts.rows(stage.programs.by_row, len(trajectories))
    trajectories = [trajectories[i] for i in rows]
    credited = credits.Credited(*(values[rows] for values in credited))
    make = credits.released_batches if config.released else credits.pg_batch
    batches = make(
        config.credit,
        trajectories,
        credited,
        stage.processor,
        stage.layout,
        stage.model.cfg.siglip.tokens,
        guided=stage.sampling.cfg_weight != 1.0,
    )
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(stage.programs.by_row, x), batches)


def score(config, stage: Stage, trajectories, params, reference, compare: bool = False) -> Scores:
    """Scores of trajectories that `params` drew. compare: look at the gap, too."""
    programs = stage.programs
    nothing = credits.Credited(*np.zeros((3, len(trajectories)), np.float32))
    batches = make_batches(config, stage, trajectories, nothing)
    params = ppo.without_value_head(params)
    ref, gap = programs.refer(reference, batches, params), None
    old = [targets.old_logps for *_, targets in targets_of(batches)]
    # a picture's copy was never sampled in its second context: what the policy gave it there before any update
    unsampled = config.credit == "released/regen_prompt" and not config.released
    if compare or unsampled:
        now = programs.score(params, batches, params)
        live = [targets.weight > 0 for *_, targets in targets_of(batches)]
        gap = max(float(_gap(*each)) for each in zip(now, old, live, strict=True)) if compare else None
        if unsampled:
            places = programs.by_row
            old = [jax.device_put(jnp.where(jnp.isnan(o), n, o), places) for o, n in zip(old, now, strict=True)]
    return Scores(old, ref, gap)


@jax.jit
def _gap(now, old, live):
    """The largest difference where there is anything to compare; the released layout and copies know no old ones."""
    return jnp.max(jnp.where(live & ~jnp.isnan(old) & ~jnp.isneginf(now), jnp.abs(now - old), 0.0))


def training_batches(config, stage: Stage, trajectories, rewards, scores: Scores, params):
    """The batches of a policy-gradient step, complete. rewards: a list per trajectory, one per picture; params: those
    that are about to learn, whose values PPO's advantages are taken against."""
    batches = make_batches(config, stage, trajectories, credit(config, trajectories, rewards))
    batches = with_targets(batches, old_logps=scores.old, ref_logps=scores.ref)
    if config.estimator == PPO:
        batches = token_advantages(config, stage, batches, trajectories, rewards, params)
    return batches


def token_advantages(config, stage: Stage, batches, trajectories, rewards, params):
    """The batches with PPO's advantages and returns in place of the groups'; `params` says what was to be expected."""
    values = hosts.whole(stage.programs.expect(params, batches))
    advantages, returns = ppo.advantages(trajectories, rewards, config.rounds, values, config.gamma, config.gae_lambda)
    rows = hosts.rows(stage.programs.by_row, len(trajectories))
    known = [np.nan_to_num(advantage)[rows] for advantage in advantages]
    fields = {"advantage": known, "returns": [each[rows] for each in returns]}
    placed = {
        name: [jax.make_array_from_process_local_data(stage.programs.by_row, x) for x in arrays]
        for name, arrays in fields.items()
    }
    return with_targets(batches, **placed)
