"""Rewards of a rollout: its pictures are judged in a thread while there is something else to do. In a pod each host has
a share of the pictures judged, and all have all rewards."""

import json
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from janus_jax.errors import UserError
from janus_jax.parallel import agree
from janus_jax.rewards.judge import Judge, Judged, as_whole, combine, of_task
from janus_jax.rewards.pending import Pending, appraise
from janus_jax.sampling.rollout import Rollout


class Rewards(NamedTuple):
    """total f32[B,R]: the reward of every picture, NaN where it is missing or no picture was drawn; scores: what it is
    made of, by the names that the judge gives, f32[B,R] each, NaN also where a picture's task has no such score; truth
    f32[B,R]: how right each picture is, which verdicts are compared with: its reward, but of edits see
    judge.as_whole."""

    total: np.ndarray
    scores: dict[str, np.ndarray]
    truth: np.ndarray

    def take(self, rows) -> "Rewards":
        """Those of some trajectories, i64[n] or a slice."""
        scores = {name: values[rows] for name, values in self.scores.items()}
        return Rewards(self.total[rows], scores, self.truth[rows])

    @classmethod
    def join(cls, parts) -> "Rewards":
        """Those of several rollouts."""
        parts = list(parts)
        scores = {name: np.concatenate([part.scores[name] for part in parts]) for name in parts[0].scores}
        total, truth = (np.concatenate([getattr(part, name) for part in parts]) for name in ("total", "truth"))
        return cls(total, scores, truth)


def _share(count: int) -> np.ndarray:
    """Of so many trajectories those whose pictures this host has judged."""
    return np.arange(jax.process_index(), count, jax.process_count())


def ask(config, judge: Judge, rollout: Rollout) -> Pending:
    """The scores of this host's share of a rollout, on their way: a Judged of each of its tasks, one after another,
    since their scores have other names."""
    rows, parts = np.argwhere(rollout.live)[:, 0], []
    for members in rollout.tasks.values():
        own = np.isin(rows, members[_share(len(members))])
        pairs = [rollout.pictures[i] for i in np.flatnonzero(own)]
        parts.append(map(list, zip(*pairs, strict=True)) if pairs else ([], []))

    def each(stop, tell):
        found = []
        for requests, pictures in parts:
            judged = appraise(judge, requests, pictures, config.most_missing, config.pause_seconds, stop, tell)
            if judged is None:
                return None
            found.append(judged)
        return found

    return Pending(each)


def of_all(rollout: Rollout, judged: Sequence[Judged], weights) -> Rewards:
    """The rewards of a rollout from each host's scores of its share, one Judged of each task. All hosts call it.
    weights: of the scores of both tasks, see judge.combine."""
    tables = {
        task: _gathered(rollout.live[rows], one)
        for (task, rows), one in zip(rollout.tasks.items(), judged, strict=True)
    }
    names = list(dict.fromkeys(name for table in tables.values() for name in table))
    total, truth, *scores = np.full((2 + len(names), *rollout.live.shape), np.nan, np.float32)
    scores = dict(zip(names, scores, strict=True))
    for task, rows in rollout.tasks.items():
        table = tables[task]
        own = of_task(weights, table, task == "edit")
        for name, values in table.items():
            scores[name][rows] = values
        flat = {name: values.reshape(-1) for name, values in table.items()}
        total[rows] = combine(flat, own).reshape(len(rows), -1)
        truth[rows] = as_whole(flat, own).reshape(len(rows), -1) if task == "edit" else total[rows]
    return Rewards(total, scores, truth)


def _gathered(live, judged: Judged) -> dict[str, np.ndarray]:
    """Every host's scores of its share of trajectories whose pictures are `live` bool[B,R], by name: f32[B,R], NaN
    where there is no picture."""
    places = np.argwhere(live)
    places = places[np.isin(places[:, 0], _share(len(live)))]
    names = _names(judged)
    table = np.full((len(names), *live.shape), np.nan, np.float32)
    for n, name in enumerate(names):
        if name in judged:
            table[n, places[:, 0], places[:, 1]] = judged[name]
    rows = np.arange(len(live))
    tables = agree.gathered(table)[rows % jax.process_count(), :, rows]  # f32[B,names,R]
    return {name: tables[:, n] for n, name in enumerate(names)}


def _names(judged) -> list[str]:
    """The names of the scores, in the same order on every host; one without pictures to judge learns them from the
    others."""
    mine = json.dumps(sorted(judged)).encode()
    length = int(agree.gathered(np.int32(len(mine))).max())
    given = agree.gathered(np.frombuffer(mine.ljust(length), np.uint8))
    different = {tuple(json.loads(row.tobytes())) for row in given} - {()}
    if len(different) > 1:
        told = "; ".join(sorted(json.dumps(names, ensure_ascii=False)[1:-1] for names in different))
        raise UserError(f"the hosts' judges give different scores ({told}): use one judge")
    return list(*different)


def awaited(pending: Pending, stop, tell):
    """pending.wait(stop, tell), of this host's share. In a pod all hosts wait together: until all have their scores, or
    stop() is true on one; then it is None on all. tell(line) is called on all when one has a line, which is "" on the
    others."""
    if jax.process_count() == 1:
        return pending.wait(stop, tell)
    scores = failure = None
    while True:
        said = []
        if scores is None:
            try:
                scores, said = pending.poll()
            except Exception as error:  # the others are to end, too
                failure = error
        mine = [scores is not None, stop(), len(said) > 0, failure is not None]
        ready, stopped, speaks, failed = agree.gathered(np.array(mine)).T
        if failure is not None:
            raise failure
        if failed.any():
            raise UserError(f"the judge of process {np.flatnonzero(failed)[0]} failed: see what it says")
        if speaks.any():
            tell("; ".join(said))
        if ready.all():
            return scores
        if stopped.any():
            pending.abandon()
            return None
        time.sleep(0.1)
