"""Metrics on disk: one JSON object per line, and TensorBoard events beside it."""

import json
import math
from pathlib import Path

import tensorboardX


class Metrics:
    """Appends scalars of a step to `workdir/metrics.jsonl` and to TensorBoard. Use as a context manager. writes: of the
    processes of a pod one does; the others get the same floats back."""

    def __init__(self, workdir, stage: str, writes: bool = True):
        self._stage, self._writes = stage, writes
        if writes:
            self._file = open(Path(workdir) / "metrics.jsonl", "a", encoding="utf-8")
            self._board = tensorboardX.SummaryWriter(str(Path(workdir) / "tensorboard"))

    def write(self, step: int, values: dict) -> dict:
        """Writes scalars (numbers or 0-d arrays); returns them as floats. NaN and infinities become null in the
        JSON."""
        scalars = {name: float(value) for name, value in values.items()}
        if not self._writes:
            return scalars
        line = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        self._file.write(json.dumps({"stage": self._stage, "step": step, **line}) + "\n")
        self._file.flush()
        for name, value in scalars.items():
            self._board.add_scalar(f"{self._stage}/{name}", value, step)
        return scalars

    def image(self, step: int, name: str, pixels) -> None:
        """Adds a picture u8[h, w, 3] to TensorBoard."""
        if self._writes:
            self._board.add_image(f"{self._stage}/{name}", pixels, step, dataformats="HWC")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._writes:
            self._file.close()
            self._board.close()
