"""Learning-rate schedules, AdamW and Muon, with a decay mask."""

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from janus_jax.parallel import sharding

# (regex over the whole '/'-joined path, decays): norms and biases are left alone, everything else decays.
DECAY_RULES = (
    (r".*/(bias|scale)", False),
    (r".*", True),
)

# (regex, the axes of a weight's inputs and of its outputs): leading axes that are not named are layers, each of which
# is orthogonalised on its own. None: not a hidden layer's matrix, AdamW's.
MUON_RULES = (
    (r"llama/layers/attn/[qkv]", MuonDimensionNumbers(1, (2, 3))),
    (r"llama/layers/attn/o", MuonDimensionNumbers((1, 2), 3)),
    (r"llama/layers/mlp/.*|siglip/layers/.*/kernel", MuonDimensionNumbers(1, 2)),
    (r"(gen_)?aligner/fc2/kernel|gen_head/fc1/kernel", MuonDimensionNumbers(0, 1)),
    (r".*", None),
)


def warmup_cosine(peak: float, end: float, warmup: int, steps: int):
    """Linear from 0 to `peak` in `warmup` steps, then a cosine to `end` at `steps`. Returns an optax schedule."""
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(steps, warmup + 1), end)


def warmup_linear_then(kind: str, peak: float, turn: float, end: float, warmup: int, turn_step: int, steps: int):
    """Stage 2's schedule: linear from 0 to `peak` in `warmup` steps, linear to `turn` at `turn_step`, then "cosine"
    (the paper) or "linear" (the release) to `end` at `steps`. Returns an optax schedule."""
    rest = max(steps - turn_step, 1)
    tails = {
        "cosine": optax.cosine_decay_schedule(turn, rest, alpha=end / turn),
        "linear": optax.linear_schedule(turn, end, rest),
    }
    parts = [
        optax.linear_schedule(0.0, peak, max(warmup, 1)),
        optax.linear_schedule(peak, turn, max(turn_step - warmup, 1)),
        tails[kind],
    ]
    return optax.join_schedules(parts, [warmup, turn_step])


def adamw(schedule, *, b1=0.9, b2=0.95, eps=1e-6, weight_decay=0.05, clip=1.0, decay_mask=None):
    """Global-norm clipping, then AdamW; `decay_mask` is a tree of bools, or None to decay everything."""
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decay_mask),
    )


def muon(schedule, params, *, b1=0.9, b2=0.95, weight_decay=0.05, clip=1.0, decay_mask=None):
    """Global-norm clipping, then Muon (Jordan et al. 2024) for the matrices of MUON_RULES, AdamW for the rest of
    `params` (the trainable leaves, or their shapes).

    Updates are scaled to the size of AdamW's (Liu et al. 2025, arXiv 2502.16982), so both take the same learning
    rates. It learns more per step than AdamW where a model starts from nothing; orthogonalising costs matrix products
    that do not depend on the batch.
    """

    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.contrib.muon(
            schedule,
            weight_decay=weight_decay,
            weight_decay_mask=decay_mask,
            adam_b1=b1,
            adam_b2=b2,
            adam_weight_decay=weight_decay,
            muon_weight_dimension_numbers=sharding.match(MUON_RULES, params),
            consistent_rms=0.2,
        ),
    )


def stored_as(dtype, tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """tx with its moments kept in `dtype` between steps and computed in f32. bfloat16 halves their memory, and rounds
    each to 8 bits after each step. Raises ValueError for another dtype than "float32" or "bfloat16"."""
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"moments in {dtype!r} are neither 'float32' nor 'bfloat16'")
    if dtype == "float32":
        return tx

    def cast(state, to):
        return jax.tree.map(lambda x: x.astype(to) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)

    def update(updates, state, params=None):
        updates, state = tx.update(updates, cast(state, jnp.float32), params)
        return updates, cast(state, dtype)

    return optax.GradientTransformation(lambda params: cast(tx.init(params), dtype), update)


def named(name: str, schedule, params, **settings):
    """The optimizer called "adamw" or "muon"; settings as theirs. Raises ValueError for another name."""
    if name == "adamw":
        return adamw(schedule, **settings)
    if name == "muon":
        return muon(schedule, params, **settings)
    raise ValueError(f"optimizer {name!r} is neither 'adamw' nor 'muon'")
