"""The rounds of a chunk of trajectories: paint, look, speak, and again for those that are not satisfied.

A chunk of rows goes through the rounds together. The painter's cache holds a conditional and an unconditional row per
sample, the judge's cache one; both grow from round to round, and rows whose verdict was Yes are taken out of both, so
that nothing is drawn that is not needed.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from janus_jax.models.kv_cache import take_rows
from janus_jax.parallel import sharding, shards
from janus_jax.sampling import decode
from janus_jax.sampling.contexts import Drawing
from janus_jax.sampling.rollout import Rollout
from janus_jax.sequences import images

TEXT_STEP = 32  # texts are padded to a multiple, so that those of another call mostly need no other program


def records(drawing: Drawing, work) -> Iterator[Rollout]:
    """The chunks of some work, (request, sample)s, as trajectories without rounds."""
    words, vq = drawing.sampling.max_reason_tokens, drawing.model.cfg.vq
    for begin in range(0, len(work), drawing.batch):
        requests, samples = zip(*work[begin : begin + drawing.batch], strict=True)
        yield Rollout.empty(requests, samples, drawing.rounds, words, vq.tokens, vq.image_size)


def bucket(size: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-size // step) * step


def padded(indices, batch: int) -> np.ndarray:
    """Indices padded to about a quarter, half or whole of the batch by repeating the first, so that few shapes are
    compiled, and in each the devices have equally many rows."""
    parts = sharding.row_parts()
    size = next(s for s in (*(min(bucket(-(-batch // n), parts), batch) for n in (4, 2)), batch) if s >= len(indices))
    return np.concatenate([indices, np.full(size - len(indices), indices[0])]).astype(np.int32)


def _keys(drawing, record, rows, turn):
    keys = [decode.row_key(drawing.seed, record.requests[i], int(record.sample[i]), turn) for i in rows]
    return np.stack(keys)


def paint(drawing: Drawing, record: Rollout, rows, turn: int, painter, hidden):
    """Draws the picture of round `turn` of some of the record's rows: (painter, codes i32[B,I], logps f32[B,I], pixels
    u8[B,h,w,3])."""
    keys = _keys(drawing, record, rows, 2 * turn)
    painter, codes, logps = decode.draw(
        drawing.model, drawing.params, painter, hidden, keys, drawing.sampling, drawing.guided
    )
    pixels = images.to_uint8(shards.whole(decode.decode_codes(drawing.model, drawing.params, codes)))
    return painter, codes, logps, pixels


def fill(drawing: Drawing, record: Rollout, layout) -> Rollout:
    """The record with its rounds drawn. layout: the module that makes the contexts."""
    # the record's row of each place; places from `live` on repeat the first
    rows, live = padded(np.arange(len(record)), drawing.batch), len(record)
    painter, hidden = layout.start_painting(drawing, [record.requests[i] for i in rows])
    judge = None
    for turn in range(drawing.rounds):
        painter, codes, logps, pixels = paint(drawing, record, rows, turn, painter, hidden)
        seen = images.seen(pixels, drawing.processor.understanding_size)
        judge, hidden = layout.look(drawing, judge, record, rows, seen)
        keys = _keys(drawing, record, rows, 2 * turn + 1)
        judge, *said = decode.speak(
            drawing.model, drawing.params, judge, hidden, keys, drawing.sampling, drawing.grammar.special
        )
        found = shards.whole((codes, logps, *said))
        context = drawing.encode(map(Image.fromarray, pixels)) if drawing.reencode else found[0]
        _store(drawing, record, rows[:live], turn, [each[:live] for each in (pixels, context, *found)])
        keep = np.flatnonzero(drawing.always | ~record.verdict[rows[:live], turn])
        if not len(keep) or turn + 1 == drawing.rounds:
            break
        places = padded(keep, drawing.batch)
        rows, live = rows[places], len(keep)
        judge = take_rows(judge, places)
        painter, hidden = layout.redraw(drawing, painter, record, rows, places, turn)
    return record


def _store(drawing, record, rows, turn, found):
    """Writes a round's arrays, one row for each of `rows`, into the record."""
    pixels, context, codes, code_logps, ids, logps, p_yes = found
    special = drawing.grammar.special
    ends = ids == special.eos
    words = np.where(ends.any(1), ends.argmax(1) + 1, ids.shape[1])
    spoken = np.arange(ids.shape[1])[None] < words[:, None]
    record.rounds[rows] = turn + 1
    record.images[rows, turn], record.codes[rows, turn], record.code_logps[rows, turn] = pixels, codes, code_logps
    record.verdict[rows, turn], record.p_yes[rows, turn] = ids[:, 0] == special.yes, p_yes
    record.words[rows, turn] = words
    record.reason_ids[rows, turn] = np.where(spoken, ids, 0)
    record.reason_logps[rows, turn] = np.where(spoken, logps, 0)
    record.context_codes[rows, turn] = context
