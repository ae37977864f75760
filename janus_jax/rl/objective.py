"""The objective of stage 2: the policy's log-probabilities, the weights of its tokens, and its loss."""

import jax
import jax.numpy as jnp

from janus_jax.rl.credit import SEGMENTS
from janus_jax.sampling.density import Sampling
from janus_jax.sequences.batch import targets_of, with_targets
from janus_jax.training import losses
from janus_jax.training.logps import token_logps


def make_forward(model, sampling: Sampling, yes_no):
    """forward(params, batches, policy=None) -> for each batch a dict: "codes" or "text", the log-probs f32[B,N] of its
    targets under the sampling density, and their entropies. yes_no: ids of the two verdicts. policy: not looked at; in
    the released layout, which has a forward of its own, it embeds the contexts."""

    def forward(params, batches, policy=None):
        return [token_logps(model, params, batch, sampling, yes_no) for batch in batches]

    return forward


def make_prepare(per: str):
    """prepare(batches): weights normalised over all roles, see losses.pg_weights. A target's group is the column of its
    advantage; columns from FINAL on are one segment."""

    def prepare(batches):
        targets = [(t.weight, jnp.minimum(t.group, SEGMENTS - 1)) for *_, t in targets_of(batches)]
        return with_targets(batches, weight=losses.pg_weights(targets, SEGMENTS, per))

    return prepare


def make_loss(beta: float, clip_low: float, clip_high: float, value_weight: float = 0.0):
    """loss(outputs, batches) -> (f32[], metrics) over all roles: the clipped policy gradient, with ratios within
    1 - clip_low ... 1 + clip_high, and beta x the KL to the reference. value_weight: of the value head's loss, if there
    is one. The metric "lost": the weight of tokens that truncation lets the policy draw no more (with the parameters
    that drew them: that lie on the other side of the cut in the trainer's arithmetic); they are left out of loss and
    gap."""

    def loss(outputs, batches):
        total, metrics = 0.0, {}
        for name, i, targets in targets_of(batches):
            logps, old = outputs[i][name], targets.old_logps
            # the released layout knows no old probabilities: always on policy
            old = jnp.where(jnp.isnan(old), jax.lax.stop_gradient(logps), old)
            value, parts = losses.pg_loss(
                logps,
                old,
                targets.ref_logps,
                targets.advantage,
                targets.weight,
                beta=beta,
                clip_low=clip_low,
                clip_high=clip_high,
            )
            total += value
            if targets.returns is not None:
                parts["value_loss"] = losses.value_loss(outputs[i][f"{name}_value"], targets.returns, targets.weight)
                total += value_weight * parts["value_loss"]
            parts[f"entropy_{name}"] = jnp.sum(outputs[i][f"{name}_entropy"] * targets.weight)
            parts[f"share_{name}"] = jnp.sum(targets.weight)
            metrics |= {key: metrics.get(key, 0.0) + part for key, part in parts.items()}
            drawn, lost = targets.weight > 0, jnp.isneginf(logps)
            gap = jnp.max(jnp.where(drawn & ~lost, jnp.abs(logps - old), 0.0))
            metrics["max_logp_gap"] = jnp.maximum(metrics.get("max_logp_gap", 0.0), gap)
            metrics["lost"] = metrics.get("lost", 0.0) + jnp.sum(jnp.where(lost, targets.weight, 0.0))
        return total, metrics

    return loss
