"""The rounds of many trajectories: paint, look, speak, and again for those that are not satisfied.

A group of rows goes through a round together. The painter's cache holds a conditional and an unconditional row per
sample, the judge's cache one; both grow from round to round. Rows whose verdict was Yes are taken out of both, and the
others wait for those of further groups to fill their places, so that no round is drawn half empty but the last.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from PIL import Image

from janus_jax import profile
from janus_jax.models.inputs import paired
from janus_jax.models.kv_cache import Cache, join_rows, take, take_rows
from janus_jax.parallel import sharding, shards
from janus_jax.sampling import contexts, decode
from janus_jax.sampling.contexts import Drawing
from janus_jax.sampling.rollout import Rollout
from janus_jax.sequences import images

TEXT_STEP = 32  # texts are padded to a multiple, so that those of another call mostly need no other program


@dataclasses.dataclass(frozen=True)
class Group:
    """Trajectories before their next round: numbers i64[n] of them, their record, and the caches after the round before
    (painter None where pictures are encoded again; both before the first). A cache has places for `padded` rows."""

    numbers: np.ndarray
    record: Rollout
    painter: Cache | None = None
    judge: Cache | None = None

    def __len__(self):
        return len(self.numbers)


@dataclasses.dataclass(frozen=True)
class Part:
    """What there is of a group's round; the arrays have B >= n rows, of which the group's n count. codes i32[B,j]: the
    first j of each picture, with logps f32[B,j]; once it is whole pixels u8[B,h,w,3]; and from the first word on p_yes
    f32[B] and what is said, ids i32[B,m] with word_logps f32[B,m], PAD after a row's end."""

    codes: np.ndarray
    logps: np.ndarray
    pixels: np.ndarray | None = None
    p_yes: np.ndarray | None = None
    ids: np.ndarray | None = None
    word_logps: np.ndarray | None = None


def fresh(drawing: Drawing, work) -> Iterator[Group]:
    """Some work, (request, sample)s, as groups of trajectories without rounds."""
    words, vq = drawing.sampling.max_reason_tokens, drawing.model.cfg.vq
    for begin in range(0, len(work), drawing.batch):
        requests, samples = zip(*work[begin : begin + drawing.batch], strict=True)
        record = Rollout.empty(requests, samples, drawing.rounds, words, vq.tokens, vq.image_size)
        yield Group(np.arange(begin, begin + len(requests)), record)


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


def _painting(drawing, record, rows, turn, painter, hidden):
    """The arguments of decode.draw."""
    profile.step("drawing", first=0, count=2)
    keys, more = _keys(drawing, record, rows, 2 * turn), turn + 1 < drawing.rounds and not drawing.reencode
    return drawing.model, drawing.params, painter, hidden, keys, drawing.sampling, drawing.guided, more


def paint(drawing: Drawing, record: Rollout, rows, turn: int, painter, hidden):
    """Draws the picture of round `turn` of some of the record's rows: (painter, codes i32[B,I], logps f32[B,I], pixels
    u8[B,h,w,3]). The painter lacks the last code where no round will read it."""
    painter, codes, logps = decode.draw(*_painting(drawing, record, rows, turn, painter, hidden), drawing.on_codes)
    return painter, codes, logps, pixels_of(drawing, codes)


def pixels_of(drawing: Drawing, codes) -> np.ndarray:
    """The pictures u8[B,h,w,3] of codes i32[B,I]."""
    return images.to_uint8(shards.whole(decode.decode_codes(drawing.model, drawing.params, codes)))


def fill(drawing: Drawing, work, layout, refill: bool = True) -> Iterator[Rollout]:
    """Some work, (request, sample)s, as trajectories with their rounds: parts of drawing.batch, in order, each as soon
    as it is complete. layout: the module that makes the contexts; refill: whether the rows that go on wait for others,
    with their caches."""
    ended: list[Group] = []
    groups: Iterator[Group | None] = fresh(drawing, work)
    for turn in range(drawing.rounds):
        groups = _round(drawing, _full(drawing, groups) if refill else groups, turn, layout, ended)
    begin, count = 0, len(work)
    for _ in groups:
        while begin < count and (part := _complete(ended, begin, min(begin + drawing.batch, count))):
            begin += len(part)
            yield part


def _round(drawing, groups, turn, layout, ended) -> Iterator[Group | None]:
    """Takes groups through a round: yields what goes on of each, or None, so that the caller sees what has ended."""
    for group in groups:
        if group:
            *_, group = drawn(drawing, group, turn, layout, ended)
        yield group


def _full(drawing, groups) -> Iterator[Group | None]:
    """The same rows in groups of drawing.batch, the last one smaller. None: what came does not fill one yet."""
    waiting = None
    for group in groups:
        if group and waiting:
            room = min(drawing.batch - len(waiting), len(group))
            waiting, group = _joined(drawing, waiting, group, room), _some(drawing, group, np.arange(room, len(group)))
        waiting = waiting or group
        if waiting and len(waiting) == drawing.batch:
            full, waiting = waiting, group if group is not waiting else None
            yield full
        else:
            yield None
    if waiting:
        yield waiting


def _some(drawing, group: Group, rows) -> Group | None:
    """Some rows i64[n] of a group, None if there are none."""
    if not len(rows) or len(rows) == len(group):
        return group if len(rows) else None
    places = padded(rows, drawing.batch)
    painter = group.painter and take_rows(group.painter, _painted(drawing, places))
    return Group(group.numbers[rows], group.record.take(rows), painter, group.judge and take_rows(group.judge, places))


def _joined(drawing, a: Group, b: Group, count: int) -> Group:
    """A group and the first `count` rows of another."""
    first = len(padded(np.arange(len(a)), drawing.batch))  # places of a's caches
    places = padded(np.concatenate([np.arange(len(a)), first + np.arange(count)]), drawing.batch)
    painter = a.painter and join_rows(a.painter, b.painter, _painted(drawing, places))
    numbers = np.concatenate([a.numbers, b.numbers[:count]])
    record = Rollout.join([a.record, b.record.take(np.arange(count))])
    return Group(numbers, record, painter, join_rows(a.judge, b.judge, places))


def _painted(drawing, places):
    """The painter's rows of some places."""
    return paired(2 * places, 2 * places + 1) if drawing.guided else places


def drawn(
    drawing: Drawing, group: Group, turn: int, layout, ended: list[Group], stride: int | None = None
) -> Iterator[Part | Group | None]:
    """Draws, judges and records a group's round, adds the rows that end with it to `ended`, and yields the others, or
    None, last. With a stride it yields a Part before, after every `stride` codes and after every word: as many calls of
    the devices, so None for speed."""
    record, rows = group.record, padded(np.arange(len(group)), drawing.batch)
    if turn:
        painter, hidden = layout.redraw(drawing, group.painter, record, rows, turn - 1)
    else:
        contexts.encode_sources(drawing, record, rows)
        painter, hidden = _started(drawing, record, rows, layout)
    if stride is None:
        painter, codes, logps, pixels = paint(drawing, record, rows, turn, painter, hidden)
    else:
        parts = []
        for cache, *part in decode.drawing(*_painting(drawing, record, rows, turn, painter, hidden), stride):
            painter = cache
            parts.append(shards.whole(part))
            codes, logps = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
            yield Part(codes, logps)
        pixels = pixels_of(drawing, codes)
        yield Part(codes, logps, pixels)
    seen = images.seen(pixels, drawing.processor.understanding_size)
    judge, hidden = layout.look(drawing, group.judge, record, rows, seen)
    keys = _keys(drawing, record, rows, 2 * turn + 1)
    speech = drawing.model, drawing.params, judge, hidden, keys, drawing.sampling, drawing.grammar.special
    if stride is None:
        judge, *said = decode.speak(*speech)
    else:
        for words, (cache, *said) in enumerate(decode.speaking(*speech), 1):
            judge = cache
            ids, word_logps, p_yes = shards.whole(said)
            yield Part(codes, logps, pixels, p_yes, ids[:, :words], word_logps[:, :words])
    found = shards.whole((codes, logps, *said))
    context = drawing.encode(map(Image.fromarray, pixels)) if drawing.reencode else found[0]
    _store(drawing, record, turn, [each[: len(group)] for each in (pixels, context, *found)])
    again = (drawing.always | ~record.verdict[:, turn]) & (turn + 1 < drawing.rounds)
    if not again.all():
        ended.append(Group(group.numbers[~again], record.take(np.flatnonzero(~again))))
    painter = None if drawing.reencode else painter
    yield _some(drawing, Group(group.numbers, record, painter, judge), np.flatnonzero(again))


def _started(drawing, record, rows, layout):
    """layout.start_painting, which reads what several rows ask for once."""
    first = {}
    keys = [(record.requests[i].prompt, id(record.requests[i].source)) for i in rows]
    for i, key in zip(rows, keys, strict=True):
        first.setdefault(key, i)
    asked = padded(np.array([*first.values()]), drawing.batch)
    if len(asked) == len(rows):
        return layout.start_painting(drawing, record, rows)
    order = {key: n for n, key in enumerate(first)}
    painter, hidden = layout.start_painting(drawing, record, asked)
    places = _painted(drawing, np.array([order[key] for key in keys], np.int32))
    return take_rows(painter, places), take(hidden, places, ("batch", "width"))


def _complete(ended: list[Group], begin: int, end: int) -> Rollout | None:
    """The trajectories begin..end, taken out of those that have ended; None where some have not."""
    there = [(group.numbers >= begin) & (group.numbers < end) for group in ended]
    if sum(int(mask.sum()) for mask in there) < end - begin:
        return None
    parts = [(group, mask) for group, mask in zip(ended, there, strict=True) if mask.any()]
    order = np.argsort(np.concatenate([group.numbers[mask] for group, mask in parts]))
    ended[:] = [
        Group(group.numbers[~mask], group.record.take(np.flatnonzero(~mask)))
        for group, mask in zip(ended, there, strict=True)
        if not mask.all()
    ]
    return Rollout.join(group.record.take(np.flatnonzero(mask)) for group, mask in parts).take(order)


def count_words(ids, special) -> np.ndarray:
    """How many of the ids i32[n,m] of each row are said, i64[n]: all up to its EOS, if there is one."""
    ends = ids == special.eos
    return np.where(ends.any(1), ends.argmax(1) + 1, ids.shape[1])


def _store(drawing, record, turn, found):
    """Writes a round's arrays into the record."""
    pixels, context, codes, code_logps, ids, logps, p_yes = found
    special = drawing.grammar.special
    words = count_words(ids, special)
    spoken = np.arange(ids.shape[1])[None] < words[:, None]
    record.rounds[:] = turn + 1
    record.images[:, turn], record.codes[:, turn], record.code_logps[:, turn] = pixels, codes, code_logps
    record.verdict[:, turn], record.p_yes[:, turn] = ids[:, 0] == special.yes, p_yes
    record.words[:, turn] = words
    record.reason_ids[:, turn] = np.where(spoken, ids, 0)
    record.reason_logps[:, turn] = np.where(spoken, logps, 0)
    record.context_codes[:, turn] = context
