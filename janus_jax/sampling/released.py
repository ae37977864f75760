"""The two contexts as the released code has them: what contexts.py does, with its habits, for checking against it.

Pictures are re-encoded for the painter and drawn again whatever the verdict. Rotary positions count every slot, holes
and padding too. Left padding is attended by the judge and when drawing again. A reason's own end of text, and the
padding up to the longest reason beside it, keep their slots and are seen by nobody. A row depends on those beside it.
"""

import jax.numpy as jnp
import numpy as np

from janus_jax.sampling import contexts, decode
from janus_jax.sampling.contexts import Drawing
from janus_jax.sampling.rollout import Rollout
from janus_jax.sequences.row import Row, collate


def _slots(batch, first: int):
    """The batch with positions that count slots, from `first` on."""
    B, T = batch.ids.shape
    return batch._replace(positions=np.tile(np.arange(first, first + T, dtype=np.int32), (B, 1)))


def _counted(cache):
    """The cache with every slot counted, so that the next token's position is its slot."""
    return cache.replace(count=jnp.full_like(cache.count, cache.length))


def _started(drawing, batch, slots, guided):
    cache, hidden = decode.prefill(drawing.model, drawing.params, _slots(batch, 0), slots, guided)
    return _counted(cache), hidden


def _extended(drawing, cache, batch, guided):
    batch = _slots(batch, int(cache.length))
    cache, hidden = decode.extend(drawing.model, drawing.params, cache, batch, guided)
    return _counted(cache), hidden


def start_painting(drawing: Drawing, record: Rollout, rows, attend_padding: bool = False):
    """See contexts.start_painting."""
    texts = [contexts.asked(drawing, record.requests[i]) for i in rows]
    batch = collate(texts, drawing.prompt, drawing.pad, guided=drawing.guided)
    batch = batch._replace(mask=batch.mask | attend_padding)
    return _started(drawing, batch, None, drawing.guided)


def look(drawing: Drawing, judge, record: Rollout, rows, seen):
    """See contexts.look."""
    grammar, texts = drawing.grammar, []
    for i in rows:
        if judge is None:
            texts.append(contexts.asked(drawing, record.requests[i]))
        else:
            texts.append(Row())
            texts[-1].add_text(grammar.transition)
    for row, pixels in zip(texts, seen, strict=True):
        grammar.look(row, pixels)
    length = grammar.longest_look(drawing.prompt if judge is None else None)
    batch = collate(texts, length, drawing.pad, pictures=1)
    batch = batch._replace(mask=np.ones_like(batch.mask))
    if judge is None:
        return _started(drawing, batch, drawing.judge_slots(), False)
    return _extended(drawing, _counted(judge), batch, False)


def redraw(drawing: Drawing, painter, record: Rollout, rows, turn: int):
    """See contexts.redraw."""
    cache, hidden = start_painting(drawing, record, rows, attend_padding=True)
    for earlier in range(turn + 1):
        reasons = [record.reason_ids[i, earlier, : record.words[i, earlier]] for i in rows]
        width = max(map(len, reasons))
        made = []
        for i, reason in zip(rows, reasons, strict=True):
            words = reason[reason != drawing.grammar.special.eos]
            row = Row()
            row.add_codes(record.context_codes[i, earlier])
            row.add_text(drawing.grammar.question)
            row.add_text(words)
            row.add_hole([drawing.pad] * (width - len(words)))
            row.add_text(drawing.grammar.transition)
            made.append(row)
        batch = collate(made, len(made[0]), drawing.pad, guided=drawing.guided)
        cache, hidden = _extended(drawing, cache, batch, drawing.guided)
    return cache, hidden
