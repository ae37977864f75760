"""Metrics on disk: one JSON object per line, and TensorBoard events beside it."""

import contextlib
import json
import math
import os
import time
from logging import getLogger
from pathlib import Path

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from janus_jax.errors import UserError

# A scalar that has no value in a step, as a reward without a picture, is no news.
getLogger("tensorboardX.x2num").setLevel("ERROR")


class Metrics:
    """Appends scalars of a step to `workdir/metrics.jsonl` and to TensorBoard. Use as a context manager.

    The file is what counts: a line that cannot be written ends the training, as a UserError. TensorBoard's events are
    written in this thread, so that a full disk cannot block it; those that cannot be written are left out.
    """

    def __init__(self, workdir, stage: str, done: int = 0, writes: bool = True):
        """done: the steps that are kept; what the file says of the stage's later ones, which will be taken again, is
        dropped, as is a last line that a kill cut short. writes: of the processes of a pod one does; the others get the
        same floats back. Raises UserError where the place cannot be written."""
        self._stage, self._writes, self._board = stage, writes, None
        self._path = Path(workdir) / "metrics.jsonl"
        if not writes:
            return
        try:
            _drop(self._path, stage, done)
            self._file = open(self._path, "a", encoding="utf-8")
        except OSError as error:
            raise self._refused(error) from error
        self._event(lambda: {"session_log": SessionLog(status=SessionLog.START)}, done + 1)  # hides later ones

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
        for name, value in scalars.items():
            self._event(lambda tag=f"{self._stage}/{name}", x=value: {"summary": summary.scalar(tag, x)}, step)
        self._flush()
        return scalars

    def image(self, step: int, name: str, pixels) -> None:
        """Adds a picture u8[h, w, 3] to TensorBoard."""
        if self._writes:
            tag = f"{self._stage}/{name}"
            self._event(lambda: {"summary": summary.image(tag, pixels, dataformats="HWC")}, step)
            self._flush()

    def _event(self, fields, step):
        try:
            if self._board is None:
                folder = self._path.with_name("tensorboard")
                folder.mkdir(exist_ok=True)
                self._board = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
            self._board.write_event(Event(wall_time=time.time(), step=step, **fields()))
        except OSError:
            self._part()

    def _flush(self):
        try:
            if self._board:
                self._board.flush()
        except OSError:
            self._part()

    def _part(self):
        """Leaves TensorBoard's file, which may be torn; the next event begins another."""
        board, self._board = self._board, None
        with contextlib.suppress(OSError):
            if board:
                board.close()

    def _refused(self, error):
        return UserError(
            f"cannot write {self._path}: {error.strerror}; make room there: the same command goes on from the last "
            "checkpoint"
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._writes:
            self._part()
            with contextlib.suppress(OSError):  # said before, by who wrote
                self._file.close()


def _drop(path, stage: str, done: int) -> None:
    """Rewrites a metrics file without the stage's steps beyond `done` and a torn last line, if there are any."""

    def later(line):
        try:
            said = json.loads(line)
            return said["stage"] == stage and said["step"] > done
        except (ValueError, TypeError, KeyError):
            return not line.endswith(b"\n")  # torn; a line of something else is left alone

    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    kept = [line if line.endswith(b"\n") else line + b"\n" for line in lines if not later(line)]
    if kept != lines:
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            scratch.write_bytes(b"".join(kept))
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
