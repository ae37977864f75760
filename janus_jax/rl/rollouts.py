"""What stage 2 learns from at each step: a rollout, drawn for the step's requests, and its rewards.

Everything that is drawn at step n is a function of the configuration's seed, n, and the parameters that draw it. Either
the parameters of step n draw, and wait for their rewards (`collect`); or those of step n - 1 do, and rewards are
fetched while step n + 1 is drawn (`Ahead`).

In a pod all hosts draw together, on the mesh of all; rollouts and rewards are on all of them, and the same.
"""

import contextlib
import dataclasses
import time

import jax
import numpy as np

from janus_jax.parallel import shards
from janus_jax.rewards.judge import Judge
from janus_jax.rl import monitor, requests
from janus_jax.rl.rewards import Rewards, ask, awaited, of_all
from janus_jax.rl.scored import Scored, advantages, build, place, score
from janus_jax.rl.stage import Stage
from janus_jax.sampling.introspect import rollouts
from janus_jax.sampling.rollout import Rollout
from janus_jax.sequences.batch import targets_of, with_targets


@dataclasses.dataclass(frozen=True)
class Experience:
    """A rollout to learn from with its rewards; `drawn`: the same of all that was drawn, groups that were left aside
    included; scored: None where its batch is yet to be made."""

    rollout: Rollout
    rewards: Rewards
    drawn: tuple[Rollout, Rewards]
    scored: Scored | None = None


@dataclasses.dataclass(frozen=True)
class Flight:
    """What was drawn at step `number`, and its batch, before anyone judged it."""

    number: int
    rollout: Rollout
    scored: Scored


@contextlib.contextmanager
def timed(seconds, phase: str):
    """Adds the block's duration to seconds[phase]."""
    began = time.time()
    yield
    seconds[phase] += time.time() - began


def explore(config, stage: Stage, params, number: int, attempt: int = 0) -> Rollout:
    """The rollout of step `number`: a group for each of its requests. Another attempt has other requests."""
    asked, seed = requests.of_step(config, stage.processor.tokenizer, stage.lines, number, attempt)
    work = [(request, sample) for request in asked for sample in range(config.group)]
    parts = rollouts(
        stage.model,
        stage.programs.cast(params),
        stage.processor,
        work,
        config.rounds,
        stage.sampling,
        seed,
        batch=config.rollout_rows or len(work),
        always=stage.credit.always,
        as_released=config.released,
        prompt_tokens=config.prompt_tokens,
    )
    return Rollout.join(parts)


def collect(config, stage: Stage, judge: Judge, params, reference, number: int, stop, tell, seconds):
    """The Experience of step `number`, drawn by `params`, or None where stop() became true while rewards were missing.

    Groups that teach nothing, because their members fare alike, are replaced by those of up to config.redraws further
    rollouts (the dynamic sampling of DAPO, arXiv 2503.14476); what is not found stays. tell(line): called while too
    many rewards are missing; seconds: a Counter of the time spent per phase; reference: not needed yet, see Ahead.
    """
    parts, telling, idle = [], [], []
    for attempt in range(1 + config.redraws):
        with timed(seconds, "draw"):
            rollout = explore(config, stage, params, number, attempt)
        with timed(seconds, "judge"):
            stage.look(*map(list, zip(*rollout.pictures, strict=True)))
            judged = awaited(ask(config, judge, rollout), stop, tell)
        if judged is None:
            return None
        parts.append((rollout, of_all(rollout, judged, config.reward.get("weights", {}))))
        first = attempt * len(rollout)
        for group, idles in enumerate(monitor.idle_groups(advantages(config, stage, *parts[-1]), config.group)):
            (idle if idles else telling).append(first + group * config.group)
        if len(telling) >= config.prompts_per_step:
            break
    everything = Rollout.join(part for part, _ in parts), Rewards.join(part for _, part in parts)
    chosen = np.add.outer((telling + idle)[: config.prompts_per_step], np.arange(config.group)).reshape(-1)
    return Experience(everything[0].take(chosen), everything[1].take(chosen), everything)


class Ahead:
    """Collects with one rollout ahead: while rewards of step n are fetched, step n + 1 is drawn with the parameters
    that step n is about to improve. `in_flight`: the Flight that is being judged."""

    def __init__(self, config, stage: Stage, judge: Judge, in_flight: Flight | None = None):
        """in_flight: where a checkpoint left one."""
        self._config, self._stage, self._judge = config, stage, judge
        self._send(in_flight)

    def _send(self, flight):
        self.in_flight = flight
        self._pending = flight and ask(self._config, self._judge, flight.rollout)

    def _draw(self, params, reference, number, seconds):
        with timed(seconds, "draw"):
            rollout = explore(self._config, self._stage, params, number)
        with timed(seconds, "score"):
            return Flight(number, rollout, score(self._stage, rollout, params, reference, compare=True))

    def collect(self, params, reference, number: int, stop, tell, seconds) -> Experience | None:
        """As the function of that name; but step 0 excepted, what it returns was drawn by earlier parameters."""
        if self.in_flight is None:
            self._send(self._draw(params, reference, number, seconds))
        flight, following = self.in_flight, None
        if number + 1 < self._config.steps:
            following = self._draw(params, reference, number + 1, seconds)
        with timed(seconds, "judge"):
            judged = awaited(self._pending, stop, tell)
        if judged is None:
            return None
        rewards = of_all(flight.rollout, judged, self._config.reward.get("weights", {}))
        self._send(following)
        return Experience(flight.rollout, rewards, (flight.rollout, rewards), flight.scored)


# A rollout in a checkpoint


def to_arrays(stage: Stage, flight: Flight) -> dict:
    """A rollout as global arrays split by row, whose shapes depend on the configuration alone."""
    own = flight.rollout.take(shards.rows(stage.programs.by_row, len(flight.rollout)))
    targets = [each for *_, each in targets_of(flight.scored.batches)]
    return {
        "trajectories": place(stage, own.arrays),
        "old": [each.old_logps for each in targets],
        "ref": [each.ref_logps for each in targets],
        "gap": np.float32(flight.scored.gap),
    }


def abstract_arrays(config, stage: Stage) -> dict:
    """The shapes and places of `to_arrays`."""
    rows, vq = config.prompts_per_step * config.group, stage.model.cfg.vq

    def by_row(shape, dtype):
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=stage.programs.by_row)

    forms = Rollout.forms(config.rounds, config.max_reason_tokens, vq.tokens, vq.image_size)
    # one set of targets for pictures and one for words; the released layout has two for pictures, around the words'
    codes, words = stage.layout.code_targets, stage.layout.text_targets
    counts = (vq.tokens, words, vq.tokens) if config.released else (codes, words)
    logps = [by_row((count,), np.float32) for count in counts]
    trajectories = {name: by_row(*form) for name, form in forms.items()}
    gap = jax.ShapeDtypeStruct((), np.float32)
    return {"trajectories": trajectories, "old": logps, "ref": logps, "gap": gap}


def from_arrays(config, stage: Stage, number: int, arrays) -> Flight:
    """Undoes `to_arrays`, for step `number`."""
    asked, _ = requests.of_step(config, stage.processor.tokenizer, stage.lines, number)
    samples = np.tile(np.arange(config.group, dtype=np.int32), len(asked))
    each = tuple(request for request in asked for _ in range(config.group))
    rollout = Rollout(each, samples, **shards.whole(arrays["trajectories"]))
    made = build(stage, rollout)
    filled = with_targets(made.batches, old_logps=arrays["old"], ref_logps=arrays["ref"])
    return Flight(number, rollout, dataclasses.replace(made, batches=filled, gap=float(arrays["gap"])))
