"""Draw, look, say what is wrong, draw again: the trajectories of the method.

A chunk of rows goes through the rounds together. The painter's cache holds a conditional and an unconditional row per
sample, the judge's cache one; both grow from round to round, and rows whose verdict was Yes are taken out of both, so
that nothing is drawn that is not needed.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image

from janus_jax.errors import UserError
from janus_jax.parallel import hosts, sharding
from janus_jax.sampling import decode
from janus_jax.sampling.density import Sampling, paired
from janus_jax.sequences import images, tokens

DEFAULT_SAMPLING = Sampling()


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
    sampling: Sampling = DEFAULT_SAMPLING,
    seed: int = 0,
    context: str = "codes",
    batch: int = 64,
    always: bool = False,
    released: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[Trajectory]:
    """Draws `samples` pictures of each prompt, with up to `rounds` rounds of looking and drawing again.

    context: what the painter's next round sees of a picture: "codes" (the sampled ones, their keys and values kept) or
    "reencode" (those of the decoded, 8-bit picture). batch: rows per chunk; it changes the speed, not the pictures (in
    f32 on a CPU; elsewhere up to rounding). always: draw again even after a Yes. released: do all that the released
    code does otherwise, for checking against it: pictures are re-encoded and drawn again whatever the verdict,
    positions count every slot, left padding is attended in the judge's and the redrawing contexts, and a reason's
    own EOS is masked; a row then depends on the rows beside it. progress: called with the number of finished
    trajectories after each chunk. Where the parameters lie on the devices of several processes, all of them call this
    with the same arguments, and get the same.

    Returns trajectories in the order of prompts, then samples. Raises UserError for an empty or overlong prompt.
    """
    if context not in ("codes", "reencode"):
        raise UserError(f"context {context!r} is neither 'codes' nor 'reencode'")
    if rounds < 1 or samples < 1:
        raise UserError(f"rounds and samples must be at least 1, not {rounds} and {samples}")
    if not prompts:
        raise UserError("there are no prompts: give at least one")
    ids = [tokens.prompt_ids(processor.tokenizer, prompt) for prompt in prompts]
    _check_length(model, processor, max(map(len, ids)), rounds, sampling.max_reason_tokens)
    work = [(p, s) for p in range(len(prompts)) for s in range(samples)]
    batch = len(work) if released else min(batch, _bucket(len(work), 4))
    longest = max(len(row) for row in ids)
    run = _Run(
        model,
        params,
        processor,
        rounds,
        sampling,
        seed,
        batch,
        # in the released layout padding is attended, so there must be no more of it than there was
        length=longest if released else _bucket(longest, 8),
        reencode=released or context == "reencode",
        always=released or always,
        released=released,
    )
    trajectories = []
    for begin in range(0, len(work), batch):
        chunk = work[begin : begin + batch]
        rows = [_Row(prompts[p], s, ids[p]) for p, s in chunk]
        _fill(run, rows)
        trajectories += [Trajectory(row.prompt, row.sample, row.rounds) for row in rows]
        if progress:
            progress(len(chunk))
    return trajectories


def _check_length(model, processor, prompt, rounds, reason):
    """Raises UserError where the longest trajectory could outgrow the model's positions."""
    between = len(processor.encode(tokens.THINK, bos=False)) + reason + len(processor.encode(tokens.NEXT, bos=False))
    picture = max(model.cfg.vq.tokens, model.cfg.siglip.tokens)
    need, there = prompt + rounds * (picture + between), model.cfg.llama.max_positions
    if need > there:
        raise UserError(
            f"{rounds} rounds with up to {reason} words each may take {need} positions, the model has {there}: "
            "allow fewer rounds or words"
        )


@dataclasses.dataclass(frozen=True)
class _Run:
    """What stays the same for all rows."""

    model: object
    params: dict
    processor: object
    rounds: int
    sampling: Sampling
    seed: int
    batch: int
    length: int  # slots of the prompts
    reencode: bool
    always: bool
    released: bool

    @property
    def think(self):
        return self.processor.encode(tokens.THINK, bos=False)

    @property
    def onward(self):
        return self.processor.encode(tokens.NEXT, bos=False)

    @property
    def guided(self):
        return self.sampling.cfg_weight != 1.0

    @property
    def between(self):
        """Slots between a picture and the next one."""
        return len(self.think) + self.sampling.max_reason_tokens + len(self.onward)

    def keys(self, rows, alive, turn):
        return np.stack([decode.row_key(self.seed, rows[i].prompt, rows[i].sample, turn) for i in alive])


@dataclasses.dataclass
class _Row:
    prompt: str
    sample: int
    ids: list[int]
    rounds: list[Round] = dataclasses.field(default_factory=list)


def _bucket(size, step):
    return -(-size // step) * step


def _padded(indices, batch):
    """Indices padded to about a quarter, half or whole of the batch by repeating the first, so that few shapes are
    compiled, and in each the devices have equally many rows."""
    parts = sharding.row_parts()
    size = next(s for s in (*(min(_bucket(-(-batch // n), parts), batch) for n in (4, 2)), batch) if s >= len(indices))
    return np.concatenate([indices, np.full(size - len(indices), indices[0])]).astype(np.int32)


def _fill(run: _Run, rows) -> None:
    """Fills in the rounds of a chunk of rows."""
    model, params, special = run.model, run.params, run.processor.special
    slot = {"by_slot": run.released}
    alive = _padded(np.arange(len(rows)), run.batch)  # the row of each place; places from `live` on repeat the first
    live = len(rows)
    ids, mask = tokens.left_pad([rows[i].ids for i in alive], special.pad, run.length)
    slots = run.length + run.rounds * (model.cfg.siglip.tokens + run.between)
    judge, _ = decode.start(model, params, ids, mask | run.released, slots, **slot)
    painter, hidden = _painter(run, rows, alive, attend_padding=False)
    for turn in range(run.rounds):
        keys = run.keys(rows, alive, 2 * turn)
        painter, codes, code_logps = decode.draw(model, params, painter, hidden, keys, run.sampling, run.guided, **slot)
        pixels = images.to_uint8(hosts.whole(decode.decode_codes(model, params, codes)))
        pictures = [Image.fromarray(picture) for picture in pixels]
        seen = np.stack([run.processor.for_understanding(picture) for picture in pictures])
        judge, _ = decode.extend_seen(model, params, judge, seen, **slot)
        judge, hidden = decode.extend_text(model, params, judge, *_repeat(run.think, len(alive)), **slot)
        keys = run.keys(rows, alive, 2 * turn + 1)
        judge, words, word_logps, p_yes = decode.speak(
            model, params, judge, hidden, keys, run.sampling, special, **slot
        )
        codes, code_logps, words, word_logps, p_yes = hosts.whole((codes, code_logps, words, word_logps, p_yes))
        context_codes = codes
        if run.reencode:
            redrawn = np.stack([run.processor.for_generation(picture) for picture in pictures])
            context_codes = hosts.whole(decode.encode_codes(model, params, redrawn))
        for place in range(live):
            count = _spoken(words[place], special.eos)
            rows[alive[place]].rounds.append(
                Round(
                    codes[place],
                    pictures[place],
                    bool(words[place, 0] == special.yes),
                    float(p_yes[place]),
                    run.processor.decode(words[place, :count]),
                    words[place, :count],
                    code_logps[place],
                    word_logps[place, :count],
                    context_codes[place],
                )
            )
        keep = [place for place in range(live) if run.always or words[place, 0] == special.no]
        if not keep or turn + 1 == run.rounds:
            break
        places = _padded(np.array(keep), run.batch)
        alive, live = alive[places], len(keep)
        judge = decode.take_rows(judge, places)
        judge, _ = decode.extend_text(model, params, judge, *_repeat(run.onward, len(alive)), **slot)
        if run.reencode:
            painter, _ = _painter(run, rows, alive, attend_padding=run.released)
            for earlier in range(turn + 1):
                past = np.stack([rows[i].rounds[earlier].context_codes for i in alive])
                painter, _ = decode.extend_codes(model, params, painter, _both(run, past), **slot)
                if earlier < turn:
                    painter, _ = _extend(run, rows, alive, earlier, painter)
        else:
            both = paired(2 * places, 2 * places + 1) if run.guided else places
            painter = decode.take_rows(painter, both)
        painter, hidden = _extend(run, rows, alive, turn, painter)


def _both(run, rows):
    """Rows for the painter's cache: under guidance each twice."""
    return paired(rows, rows) if run.guided else rows


def _painter(run, rows, alive, attend_padding):
    """A fresh painter's cache over the prompts: under guidance in pairs, see sample.draw."""
    return decode.start_painter(
        run.model,
        run.params,
        [rows[i].ids for i in alive],
        run.processor.special.pad,
        run.length,
        run.length + run.rounds * (run.model.cfg.vq.tokens + run.between),
        run.guided,
        attend_padding,
        run.released,
    )


def _extend(run, rows, alive, turn, painter):
    """Appends what stands between a picture and the next one: the question, the reason, the transition with its EOS."""
    special = run.processor.special
    reasons = [rows[i].rounds[turn].reason_ids for i in alive]
    if run.released:
        # the reason's own EOS and the padding up to the longest reason keep their slots, and nothing sees them
        width = max(map(len, reasons))
        ids = np.full((len(reasons), width), special.pad, np.int32)
        for row, reason in zip(ids, reasons, strict=True):
            row[: len(reason)] = reason
        live = (ids != special.pad) & (ids != special.eos)
        (before, some), (after, more) = _repeat(run.think, len(ids)), _repeat(run.onward, len(ids))
        ids, mask = np.concatenate([before, ids, after], 1), np.concatenate([some, live, more], 1)
    else:
        texts = [run.think + [int(i) for i in reason if i != special.eos] + run.onward for reason in reasons]
        ids, mask = tokens.left_pad(texts, special.pad, run.between)
    ids, mask = _both(run, ids), _both(run, mask)
    return decode.extend_text(run.model, run.params, painter, ids, mask, by_slot=run.released)


def _repeat(ids, count):
    return np.tile(np.array(ids, np.int32), (count, 1)), np.ones((count, len(ids)), bool)


def _spoken(words, eos):
    """Number of sampled tokens, EOS included."""
    ends = np.flatnonzero(words == eos)
    return int(ends[0]) + 1 if len(ends) else len(words)
