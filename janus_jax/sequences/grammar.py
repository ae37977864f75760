"""The grammar: in which order pieces follow one another in every sequence that the model reads or writes (numpy).

    draw      [prompt] (codes)                                        edit     [before] (source) [instruction] (codes)
    judge     [the same] (seen) [question] <reason>                   a second look: [transition] (seen) [question] ...
    redraw    [the same] (codes) [question, reason, transition] (codes)
    answer    [system, user] ((seen)) [question, assistant] <answer>  describe: without system, one picture

( ) is a picture: as codes where the model paints, as features of SigLIP (seen) where it judges and answers; so is an
edit's source. < > is what the model says. Stage 1's rows, the sampler's contexts, stage 2's batches, the shapes of
ahead-of-time compilation, chat and judge are all made by the functions below; nothing else knows the order.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from janus_jax.sequences import tokens
from janus_jax.sequences.request import Request
from janus_jax.sequences.row import Row
from janus_jax.sequences.tokens import SpecialIds, Tokenizer


@dataclasses.dataclass(frozen=True)
class Grammar:
    """tokenizer: encodes the texts. codes, seen: positions of a picture that is painted, and of one that is seen."""

    tokenizer: Tokenizer
    codes: int
    seen: int

    @classmethod
    def of(cls, cfg, tokenizer: Tokenizer) -> "Grammar":
        """The grammar, which writes token sequences, of a model: cfg is its JanusConfig, tokenizer its processor's."""
        return cls(tokenizer, cfg.vq.tokens, cfg.siglip.tokens)

    @property
    def special(self) -> SpecialIds:
        return self.tokenizer.special

    @functools.cached_property
    def question(self) -> np.ndarray:
        """After a picture: whether it matches, ids i32[n]."""
        return self._encode(tokens.THINK)

    @functools.cached_property
    def transition(self) -> np.ndarray:
        """Between a reason and the next picture, ids i32[n]; the reason's end of text is the first of them."""
        return self._encode(tokens.NEXT)

    def _encode(self, text, bos=False):
        return np.array(self.tokenizer.encode(text, bos), np.int32)

    # What is asked

    def prompt(self, request: Request) -> tuple[np.ndarray, ...]:
        """The ids of a request's text: (all of it,), or of an edit (before the source, after it). BOS comes first.
        Raises UserError for an empty or overlong one."""
        return _asked(self.tokenizer, request.prompt, request.source is not None)[0]

    def unconditional(self, request: Request) -> tuple[np.ndarray, ...]:
        """The same for the row that guidance compares with: PADs, which are attended, in place of a prompt's tokens
        but BOS and the last one; of an edit in place of its instruction alone."""
        return _asked(self.tokenizer, request.prompt, request.source is not None)[1]

    # One function per role; each appends to a row

    def ask(self, row: Row, request: Request, source=None, dropped: bool = False) -> None:
        """What comes before the first picture, for painting and for judging. source: an edit's source picture, codes
        i32[I] for the painter, pixels f32[h,w,3] for the judge. dropped: as in the unconditional row, too."""
        given, unconditional = self.prompt(request), self.unconditional(request)
        for i, (ids, uncond) in enumerate(zip(given, unconditional, strict=True)):
            if i:
                row.add_codes(source) if np.ndim(source) == 1 else row.add_seen(source, self.seen)
            row.add_text(uncond if dropped else ids, uncond=uncond)

    def draw(self, row: Row, codes, group: int | None = None, **fields) -> None:
        """A painted picture, codes i32[I]; group, fields: see Row.add_codes."""
        row.add_codes(codes, group, **fields)

    def look(self, row: Row, pixels) -> None:
        """A picture f32[h,w,3] that is judged, and the question whether it matches."""
        row.add_seen(pixels, self.seen)
        row.add_text(self.question)

    def say(self, row: Row, ids, groups=None, **fields) -> None:
        """A verdict and its reason, ids i32[n] from Yes or No to the end of text; groups, fields: see Row.add_text."""
        row.add_text(ids, groups, **fields)

    def look_again(self, row: Row, reason=()) -> None:
        """In the judge's context: what stands between a reason, already there, and the next picture. reason: its ids,
        whose end of text, if it is among them, is not written twice."""
        ended = len(reason) and reason[-1] == self.special.eos
        row.add_text(self.transition[1:] if ended else self.transition)

    def redraw(self, row: Row, reason) -> None:
        """In the painter's context: what stands between a picture and the next one. reason: its ids, with the end of
        text or without."""
        reason = np.asarray(reason, np.int32)
        row.add_text(self.question)
        row.add_text(reason[reason != self.special.eos])
        row.add_text(self.transition)

    def answer(self, row: Row, pictures: Sequence, question: str, system: str = tokens.SYSTEM_PROMPT) -> None:
        """A question about pictures f32[h,w,3], up to where the answer begins. Raises UserError for an empty one."""
        parts = tokens.chat_ids(self.tokenizer, question, len(pictures), system)
        for i, ids in enumerate(parts):
            if i:
                row.add_seen(pictures[i - 1], self.seen)
            row.add_text(ids)

    # How long it gets

    def longest_look(self, asked: int | None) -> int:
        """The positions that a look appends to the judge's context: with `asked` those before its first picture."""
        return (len(self.transition) if asked is None else asked) + self.seen + len(self.question)

    def longest_redraw(self, reason: int) -> int:
        """The most positions between two of a painter's pictures, reason: tokens of what is said at most."""
        return len(self.question) + reason + len(self.transition)

    def longest_painted(self, prompt: int, rounds: int, reason: int, sources: int = 0) -> int:
        """The most positions of a painter's row of `rounds` pictures. prompt: text tokens of what is asked, reason: of
        what is said between pictures, at most; sources: source pictures of an edit."""
        return prompt + (sources + rounds) * self.codes + (rounds - 1) * self.longest_redraw(reason)

    def longest_judged(self, prompt: int, rounds: int, reason: int, sources: int = 0) -> int:
        """The same of a judge's row, with the last picture's reason."""
        said = rounds * (len(self.question) + reason) + (rounds - 1) * len(self.transition)
        return prompt + (sources + rounds) * self.seen + said


@functools.lru_cache(4096)  # a group asks the same, for painting and for judging
def _asked(tokenizer: Tokenizer, prompt: str, edits: bool) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """(ids, ids of the unconditional row), each the parts between which pictures stand."""
    pad, end_image = tokenizer.special.pad, tokenizer.special.end_image
    if edits:
        before, instruction, after = tokens.edit_ids(tokenizer, prompt)
        ids = before, [end_image, *instruction, *after]
        uncond = before, [end_image, *[pad] * len(instruction), *after]
    else:
        each = tokens.prompt_ids(tokenizer, prompt)
        ids, uncond = (each,), ([each[0], *[pad] * (len(each) - 2), each[-1]],)
    return tuple(tuple(np.array(part, np.int32) for part in parts) for parts in (ids, uncond))
