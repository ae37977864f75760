"""The folder of a training in progress: the settings it began with, and its checkpoints."""

import contextlib
import errno
import json
import os
import shutil
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.path import atomicity

from janus_jax import cli
from janus_jax.checkpoints.model_folder import MANIFEST, verify
from janus_jax.errors import UserError
from janus_jax.parallel import agree
from janus_jax.parallel.alike import flat

FILE = "settings.json"
MARK = "commit_success.txt"  # orbax writes it when all else is written
SUMS = "sums"  # the item of a checkpoint that holds a sum over each tree's bits
# What the store says, in errors of many types, where a disk is full or gone.
FAILURES = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE)))


def same_settings(workdir, config, may_change: tuple[str, ...]) -> None:
    """Compares the settings of a ConfigDict with those in WORKDIR/settings.json, if a training has saved there.

    may_change: names, or beginnings of dotted names, of settings that may be others now. Raises UserError that lists
    the rest of those that differ; what one of both does not know is of another version of the code. Process 0 of a pod
    looks for all.
    """
    path, mine = Path(workdir) / FILE, flat(config)

    def check():
        try:
            began = json.loads(path.read_text(encoding="utf-8"))
            differ = [
                f"config.{name} was {began[name]!r}, is {mine[name]!r}"
                for name in sorted(began.keys() & mine.keys())
                if began[name] != mine[name] and not name.startswith(may_change)
            ]
        except FileNotFoundError:
            return
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{path} cannot be read: remove it to go on with the settings given now") from error
        if differ:
            raise UserError(
                f"{workdir} was begun with other settings ({'; '.join(differ)}): give those, or another --workdir"
            )

    agree.first(check)


def keep_settings(workdir, config) -> None:
    """Adds the settings of a ConfigDict to WORKDIR/settings.json, but for those that are there."""
    path, mine = Path(workdir) / FILE, flat(config)

    def keep():
        began = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if mine.keys() - began.keys():
            cli.write(path, json.dumps({**mine, **began}, indent=1) + "\n")

    agree.first(keep)


def let_settings_change(workdir, names: tuple[str, ...]) -> None:
    """Removes settings from WORKDIR/settings.json, so that the next start may give others; names: as in
    same_settings."""

    def remove():
        path = Path(workdir) / FILE
        if path.exists():
            began = json.loads(path.read_text(encoding="utf-8"))
            kept = {name: value for name, value in began.items() if not name.startswith(names)}
            cli.write(path, json.dumps(kept, indent=1) + "\n")

    agree.first(remove)


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
    word, deadline = agree.first(leave_word), time.monotonic() + patience
    while not is_seen() and time.monotonic() < deadline:
        time.sleep(0.5)
    others = np.flatnonzero(~agree.gathered(np.array(is_seen())))
    if len(others):
        raise UserError(
            f"{folder} of process {', '.join(map(str, others))} is not that of process 0: give a --workdir that all "
            "share, on a disk or a bucket mounted at the same place"
        )


@jax.jit
def _sum_of_bits(tree):
    """u32[]: the bits of all leaves, added up as numbers. The same on any mesh."""

    def one(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            leaf = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}"))
        return jnp.sum(leaf.astype(jnp.uint32), dtype=jnp.uint32)

    return sum(map(one, jax.tree.leaves(tree)), jnp.uint32(0))


def _read(call) -> tuple[dict, str]:
    """What `call()` gives, or {} and the reason in one line.

    After the first array that failed, orbax leaves its other tasks unfinished, and closes the event loop that they
    belong to. Each says so when it is collected, and the store's threads when they are done, some of them long after:
    from now on that stays unheard."""
    try:
        return call(), ""
    except Exception as error:  # of many types, those of the store and of its readers
        reason = " ".join(str(error).split())[:120] or type(error).__name__
    hook = sys.unraisablehook

    def but_left_tasks(said):
        code = getattr(said.object, "cr_code", None)
        if "orbax" not in getattr(code, "co_filename", "") and "Event loop is closed" not in str(said.exc_value):
            hook(said)

    if getattr(hook, "__name__", "") != but_left_tasks.__name__:  # once
        sys.unraisablehook = but_left_tasks
    return {}, reason


class Checkpoints:
    """Orbax checkpoints of a training under `workdir/checkpoints`, written while it goes on. Use as a context manager.

    A checkpoint is a set of named items: array trees (the state), and JSON values (the data position). It counts once
    orbax has left its mark in it, the last file written, after all others are on the disk; what a kill left without
    one is removed. Renaming, which a mounted bucket cannot do at once, is not needed. In a pod all processes call all
    methods, at the same steps; orbax writes each one's part into the one folder, process 0 does and decides the rest.
    What is saved does not depend on the number of processes.
    """

    def __init__(self, workdir, stage: str, keep: int = 2):
        """stage: what is trained here; the workdir remembers it. Raises UserError where it remembers another one, or
        cannot be written."""
        self.folder = Path(workdir).absolute() / "checkpoints"
        agree.first(lambda: self._claim(stage))
        _same_folder(self.folder.parent)
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                temporary_path_class=atomicity.CommitFileTemporaryPath,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._to_disk),
            ),
        )
        self._saving = None

    def _claim(self, stage):
        workdir = self.folder.parent
        mark = workdir / "stage"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.iterdir():
                if path.is_dir() and not (path / MARK).is_file():
                    shutil.rmtree(path)
            if not mark.exists():
                cli.write(mark, stage)
            found = mark.read_text()
        except OSError as error:
            raise UserError(f"cannot write to {workdir}: {error.strerror}; choose another --workdir") from error
        if found != stage:
            raise UserError(f"{workdir} holds a training of stage {found!r}, not {stage!r}: choose another --workdir")

    def _to_disk(self):
        """Called by orbax when all is written but the mark."""
        for path in (self.folder / str(self._saving)).rglob("*"):
            place = os.open(path, os.O_RDONLY)
            try:
                os.fsync(place)
            finally:
                os.close(place)

    @contextlib.contextmanager
    def _writing(self):
        """A failure of the store becomes one line, whatever its type."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            named = [text for text in FAILURES if text in str(error)]
            reason = error.strerror if isinstance(error, OSError) and error.strerror else (named or [None])[0]
            if reason is None:
                raise
            raise UserError(
                f"cannot write to {self.folder}: {reason}; make room there: the same command goes on from what was "
                "saved before"
            ) from error

    def save(self, step: int, arrays: dict, values: dict | None = None) -> None:
        """Starts saving; returns once the arrays may be overwritten. Raises UserError where this or an earlier save
        could not be written."""
        self.wait()
        sums = {name: int(_sum_of_bits(tree)) for name, tree in arrays.items()}
        items = {name: ocp.args.StandardSave(tree) for name, tree in arrays.items()}
        items |= {name: ocp.args.JsonSave(value) for name, value in {**(values or {}), SUMS: sums}.items()}
        self._saving = step
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def check(self) -> None:
        """Raises UserError where the save under way has failed; does not wait for it."""
        if not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits for the save under way. Raises UserError where it could not be written."""
        with self._writing():
            self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        """The steps that are saved, newest first."""
        return agree.first(lambda: sorted(map(int, self._manager.all_steps()), reverse=True))

    def holds(self, step: int, name: str) -> bool:
        """Whether a checkpoint has an item of this name."""
        return agree.first(lambda: (self.folder / str(step) / name).is_dir())

    def restore(self, step: int, arrays: dict, values=()) -> dict:
        """Reads the named items; `arrays` maps names to abstract trees (with shardings), `values` names JSON items.
        Raises UserError, on all processes, where they are damaged, or of other sizes."""
        path = self.folder / str(step)
        if agree.first(lambda: (path / MANIFEST).is_file()):  # of the code that sealed its checkpoints
            agree.first(lambda: verify(path))
        items = {name: ocp.args.StandardRestore(tree) for name, tree in arrays.items()}
        named = (*values, SUMS) if self.holds(step, SUMS) else values
        items |= {name: ocp.args.JsonRestore() for name in named}

        def read():
            found = dict(self._manager.restore(step, args=ocp.args.Composite(**items)).items())
            for name, total in found.pop(SUMS, {}).items():
                if name in arrays and int(_sum_of_bits(found[name])) != total:
                    raise ValueError(f"{name} is not what was written")
            return found

        found, reason = _read(read)
        failed = np.flatnonzero(agree.gathered(np.array(bool(reason))))
        if len(failed):
            raise UserError(
                f"{path} is damaged, or of a training of other sizes ({reason or f'see process {failed[0]}'})"
            )
        return found

    def set_aside(self, step: int) -> None:
        """Moves a checkpoint that cannot be read out of the way of the one that will take its place."""

        def move():
            try:
                (self.folder / str(step)).rename(self.folder.parent / f"damaged_{step}_{time.time_ns()}")
            except OSError as error:
                raise UserError(f"cannot move {self.folder / str(step)}: {error.strerror}; remove it") from error

        agree.first(move)
        self._manager.reload()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            self.wait()
            with self._writing():
                self._manager.close()
        except Exception as failure:
            if error is None:
                raise
            if not isinstance(failure, UserError) or "cannot write" not in str(error):  # the error itself goes on
                print(f"the last checkpoint is lost: {failure}", file=sys.stderr, flush=True)
