"""What a judge gives back: scores, and why some are missing."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image


class Judged(NamedTuple):
    """scores f32[N], NaN where the reward is missing; errors: N lines, why it is missing, "" where it is not."""

    scores: np.ndarray
    errors: tuple[str, ...]

    @property
    def valid(self) -> np.ndarray:
        """bool[N], False where the reward is missing: the mask that `advantages` takes."""
        return ~np.isnan(self.scores)

    @property
    def missing(self) -> int:
        """How many rewards are missing."""
        return int(np.isnan(self.scores).sum())

    @property
    def first_error(self) -> str:
        """Why the first missing reward is missing; "" where none is."""
        return next(filter(None, self.errors), "")


Judge = Callable[[list[str], list[Image.Image]], Judged]
