"""Rewards of a rollout: its pictures are judged in a thread while there is something else to do. In a pod each host has
a share of the pictures judged, and all have all rewards."""

import json
import time
from typing import NamedTuple

import jax
import numpy as np

from janus_jax.errors import UserError
from janus_jax.parallel import agree
from janus_jax.rewards.judge import Judge, Judged, combine
from janus_jax.rewards.pending import Pending
from janus_jax.sampling.rollout import Rollout


class Rewards(NamedTuple):
    """total f32[B,R]: the reward of every picture, NaN where it is missing or no picture was drawn; scores: what it is
    made of, by the names that the judge gives, f32[B,R] each."""

    total: np.ndarray
    scores: dict[str, np.ndarray]

    def take(self, rows) -> "Rewards":
        """Those of some trajectories, i64[n] or a slice."""
        return Rewards(self.total[rows], {name: values[rows] for name, values in self.scores.items()})

    @classmethod
    def join(cls, parts) -> "Rewards":
        """Those of several rollouts."""
        parts = list(parts)
        scores = {name: np.concatenate([part.scores[name] for part in parts]) for name in parts[0].scores}
        return cls(np.concatenate([part.total for part in parts]), scores)


def _share(rollout: Rollout) -> np.ndarray:
    """The trajectories whose pictures this host has judged."""
    return np.arange(jax.process_index(), len(rollout), jax.process_count())


def ask(config, judge: Judge, rollout: Rollout) -> Pending:
    """The scores of this host's share of a rollout, on their way."""
    own = np.isin(np.argwhere(rollout.live)[:, 0], _share(rollout))
    pairs = [pair for pair, mine in zip(rollout.pictures, own, strict=True) if mine]
    requests, pictures = map(list, zip(*pairs, strict=True)) if pairs else ([], [])
    return Pending(judge, requests, pictures, config.most_missing, config.pause_seconds)


def of_all(rollout: Rollout, judged: Judged, weights) -> Rewards:
    """The rewards of a rollout from each host's scores of its share. All hosts call it. weights: of the scores, see
    judge.combine."""
    places = np.argwhere(rollout.live)
    places = places[np.isin(places[:, 0], _share(rollout))]
    names = _names(judged)
    table = np.full((len(names), *rollout.verdict.shape), np.nan, np.float32)
    for n, name in enumerate(names):
        if name in judged:
            table[n, places[:, 0], places[:, 1]] = judged[name]
    rows = np.arange(len(rollout))
    tables = agree.gathered(table)[rows % jax.process_count(), :, rows]  # f32[B,names,R]
    scores = {name: tables[:, n] for n, name in enumerate(names)}
    flat = combine({name: values.reshape(-1) for name, values in scores.items()}, weights)
    return Rewards(flat.reshape(rollout.verdict.shape), scores)


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
