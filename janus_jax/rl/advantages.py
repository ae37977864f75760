"""Advantages: numpy arrays in, arrays out.

The group-relative ones take rewards f32[..., G], whose last axis is the members of a group (samples of one prompt),
and `valid` bool[..., G]: members whose reward is known. Others get 0 and count in no statistic, and a group with fewer
than two valid members gets zeros: there is nothing to compare with.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.signal import lfilter

EPSILON = 1e-4


def _centred(rewards, valid):
    """(r - mean over the valid members, 0 elsewhere; the number of valid members, f32[..., 1])."""
    rewards = np.asarray(rewards, np.float32).astype(np.float64)  # so that equal rewards are equal to their mean
    valid = np.ones(rewards.shape, bool) if valid is None else np.asarray(valid, bool)
    count = valid.sum(-1, keepdims=True).astype(np.float32)
    mean = np.where(valid, rewards, 0).sum(-1, keepdims=True) / np.maximum(count, 1)
    return np.where(valid & (count >= 2), rewards - mean, 0).astype(np.float32), count


def grpo(rewards, valid=None):
    """(r - mean) / (std + 1e-4), with the unbiased standard deviation (DeepSeekMath, arXiv 2402.03300).
    Returns f32[..., G]."""
    centred, count = _centred(rewards, valid)
    std = np.sqrt(np.square(centred).sum(-1, keepdims=True) / np.maximum(count - 1, 1))
    return centred / (std + EPSILON)


def rloo(rewards, valid=None):
    """r minus the mean of the *other* members (REINFORCE leave-one-out, Kool et al. 2019; arXiv 2402.14740), which is
    (r - mean) G / (G - 1). Returns f32[..., G]."""
    centred, count = _centred(rewards, valid)
    return centred * count / np.maximum(count - 1, 1)


def dr_grpo(rewards, valid=None):
    """r - mean: GRPO without the division that favours prompts of little spread (Liu et al. 2025, arXiv 2503.20783;
    its loss also takes no mean over a trajectory's own length, see losses.pg_weights, per="token").
    Returns f32[..., G]."""
    return _centred(rewards, valid)[0]


def gae(rewards, values, gamma: float = 1.0, lam: float = 1.0):
    """Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438) over the last axis.

    rewards f32[..., N]: what follows token n; values f32[..., N]: V before it is chosen, in both zeros after the last
    token. A_n = d_n + gamma lam A_(n+1), d_n = r_n + gamma V_(n+1) - V_n with V = 0 after the last.
    Returns (advantages, returns = advantages + values), f32[..., N].
    """
    rewards, values = np.asarray(rewards, np.float32), np.asarray(values, np.float32)
    following = np.concatenate([values[..., 1:], np.zeros_like(values[..., :1])], axis=-1)
    delta = rewards + np.float32(gamma) * following - values
    # backwards in time A is a recursive filter of d
    one, decay = np.ones(1, np.float32), np.array([1, -gamma * lam], np.float32)
    advantages = lfilter(one, decay, delta[..., ::-1])[..., ::-1]
    return advantages, advantages + values


@dataclasses.dataclass(frozen=True)
class Estimator:
    """How the rewards of a group become advantages.

    compare(rewards f32[..., G], valid bool[..., G]) -> f32[..., G]: the last axis is a group, valid says whose reward
    is known; 0 for the others. per: what the loss takes its mean over, "segment", "trajectory" or "token"; None = as
    the credit says. value_head: tokens are trained by GAE against a value head; `compare` is then for the metrics
    alone, and a group of one will do.

    One of your own: put it into this module's table before `train`, `ESTIMATORS["mine"] = Estimator(compare)`, and set
    `config.estimator = "mine"`.
    """

    compare: Callable
    per: str | None = None
    value_head: bool = False


ESTIMATORS = {
    "grpo": Estimator(grpo),
    "rloo": Estimator(rloo),
    "dr_grpo": Estimator(dr_grpo, per="token"),
    "ppo": Estimator(grpo, per="token", value_head=True),
}
