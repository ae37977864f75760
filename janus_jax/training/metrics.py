"""Metrics on disk: one JSON object per line, and the writers beside it."""

import contextlib
import json
import math
import os
from pathlib import Path

from janus_jax.errors import UserError
from janus_jax.training.writers import Start, Writers


class Metrics:
    """Appends scalars of a step to `workdir/metrics.jsonl` and tells the writers. Use as a context manager.

    The file is what counts: a line that cannot be written ends the training, as a UserError.
    """

    def __init__(
        self, workdir, stage: str, done: int = 0, writes: bool = True, writers=("tensorboard",), settings=None
    ):
        """done: the steps that are kept; what the file says of the stage's later ones, which will be taken again, is
        dropped, as is a last line that a kill cut short. writes: of the processes of a pod one does; the others get the
        same floats back. writers: names, see training/writers.py; settings: of the training, for them. Raises UserError
        where the place cannot be written, or a writer cannot start."""
        self._stage, self._writes = stage, writes
        self._path = Path(workdir) / "metrics.jsonl"
        if not writes:
            return
        try:
            seen = _drop(self._path, stage, done)
            self._file = open(self._path, "a", encoding="utf-8")
        except OSError as error:
            raise self._refused(error) from error
        try:
            self._writers = Writers(writers, Start(Path(workdir), stage, done, seen, settings or {}))
        except UserError:
            self._file.close()
            raise

    def write(self, step: int, values: dict) -> dict:
        """Writes scalars (numbers or 0-d arrays); returns them as floats. NaN and infinities become null in the
        JSON. Raises UserError where the line cannot be written."""
        scalars = {name: float(value) for name, value in values.items()}
        if not self._writes:
            return scalars
        line = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        try:
            self._file.write(json.dumps({"stage": self._stage, "step": step, **line}) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._refused(error) from error
        self._writers.write(step, scalars)
        return scalars

    def image(self, step: int, name: str, pixels) -> None:
        """Gives the writers a picture u8[h, w, 3]."""
        if self._writes:
            self._writers.picture(step, name, pixels)

    def _refused(self, error):
        return UserError(
            f"cannot write {self._path}: {error.strerror}; make room there: the same command goes on from the last "
            "checkpoint"
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._writes:
            self._writers.close()
            with contextlib.suppress(OSError):  # said before, by who wrote
                self._file.close()


def _drop(path, stage: str, done: int) -> int:
    """Rewrites a metrics file without the stage's steps beyond `done` and a torn last line, if there are any. Returns
    the last step that it had of the stage, or `done`."""
    seen = done

    def later(line):
        nonlocal seen
        try:
            said = json.loads(line)
            if said["stage"] != stage or said["step"] <= done:
                return False
            seen = max(seen, said["step"])
            return True
        except (ValueError, TypeError, KeyError):
            return not line.endswith(b"\n")  # torn; a line of something else is left alone

    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return done
    kept = [line if line.endswith(b"\n") else line + b"\n" for line in lines if not later(line)]
    if kept != lines:
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            scratch.write_bytes(b"".join(kept))
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    return seen
