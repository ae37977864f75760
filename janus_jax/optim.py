"""Learning-rate schedules and AdamW with a decay mask."""

import optax

# (regex over the whole '/'-joined path, decays): norms and biases are left alone, everything else decays.
DECAY_RULES = (
    (r".*/(bias|scale)", False),
    (r".*", True),
)


def warmup_cosine(peak: float, end: float, warmup: int, steps: int):
    """Linear from 0 to `peak` in `warmup` steps, then a cosine to `end` at `steps`. Returns an optax schedule."""
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(steps, warmup + 1), end)


def warmup_linear_then(kind: str, peak: float, turn: float, end: float, warmup: int, turn_step: int, steps: int):
    """Stage 2's schedule: linear from 0 to `peak` in `warmup` steps, linear to `turn` at `turn_step`, then "cosine"
    (the paper) or "linear" (the release) to `end` at `steps`. Returns an optax schedule."""
    rest = max(steps - turn_step, 1)
    if kind == "cosine":
        tail = optax.cosine_decay_schedule(turn, rest, alpha=end / turn)
    elif kind == "linear":
        tail = optax.linear_schedule(turn, end, rest)
    else:
        raise ValueError(f"schedule {kind!r} is neither 'cosine' nor 'linear'")
    parts = [
        optax.linear_schedule(0.0, peak, max(warmup, 1)),
        optax.linear_schedule(peak, turn, max(turn_step - warmup, 1)),
        tail,
    ]
    return optax.join_schedules(parts, [warmup, turn_step])


def adamw(schedule, *, b1=0.9, b2=0.95, eps=1e-6, weight_decay=0.05, clip=1.0, decay_mask=None):
    """Global-norm clipping, then AdamW; `decay_mask` is a tree of bools, or None to decay everything."""
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decay_mask),
    )
