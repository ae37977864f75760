"""One sequence under construction, and many of them padded into a Batch (numpy)."""

from typing import NamedTuple

import numpy as np

from janus_jax.sequences.batch import CODE, SEEN, TEXT, Batch, Targets

# What stage 2 adds to a target, see batch.Targets.
FIELDS = {"advantage": np.float32, "old_logps": np.float32, "ref_logps": np.float32, "verdict": bool}


class Piece(NamedTuple):
    """Some positions of one kind: ids, uncond i32[n]; live: False for a hole, which nothing sees."""

    ids: np.ndarray
    uncond: np.ndarray
    kind: int
    live: bool


class Row:
    """A sequence; pieces are appended from left to right. `pictures`: those that the judge's eye sees, [h,w,3]."""

    def __init__(self):
        self.pieces: list[Piece] = []
        self.pictures: list[np.ndarray] = []
        self._length = 0
        self._targets = {TEXT: [], CODE: []}  # of dicts of arrays, a piece each

    def __len__(self):
        return self._length

    def add_text(self, ids, groups=None, uncond=None, **fields) -> None:
        """Appends text ids i32[n]. groups: the loss group of each id, one for all or i32[n]; None = not trained.
        uncond: the ids i32[n] of the unconditional row in their place. fields: what stage 2 adds, see FIELDS, [n]."""
        ids = np.asarray(ids, np.int32)
        self._train(TEXT, ids, groups, fields)
        self._append(ids, TEXT, uncond)

    def add_codes(self, codes, group=None, **fields) -> None:
        """Appends a drawn picture's codes i32[I]; group: its loss group, or None where it is context."""
        codes = np.asarray(codes, np.int32)
        self._train(CODE, codes, group, fields)
        self._append(codes, CODE)

    def add_seen(self, pixels, count: int) -> None:
        """Appends a picture for the judge's eye, which takes `count` positions: f32[h,w,3] in [-1, 1], or its grey
        levels u8[h,w,3]."""
        self.pictures.append(pixels)
        self._append(np.zeros(count, np.int32), SEEN)

    def add_hole(self, ids) -> None:
        """Appends text ids that nothing sees."""
        self._append(np.asarray(ids, np.int32), TEXT, live=False)

    def train_again(self, kind: int, group: int) -> None:
        """Makes the first piece of targets of this kind targets once more, of another group."""
        self._targets[kind].append(dict(self._targets[kind][0], group=self._targets[kind][0]["group"] * 0 + group))

    def targets(self, kind: int) -> dict[str, np.ndarray]:
        """The targets of a kind, {at, ids, group and fields: [n]}; at: the position before the token's own."""
        pieces = self._targets[kind]
        names = dict.fromkeys(name for piece in pieces for name in piece)  # zero where a piece does not say
        return {
            name: np.concatenate([piece.get(name, np.zeros(len(piece["at"]))) for piece in pieces]) for name in names
        }

    def _append(self, ids, kind, uncond=None, live=True):
        self.pieces.append(Piece(ids, ids if uncond is None else np.asarray(uncond, np.int32), kind, live))
        self._length += len(ids)

    def _train(self, kind, ids, groups, fields):
        if groups is not None:
            at = np.arange(self._length - 1, self._length - 1 + len(ids), dtype=np.int32)
            group = np.broadcast_to(np.asarray(groups, np.int32), ids.shape)
            self._targets[kind].append({"at": at, "ids": ids, "group": group, **fields})


def collate(
    rows,
    length: int,
    pad: int,
    text_targets: int = 0,
    code_targets: int = 0,
    pictures: int = 0,
    fields=(),
    guided: bool = False,
    picture_shape=None,
    levels: bool = False,
) -> Batch:
    """Left-pads rows to `length`. The numbers of targets and pictures per row are given, so that shapes are fixed.

    fields: names of the stage-2 fields of targets, zero where rows do not give them. guided: with the unconditional
    ids. picture_shape: of a picture, for rows that may all be without; None takes that of a row's. levels: pictures
    are grey levels u8, which take a quarter of the memory, and are normalised where they are embedded; else f32 in
    [-1, 1]. Raises ValueError where a row does not fit.
    """
    B = len(rows)
    ids, uncond = np.full((B, length), pad, np.int32), np.full((B, length), pad, np.int32)
    kind, mask = np.zeros((B, length), np.int32), np.zeros((B, length), bool)
    for i, row in enumerate(rows):
        end = length - len(row)
        if end < 0 or len(row.pictures) > pictures:
            raise ValueError(
                f"a row of {len(row)} positions and {len(row.pictures)} pictures does not fit {length} and {pictures}"
            )
        for piece in row.pieces:
            here = slice(end, end := end + len(piece.ids))
            ids[i, here], uncond[i, here], kind[i, here], mask[i, here] = piece
    pixels = None
    if pictures:
        shape = picture_shape or next(row.pictures[0].shape for row in rows if row.pictures)
        pixels = np.zeros((B, pictures, *shape), np.uint8 if levels else np.float32)
        for i, row in enumerate(rows):
            for p, picture in enumerate(row.pictures):
                if picture.dtype != pixels.dtype:
                    raise ValueError(f"a picture of {picture.dtype} in a batch of pictures of {pixels.dtype}")
                pixels[i, p] = picture
    return Batch(
        ids=ids,
        kind=kind,
        mask=mask,
        pixels=pixels,
        text=_targets(rows, TEXT, length, text_targets, fields),
        codes=_targets(rows, CODE, length, code_targets, fields),
        uncond_ids=uncond if guided else None,
    )


def _targets(rows, kind, length, count, fields):
    if not count:
        return None
    shape = (len(rows), count)
    arrays = {name: np.zeros(shape, np.int32) for name in ("at", "ids", "group")}
    arrays |= {name: np.zeros(shape, FIELDS[name]) for name in fields if name != "verdict" or kind == TEXT}
    weight = np.zeros(shape, np.float32)
    for i, row in enumerate(rows):
        targets = row.targets(kind)
        found = len(targets.get("at", ()))
        if found > count:
            raise ValueError(f"a row has {found} targets, more than {count}")
        weight[i, :found] = 1.0
        for name, values in targets.items():
            if name in arrays:
                arrays[name][i, :found] = values
        arrays["at"][i, :found] += length - len(row)
    return Targets(weight=weight, **arrays)
