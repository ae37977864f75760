"""Draw, look, say what is wrong, draw again: the trajectories of the method.

A chunk of rows goes through the rounds together. The painter's cache holds a conditional and an unconditional row per
sample, the judge's cache one; both grow from round to round, and rows whose verdict was Yes are taken out of both, so
that nothing is drawn that is not needed.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image

from janus_jax import images, sample, tokens
from janus_jax.density import Sampling
from janus_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Round:
    """One picture and what the model said of it.

    codes i32[I]; image: PIL; verdict: True = Yes; p_yes: softmax over {Yes, No} before temperature; reason: text, from
    "Yes" or "No" on; reason_ids i32[n]: every sampled judge token, the verdict's first, EOS last if it was sampled.
    code_logps f32[I], reason_logps f32[n]: log-probabilities of the tokens under the density they were drawn from.
    context_codes i32[I]: the codes the painter's next round saw (the same ones, or those of the re-encoded picture).
    """

    codes: np.ndarray
    image: Image.Image
    verdict: bool
    p_yes: float
    reason: str
    reason_ids: np.ndarray
    code_logps: np.ndarray
    reason_logps: np.ndarray
    context_codes: np.ndarray


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """The rounds of one (prompt, sample); final: index of the first round whose verdict is Yes, else of the last."""

    prompt: str
    sample: int
    rounds: list[Round]

    @property
    def final(self) -> int:
        return next((i for i, r in enumerate(self.rounds) if r.verdict), len(self.rounds) - 1)


def introspect(
    model,
    params,
    processor,
    prompts,
    samples: int = 4,
    rounds: int = 3,
    sampling: Sampling = Sampling(),
    seed: int = 0,
    context: str = "codes",
    batch: int = 64,
    always: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[Trajectory]:
    """Draws `samples` pictures of each prompt, with up to `rounds` rounds of looking and drawing again.

    context: what the painter's next round sees of a picture: "codes" (the sampled ones, their keys and values kept) or
    "reencode" (those of the decoded, 8-bit picture). batch: rows per chunk; it changes the speed, not the pictures (in
    f32 on a CPU; elsewhere up to rounding). always: draw again even after a Yes. progress: called with the number of finished trajectories after each chunk.
    Returns trajectories in the order of prompts, then samples. Raises UserError for an empty or overlong prompt.
    """
    if context not in ("codes", "reencode"):
        raise UserError(f"context {context!r} is neither 'codes' nor 'reencode'")
    if rounds < 1 or samples < 1:
        raise UserError(f"rounds and samples must be at least 1, not {rounds} and {samples}")
    if not prompts:
        raise UserError("there are no prompts: give at least one")
    ids = [tokens.prompt_ids(processor.tokenizer, prompt) for prompt in prompts]
    length = _bucket(max(len(row) for row in ids), 8)
    work = [(p, s) for p in range(len(prompts)) for s in range(samples)]
    batch = min(batch, _bucket(len(work), 4))
    trajectories = []
    for begin in range(0, len(work), batch):
        chunk = work[begin : begin + batch]
        rows = [_Row(prompts[p], s, ids[p]) for p, s in chunk]
        _run(model, params, processor, rows, rounds, sampling, seed, context, length, batch, always)
        trajectories += [Trajectory(row.prompt, row.sample, row.rounds) for row in rows]
        if progress:
            progress(len(chunk))
    return trajectories


@dataclasses.dataclass
class _Row:
    prompt: str
    sample: int
    ids: list[int]
    rounds: list[Round] = dataclasses.field(default_factory=list)


def _bucket(size, step):
    return -(-size // step) * step


def _padded(indices, batch):
    """Indices padded to a quarter, half or whole of the batch by repeating the first, so that few shapes are compiled."""
    size = next(s for s in (max(batch // 4, 1), max(batch // 2, 1), batch) if s >= len(indices))
    return np.concatenate([indices, np.full(size - len(indices), indices[0])]).astype(np.int32)


def _run(model, params, processor, rows, rounds, sampling, seed, context, length, batch, always):
    """Fills in the rounds of some rows."""
    special = processor.special
    think = processor.encode(tokens.THINK, bos=False)
    onward = processor.encode(tokens.NEXT, bos=False)
    guided = sampling.cfg_weight != 1.0
    per_round = model.cfg.vq.tokens + len(think) + sampling.max_reason_tokens + len(onward)
    seen_round = per_round + model.cfg.siglip.tokens - model.cfg.vq.tokens
    between = len(think) + sampling.max_reason_tokens + len(onward)

    alive = _padded(np.arange(len(rows)), batch)  # row index of each place; places past `live` repeat the first
    live = len(rows)
    ids, mask = tokens.left_pad([rows[i].ids for i in alive], special.pad, length)
    judge, _ = sample.start(model, params, ids, mask, length + rounds * seen_round)
    painter, hidden = _painter(model, params, rows, alive, special, guided, length, length + rounds * per_round)
    for turn in range(rounds):
        keys = np.stack([sample.row_key(seed, rows[i].prompt, rows[i].sample, 2 * turn) for i in alive])
        painter, codes, code_logps = sample.draw(model, params, painter, hidden, keys, sampling, guided)
        pixels = images.to_uint8(sample.decode_codes(model, params, codes))
        pictures = [Image.fromarray(picture) for picture in pixels]
        seen = np.stack([processor.for_understanding(picture) for picture in pictures])
        judge, _ = sample.extend_seen(model, params, judge, seen)
        judge, hidden = sample.extend_text(model, params, judge, *_repeat(think, len(alive)))
        keys = np.stack([sample.row_key(seed, rows[i].prompt, rows[i].sample, 2 * turn + 1) for i in alive])
        judge, words, word_logps, p_yes = sample.speak(
            model, params, judge, hidden, keys, sampling, special.yes, special.no, special.eos, special.pad
        )
        codes, code_logps, words, word_logps, p_yes = map(np.asarray, (codes, code_logps, words, word_logps, p_yes))
        context_codes = codes
        if context == "reencode":
            redrawn = np.stack([processor.for_generation(picture) for picture in pictures])
            context_codes = np.asarray(sample.encode_codes(model, params, redrawn))
        for place in range(live):
            count = _spoken(words[place], special.eos)
            rows[alive[place]].rounds.append(Round(
                codes[place], pictures[place], bool(words[place, 0] == special.yes), float(p_yes[place]),
                processor.decode(words[place, :count]), words[place, :count], code_logps[place],
                word_logps[place, :count], context_codes[place],
            ))
        keep = [place for place in range(live) if always or words[place, 0] == special.no]
        if not keep or turn + 1 == rounds:
            break
        places = _padded(np.array(keep), batch)
        alive, live = alive[places], len(keep)
        judge = sample.take_rows(judge, places)
        judge, _ = sample.extend_text(model, params, judge, *_repeat(onward, len(alive)))
        if context == "codes":
            both = np.concatenate([places, places + len(codes)]) if guided else places
            painter = sample.take_rows(painter, both)
        else:
            painter, _ = _painter(model, params, rows, alive, special, guided, length, length + rounds * per_round)
            for earlier in range(turn + 1):
                past = np.stack([rows[i].rounds[earlier].context_codes for i in alive])
                painter, _ = sample.extend_codes(model, params, painter, np.concatenate([past] * (2 if guided else 1)))
                if earlier < turn:
                    said = [_said(rows[i].rounds[earlier], think, onward, special.eos) for i in alive]
                    painter, _ = _extend(model, params, painter, said, special.pad, between, guided)
        said = [_said(rows[i].rounds[turn], think, onward, special.eos) for i in alive]
        painter, hidden = _extend(model, params, painter, said, special.pad, between, guided)


def _painter(model, params, rows, alive, special, guided, length, slots):
    """A fresh painter's cache over the prompts: conditional rows, then unconditional ones."""
    texts = [rows[i].ids for i in alive]
    if guided:
        texts += [tokens.unconditional(text, special.pad) for text in texts]
    return sample.start(model, params, *tokens.left_pad(texts, special.pad, length), slots)


def _said(turn: Round, think, onward, eos):
    """What stands between a picture and the next one: the question, the reason without its EOS, the transition."""
    return think + [int(i) for i in turn.reason_ids if i != eos] + onward


def _extend(model, params, painter, texts, pad, length, guided):
    ids, mask = tokens.left_pad(texts * (2 if guided else 1), pad, length)
    return sample.extend_text(model, params, painter, ids, mask)


def _repeat(ids, count):
    return np.tile(np.array(ids, np.int32), (count, 1)), np.ones((count, len(ids)), bool)


def _spoken(words, eos):
    """Number of sampled tokens, EOS included."""
    ends = np.flatnonzero(words == eos)
    return int(ends[0]) + 1 if len(ends) else len(words)
