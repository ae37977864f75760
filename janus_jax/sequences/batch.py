"""The one batch type of both stages: mixed sequences of text, codes and seen pictures, and what is to be predicted.

Rows are assembled in numpy from `Row`s and padded on the left by `collate`. Named tuples are pytrees without asking
jax, which data workers do not import.
"""

from typing import NamedTuple

import numpy as np

# Groups of stage 1's targets: each has its own mean and share in the loss.
DRAW, VERDICT, REASON, REDRAW, DESCRIBE = 0, 1, 2, 3, 4
GROUPS = ("draw", "verdict", "reason", "redraw", "describe")

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
    mask bool[B,T]: False on left padding alone, and on the holes of the released layout; pixels f32[B,P,h,w,3]:
    pictures for the judge's eye, in the order of their SEEN positions, or None; text, codes: targets, or None where the
    batch has none of that modality;
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


class Row:
    """One sequence under construction; pieces are appended from left to right."""

    def __init__(self):
        self.ids, self.kind, self.uncond, self.mask = [], [], [], []
        self.pictures = []
        self.targets = {TEXT: [], CODE: []}  # (position, id, group, extra)

    def __len__(self):
        return len(self.ids)

    def _append(self, ids, kind, uncond=None, mask=True):
        self.ids += ids
        self.kind += [kind] * len(ids)
        self.uncond += ids if uncond is None else uncond
        self.mask += [mask] * len(ids)

    def add_text(self, ids, groups=None, uncond=None, extras=None):
        """Appends text ids; groups: the loss group per id, or None where nothing is trained; uncond: the ids of the
        unconditional row in their place; extras: one dict of stage-2 fields per id."""
        self._add_targets(TEXT, ids, groups, extras)
        self._append([int(i) for i in ids], TEXT, uncond)

    def add_codes(self, codes, group=None, extras=None):
        """Appends a drawn picture's codes; group: its loss group, or None where it is context."""
        self._add_targets(CODE, codes, None if group is None else [group] * len(codes), extras)
        self._append([int(c) for c in codes], CODE)

    def add_seen(self, pixels, count):
        """Appends a picture f32[h,w,3] for the judge's eye, which takes `count` positions."""
        self.pictures.append(pixels)
        self._append([0] * count, SEEN)

    def add_hole(self, ids):
        """Appends text ids that nothing sees."""
        self._append([int(i) for i in ids], TEXT, mask=False)

    def _add_targets(self, kind, ids, groups, extras):
        if groups is not None:
            start = len(self.ids) - 1
            extras = extras or [{}] * len(ids)
            self.targets[kind] += [
                (start + i, int(token), group, extra)
                for i, (token, group, extra) in enumerate(zip(ids, groups, extras, strict=True))
            ]


EXTRAS = {"advantage": np.float32, "old_logps": np.float32, "ref_logps": np.float32, "verdict": bool}


def collate(
    rows,
    length: int,
    pad: int,
    text_targets: int = 0,
    code_targets: int = 0,
    pictures: int = 0,
    extras=(),
    guided: bool = False,
    by_slot: bool = False,
    picture_shape=None,
) -> Batch:
    """Left-pads rows to `length`; the numbers of targets and pictures per row are fixed, so that shapes are.

    extras: names of the stage-2 fields to carry; a token whose advantage is NaN is not trained. by_slot: positions
    count every slot, masked ones too, as in the released code. picture_shape: of a picture, for rows that may all be
    without; None takes that of a row's. Raises ValueError where a row does not fit.
    """
    B = len(rows)
    ids = np.full((B, length), pad, np.int32)
    uncond = np.full((B, length), pad, np.int32)
    kind = np.zeros((B, length), np.int32)
    mask = np.zeros((B, length), bool)
    for i, row in enumerate(rows):
        start = length - len(row)
        if start < 0 or len(row.pictures) > pictures:
            raise ValueError(
                f"a row of {len(row)} positions and {len(row.pictures)} pictures does not fit {length} and {pictures}"
            )
        ids[i, start:], kind[i, start:], uncond[i, start:], mask[i, start:] = row.ids, row.kind, row.uncond, row.mask
    pixels = None
    if pictures:
        shape = picture_shape or next(row.pictures[0].shape for row in rows if row.pictures)
        pixels = np.zeros((B, pictures, *shape), np.float32)
        for i, row in enumerate(rows):
            for p, picture in enumerate(row.pictures):
                pixels[i, p] = picture
    return Batch(
        ids=ids,
        kind=kind,
        mask=mask,
        pixels=pixels,
        text=_targets(rows, TEXT, length, text_targets, extras),
        codes=_targets(rows, CODE, length, code_targets, extras),
        uncond_ids=uncond if guided else None,
        positions=np.tile(np.arange(length, dtype=np.int32), (B, 1)) if by_slot else None,
    )


def _targets(rows, kind, length, count, extras):
    if not count:
        return None
    shape = (len(rows), count)
    at, ids, group = (np.zeros(shape, np.int32) for _ in range(3))
    weight = np.zeros(shape, np.float32)
    more = {name: np.zeros(shape, EXTRAS[name]) for name in extras}
    for i, row in enumerate(rows):
        targets = row.targets[kind]
        if len(targets) > count:
            raise ValueError(f"a row has {len(targets)} targets, more than {count}")
        start = length - len(row)
        for n, (position, token, target_group, extra) in enumerate(targets):
            at[i, n], ids[i, n], group[i, n], weight[i, n] = start + position, token, target_group, 1.0
            for name, array in more.items():
                array[i, n] = extra.get(name, 0)
    if "advantage" in more:  # an unknown advantage trains nothing
        unknown = np.isnan(more["advantage"])
        weight[unknown], more["advantage"][unknown] = 0.0, 0.0
    return Targets(at=at, ids=ids, weight=weight, group=group, **more)
