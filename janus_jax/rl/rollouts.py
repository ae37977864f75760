"""What stage 2 learns from: prompts of a step, trajectories drawn for them, and their rewards.

Everything that is drawn at step n is a function of the configuration's seed, n, and the parameters that draw it. Either
the parameters of step n draw, and wait for their rewards (`collect`); or those of step n - 1 do, and rewards are
fetched while step n + 1 is drawn (`Ahead`).

In a pod all processes draw together, on the mesh of all, and each has a share of the pictures judged; trajectories and
rewards are on all of them, and the same.
"""

import contextlib
import dataclasses
import time

import jax
import numpy as np

from janus_jax.data import prompts as prompt_file
from janus_jax.errors import UserError
from janus_jax.parallel import hosts
from janus_jax.rewards.judge import Judge, combine
from janus_jax.rewards.pending import Pending
from janus_jax.rl import packed, sight
from janus_jax.rl.scored import Scores, Stage, credit, score
from janus_jax.sampling.introspect import introspect
from janus_jax.sequences import tokens
from janus_jax.sequences.request import Request
from janus_jax.shapes import text


@dataclasses.dataclass(frozen=True)
class Experience:
    """Trajectories to learn from with a list of rewards each; `drawn`: the same of all that was drawn, groups that
    were left aside included; scores: None where those are yet to be computed."""

    trajectories: list
    rewards: list
    drawn: tuple[list, list]
    scores: Scores | None = None


@dataclasses.dataclass(frozen=True)
class Rollout:
    """What was drawn at step `number`, and its scores, before anyone judged it."""

    number: int
    trajectories: list
    scores: Scores


@contextlib.contextmanager
def timed(seconds, phase: str):
    """Adds the block's duration to seconds[phase]."""
    began = time.time()
    yield
    seconds[phase] += time.time() - began


# Drawing


def check_prompts(config, lines, processor) -> None:
    """Raises UserError where a prompt of a file is longer than config.prompt_tokens."""
    for number, line in enumerate(lines, start=1):
        length = len(tokens.prompt_ids(processor.tokenizer, line))
        if length > config.prompt_tokens:
            raise UserError(
                f"prompt {number} of {config.prompts} has {length} tokens: set --config.prompt_tokens={length} or "
                "shorten it"
            )


def prompts_of(config, stage: Stage, number: int, attempt: int = 0) -> tuple[list[str], int]:
    """(prompts of step `number`, the seed to draw them with)."""
    rng = np.random.default_rng([config.seed, number, attempt] if attempt else [config.seed, number])
    if stage.prompts is None:
        free = rng.random(config.prompts_per_step) < config.free_prompts
        prompts = []
        for freely in free:
            for _ in range(20):  # twice in a step it would be the same group twice, drawn alike
                prompt = _short_prompt(config, stage.processor, rng, freely)
                if prompt not in prompts:
                    break
            prompts.append(prompt)
    elif attempt:  # the file's order is that of first attempts
        again = len(stage.prompts) < config.prompts_per_step
        prompts = [stage.prompts[i] for i in rng.choice(len(stage.prompts), config.prompts_per_step, replace=again)]
    else:
        chosen = prompt_file.of_step(len(stage.prompts), config.prompts_per_step, config.seed, number)
        prompts = [stage.prompts[i] for i in chosen]
    return prompts, int(rng.integers(2**31))


def _short_prompt(config, processor, rng, freely):
    """A training prompt of at most config.prompt_tokens; longer ones are left out. Raises UserError where all are
    longer."""
    for _ in range(100):
        prompt = text.free_prompt(rng) if freely else text.train_prompt(rng)
        length = len(tokens.prompt_ids(processor.tokenizer, prompt))
        if length <= config.prompt_tokens:
            return prompt
    raise UserError(
        f"prompts have more than {config.prompt_tokens} tokens: set --config.prompt_tokens={length} or more"
    )


def explore(config, stage: Stage, params, number: int, attempt: int = 0):
    """Trajectories of step `number`: a group for each of its prompts. Another attempt has other prompts."""
    prompts, seed = prompts_of(config, stage, number, attempt)
    return introspect(
        stage.model,
        stage.programs.to_draw(params),
        stage.processor,
        prompts,
        config.group,
        config.rounds,
        stage.sampling,
        seed=seed,
        batch=config.get("rollout_rows", 0) or len(prompts) * config.group,
        always=config.credit == "released/always_second",
        released=config.released,
    )


# Rewards


def shots(trajectories):
    """(requests, pictures) of all rounds, one trajectory after the other."""
    pairs = [(Request(t.prompt), shot.image) for t in trajectories for shot in t.rounds]
    return [request for request, _ in pairs], [image for _, image in pairs]


def ask(config, judge: Judge, trajectories) -> Pending:
    """Scores on their way, as the configuration says: of this process's share of the trajectories."""
    share = trajectories[jax.process_index() :: jax.process_count()]
    return Pending(judge, *shots(share), config.most_missing, config.pause_seconds)


def of_all(config, trajectories, judged):
    """The rewards of all trajectories, a list of one per picture each, from each process's scores of its share. All
    processes call it."""
    count = jax.process_count()
    share = trajectories[jax.process_index() :: count]
    ends = np.cumsum([len(t.rounds) for t in share])
    rewards = np.split(combine(judged, config.reward.get("weights", {})), ends[:-1]) if share else []
    if count == 1:
        return rewards
    table = np.full((len(trajectories), max(len(t.rounds) for t in trajectories)), np.nan, np.float32)
    for i, each in zip(range(jax.process_index(), len(trajectories), count), rewards, strict=True):
        table[i, : len(each)] = each
    tables = hosts.gathered(table)
    return [tables[i % count, i, : len(t.rounds)] for i, t in enumerate(trajectories)]


def awaited(pending: Pending, stop, tell):
    """pending.wait(stop, tell), this process's share. In a pod all processes wait together: until all have their
    rewards, or stop() is true on one; then it is None on all. tell(line) is called on all when one has a line, which is
    "" on the others."""
    if jax.process_count() == 1:
        return pending.wait(stop, tell)
    rewards = failure = None
    while True:
        said = []
        if rewards is None:
            try:
                rewards, said = pending.poll()
            except Exception as error:  # the others are to end, too
                failure = error
        mine = [rewards is not None, stop(), len(said) > 0, failure is not None]
        ready, stopped, speaks, failed = hosts.gathered(np.array(mine)).T
        if failure is not None:
            raise failure
        if failed.any():
            raise UserError(f"the judge of process {np.flatnonzero(failed)[0]} failed: see what it says")
        if speaks.any():
            tell("; ".join(said))
        if ready.all():
            return rewards
        if stopped.any():
            pending.abandon()
            return None
        time.sleep(0.1)


def collect(config, stage: Stage, judge: Judge, params, reference, number: int, stop, tell, seconds):
    """The Experience of step `number`, drawn by `params`, or None where stop() became true while rewards were missing.

    Groups that teach nothing, because their members fare alike, are replaced by those of up to config.redraws further
    rollouts (the dynamic sampling of DAPO, arXiv 2503.14476); what is not found stays. tell(line): called while too
    many rewards are missing; seconds: a Counter of the time spent per phase.
    """
    telling, idle, everything = [], [], ([], [])
    for attempt in range(1 + config.redraws):
        with timed(seconds, "draw"):
            trajectories = explore(config, stage, params, number, attempt)
        with timed(seconds, "judge"):
            stage.look(*shots(trajectories))
            rewards = awaited(ask(config, judge, trajectories), stop, tell)
        if rewards is None:
            return None
        rewards = of_all(config, trajectories, rewards)
        everything[0].extend(trajectories)
        everything[1].extend(rewards)
        credited = credit(config, trajectories, rewards)
        for begin in range(0, len(trajectories), config.group):
            members = slice(begin, begin + config.group)
            idles = all(sight.idle(advantage[members], config.group) for advantage in credited)
            (idle if idles else telling).append((trajectories[members], rewards[members]))
        if len(telling) >= config.prompts_per_step:
            break
    groups = (telling + idle)[: config.prompts_per_step]
    return Experience(*([one for group in groups for one in group[i]] for i in range(2)), everything)


class Ahead:
    """Collects with one rollout ahead: while rewards of step n are fetched, step n + 1 is drawn with the parameters
    that step n is about to improve. `in_flight`: the Rollout that is being judged."""

    def __init__(self, config, stage: Stage, judge: Judge, in_flight: Rollout | None = None):
        """in_flight: where a checkpoint left one."""
        self._config, self._stage, self._judge = config, stage, judge
        self._send(in_flight)

    def _send(self, flight):
        self.in_flight = flight
        self._pending = flight and ask(self._config, self._judge, flight.trajectories)

    def _draw(self, params, reference, number, seconds):
        with timed(seconds, "draw"):
            trajectories = explore(self._config, self._stage, params, number)
        with timed(seconds, "score"):
            scores = score(self._config, self._stage, trajectories, params, reference, compare=True)
        return Rollout(number, trajectories, scores)

    def collect(self, params, reference, number: int, stop, tell, seconds) -> Experience | None:
        """As the function of that name; but step 0 excepted, what it returns was drawn by earlier parameters."""
        if self.in_flight is None:
            self._send(self._draw(params, reference, number, seconds))
        flight, following = self.in_flight, None
        if number + 1 < self._config.steps:
            following = self._draw(params, reference, number + 1, seconds)
        with timed(seconds, "judge"):
            rewards = awaited(self._pending, stop, tell)
        if rewards is None:
            return None
        rewards = of_all(self._config, flight.trajectories, rewards)
        self._send(following)
        return Experience(flight.trajectories, rewards, (flight.trajectories, rewards), flight.scores)


# A rollout in a checkpoint


def to_arrays(config, stage: Stage, flight: Rollout) -> dict:
    """A rollout as global arrays split by row, whose shapes depend on the configuration alone."""
    place = stage.programs.by_row
    own = [flight.trajectories[i] for i in hosts.rows(place, len(flight.trajectories))]
    arrays = packed.pack(own, config.rounds, config.max_reason_tokens)
    arrays = {name: jax.make_array_from_process_local_data(place, x) for name, x in arrays.items()}
    scores = flight.scores
    return {"trajectories": arrays, "old": scores.old, "ref": scores.ref, "gap": np.float32(scores.gap)}


def abstract_arrays(config, stage: Stage) -> dict:
    """The shapes and places of `to_arrays`."""
    rows, side = config.prompts_per_step * config.group, stage.model.cfg.vq.image_size

    def by_row(form):
        return jax.ShapeDtypeStruct((rows, *form.shape), form.dtype, sharding=stage.programs.by_row)

    form = packed.form_of(config.rounds, config.max_reason_tokens, stage.model.cfg.vq.tokens, (side, side))
    layout = stage.layout
    # one set of targets for pictures and one for words; the released layout has two for pictures, around the words'
    picture = stage.model.cfg.vq.tokens
    counts = (picture, layout.text_targets, picture) if config.released else (layout.code_targets, layout.text_targets)
    logps = [by_row(jax.ShapeDtypeStruct((count,), np.float32)) for count in counts]
    return {
        "trajectories": jax.tree.map(by_row, form),
        "old": logps,
        "ref": logps,
        "gap": jax.ShapeDtypeStruct((), np.float32),
    }


def from_arrays(config, stage: Stage, number: int, arrays) -> Rollout:
    """Undoes `to_arrays`, for step `number`."""
    prompts, _ = prompts_of(config, stage, number)
    trajectories = packed.unpack(hosts.whole(arrays["trajectories"]), prompts, config.group, stage.processor)
    return Rollout(number, trajectories, Scores(arrays["old"], arrays["ref"], float(arrays["gap"])))
