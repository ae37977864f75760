"""Trajectories: as arrays, rows first, which is what the sampler fills, checkpoints store, and credit and batches are
computed from; and as objects, `Trajectory` and `Round`, which are what users see of them.
"""

import dataclasses
import functools

import numpy as np
from PIL import Image

from janus_jax.sequences import images
from janus_jax.sequences.processor import Processor
from janus_jax.sequences.request import Request


@dataclasses.dataclass(frozen=True)
class Round:
    """One picture and what the model said of it.

    codes i32[I]; image: PIL; verdict: True = Yes; p_yes: softmax over {Yes, No} before temperature; reason: text, from
    "Yes" or "No" on; reason_ids i32[n]: every sampled judge token, the verdict's first, EOS last if it was sampled.
    code_logps f32[I], reason_logps f32[n]: log-probabilities of the tokens under the density they were drawn from.
    context_codes i32[I]: the codes the painter's next round saw (the same ones, or those of the re-encoded picture).
    While it is drawn (see `stream`) the arrays are shorter, and verdict and p_yes may be None.
    """

    codes: np.ndarray
    image: Image.Image
    verdict: bool | None
    p_yes: float | None
    reason: str
    reason_ids: np.ndarray
    code_logps: np.ndarray
    reason_logps: np.ndarray
    context_codes: np.ndarray


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """The rounds of one (request, sample); final: index of the first round whose verdict is Yes, else of the last."""

    request: Request
    sample: int
    rounds: list[Round]

    @property
    def prompt(self) -> str:
        return self.request.prompt

    @property
    def final(self) -> int:
        return next((i for i, r in enumerate(self.rounds) if r.verdict), len(self.rounds) - 1)


@dataclasses.dataclass(frozen=True)
class Rollout:
    """B trajectories of at most R rounds, of pictures of I codes and reasons of at most M tokens.

    requests: B of them, a group's side by side; sample i32[B]; source i32[B,I]: codes of an edit's source picture, as
    the painter sees it, zero where there is none; rounds i32[B]: how many each has; codes, context_codes i32[B,R,I];
    code_logps f32[B,R,I]; images u8[B,R,h,w,3]; verdict bool[B,R]; p_yes f32[B,R]; words i32[B,R]: how many a reason
    has; reason_ids i32[B,R,M]; reason_logps f32[B,R,M]. What lies beyond a trajectory's rounds or a reason's words is
    zero. For what each means see Round.
    """

    requests: tuple[Request, ...]
    sample: np.ndarray
    source: np.ndarray
    rounds: np.ndarray
    codes: np.ndarray
    context_codes: np.ndarray
    code_logps: np.ndarray
    images: np.ndarray
    verdict: np.ndarray
    p_yes: np.ndarray
    words: np.ndarray
    reason_ids: np.ndarray
    reason_logps: np.ndarray

    @classmethod
    def empty(cls, requests, sample, rounds: int, reason: int, codes: int, side: int) -> "Rollout":
        """Trajectories without rounds; room for `rounds` of pictures of `side` x `side` pixels."""
        forms = cls.forms(rounds, reason, codes, side)
        arrays = {name: np.zeros((len(requests), *shape), dtype) for name, (shape, dtype) in forms.items()}
        return cls(tuple(requests), np.asarray(sample, np.int32), **arrays)

    @staticmethod
    def forms(rounds: int, reason: int, codes: int, side: int) -> dict[str, tuple[tuple[int, ...], type]]:
        """{name: (shape of one row, dtype)} of the arrays that a checkpoint stores: all but requests and samples, which
        the step says."""
        R, M, I = rounds, reason, codes
        return {
            "source": ((I,), np.int32),
            "rounds": ((), np.int32),
            "codes": ((R, I), np.int32),
            "context_codes": ((R, I), np.int32),
            "code_logps": ((R, I), np.float32),
            "images": ((R, side, side, 3), np.uint8),
            "verdict": ((R,), np.bool_),
            "p_yes": ((R,), np.float32),
            "words": ((R,), np.int32),
            "reason_ids": ((R, M), np.int32),
            "reason_logps": ((R, M), np.float32),
        }

    @classmethod
    def join(cls, parts) -> "Rollout":
        """Several rollouts of the same shapes as one."""
        parts = list(parts)
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
        return cls(sum((part.requests for part in parts), ()), **arrays)

    def __len__(self):
        return len(self.requests)

    def take(self, rows) -> "Rollout":
        """Some of its trajectories, i64[n]."""
        rows = np.asarray(rows)
        return Rollout(tuple(self.requests[i] for i in rows), **{name: getattr(self, name)[rows] for name in _ARRAYS})

    @property
    def live(self) -> np.ndarray:
        """bool[B,R]: the rounds that were drawn."""
        return np.arange(self.verdict.shape[1])[None] < self.rounds[:, None]

    @property
    def tasks(self) -> dict[str, np.ndarray]:
        """The trajectories that draw and those that edit: "draw", "edit" -> i64[n], where there are any."""
        edits = np.array([request.source is not None for request in self.requests], bool)
        each = {"draw": np.flatnonzero(~edits), "edit": np.flatnonzero(edits)}
        return {task: rows for task, rows in each.items() if len(rows)}

    @property
    def final(self) -> np.ndarray:
        """i64[B]: the first round whose verdict is Yes, else the last one that was drawn."""
        says = self.verdict & self.live
        return np.where(says.any(1), says.argmax(1), self.rounds - 1)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint stores, see `forms`."""
        return {name: getattr(self, name) for name in _ARRAYS if name != "sample"}

    @functools.cached_property
    def pictures(self) -> list[tuple[Request, Image.Image]]:
        """(request, picture) of every round that was drawn, row by row: what a judge is asked about."""
        return [(self.requests[i], Image.fromarray(self.images[i, r])) for i, r in np.argwhere(self.live)]

    def seen(self, side: int) -> np.ndarray:
        """The pictures as the judge's eye sees them, letterboxed, not normalised: u8[B,R,side,side,3]."""
        B, R = self.verdict.shape
        pixels = images.resized(self.images.reshape(B * R, *self.images.shape[2:]), side)
        return pixels.reshape(B, R, side, side, 3)

    def trajectories(self, processor: Processor) -> list[Trajectory]:
        """The same as objects, in order."""

        def shot(i, turn):
            ids = self.reason_ids[i, turn, : self.words[i, turn]]
            return Round(
                codes=self.codes[i, turn],
                image=Image.fromarray(self.images[i, turn]),
                verdict=bool(self.verdict[i, turn]),
                p_yes=float(self.p_yes[i, turn]),
                reason=processor.decode(ids),
                reason_ids=ids,
                code_logps=self.code_logps[i, turn],
                reason_logps=self.reason_logps[i, turn, : len(ids)],
                context_codes=self.context_codes[i, turn],
            )

        return [
            Trajectory(request, int(self.sample[i]), [shot(i, turn) for turn in range(self.rounds[i])])
            for i, request in enumerate(self.requests)
        ]


_ARRAYS = tuple(field.name for field in dataclasses.fields(Rollout) if field.name != "requests")
