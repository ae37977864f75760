"""The folder of a training in progress: the settings it began with, and its checkpoints."""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from janus_jax import cli
from janus_jax.checkpoints.model_folder import MANIFEST, seal, verify
from janus_jax.errors import UserError
from janus_jax.parallel import hosts

FILE = "settings.json"


def same_settings(workdir: Path, config, free: tuple[str, ...]) -> None:
    """Writes the settings of a ConfigDict to WORKDIR/settings.json, or compares them with what is there.

    free: names, or beginnings of dotted names, of settings that may change on the way. Raises UserError that lists the
    others which differ; those that one of both does not know are of another version of the code. Process 0 of a pod
    does it for all.
    """
    path = workdir / FILE
    mine = {name: json.loads(json.dumps(value, default=str)) for name, value in _flat(config).items()}

    def check():
        try:
            began = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cli.write(path, json.dumps(mine, indent=1) + "\n")
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: remove it to go on with the settings given now") from error
        differ = [
            f"config.{name} was {began[name]!r}, is {mine[name]!r}"
            for name in sorted(began.keys() & mine.keys())
            if began[name] != mine[name] and not name.startswith(free)
        ]
        if differ:
            raise UserError(
                f"{workdir} was begun with other settings ({'; '.join(differ)}): give those, or another --workdir"
            )

    hosts.first(check)


def _flat(config) -> dict:
    return flatten_dict(config.to_dict(), sep=".")


def _same_folder(folder, patience: float = 60.0) -> None:
    """Raises UserError on all processes where one of them sees another folder than process 0, by a word that is left
    there; a mounted bucket may show it late."""

    def leave_word():
        word = os.urandom(8).hex()
        (folder / "pod").write_text(word)
        return word

    def is_seen():
        try:
            return (folder / "pod").read_text() == word
        except OSError:
            return False

    if jax.process_count() == 1:
        return
    word, deadline = hosts.first(leave_word), time.monotonic() + patience
    while not is_seen() and time.monotonic() < deadline:
        time.sleep(0.5)
    others = np.flatnonzero(~hosts.gathered(np.array(is_seen())))
    if len(others):
        raise UserError(
            f"{folder} of process {', '.join(map(str, others))} is not that of process 0: give a --workdir that all "
            "share, on a disk or a bucket mounted at the same place"
        )


class Checkpoints:
    """Orbax checkpoints of a training under `workdir/checkpoints`, saved asynchronously and sealed when finished.

    A checkpoint is a set of named items: array trees (the state), and JSON values (the data position). In a pod all
    processes call all methods, at the same steps; orbax writes each one's part into the one folder, process 0 does and
    decides the rest. What is saved does not depend on the number of processes.
    """

    def __init__(self, workdir, stage: str, keep: int = 2):
        """stage: what is trained here; the workdir remembers it. Raises UserError where it remembers another one, or
        cannot be written."""
        self.folder = Path(workdir).absolute() / "checkpoints"
        hosts.first(lambda: self._claim(stage))
        _same_folder(self.folder.parent)
        self._manager = ocp.CheckpointManager(
            self.folder, options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        )
        self._unsealed = None
        self._sealing, self._thread = None, ThreadPoolExecutor(1)

    def _claim(self, stage):
        workdir = self.folder.parent
        mark = workdir / "stage"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not mark.exists():
                scratch = mark.with_suffix(".tmp")
                scratch.write_text(stage)
                scratch.rename(mark)
            found = mark.read_text()
        except OSError as error:
            raise UserError(f"cannot write to {workdir}: {error.strerror}; choose another --workdir") from error
        if found != stage:
            raise UserError(f"{workdir} holds a training of stage {found!r}, not {stage!r}: choose another --workdir")

    def save(self, step: int, arrays: dict, values: dict | None = None) -> None:
        """Starts saving; returns once the arrays may be overwritten."""
        self.wait()
        items = {name: ocp.args.StandardSave(tree) for name, tree in arrays.items()}
        items |= {name: ocp.args.JsonSave(value) for name, value in (values or {}).items()}
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        self._unsealed = step

    def poll(self) -> None:
        """Has the save under way sealed if it has ended; to be called once per step, so that a kill loses one interval.
        It waits for no other process: orbax ends a save on process 0 once all have written their part; nor for the
        seal."""
        if self._unsealed is not None and not self._manager.is_saving_in_progress():
            self._seal()
            if self._sealing is None or self._sealing.done():
                self.wait()

    def _seal(self):
        self._manager.wait_until_finished()
        if self._unsealed is not None and self._sealing is None and hosts.is_first():
            self._sealing = self._thread.submit(seal, self.folder / str(self._unsealed))

    def wait(self) -> None:
        """Waits for the save under way, and until it is sealed."""
        try:
            self._seal()
            sealing, self._unsealed, self._sealing = self._sealing, None, None
            if sealing is not None:
                sealing.result()
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}; make room there") from error

    def latest(self) -> int | None:
        """The newest sealed step, or None. A checkpoint that a kill left unsealed does not count."""
        return hosts.first(lambda: max(set(self._manager.all_steps()) - set(self._unsealed_steps()), default=None))

    def _unsealed_steps(self):
        return [step for step in self._manager.all_steps() if not (self.folder / str(step) / MANIFEST).is_file()]

    def holds(self, step: int, name: str) -> bool:
        """Whether a checkpoint has an item of this name."""
        return hosts.first(lambda: (self.folder / str(step) / name).is_dir())

    def restore(self, step: int, arrays: dict, values=()) -> dict:
        """Reads the named items; `arrays` maps names to abstract trees (with shardings), `values` names JSON items."""
        hosts.first(lambda: verify(self.folder / str(step)))
        items = {name: ocp.args.StandardRestore(tree) for name, tree in arrays.items()}
        items |= {name: ocp.args.JsonRestore() for name in values}
        try:
            return dict(self._manager.restore(step, args=ocp.args.Composite(**items)).items())
        except (KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.folder.parent} holds a training of other sizes ({reason}): choose another --workdir"
            ) from error

    def discard_unsealed(self) -> None:
        """Removes what a kill left half-written, so that a step can be saved again."""
        for step in hosts.first(self._unsealed_steps):
            self._manager.delete(step)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            print(f"the last checkpoint is lost: {failure}", file=sys.stderr, flush=True)  # the error itself goes on
        finally:
            self._thread.shutdown()
            self._manager.close()
