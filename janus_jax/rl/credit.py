"""Credit: which tokens a reward trains, and with what. One frozen Credit per scheme, in the table CREDITS.

    released/own_prompt     first picture <- its reward; verdict and reason <- 1 - |reward - verdict|; final picture <-
                            its reward, where after a Yes that is the first picture again, in its own context
    released/regen_prompt   the same, but the final picture is always scored in the context of drawing again
    released/always_second  the second picture is drawn and trained whatever the verdict
    trajectory              the paper's: one reward for the whole trajectory of up to T rounds
    improvement             first picture <- its reward; verdicts and reasons <- the mean of 1 - |reward - verdict|,
                            less 1 for a premature Yes; a later picture <- its reward less that of the one before
    pictures                each picture <- its reward; verdicts and reasons are not trained. The released editing is
                            this with T = 1

The first three are the three trainers of the released code (T = 2). In all but `trajectory` each segment has its own
group-relative advantage, among the trajectories that have it.

What verdicts are compared with is how right a picture is: of pictures of a prompt that is their reward, of edits, whose
reward is a weighted sum of scores, see judge.as_whole. A reward that is not known is NaN. What it would train is not
trained, and counts in no group's statistics.
"""

import dataclasses
import enum
from collections.abc import Callable

import numpy as np

from janus_jax.sampling.rollout import Rollout

# Columns of segment rewards and advantages. `trajectory` and `improvement` have one column for each later picture, from
# FINAL on: in the loss all of these are one segment.
FIRST, TEXT, FINAL = 0, 1, 2
SEGMENTS = 3


class AfterYes(enum.Enum):
    """What the final segment trains where the first verdict was Yes."""

    DRAWN = enum.auto()  # the pictures that were drawn, none of them twice
    OWN_PROMPT = enum.auto()  # the first picture once more, at the same positions
    REGEN_PROMPT = enum.auto()  # a copy of the first picture, in the context of drawing again


@dataclasses.dataclass(frozen=True)
class Credit:
    """Which tokens a reward trains: one scheme.

    rewards(rewards f64[B,R], truth f64[B,R], rollout, T) -> f64[B,columns]: what trains each segment, in the columns
    first picture, words, then the later pictures; NaN trains nothing. T: the rounds that were allowed. per: what the
    loss takes its mean over: "segment" (a trajectory's segment, then trajectories, then segments), "trajectory" (a
    trajectory, then trajectories) or "token" (all tokens at once). after_yes: what the final segment trains after a
    first Yes: AfterYes.DRAWN (later pictures, if there are any), OWN_PROMPT (the first picture again, at its own
    positions) or REGEN_PROMPT (a copy of it in the context of drawing again). judged: rounds whose words are trained,
    None = all. rounds: the only T that it is about, None = any. always: draw again even after a Yes.

    One of your own: put it into this module's table before `train`, `CREDITS["mine"] = Credit(rewards, per="segment")`,
    and set `config.credit = "mine"`.
    """

    rewards: Callable[[np.ndarray, np.ndarray, Rollout, int], np.ndarray]
    per: str
    after_yes: AfterYes = AfterYes.DRAWN
    judged: int | None = None
    rounds: int | None = None
    always: bool = False

    def segment_rewards(self, rollout: Rollout, rewards, rounds: int, truth=None) -> np.ndarray:
        """f32[B,columns] of rewards f32[B,R] (NaN where not known), T = rounds. truth f32[B,R]: how right the pictures
        are; None: as their rewards say."""
        rewards, truth = (np.asarray(values, np.float64) for values in (rewards, rewards if truth is None else truth))
        return self.rewards(rewards, truth, rollout, rounds).astype(np.float32)

    def advantages(
        self, rollout: Rollout, rewards, rounds: int, group: int, estimator: Callable, minimum: int = 2, truth=None
    ) -> np.ndarray:
        """Group-relative advantages f32[B,columns], NaN where a segment is not to be trained. A prompt's `group`
        members lie side by side. estimator: `compare` of an Estimator; minimum: groups with fewer known members are
        left out; truth: as in `segment_rewards`."""
        values = self.segment_rewards(rollout, rewards, rounds, truth)
        groups = values.T.reshape(-1, group)
        known = np.isfinite(groups)
        known &= known.sum(-1, keepdims=True) >= minimum
        each = np.where(known, estimator(np.where(known, groups, 0), known), np.nan)
        return each.reshape(values.T.shape).T.astype(np.float32)


def trajectory_rewards(rewards, rollout: Rollout, rounds: int, truth=None) -> np.ndarray:
    """The paper's R of each trajectory, f64[B]: rewards R_QA(I_i) f64[B,R] and verdicts SE(I_i) of its pictures, T =
    rounds. truth: R_QA as verdicts are compared with it, f64[B,R]; None: the rewards.

    K: the first round with a Yes, T if none. R = sum_{i<K} R_i + (T-K+1) R_K + (T/K) sum_{i<=K} (1 - |R_i - SE_i|).
    """
    truth = rewards if truth is None else truth
    says = rollout.verdict & rollout.live
    K = np.where(says.any(1), says.argmax(1) + 1, rounds)
    place = np.arange(says.shape[1])[None]
    before, last, counted = place < K[:, None] - 1, place == K[:, None] - 1, place < K[:, None]
    generation = np.where(before, rewards, 0).sum(1) + (rounds - K + 1) * np.where(last, rewards, 0).sum(1)
    comprehension = rounds / K * np.where(counted, 1 - np.abs(truth - says), 0).sum(1)
    return generation + comprehension


def _trajectory(rewards, truth, rollout, rounds):
    columns = max(FINAL + rounds - 1, SEGMENTS)  # one for each later picture, all alike
    return np.repeat(trajectory_rewards(rewards, rollout, rounds, truth)[:, None], columns, axis=1)


def _improvement(rewards, truth, rollout, rounds):
    live, says = rollout.live, rollout.verdict & rollout.live
    judged = np.where(live, 1 - np.abs(truth - says), 0).sum(1) / rollout.rounds
    rows, last = np.arange(len(rollout)), rollout.rounds - 1
    premature = says[rows, last] & (truth[rows, last] < 0.5)
    later = np.where(live[:, 1:], np.diff(rewards, axis=1), np.nan)
    return np.column_stack([rewards[:, 0], judged - premature, later])


def _pictures(rewards, truth, rollout, rounds):
    return np.insert(rewards, TEXT, np.nan, axis=1)


def _released(always_second: bool):
    def rewards_of(rewards, truth, rollout, rounds):
        yes = rollout.verdict[:, 0]
        last = rewards[np.arange(len(rollout)), rollout.rounds - 1]
        final = rewards[:, 1] if always_second else np.where(yes, rewards[:, 0], last)
        return np.column_stack([rewards[:, 0], 1 - np.abs(truth[:, 0] - yes), final])

    return rewards_of


_RELEASED = {"per": "segment", "judged": 1, "rounds": 2}
CREDITS = {
    "released/own_prompt": Credit(_released(False), after_yes=AfterYes.OWN_PROMPT, **_RELEASED),
    "released/regen_prompt": Credit(_released(False), after_yes=AfterYes.REGEN_PROMPT, **_RELEASED),
    "released/always_second": Credit(_released(True), always=True, **_RELEASED),
    "trajectory": Credit(_trajectory, per="trajectory"),
    "improvement": Credit(_improvement, per="segment"),
    "pictures": Credit(_pictures, per="segment"),
}


def by_segment(values) -> dict[str, np.ndarray]:
    """Columns f[B,columns] by the names of their segments: "first" and "text" f[B,1], "final" f[B,rest]."""
    return {"first": values[:, :TEXT], "text": values[:, TEXT:FINAL], "final": values[:, FINAL:]}
