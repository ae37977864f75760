"""Proximal policy optimisation on trajectories: a value head, and advantages token by token.

The value head is a leaf `value` of the one parameter pytree: V(s) = hidden . kernel + bias, where `hidden` is what
predicts the token. A trajectory is one sequence in time, the codes of a picture, then the words of its verdict, then
the next picture. A picture's reward comes with its last code, a verdict's, 1 - |reward - verdict|, with its last word;
weighted so that their sum is credit.trajectory_rewards: with K rounds of T, verdicts count T/K times and the last
picture T - K + 1 times, the surplus after the Yes that ended it. (Else more rounds would be worth more, and a false No
would pay.)
(PPO: Schulman et al. 2017, arXiv 1707.06347; GAE: advantages.gae.)
"""

import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from janus_jax.rl.advantages import gae
from janus_jax.sampling.rollout import Rollout

RULES = ((r"value/.*", P()),)  # for the tables of sharding.py


def with_value_head(params, width: int) -> dict:
    """The parameters with a value head of zeros: it begins by expecting nothing."""
    return {**params, "value": {"kernel": jnp.zeros(width, jnp.float32), "bias": jnp.zeros((), jnp.float32)}}


def without_value_head(params) -> dict:
    """The parameters of the model alone."""
    return {name: part for name, part in params.items() if name != "value"}


def steps_of(rollout: Rollout, rewards, i: int, rounds: int, truth=None):
    """[(role, first, last + 1, reward of the last)] of trajectory i's tokens in time, of at most `rounds` rounds. role:
    0 for codes, 1 for words; positions count the role's tokens in the order of batches.make. truth: what verdicts are
    compared with, f32[B,R]; None: the rewards."""
    truth = rewards if truth is None else truth
    pieces, codes, words, K = [], 0, 0, int(rollout.rounds[i])
    for turn in range(K):
        reward, said = float(rewards[i, turn]), bool(rollout.verdict[i, turn])
        pieces.append((0, codes, codes := codes + rollout.codes.shape[-1], reward))
        verdict = rounds / K * (1 - abs(float(truth[i, turn]) - said)) + (rounds - K) * reward * (turn + 1 == K)
        pieces.append((1, words, words := words + int(rollout.words[i, turn]), verdict))
    return pieces


def advantages(rollout: Rollout, rewards, rounds: int, values, gamma: float = 1.0, lam: float = 0.95, truth=None):
    """(advantages, returns), each a pair f32[B,N], f32[B,M] for codes and words.

    rewards f32[B,R]: of the pictures, of at most `rounds`; values: V of the codes f32[B,N] and of the words f32[B,M],
    places beyond a trajectory's tokens arbitrary; truth: see steps_of. Where a reward is NaN all of the trajectory's
    advantages are NaN. Known ones are scaled to mean 0 and deviation 1 over the batch."""
    values = [np.asarray(v, np.float32) for v in values]
    result = [np.full(v.shape, np.nan, np.float32) for v in values]
    returns = [np.zeros(v.shape, np.float32) for v in values]
    # all trajectories' tokens in time, f32[B,N+M], zeros after the last
    expected, given = np.zeros((2, len(rollout), sum(v.shape[1] for v in values)), np.float32)
    places = []
    for i in np.flatnonzero((np.isfinite(rewards) | ~rollout.live).all(1)):
        now = 0
        for role, first, end, last in steps_of(rollout, rewards, i, rounds, truth):
            own, when = (i, slice(first, end)), (i, slice(now, now := now + end - first))
            places.append((role, own, when))
            expected[when] = values[role][own]
            given[i, now - 1] = last
    one, back = gae(given, expected, gamma, lam)
    for role, own, when in places:
        result[role][own], returns[role][own] = one[when], back[when]
    known = np.concatenate([a[np.isfinite(a)] for a in result])
    if len(known):
        mean, spread = known.mean(), known.std() + 1e-6
        result = [(a - mean) / spread for a in result]
    return tuple(result), tuple(returns)
