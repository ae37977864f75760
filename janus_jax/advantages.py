"""Group-relative advantages: arrays in, arrays out (numpy or jax)."""

import numpy as np

EPSILON = 1e-4


def grpo(rewards, valid=None):
    """(r - mean) / (std + 1e-4) over the last axis, the unbiased standard deviation (DeepSeekMath, arXiv 2402.03300).

    rewards f32[..., G]; valid bool[..., G]: members whose reward is known, others get 0 and do not count; a group with
    fewer than two valid members gets zeros. Returns f32[..., G].
    """
    rewards = np.asarray(rewards, np.float32)
    valid = np.ones(rewards.shape, bool) if valid is None else np.asarray(valid, bool)
    count = valid.sum(-1, keepdims=True)
    safe = np.where(valid, rewards, 0.0)
    mean = safe.sum(-1, keepdims=True) / np.maximum(count, 1)
    centred = np.where(valid, rewards - mean, 0.0)
    std = np.sqrt((centred**2).sum(-1, keepdims=True) / np.maximum(count - 1, 1))
    return np.where(count >= 2, centred / (std + EPSILON), 0.0).astype(np.float32)
