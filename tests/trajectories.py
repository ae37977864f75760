"""Trajectories for tests: made by hand, and drawn by the tiny model."""

import functools

import numpy as np
from PIL import Image
from tiny import MODEL, NO, YES, I, params, processor

from janus_jax.sampling.density import Sampling
from janus_jax.sampling.introspect import introspect
from janus_jax.sampling.rollout import Rollout, Round, Trajectory
from janus_jax.sequences.request import Request

# By hand


def shot(verdict, seed=0, reason=(40, 41), logp=-1.0):
    """A round; its tokens' log-probabilities count down from logp."""
    rng = np.random.default_rng(seed)
    ids = np.array([YES if verdict else NO, *reason], np.int32)
    picture = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    codes = rng.integers(0, 16, I).astype(np.int32)
    return Round(
        codes,
        picture,
        verdict,
        0.5,
        "",
        ids,
        (logp - np.arange(I)).astype(np.float32),
        (logp - 0.5 - np.arange(len(ids))).astype(np.float32),
        codes,
    )


def made(*verdicts, **settings):
    return Trajectory(Request("two red circles"), 0, [shot(v, seed=i, **settings) for i, v in enumerate(verdicts)])


def rollout_of(trajectories, rounds=None, reason=None) -> Rollout:
    """Trajectories as arrays with room for so many rounds, of reasons of so many words; None: the most there are."""
    shots = [shot for t in trajectories for shot in t.rounds]
    rounds = rounds or max(len(t.rounds) for t in trajectories)
    reason = reason or max(len(shot.reason_ids) for shot in shots)
    requests, samples = [t.request for t in trajectories], [t.sample for t in trajectories]
    rollout = Rollout.empty(requests, samples, rounds, reason, len(shots[0].codes), shots[0].image.width)
    for i, t in enumerate(trajectories):
        rollout.rounds[i] = len(t.rounds)
        for turn, shot in enumerate(t.rounds):
            for name in ("codes", "context_codes", "code_logps", "verdict", "p_yes"):
                getattr(rollout, name)[i, turn] = getattr(shot, name)
            rollout.images[i, turn] = np.asarray(shot.image)
            rollout.words[i, turn] = count = len(shot.reason_ids)
            rollout.reason_ids[i, turn, :count] = shot.reason_ids
            rollout.reason_logps[i, turn, :count] = shot.reason_logps
    return rollout


def table(rewards, rounds=None) -> np.ndarray:
    """Lists of rewards as f32[B,rounds], NaN where there is no picture."""
    filled = np.full((len(rewards), rounds or max(map(len, rewards))), np.nan, np.float32)
    for i, each in enumerate(rewards):
        filled[i, : len(each)] = each
    return filled


# Of the tiny model

PROMPTS = ("two red circles", "a photo of a blue square to the left of a green triangle")
SAMPLING = Sampling(cfg_weight=5.0, max_reason_tokens=5)


def draw(prompts=PROMPTS, samples=4, rounds=3, batch=8, sampling=SAMPLING, **settings):
    return introspect(MODEL, params(), processor(), list(prompts), samples, rounds, sampling, batch=batch, **settings)


@functools.cache
def drawn() -> list[Trajectory]:
    """Three rounds for every row, whatever the verdicts."""
    return draw(always=True)


def until(t: Trajectory, rounds: int) -> Trajectory:
    """Its first rounds."""
    return Trajectory(t.request, t.sample, t.rounds[:rounds])


def until_yes(t: Trajectory) -> Trajectory:
    """The trajectory as it is when a Yes ends it."""
    return until(t, t.final + 1)
