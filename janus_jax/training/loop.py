"""The one loop of all stages: resume, steps, metrics, checkpoints, and a clean end at a signal.

A stage is a Job: functions that pass its state, whatever that is, from one to the next.
"""

import collections
import functools
import math
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from janus_jax import cli, profile
from janus_jax.errors import UserError
from janus_jax.parallel import agree
from janus_jax.training.metrics import Metrics
from janus_jax.training.step import MOST_SKIPPED, Built, check_skipped, in_a_row
from janus_jax.training.workdir import Checkpoints, keep_settings, let_settings_change

AHEAD = 2  # steps that may be under way beside the one just started: enough to keep a device busy
# What may be changed after updates that could not be taken.
RATES = ("learning_rate", "turn_learning_rate", "final_learning_rate", "warmup", "turn_step", "clip_norm", "beta")


class Job(NamedTuple):
    """What a stage does between the loop's own doings. carry: all that one step hands to the next.

    begin() -> the first carry. resume(checkpoints, step) -> the carry of a checkpoint; raises UserError where that
    cannot be read, and may then be called with an earlier one. items(carry) -> (array trees by name, JSON values by
    name) of a checkpoint. advance(carry, number, pause) -> (carry, metrics, with "skipped" of step.py among them) of
    step `number`, from 0; or None where it was told to stop while it waited for something; pause(line) saves, and says
    the line unless it is "". after(carry, done, written): called after each of a synchronous stage's steps with the
    metrics as floats; what it raises as UserError ends the training, saved. shown: metrics beside the bar. why(name)
    -> the reason why a metric has no value.
    """

    begin: Callable[[], Any]
    resume: Callable[[Checkpoints, int], Any]
    items: Callable[[Any], tuple[dict, dict]]
    advance: Callable[[Any, int, Callable[[str], None]], tuple[Any, dict] | None]
    after: Callable[[Any, int, dict, Metrics], None] = lambda carry, done, written, metrics: None
    shown: tuple[str, ...] = ("loss",)
    why: Callable[[str], str] = lambda name: "it has no value in this step"


def fit(workdir, title: str, job: Job, config, stop, *, log_every: int = 1, ahead: int = 0) -> tuple:
    """Trains from `job.begin()`, or from the newest checkpoint that can be read, to `config.steps`: (carry, finished).

    config: a ConfigDict with `steps` and `save_every`, kept beside the first checkpoint. stop: set by a signal, on any
    process it ends all at the same step, saved, and finished is False; its attribute `at_once` is cleared after the
    first step. ahead: steps that may be under way; 0 for a stage whose metrics are numbers. Raises UserError, having
    saved what is sound, after step.MOST_SKIPPED updates in a row that could not be taken.
    """
    stopped = agree.AnyOf(stop, late=ahead)
    with Checkpoints(workdir, title) as checkpoints:
        newest = max(checkpoints.steps(), default=0)
        if newest > config.steps:
            raise UserError(
                f"{workdir} has gone {newest} steps, more than config.steps = {config.steps}: set --config.steps to "
                "that or more, or choose another --workdir"
            )
        done, carry = _begun(checkpoints, job)
        writers = config.get("writers", ("tensorboard",))
        metrics = Metrics(workdir, title, done, agree.is_first(), writers, config.to_dict())
        with metrics, cli.progress(done, config.steps, title, agree.is_first()) as bar:
            log = _Log(workdir, job, config, checkpoints, metrics, bar, done, log_every, ahead)
            most = min(MOST_SKIPPED, max(config.steps, 1))
            while log.done < config.steps and log.skipped < most and not stopped:
                profile.step("training", first=2, count=3)
                try:
                    moved = job.advance(carry, log.done, functools.partial(log.pause, carry))
                except UserError:  # in a pod the others may not know of it, and a save waits for all
                    if jax.process_count() == 1 and _whole(carry):
                        log.save(carry)
                    raise
                if moved is None:
                    break
                carry, values = moved
                if stop.at_once:
                    jax.block_until_ready(values)
                    stop.at_once = None
                log.enter(carry, values)
            log.save(carry)
        if log.skipped >= most:
            let_settings_change(workdir, RATES)
    check_skipped(log.skipped, most)
    if log.done < config.steps and agree.is_first():
        print(f"stopped after step {log.done} of {config.steps}; the same command goes on", file=sys.stderr, flush=True)
    return jax.block_until_ready(carry), log.done >= config.steps


def _begun(checkpoints, job):
    """(steps done, carry): of the newest checkpoint that can be read, or of the beginning. Those that cannot be read
    are set aside, but where none can they stay, and the newest one's error is raised."""
    failures = {}
    for step in checkpoints.steps():
        try:
            carry = job.resume(checkpoints, step)
        except UserError as error:
            failures[step] = error
            continue
        for damaged, error in failures.items():
            checkpoints.set_aside(damaged)
            if agree.is_first():
                print(f"{error}: set aside; training goes on from step {step}", file=sys.stderr, flush=True)
        return step, carry
    if failures:
        raise UserError(f"{failures[max(failures)]}: choose another --workdir, or remove its checkpoints to begin anew")
    return 0, job.begin()


def _whole(carry) -> bool:
    """Whether none of its arrays were given away."""
    return not any(leaf.is_deleted() for leaf in jax.tree.leaves(carry) if isinstance(leaf, jax.Array))


class _Log:
    """What a run writes down, and what it counts: done steps, those skipped in a row, the last that was taken."""

    def __init__(self, workdir, job, config, checkpoints, metrics, bar, done, log_every, ahead):
        self._workdir, self._job, self._config, self._log_every, self._ahead = workdir, job, config, log_every, ahead
        self._checkpoints, self._metrics, self._bar = checkpoints, metrics, bar
        self.done = self._saved = self._taken = done
        self.skipped, self._unknown = 0, set()  # metrics without a value, which were named
        self._under_way = collections.deque()  # (step, metrics) that nobody waited for yet
        self._late, self._timed, self._clock = None, done, time.time()  # what was done at the clock's time

    def enter(self, carry, values):
        """One more step, with its metrics."""
        self.done += 1
        self._under_way.append((self.done, values))
        self._settle(self._ahead)
        self._bar.update()
        self._checkpoints.check()
        if self.done % self._log_every == 0 or self.done == self._config.steps:
            # Values of one logging interval ago are ready; fetching today's would stall the device.
            self._write()
            now = time.time()
            pace = {"steps_per_second": (self.done - self._timed) / (now - self._clock)} if self._ahead else {}
            self._late, self._timed, self._clock = (self.done, {**values, **pace}), self.done, now
            if not self._ahead:
                written = self._write()
                try:
                    self._job.after(carry, self.done, written, self._metrics)
                except UserError:
                    self.save(carry)
                    raise
        if self.done % self._config.save_every == 0:
            self.save(carry)

    def _settle(self, most):
        """Waits until at most so many steps are under way: after a signal all have to end before they are saved."""
        while len(self._under_way) > most:
            step, values = self._under_way.popleft()
            self.skipped = in_a_row(self.skipped, jax.block_until_ready(values))
            if not self.skipped:
                self._taken = step

    def _write(self):
        if self._late is None:
            return None
        written, step = self._metrics.write(*self._late), self._late[0]
        self._late = None
        known = {name: value for name, value in written.items() if math.isfinite(value)}
        self._bar.set_postfix({name: f"{known[name]:.4g}" for name in self._job.shown if name in known})
        self._name(step, [name for name in written if name not in known and name not in self._unknown])
        return written

    def _name(self, step, unknown):
        """Says once why a metric has no value; where it stays so, the file says null."""
        self._unknown |= set(unknown)
        if unknown and agree.is_first():
            reasons = [f"{name} ({self._job.why(name)})" for name in unknown]
            tqdm.write(f"step {step}: no value of {', '.join(reasons)}", file=sys.stderr)

    def save(self, carry):
        """Saves, unless no update was taken since the last time: the parameters would be the same, or never were
        sound."""
        self._write()  # what a resumed run will not write again
        self._settle(0)
        if self._taken > self._saved:
            keep_settings(self._workdir, self._config)
            self._checkpoints.save(self.done, *self._job.items(carry))
            self._saved = self.done

    def pause(self, carry, line):
        """Saves, and says why nothing goes on for now."""
        self.save(carry)
        self._checkpoints.wait()
        if line:  # else another process of the pod has one
            tqdm.write(line, file=sys.stderr)


def supervised(built: Built, given: list, dataset, by_row, describe: Callable = lambda rows: {}) -> Job:
    """The Job of a supervised stage; its carry is the TrainState. given: a list of the parameters that it begins
    with, emptied once they are not needed; dataset: a grain IterDataset of host batches, whose position is saved, so
    that a resumed run sees the very batches that the uninterrupted one would have seen; by_row: where a batch's rows
    lie; describe(rows) -> metrics of this host's rows."""
    iterator = iter(dataset)

    def begin():
        return built.initial(given.pop())

    def resume(checkpoints, step):
        given.clear()
        found = checkpoints.restore(step, {"state": built.abstract}, ["data"])
        iterator.set_state(found["data"])
        return found["state"]

    def items(state):
        return {"state": state}, {"data": iterator.get_state()}

    def advance(state, number, pause):
        rows = next(iterator)
        batch = jax.tree.map(lambda x: jax.make_array_from_process_local_data(by_row, x), rows)
        state, metrics = built.step(state, batch)
        return state, metrics | describe(rows)

    return Job(begin, resume, items, advance)
