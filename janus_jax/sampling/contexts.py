"""The sampler's two contexts, the painter's and the judge's, from the grammar: what each cache holds before a picture
is drawn or judged. Both grow from round to round. Positions count real tokens, so padding between pieces changes
nothing. released.py has the same three functions (start_painting, look, redraw) as the released code does it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from janus_jax.sampling import decode
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.rollout import Rollout
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.row import Row, collate


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What stays the same for all rows: the model with its parameters, the grammar, and how to draw. prompt: slots of
    what is asked, text alone; sources: source pictures of a request (0 or 1); reencode: the painter's next round sees
    the decoded picture's codes instead of the sampled ones; always: draw again even after a Yes; on_codes: see
    decode.draw."""

    model: Any
    params: Any
    processor: Any
    grammar: Grammar
    sampling: Sampling
    rounds: int
    seed: int
    batch: int
    prompt: int
    sources: int
    reencode: bool
    always: bool
    on_codes: Callable[[int, int], None] | None = None

    @property
    def guided(self) -> bool:
        return self.sampling.guided

    @property
    def pad(self) -> int:
        return self.grammar.special.pad

    def encode(self, pictures) -> np.ndarray:
        """PIL pictures -> the codes i32[N,I] that the painter sees."""
        pixels = np.stack([self.processor.for_generation(picture) for picture in pictures])
        return decode.encoded(self.model, self.params, pixels)

    def judge_slots(self) -> int:
        return self.grammar.longest_judged(self.prompt, self.rounds, self.sampling.max_reason_tokens, self.sources)


def asked(drawing: Drawing, request, source=None) -> Row:
    """A row with what is asked in it."""
    row = Row()
    drawing.grammar.ask(row, request, source)
    return row


def encode_sources(drawing: Drawing, record: Rollout, rows) -> None:
    """Writes the codes of source pictures, if there are any, into the record. rows: of all of it, padded."""
    if drawing.sources:
        codes = drawing.encode([record.requests[i].source for i in rows])
        record.source[:] = codes[: len(record)]


def sources_seen(drawing: Drawing, requests) -> list:
    """The pixels f32[h,w,3] of the requests' source pictures as the judge sees them; None for those without."""
    return [request.source and drawing.processor.for_understanding(request.source) for request in requests]


def start_painting(drawing: Drawing, record: Rollout, rows):
    """A painter's cache with what is asked in some of the record's rows, one for each place of the cache: (cache, last
    hidden [B,D]); under guidance in pairs, see decode.draw."""
    texts = [asked(drawing, record.requests[i], record.source[i]) for i in rows]
    length = drawing.prompt + drawing.sources * drawing.grammar.codes
    batch = collate(texts, length, drawing.pad, guided=drawing.guided)
    return decode.prefill(drawing.model, drawing.params, batch, guided=drawing.guided)


def look(drawing: Drawing, judge, record: Rollout, rows, seen):
    """The judge's cache after a picture and the question: (cache, last hidden [B,D]).

    judge: the cache of the round before, or None in the first. rows: of the record, one for each place of the cache;
    seen f32[B,h,w,3]: the pictures.
    """
    grammar, texts = drawing.grammar, []
    requests = [record.requests[i] for i in rows]
    if judge is None:
        texts = [asked(drawing, *pair) for pair in zip(requests, sources_seen(drawing, requests), strict=True)]
        length = grammar.longest_look(drawing.prompt + drawing.sources * grammar.seen)
    else:
        for _ in rows:
            texts.append(Row())
            grammar.look_again(texts[-1])  # a sampled end of text was not fed: the cache ends before it
        length = grammar.longest_look(None)
    for row, pixels in zip(texts, seen, strict=True):
        grammar.look(row, pixels)
    pictures = 1 + (drawing.sources if judge is None else 0)
    batch = collate(texts, length, drawing.pad, pictures=pictures)
    if judge is None:
        return decode.prefill(drawing.model, drawing.params, batch, drawing.judge_slots())
    return decode.extend(drawing.model, drawing.params, judge, batch)


def redraw(drawing: Drawing, painter, record: Rollout, rows, turn: int):
    """The painter's cache before the next picture: (cache, last hidden [B,D]).

    painter: the cache with the picture of round `turn`, not looked at where pictures are encoded again; rows: of the
    record, one for each of its samples.
    """
    if drawing.reencode:
        painter, _ = start_painting(drawing, record, rows)
        for earlier in range(turn):
            painter = _with_codes(drawing, painter, record, rows, earlier)
            painter, _ = _after_picture(drawing, painter, record, rows, earlier)
        painter = _with_codes(drawing, painter, record, rows, turn)
    return _after_picture(drawing, painter, record, rows, turn)


def _with_codes(drawing, painter, record, rows, turn):
    made = [Row() for _ in rows]
    for row, i in zip(made, rows, strict=True):
        drawing.grammar.draw(row, record.context_codes[i, turn])
    batch = collate(made, drawing.grammar.codes, drawing.pad, guided=drawing.guided)
    return decode.extend(drawing.model, drawing.params, painter, batch, drawing.guided)[0]


def _after_picture(drawing, painter, record, rows, turn):
    made = [Row() for _ in rows]
    for row, i in zip(made, rows, strict=True):
        drawing.grammar.redraw(row, record.reason_ids[i, turn, : record.words[i, turn]])
    length = drawing.grammar.longest_redraw(drawing.sampling.max_reason_tokens)
    batch = collate(made, length, drawing.pad, guided=drawing.guided)
    return decode.extend(drawing.model, drawing.params, painter, batch, drawing.guided)
