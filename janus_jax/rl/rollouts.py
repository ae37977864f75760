"""What stage 2 learns from at each step: a rollout, drawn for the step's requests, and its rewards.

Everything that is drawn at step n is a function of the configuration's seed, n, and the parameters that draw it. Either
the parameters of step n draw, and wait for their rewards (`collect`); or those of step n - 1 do, and rewards are
fetched while step n + 1 is drawn (`Ahead`).

In a pod all hosts draw together, on the mesh of all; rollouts and rewards are on all of them, and the same.
"""

import dataclasses

import jax
import numpy as np

from janus_jax.parallel import shards
from janus_jax.rewards.judge import Judge
from janus_jax.rl import monitor, requests
from janus_jax.rl.phases import timed
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


def explore(config, stage: Stage, params, number: int, attempt: int = 0) -> Rollout:
    """The rollout of step `number`: a group for each of its requests, prompts before edits. Another attempt has other
    requests."""
    asked, seed = asked_at(config, stage, number, attempt)
    parts, params = [], stage.programs.cast(params)
    for edits in (False, True):
        some = [request for request in asked if (request.source is not None) == edits]
        if some:
            parts += rollouts(
                stage.model,
                params,
                stage.processor,
                [(request, sample) for request in some for sample in range(config.group)],
                config.rounds,
                stage.sampling,
                seed,
                batch=config.rollout_rows or len(some) * config.group,
                always=stage.credit.always,
                as_released=config.released,
                prompt_tokens=config.prompt_tokens,
                refill=False,  # parts are chosen for the memory of one
            )
    return Rollout.join(parts)


def asked_at(config, stage: Stage, number: int, attempt: int = 0):
    """(requests, seed) of a step, see requests.of_step."""
    side, world = stage.model.cfg.vq.image_size, (stage.world, stage.weights)
    return requests.of_step(config, stage.grammar, stage.files, side, number, attempt, *world)


def collect(config, stage: Stage, judge: Judge, params, reference, number: int, stop, tell, seconds):
    """The Experience of step `number`, drawn by `params`, or None where stop() became true while rewards were missing.

    Groups that teach nothing, because their members fare alike, are replaced by those of up to config.redraws further
    rollouts (the dynamic sampling of DAPO, arXiv 2503.14476); what is not found stays. tell(line): called while too
    many rewards are missing; seconds: a Counter of the time spent per phase; reference: not needed yet, see Ahead.
    """
    parts, asked, telling, idle = [], [], [], []
    for attempt in range(1 + config.redraws):
        with timed(seconds, "draw"):
            rollout = explore(config, stage, params, number, attempt)
        with timed(seconds, "judge"):
            stage.look(*map(list, zip(*rollout.pictures, strict=True)))
            judged = awaited(ask(config, judge, rollout), stop, tell)
        if judged is None:
            return None
        parts.append((rollout, of_all(rollout, judged, config.reward.get("weights", {}))))
        first = len(asked)
        asked += rollout.requests
        for group, idles in enumerate(monitor.idle_groups(advantages(config, stage, *parts[-1]), config.group)):
            (idle if idles else telling).append(first + group * config.group)
        if len(_of_each_task(config, asked, telling)) == config.prompts_per_step:
            break
    everything = Rollout.join(part for part, _ in parts), Rewards.join(part for _, part in parts)
    groups = _of_each_task(config, asked, telling + idle)
    chosen = np.add.outer(groups, np.arange(config.group)).reshape(-1)
    return Experience(everything[0].take(chosen), everything[1].take(chosen), everything)


def _of_each_task(config, asked, groups) -> list[int]:
    """The first of some groups, by their first rows among the requests `asked`: as many of each task as a step has."""
    edits = [asked[row].source is not None for row in groups]
    tasks = ([row for row, edit in zip(groups, edits, strict=True) if edit == task] for task in (False, True))
    return [row for rows, count in zip(tasks, requests.counts(config), strict=True) for row in rows[:count]]


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
        # the trainer's own figure will be of other parameters than those that drew
        compare = number % self._config.gap_every == 0
        return Flight(number, rollout, score(self._stage, rollout, params, reference, seconds, compare))

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


def _stored(config, arrays: dict) -> dict:
    """What of a rollout's arrays, by name, is stored: where nothing is edited no sources."""
    return {name: array for name, array in arrays.items() if name != "source" or requests.sources(config)}


def to_arrays(config, stage: Stage, flight: Flight) -> dict:
    """A rollout as global arrays split by row, whose shapes depend on the configuration alone."""
    own = flight.rollout.take(shards.rows(stage.programs.by_row, len(flight.rollout)))
    targets = [each for *_, each in targets_of(flight.scored.batches)]
    return {
        "trajectories": place(stage, _stored(config, own.arrays)),
        "old": [each.old_logps for each in targets],
        "ref": [each.ref_logps for each in targets],
        "gap": np.float32(flight.scored.gap),
    }


def abstract_arrays(config, stage: Stage) -> dict:
    """The shapes and places of `to_arrays`."""
    rows, vq = config.prompts_per_step * config.group, stage.model.cfg.vq

    def by_row(shape, dtype):
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=stage.programs.by_row)

    forms = _stored(config, Rollout.forms(config.rounds, config.max_reason_tokens, vq.tokens, vq.image_size))
    # one set of targets for pictures and one for words; the released layout has two for pictures, around the words'
    codes, words = stage.layout.code_targets, stage.layout.text_targets
    counts = (vq.tokens, words, vq.tokens) if config.released else (codes, words)
    logps = [by_row((count,), np.float32) for count in counts]
    trajectories = {name: by_row(*form) for name, form in forms.items()}
    gap = jax.ShapeDtypeStruct((), np.float32)
    return {"trajectories": trajectories, "old": logps, "ref": logps, "gap": gap}


def from_arrays(config, stage: Stage, number: int, arrays) -> Flight:
    """Undoes `to_arrays`, for step `number`."""
    asked, _ = asked_at(config, stage, number)
    samples = np.tile(np.arange(config.group, dtype=np.int32), len(asked))
    each = tuple(request for request in asked for _ in range(config.group))
    vq = stage.model.cfg.vq
    blank = Rollout.empty(each, samples, config.rounds, config.max_reason_tokens, vq.tokens, vq.image_size)
    rollout = dataclasses.replace(blank, **shards.whole(arrays["trajectories"]))
    made = build(stage, rollout)
    filled = with_targets(made.batches, old_logps=arrays["old"], ref_logps=arrays["ref"])
    return Flight(number, rollout, dataclasses.replace(made, batches=filled, gap=float(arrays["gap"])))
