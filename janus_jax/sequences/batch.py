"""The one batch type of both stages and of the sampler: mixed sequences of text, codes and seen pictures, padded on the
left, and what is to be predicted in them.

Named tuples are pytrees without asking jax, which data workers do not import. row.collate makes Batches.
"""

from typing import NamedTuple

import numpy as np

# Groups of stage 1's targets: each has its own mean and share in the loss.
DRAW, VERDICT, REASON, REDRAW, DESCRIBE, EDIT = 0, 1, 2, 3, 4, 5
GROUPS = ("draw", "verdict", "reason", "redraw", "describe", "edit")

TEXT, CODE, SEEN = 0, 1, 2  # kinds of position: a text token, a drawn picture's code, a seen picture's feature


class Targets(NamedTuple):
    """Tokens to predict, N per row (unused places have weight 0).

    at i32[B,N]: the position whose hidden state predicts the token (one before the token itself);
    ids i32[B,N]: text ids or codes; weight f32[B,N]: 0 = not trained; group i32[B,N]: the group whose mean it
    enters: stage 1's tasks, stage 2's segments.
    Stage 2 adds, all f32[B,N]: advantage, old_logps (of the sampler), ref_logps; verdict bool[B,N]: the token was
    sampled from {Yes, No} alone; with a value head also returns f32[B,N], what it is to expect.
    """

    at: np.ndarray
    ids: np.ndarray
    weight: np.ndarray
    group: np.ndarray
    advantage: np.ndarray | None = None
    old_logps: np.ndarray | None = None
    ref_logps: np.ndarray | None = None
    verdict: np.ndarray | None = None
    returns: np.ndarray | None = None


class Batch(NamedTuple):
    """B sequences of T positions.

    ids i32[B,T]: text ids or codes by `kind`, ignored where SEEN; kind i32[B,T]: TEXT, CODE or SEEN;
    mask bool[B,T]: False on left padding alone, and on the holes of the released layout; pixels f32[B,P,h,w,3]
    in [-1, 1], or their grey levels u8: pictures for the judge's eye, in the order of their SEEN positions, or None;
    text, codes: targets, or None where the batch has none of that modality;
    uncond_ids i32[B,T]: for guided densities, ids with the prompt's inner tokens replaced by (attended) PAD, or None;
    positions i32[B,T]: explicit rotary positions, or None to count the real tokens.
    """

    ids: np.ndarray
    kind: np.ndarray
    mask: np.ndarray
    pixels: np.ndarray | None = None
    text: Targets | None = None
    codes: Targets | None = None
    uncond_ids: np.ndarray | None = None
    positions: np.ndarray | None = None


def targets_of(batches) -> list[tuple[str, int, Targets]]:
    """(field, index of the batch, Targets) of all targets of a step's batches."""
    return [
        (name, i, getattr(batch, name))
        for i, batch in enumerate(batches)
        for name in ("text", "codes")
        if getattr(batch, name) is not None
    ]


def padding(batches) -> float:
    """The share of a step's positions that hold no token."""
    return 1 - sum(batch.mask.sum() for batch in batches) / sum(batch.mask.size for batch in batches)


def singly(batches) -> list[tuple[Batch]]:
    """A step's batches each alone: the losses of both stages are sums over them."""
    return [(batch,) for batch in batches]


def with_targets(batches, **fields) -> tuple[Batch, ...]:
    """The batches with other values in some fields of their targets: field -> list in the order of `targets_of`."""
    changed = list(batches)
    for n, (name, i, targets) in enumerate(targets_of(batches)):
        new = targets._replace(**{field: values[n] for field, values in fields.items()})
        changed[i] = changed[i]._replace(**{name: new})
    return tuple(changed)
