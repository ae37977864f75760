"""Losses of both stages: arrays in, scalars out. No model is known here.

Every loss is a sum over tokens of `weight x something`, where the weights of the *whole* batch were normalised first
(`sft_weights`, `pg_weights`). Cutting the batch into parts then changes nothing but the order of the sum.
"""

import jax
import jax.numpy as jnp


def sft_shares(
    draw: float, judge: float, redraw: float, describe: float = 0.0, *edit: float, verdict_share: float = 0.8
):
    """Shares of the groups in the loss: tasks as given (any scale), the judge's split between its Yes/No tokens and the
    rest. edit: one share, or none where there is no such task."""
    total = sum((draw, judge, redraw, describe, *edit))
    verdict, reason = judge * verdict_share, judge * (1 - verdict_share)
    return tuple(share / total for share in (draw, verdict, reason, redraw, describe, *edit))


def sft_weights(targets, shares):
    """Normalised weights of stage 1: each group's own token mean, times its share.

    targets: list of (weight f32[B,N], group i32[B,N]) over the whole batch. Returns the list of new weights. A group
    without tokens in this batch contributes nothing.
    """
    shares = jnp.asarray(shares, jnp.float32)
    totals = sum(_counts(weight, group, len(shares)).sum(0) for weight, group in targets)
    scale = shares / jnp.maximum(totals, 1.0)

    # A sum, not an index: a gather with indices that are split over a mesh has no split of its own. Nor a product of
    # matrices, which is rounded on a TPU.
    def scaled(weight, group):
        return weight * jnp.sum(jax.nn.one_hot(group, len(shares), dtype=jnp.float32) * scale[None, None], axis=-1)

    return [scaled(weight, group) for weight, group in targets]


def pg_weights(targets, groups: int, per: str):
    """Normalised weights of stage 2.

    targets: list of (weight f32[B,N], group i32[B,N]); rows of all lists are the same trajectories and `group` is a
    token's segment. per = "segment": mean over the tokens of a trajectory's segment, mean over the trajectories that
    have it, mean over segments (the released code). per = "trajectory": mean over all trained tokens of a trajectory,
    mean over trajectories (the paper). per = "token": mean over all tokens of the batch (DAPO's; for Dr.GRPO,
    whose own divisor is a constant).
    """
    B = targets[0][0].shape[0]
    counts = sum(_counts(weight, group, groups) for weight, group in targets)  # tokens per (row, segment)
    if per == "segment":
        rows = jnp.sum(counts > 0, axis=0, dtype=jnp.float32)  # trajectories per segment
        present = jnp.maximum(jnp.sum(rows > 0, dtype=jnp.float32), 1.0)
        scale = 1.0 / (jnp.maximum(counts, 1.0) * jnp.maximum(rows, 1.0)[None] * present)
    elif per == "trajectory":
        rows = jnp.maximum(jnp.sum(counts.sum(1) > 0, dtype=jnp.float32), 1.0)
        scale = jnp.broadcast_to(1.0 / (jnp.maximum(counts.sum(1, keepdims=True), 1.0) * rows), counts.shape)
    elif per == "token":
        scale = jnp.broadcast_to(1.0 / jnp.maximum(counts.sum(), 1.0), counts.shape)
    else:
        raise ValueError(f"per {per!r} is none of 'segment', 'trajectory', 'token'")
    return [weight * jnp.take_along_axis(scale, group.reshape(B, -1), axis=1) for weight, group in targets]


def _counts(weight, group, groups):
    one_hot = jax.nn.one_hot(group, groups, dtype=jnp.float32)
    return jnp.sum(one_hot * weight[..., None], axis=1)


def sft_loss(logps, weight):
    """Weighted negative log-likelihood: f32[], from logps and normalised weights f32[B,N]."""
    return -jnp.sum(jnp.where(weight > 0, logps, 0.0) * weight)


def k3_kl(logps, ref_logps):
    """The k3 estimator of KL(policy || reference) per token, exp(d) - d - 1 with d = ref - policy: never negative
    (Schulman 2020, "Approximating KL divergence")."""
    d = ref_logps - logps
    return jnp.exp(d) - d - 1.0


def value_loss(values, returns, weight):
    """Half the weighted squared error of a value head, f32[], from f32[B,N] each; weight: normalised."""
    return 0.5 * jnp.sum(jnp.square(jnp.where(weight > 0, values - returns, 0.0)) * weight)


def pg_loss(logps, old_logps, ref_logps, advantage, weight, *, beta: float, clip_low: float, clip_high: float):
    """Clipped surrogate with a k3 penalty (PPO, arXiv 1707.06347; GRPO, arXiv 2402.03300), all f32[B,N].

    ratio = exp(logps - old_logps); the token's loss is -min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A) +
    beta k3. weight: normalised. Tokens with logps = -inf, which truncated sampling cannot draw any more, are left out.
    Returns (f32[], metrics): weighted sums of "kl", "clip_fraction", "ratio", and the policy term "policy_loss".
    """
    # A token that truncation no longer lets the policy draw has ratio 0, and nothing more to learn from. Unused places
    # hold arbitrary numbers; they must not reach exp, whose gradient would be NaN times zero.
    live = (weight > 0) & ~jnp.isneginf(logps)
    weight = jnp.where(live, weight, 0.0)
    logps, old_logps, ref_logps, advantage = (jnp.where(live, x, 0.0) for x in (logps, old_logps, ref_logps, advantage))
    ratio = jnp.exp(logps - old_logps)
    clipped = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    policy = -jnp.minimum(ratio * advantage, clipped * advantage)
    kl = k3_kl(logps, ref_logps)
    policy_loss, kl_mean = jnp.sum(policy * weight), jnp.sum(kl * weight)
    metrics = {
        "policy_loss": policy_loss,
        "kl": kl_mean,
        "clip_fraction": jnp.sum(jnp.where(ratio * advantage > clipped * advantage, weight, 0.0)),
        "ratio": jnp.sum(ratio * weight),
    }
    return policy_loss + beta * kl_mean, metrics
