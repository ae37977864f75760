"""Stage 2 as a Job of the loop: what a step hands to the next, what a checkpoint holds of it, and one step."""

import collections
import functools
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from janus_jax.errors import UserError
from janus_jax.parallel import agree
from janus_jax.rl import monitor, ppo, rollouts
from janus_jax.rl.advantages import ESTIMATORS
from janus_jax.rl.learning import copied, described, learnt
from janus_jax.rl.phases import timed
from janus_jax.rl.scored import score, with_credit
from janus_jax.rl.stage import Stage
from janus_jax.training.loop import Job
from janus_jax.training.step import TrainState


class Carry(NamedTuple):
    """What a step hands to the next: the state, the reference's parameters, who collects experience (an `Ahead` holds
    the rollout in flight), and what was collected last."""

    state: TrainState
    reference: dict
    collect: Callable
    found: rollouts.Experience | None = None


def in_checkpoint(config, stage: Stage, state, reference, flight) -> dict:
    """What a checkpoint holds: the state; the reference, where it changes; the rollout in flight, if there is one."""
    items = {"state": state}
    if config.refresh_every:
        items["reference"] = reference
    if flight is not None:
        items["rollout"] = rollouts.to_arrays(config, stage, flight)
    return items


def resumed(config, stage: Stage, checkpoints, step: int, reference):
    """(state, reference, rollout in flight or None) of a checkpoint."""
    wanted = {"state": stage.programs.built.abstract}
    if config.refresh_every:
        wanted["reference"] = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), reference
        )
    if config.ahead and checkpoints.holds(step, "rollout"):
        wanted["rollout"] = rollouts.abstract_arrays(config, stage)
    found = checkpoints.restore(step, wanted)
    flight = rollouts.from_arrays(config, stage, step, found["rollout"]) if "rollout" in found else None
    return found["state"], found.get("reference", reference), flight


def job_of(config, stage: Stage, judge, initial, look_back, show, stop) -> Job:
    """Stage 2 for the loop. initial: the parameters that it starts from; look_back(params) -> metrics of what is to be
    retained, every config.retention_every steps and at the end, or None; show(done, trajectories, scores, metrics):
    called every config.storyboard_every steps with the trajectories that tell most and the rewards of their pictures;
    stop: true once the training is to end."""

    def carry(state, reference, flight):
        if config.ahead:
            return Carry(state, reference, rollouts.Ahead(config, stage, judge, flight).collect)
        return Carry(state, reference, functools.partial(rollouts.collect, config, stage, judge))

    def begin():
        begun = initial
        if ESTIMATORS[config.estimator].value_head:
            begun = ppo.with_value_head(initial, stage.model.cfg.llama.width)
        return carry(stage.programs.built.initial(begun), initial, None)

    def resume(checkpoints, step):
        return carry(*resumed(config, stage, checkpoints, step, initial))

    def items(carry):
        flight = carry.collect.__self__.in_flight if config.ahead else None
        return in_checkpoint(config, stage, carry.state, carry.reference, flight), {}

    def after(carry, done, written, metrics):
        if written["max_logp_gap"] > config.max_logp_gap:
            raise UserError(
                f"sampler and trainer differ by {written['max_logp_gap']:.3g} in a log-probability (limit "
                f"{config.max_logp_gap}): the density trained is not the one sampled"
            )
        if agree.is_first() and (done % config.storyboard_every == 0 or done == config.steps):
            rollout, rewards = carry.found.drawn
            picked = monitor.telling(rollout, rewards)
            show(done, rollout.take(picked).trajectories(stage.processor), rewards.total[picked], metrics)

    step = functools.partial(advance, config, stage, look_back, stop)
    return Job(begin, resume, items, step, after, shown=("right_first", "right_final", "reward_first"), why=monitor.why)


def advance(config, stage: Stage, look_back, stop, carry: Carry, number: int, pause):
    """One step, from 0: (carry, metrics), or None where stop became true while rewards were missing. Arguments as of
    job_of; pause(line) saves, and says the line."""
    seconds, done, state, reference = collections.Counter(), number + 1, carry.state, carry.reference
    found = carry.collect(state.params, reference, number, lambda: bool(stop), pause, seconds)
    if found is None:
        return None
    scored = found.scored or score(stage, found.rollout, state.params, reference, seconds)
    with timed(seconds, "credit"):
        made = with_credit(config, stage, found.rollout, found.rewards, scored, state.params)
        jax.block_until_ready(made)
    with timed(seconds, "train"):
        updates = []
        for _ in range(config.updates):
            state, update = stage.programs.built.step(state, made)
            updates.append(update)
        values = learnt(updates)
    if config.refresh_every and done % config.refresh_every == 0:
        reference = copied(state.params)
    values |= described(config, stage, found, scored, seconds)
    if look_back and (done % config.retention_every == 0 or done == config.steps):
        values |= look_back(stage.programs.cast(state.params))
    return Carry(state, reference, carry.collect, found), values


def storyboards(workdir, board_of, report) -> Callable:
    """show(done, trajectories, scores, metrics) that writes a storyboard, board_of(trajectories, title, scores), and
    the report into a workdir. A report that cannot be made is a line; a picture that cannot be written ends the
    training, as a UserError: what comes next could not be either."""

    def show(done, trajectories, scores, metrics):
        board = board_of(trajectories, title=f"step {done}", scores=scores)
        path, scratch = workdir / f"storyboard_{done:05d}.png", workdir / ".storyboard.png"
        try:
            board.save(scratch)
            scratch.replace(path)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise UserError(f"cannot write {path}: {error.strerror}; make room there") from error
        metrics.image(done, "storyboard", np.asarray(board))
        try:
            report(workdir)
        except UserError as error:
            tqdm.write(f"no report: {error}", file=sys.stderr)

    return show
