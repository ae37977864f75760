"""Metrics on disk: one JSON object per line, and TensorBoard events beside it."""

import json
import math
from pathlib import Path

import tensorboardX


class Metrics:
    """Appends scalars of a step to `workdir/metrics.jsonl` and to TensorBoard. Use as a context manager."""

    def __init__(self, workdir, stage: str):
        self._file = open(Path(workdir) / "metrics.jsonl", "a", encoding="utf-8")
        self._board = tensorboardX.SummaryWriter(str(Path(workdir) / "tensorboard"))
        self._stage = stage

    def write(self, step: int, values: dict) -> dict:
        """Writes scalars (numbers or 0-d arrays); returns them as floats. NaN and infinities become null in the
        JSON."""
        scalars = {name: float(value) for name, value in values.items()}
        line = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        self._file.write(json.dumps({"stage": self._stage, "step": step, **line}) + "\n")
        self._file.flush()
        for name, value in scalars.items():
            self._board.add_scalar(f"{self._stage}/{name}", value, step)
        return scalars

    def image(self, step: int, name: str, pixels) -> None:
        """Adds a picture u8[h, w, 3] to TensorBoard."""
        self._board.add_image(f"{self._stage}/{name}", pixels, step, dataformats="HWC")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()
        self._board.close()
