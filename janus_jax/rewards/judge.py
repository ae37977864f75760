"""Judges: requests and pictures in, named scores out; and how one reward is made of the scores."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from janus_jax.errors import UserError
from janus_jax.sequences.request import Request

MATCH = "match"  # the score of a text-to-image judge
FOLLOWING, PRESERVING = "following", "preserving"  # those of a judge of edits
WHOLE = "whole"  # of an edit, where a judge says so at once: that all is done and nothing else


class Judged(dict):
    """name -> scores f32[N], NaN where a score is *missing*: a call that failed is never a 0, which would be learnt
    from. `errors`: N lines, why a picture has a missing score, "" where it has all."""

    def __init__(self, scores: Mapping[str, Sequence[float]], errors: Iterable[str] | None = None):
        super().__init__({name: np.asarray(values, np.float32) for name, values in scores.items()})
        self.errors = tuple("not scored" if gap else "" for gap in ~self.valid) if errors is None else tuple(errors)

    @property
    def valid(self) -> np.ndarray:
        """bool[N], True where a picture has all its scores."""
        return ~np.isnan(np.array(list(self.values()), np.float32).reshape(max(len(self), 1), -1)).any(axis=0)

    @property
    def missing(self) -> int:
        """How many pictures lack a score."""
        return int((~self.valid).sum())

    @property
    def first_error(self) -> str:
        """Why the first picture without all its scores lacks one; "" where none does."""
        return next(filter(None, self.errors), "")


Judge = Callable[[list[Request], list[Image.Image]], Judged]


def are_edits(requests: Sequence[Request]) -> bool:
    """Whether requests have sources. Raises UserError where some have and some have not: their scores are others."""
    kinds = {request.source is not None for request in requests}
    if len(kinds) > 1:
        raise UserError("edits and pictures of a prompt cannot be judged in one call: judge them one after the other")
    return kinds == {True}


def combine(judged: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """The one reward f32[N]: the sum of weight x score; NaN where a score that has a weight other than 0 is missing.
    No weights: the score itself, where there is one alone. No scores at all: f32[0]. Raises UserError where weights and
    scores do not go together."""
    if not judged:
        return np.zeros(0, np.float32)
    if not weights:
        if len(judged) > 1:
            raise UserError(
                f"the judge gives {', '.join(judged)}: set config.reward.weights to the weight of each, as in "
                f'{{"{next(iter(judged))}": 1.0}}'
            )
        weights = dict.fromkeys(judged, 1.0)
    unknown = [name for name in weights if name not in judged]
    if unknown:
        raise UserError(
            f"config.reward.weights names {', '.join(unknown)}, which the judge does not give; it gives "
            f"{', '.join(judged)}"
        )
    parts = [weight * np.asarray(judged[name], np.float64) for name, weight in weights.items() if weight]
    if not parts:
        raise UserError("config.reward.weights are all 0: give one score a weight")
    return np.sum(parts, axis=0).astype(np.float32)


def of_task(weights: Mapping[str, float], judged: Mapping[str, np.ndarray], edits: bool) -> dict[str, float]:
    """The weights without those of scores that only the other task has, so that one set serves both: "match" of
    pictures of a prompt; "following", "preserving" and "whole" of edits."""
    others = (MATCH,) if edits else (FOLLOWING, PRESERVING, WHOLE)
    return {name: weight for name, weight in weights.items() if name in judged or name not in others}


def as_whole(judged: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """How right edits are as a whole, f32[N]: what a verdict on one is compared with. It is the score WHOLE where there
    is one, else the least of those that have a weight. (Their weighted sum would call a mere copy right, which
    preserves everything.)"""
    if WHOLE in judged:
        return np.asarray(judged[WHOLE], np.float32)
    counted = [name for name in judged if not weights or weights.get(name)]
    return np.min([np.asarray(judged[name], np.float32) for name in counted], axis=0)


def named(function) -> str:
    """A function's name, as reward.function would say it."""
    return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', repr(function))}"


def as_judge(function: Callable, name: str = "") -> Judge:
    """A judge from a plain callable, function(requests, pictures), which returns {name: N scores} or N scores alone,
    those of "match": numbers in [0, 1], as a list or any array, NaN where one is missing.

    The judge raises UserError, naming the function (as `name`, where that is given), where it raises or returns
    something else; so does this function where it is given no function."""
    name = name or named(function)
    if not callable(function):
        raise UserError(f"the judge {name} is no function: give one that takes requests and pictures")

    def judge(requests, pictures) -> Judged:
        try:
            found = function(requests, pictures)
        except UserError:
            raise
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise UserError(f"the judge {name} raised {type(error).__name__}: {said}") from error
        found = found if isinstance(found, Mapping) else {MATCH: found}
        if not found or not all(isinstance(key, str) and key for key in found):
            raise UserError(f"the judge {name} names its scores {list(found)}: it must return {{name: scores}}")
        scores = {key: _scores(values, len(requests), f"{name} gives {key}") for key, values in found.items()}
        return Judged(scores, getattr(found, "errors", None))

    return judge


def _scores(values, count, what) -> np.ndarray:
    """Scores that a function returned as f32[count]. Raises UserError, which begins with `what`, for anything else."""
    try:
        array = np.asarray(values)
    except Exception as error:  # whatever the library of an array raises that lies elsewhere or is ragged
        raise UserError(f"the judge {what} as what numpy cannot read ({' '.join(str(error).split())[:80]})") from error
    if array.dtype.kind not in "biuf":
        raise UserError(f"the judge {what} as {array.dtype}: it must give numbers, NaN where a score is missing")
    if array.shape != (count,):
        raise UserError(f"the judge {what} as {list(array.shape)} scores of {count} pictures: it must give [{count}]")
    array = array.astype(np.float32)
    outside = array[~np.isnan(array) & ~((array >= 0) & (array <= 1))]
    if len(outside):
        raise UserError(f"the judge {what} as {outside[0]:g}: scores lie in [0, 1], NaN where one is missing")
    return array
