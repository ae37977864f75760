"""From a rollout to the batch of a policy-gradient step: rows by the grammar, built once per step; advantages and
reference log-probabilities are filled in when they are known.

A trajectory is one causal sequence per role, so one pass scores all its pictures, or all its words.
"""

import dataclasses

import numpy as np

from janus_jax.rl.credit import FINAL, FIRST, TEXT, AfterYes, Credit
from janus_jax.sampling.rollout import Rollout
from janus_jax.sequences import images
from janus_jax.sequences.batch import CODE, Batch, targets_of, with_targets
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.row import Row, collate

FIELDS = ("advantage", "old_logps", "ref_logps", "verdict")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Fixed shapes of a step's batches: positions of a painter's and of a judge's row, pictures that the judge sees,
    targets; `first`: positions of a first picture alone, for the released layout."""

    first: int
    painter: int
    judge: int
    pictures: int
    code_targets: int
    text_targets: int


def layout(credit: Credit, grammar: Grammar, prompt: int, rounds: int, reason: int, sources: int = 0) -> Layout:
    """Shapes that hold every trajectory. prompt, reason: text tokens at most; sources: source pictures of a request."""
    scored = 3 if credit.after_yes is AfterYes.OWN_PROMPT else rounds  # the first picture may be trained twice
    judged = credit.judged or rounds
    return Layout(
        first=grammar.longest_painted(prompt, 1, reason, sources),
        painter=grammar.longest_painted(prompt, rounds, reason, sources),
        judge=grammar.longest_judged(prompt, judged, reason, sources),
        pictures=judged + sources,
        code_targets=grammar.codes * scored,
        text_targets=judged * reason,
    )


def make(credit: Credit, rollout: Rollout, grammar: Grammar, shapes: Layout, side: int, guided: bool = True):
    """(painter's Batch, judge's Batch) of a rollout; old_logps are the sampler's, NaN where it has none, advantages and
    ref_logps zero. Targets' groups are columns of the advantages, which `batches.with_credit` fills in. shapes: made by
    `batches.layout`. side: pixels along one side of a picture that is seen. guided: whether pictures were drawn under
    guidance; then the painter's batch has unconditional ids, too."""
    seen, sources = rollout.seen(side), sources_seen(rollout.requests, side)
    painters = [_painter(credit, rollout, grammar, i) for i in range(len(rollout))]
    judges = [_judge(credit, rollout, grammar, i, seen[i], sources[i]) for i in range(len(rollout))]
    return collated(painters, judges, grammar.special.pad, shapes, side, guided)


def sources_seen(requests, side: int) -> list:
    """The requests' source pictures as the judge sees them, not normalised, u8[side,side,3]; None for those without. A
    group has one source."""
    pictures = {id(request.source): request.source for request in requests if request.source is not None}
    each = {key: images.letterbox(picture, side) for key, picture in pictures.items()}
    return [each.get(id(request.source)) for request in requests]


def _painter(credit, rollout, grammar, i) -> Row:
    row, yes = Row(), rollout.verdict[i, 0]
    grammar.ask(row, rollout.requests[i], rollout.source[i])
    drawn = list(range(rollout.rounds[i]))
    copied = yes and credit.after_yes is AfterYes.REGEN_PROMPT
    if copied:
        drawn = [0, 0]
    elif yes and credit.after_yes is AfterYes.OWN_PROMPT:
        drawn = [0]
    for place, turn in enumerate(drawn):
        if place:
            before = drawn[place - 1]
            grammar.redraw(row, rollout.reason_ids[i, before, : rollout.words[i, before]])
        # the copy of a first picture was never sampled in its second context: the trainer scores it there
        logps = rollout.code_logps[i, turn]
        old = np.full_like(logps, np.nan) if copied and place else logps
        grammar.draw(row, rollout.codes[i, turn], FIRST if place == 0 else FINAL + place - 1, old_logps=old)
    if yes and credit.after_yes is AfterYes.OWN_PROMPT:
        row.train_again(CODE, FINAL)
    return row


def _judge(credit, rollout, grammar, i, seen, source) -> Row:
    row = Row()
    grammar.ask(row, rollout.requests[i], source)
    # released credit trains the first verdict alone
    for turn in range(min(rollout.rounds[i], credit.judged or rollout.rounds[i])):
        if turn:
            grammar.look_again(row, rollout.reason_ids[i, turn - 1, : rollout.words[i, turn - 1]])
        grammar.look(row, seen[turn])
        words = slice(rollout.words[i, turn])
        verdict = np.arange(rollout.words[i, turn]) == 0
        grammar.say(
            row,
            rollout.reason_ids[i, turn, words],
            TEXT,
            old_logps=rollout.reason_logps[i, turn, words],
            verdict=verdict,
        )
    return row


def collated(painters, judges, pad: int, shapes: Layout, side: int, guided: bool):
    """(painter's Batch, judge's Batch) of rows in the shapes of a layout."""
    words = {"text_targets": shapes.text_targets, "fields": FIELDS}
    seen = {"pictures": shapes.pictures, "picture_shape": (side, side, 3), "levels": True}
    return (
        collate(painters, shapes.painter, pad, code_targets=shapes.code_targets, fields=FIELDS, guided=guided),
        collate(judges, shapes.judge, pad, **words, **seen),
    )


def blank(shapes: Layout, rows: int, side: int, guided: bool = True):
    """The batches of `make` with nothing in them; side: as there."""
    return collated(*([Row() for _ in range(rows)] for _ in range(2)), 0, shapes, side, guided)


def credited(made: tuple[Batch, ...], advantages) -> dict[str, list[np.ndarray]]:
    """The targets' fields "advantage" and "weight" f32[B,N], in the order of batch.targets_of, from advantages
    f32[B,columns]: each target has its column's; one that is not known trains nothing."""
    fields = {"advantage": [], "weight": []}
    for *_, targets in targets_of(made):
        each = np.take_along_axis(advantages, targets.group, axis=1)
        trained = (targets.weight > 0) & ~np.isnan(each)
        fields["advantage"].append(np.where(trained, each, 0).astype(np.float32))
        fields["weight"].append(np.where(trained, targets.weight, 0).astype(np.float32))
    return fields


def with_credit(made: tuple[Batch, ...], advantages) -> tuple[Batch, ...]:
    """The batches with `credited` filled in."""
    return with_targets(made, **credited(made, advantages))
