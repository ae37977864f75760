"""Where metrics and pictures go beside metrics.jsonl: TensorBoard, Weights & Biases, or a writer of one's own.

config.writers names them: "tensorboard", "wandb", or module:name of a function, or a class, that makes a Writer of a
Start. Of a pod, process 0 writes.
"""

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable
from logging import getLogger
from pathlib import Path
from typing import NamedTuple, Protocol

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tqdm import tqdm

from janus_jax import cli
from janus_jax.errors import UserError
from janus_jax.rewards import plain_function

# A scalar that has no value in a step, as a reward without a picture, is no news.
getLogger("tensorboardX.x2num").setLevel("ERROR")


class Start(NamedTuple):
    """What a writer is told: the training's folder; the stage, which its names begin with; the steps that are done,
    behind which the training goes on; the last step that was written before, which may be a later one; the settings."""

    workdir: Path
    stage: str
    done: int = 0
    seen: int = 0
    settings: dict = {}


class Writer(Protocol):
    """Takes what a training says, in its thread. Where it raises, the training goes on without it."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Scalars of a step; NaN is a value that is missing."""

    def picture(self, step: int, name: str, pixels) -> None:
        """A picture u8[h, w, 3]."""

    def close(self) -> None:
        """The training ends."""


class TensorBoard:
    """Events in WORKDIR/tensorboard, written in this thread, so that a full disk cannot block it; those that cannot be
    written are left out."""

    def __init__(self, start: Start):
        self._folder, self._stage, self._board = start.workdir / "tensorboard", start.stage, None
        self._event(lambda: {"session_log": SessionLog(status=SessionLog.START)}, start.done + 1)  # hides later ones

    def write(self, step, values):
        for name, value in values.items():
            self._event(lambda tag=f"{self._stage}/{name}", x=value: {"summary": summary.scalar(tag, x)}, step)
        self._flush()

    def picture(self, step, name, pixels):
        tag = f"{self._stage}/{name}"
        self._event(lambda: {"summary": summary.image(tag, pixels, dataformats="HWC")}, step)
        self._flush()

    def close(self):
        """Leaves the file, which may be torn; a next event would begin another."""
        board, self._board = self._board, None
        if board:
            with contextlib.suppress(OSError):
                board.close()
            with contextlib.suppress(OSError):
                board._py_recordio_writer.close()  # which a failed flush leaves open

    def _event(self, fields, step):
        try:
            if self._board is None:
                self._folder.mkdir(exist_ok=True)
                self._board = EventsWriter(str(self._folder / "events"), f".{time.time_ns()}")
            self._board.write_event(Event(wall_time=time.time(), step=step, **fields()))
        except OSError:
            self.close()

    def _flush(self):
        try:
            if self._board:
                self._board.flush()
        except OSError:
            self.close()


class WandB:
    """A run of Weights & Biases, the same one after a resume: its id is kept in WORKDIR/wandb_id. The environment says
    where (WANDB_PROJECT, WANDB_ENTITY) and whether now or later (WANDB_MODE=offline, then `wandb sync`). Steps that the
    run has from before are not sent again: a resumed training takes them again, alike."""

    def __init__(self, start: Start):
        wandb = _imported()
        path = start.workdir / "wandb_id"
        if not path.exists():
            cli.write(path, secrets.token_hex(4))
        settings = wandb.Settings(console="off", silent=True)
        self._image, self._stage, self._seen = wandb.Image, start.stage, start.seen
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "janus_jax"),
                name=start.workdir.resolve().name,
                id=path.read_text(encoding="utf-8").strip(),
                resume="allow",
                dir=str(start.workdir),
                config=start.settings,
                settings=settings,
            )
        except Exception as error:  # of many types: no key, no network, no such entity
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"wandb cannot start ({said}): run `wandb login`, set WANDB_MODE=offline, or leave it out of "
                "--config.writers"
            ) from error
        self._run.define_metric(f"{start.stage}/*", step_metric=f"{start.stage}/step")

    def write(self, step, values):
        if step > self._seen:
            self._log(step, values)

    def picture(self, step, name, pixels):
        if step > self._seen:
            self._log(step, {name: self._image(pixels)})

    def _log(self, step, values):
        self._run.log({f"{self._stage}/{name}": value for name, value in {**values, "step": step}.items()})

    def close(self):
        self._run.finish()


def _imported():
    try:
        import wandb
    except ImportError as error:
        raise UserError(
            'config.writers names wandb, which is not installed: in the checkout, pip install -e ".[wandb]", or leave '
            "it out"
        ) from error
    return wandb


WRITERS = {"tensorboard": TensorBoard, "wandb": WandB}


def found(name: str) -> Callable[[Start], Writer]:
    """What makes the writer of that name. Raises UserError where there is none."""
    if name == "wandb":
        _imported()
    if name in WRITERS or ":" not in name:
        if name not in WRITERS:
            raise UserError(
                f"config.writers holds {name!r}: set --config.writers to a list of {', '.join(WRITERS)}, or "
                "module:name of your own"
            )
        return WRITERS[name]
    return plain_function.found(name, "config.writers")


def _begun(name, start):
    make = found(name)
    try:
        return make(start)
    except UserError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"the writer {name} cannot start ({said}): leave it out of --config.writers") from error


class Writers:
    """Several writers as one. One that fails is said to, once, and left out from then on: metrics.jsonl has it all."""

    def __init__(self, names, start: Start):
        """Raises UserError where one cannot start."""
        self._writers = {name: _begun(name, start) for name in names}

    def write(self, step: int, values: dict[str, float]) -> None:
        self._each(lambda writer: writer.write(step, values))

    def picture(self, step: int, name: str, pixels) -> None:
        self._each(lambda writer: writer.picture(step, name, pixels))

    def close(self) -> None:
        self._each(lambda writer: writer.close())

    def _each(self, tell):
        for name, writer in list(self._writers.items()):
            try:
                tell(writer)
            except Exception as error:
                said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                tqdm.write(f"the writer {name} failed ({said}): the training goes on without it", file=sys.stderr)
                del self._writers[name]
                with contextlib.suppress(Exception):  # it may still have something to let go
                    writer.close()
