"""Checkpoints on disk.

Two kinds. A *model* is a folder that anyone can load: `config.json`, the tokenizer's file, `params.safetensors`
(leaves by their '/'-joined path, any dtype) and `manifest.json` (SHA-256 of each file). A *workdir* is a training in
progress: orbax checkpoints under `checkpoints/`, sealed with the same kind of manifest, and at the end a model folder
`model/`. What does not fit its manifest is refused.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import flax
import jax
import numpy as np
import orbax.checkpoint as ocp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from janus_jax.errors import UserError

MANIFEST = "manifest.json"
PARAMS = "params.safetensors"
CONFIG = "config.json"


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.name != MANIFEST)


def seal(folder) -> None:
    """Writes the manifest of a finished folder, atomically."""
    folder = Path(folder)
    digests = {str(path.relative_to(folder)): _digest(path) for path in _files(folder)}
    scratch = folder / (MANIFEST + ".tmp")
    scratch.write_text(json.dumps(digests, indent=1) + "\n")
    scratch.rename(folder / MANIFEST)


def verify(folder, names=None) -> None:
    """Raises UserError unless every file of the folder, or those named, is exactly what its manifest says."""
    folder = Path(folder)
    try:
        digests = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} has no readable {MANIFEST}: it was not finished or is damaged; use another one"
        ) from error
    if not isinstance(digests, dict):
        raise UserError(f"{folder / MANIFEST} is damaged (it is no object): copy it again or use another one")
    for name in digests if names is None else names:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: the checkpoint is damaged; copy it again or use another one")
        if _digest(folder / name) != digests.get(name):
            raise UserError(f"{folder / name} is damaged (checksum differs): copy it again or use another one")


def save_model(folder, config: dict, params, files: dict[str, bytes], dtype=None) -> None:
    """Writes a model folder; it appears under its name only once it is complete, and replaces an older one.

    config: JSON-able. params: nested dict of arrays. files: further files by name (the tokenizer's). dtype: floating
    leaves are stored in it; None keeps theirs. Raises UserError where the place cannot be written.
    """
    folder = Path(folder)
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    arrays = {}
    for path, leaf in flat.items():
        leaf = np.asarray(jax.device_get(leaf))
        cast = dtype is not None and jax.numpy.issubdtype(leaf.dtype, np.floating)
        arrays[path] = np.ascontiguousarray(leaf.astype(dtype) if cast else leaf)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UserError(f"cannot write to {folder.parent}: {error.strerror}; choose another place") from error
    try:
        os.chmod(scratch, 0o755)
        save_file(arrays, scratch / PARAMS)
        (scratch / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
        for name, content in files.items():
            (scratch / name).write_bytes(content)
        seal(scratch)
        if folder.exists():
            shutil.rmtree(folder)
        scratch.rename(folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {folder}: {reason}; choose another place") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_config(folder) -> dict:
    """The config.json of a model folder. Raises UserError where it is missing or not JSON."""
    path = Path(folder) / CONFIG
    try:
        config = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{folder} is not a checkpoint: it has no {CONFIG}") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: copy the checkpoint again") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no JSON object: it is not the configuration of a checkpoint")
    return config


def load_params(folder, abstract, dtype=None, shardings=None):
    """Reads the parameters of a model folder into the tree `abstract` (of ShapeDtypeStructs), leaf by leaf.

    Floating leaves become `dtype`, or keep their stored one; `shardings` is a tree like `abstract`, or None for the
    default device. Raises UserError for damage, and for missing, unexpected or mis-shaped leaves.
    """
    verify(folder)
    wanted = flax.traverse_util.flatten_dict(abstract, sep="/")
    places = flax.traverse_util.flatten_dict(shardings, sep="/") if shardings is not None else {}
    result = {}
    with safe_open(str(Path(folder) / PARAMS), "np") as file:
        problems = [f"{path} is missing" for path in wanted if path not in file.keys()]
        problems += [f"{path} is unexpected" for path in file.keys() if path not in wanted]
        for path in wanted.keys() & set(file.keys()):
            shape = tuple(file.get_slice(path).get_shape())
            if shape != wanted[path].shape:
                problems.append(f"{path} is {list(shape)}, not {list(wanted[path].shape)}")
        if problems:
            shown = "; ".join(sorted(problems)[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
            raise UserError(f"{folder} does not hold this model: {shown}")
        for path in wanted:
            leaf = file.get_tensor(path)
            if dtype is not None and jax.numpy.issubdtype(leaf.dtype, np.floating):
                leaf = leaf.astype(dtype)
            result[path] = jax.device_put(leaf, places.get(path))
    return flax.traverse_util.unflatten_dict(result, sep="/")


class Checkpoints:
    """Orbax checkpoints of a training under `workdir/checkpoints`, saved asynchronously and sealed when finished.

    A checkpoint is a set of named items: array trees (the state), and JSON values (the data position, the config).
    """

    def __init__(self, workdir, keep: int = 2):
        self.folder = Path(workdir).absolute() / "checkpoints"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {workdir}: {error.strerror}; choose another --workdir") from error
        self._manager = ocp.CheckpointManager(
            self.folder, options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        )
        self._unsealed = None

    def save(self, step: int, arrays: dict, values: dict | None = None) -> None:
        """Starts saving; returns once the arrays may be overwritten."""
        self.wait()
        items = {name: ocp.args.StandardSave(tree) for name, tree in arrays.items()}
        items |= {name: ocp.args.JsonSave(value) for name, value in (values or {}).items()}
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        self._unsealed = step

    def wait(self) -> None:
        """Waits for the save under way and seals it."""
        self._manager.wait_until_finished()
        if self._unsealed is not None and jax.process_index() == 0:
            seal(self.folder / str(self._unsealed))
        self._unsealed = None

    def latest(self) -> int | None:
        """The newest sealed step, or None. A checkpoint that a kill left unsealed does not count."""
        sealed = [step for step in self._manager.all_steps() if (self.folder / str(step) / MANIFEST).is_file()]
        return max(sealed, default=None)

    def restore(self, step: int, arrays: dict, values=()) -> dict:
        """Reads the named items; `arrays` maps names to abstract trees (with shardings), `values` names JSON items."""
        verify(self.folder / str(step))
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
        for step in self._manager.all_steps():
            if not (self.folder / str(step) / MANIFEST).is_file():
                self._manager.delete(step)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.wait()
        self._manager.close()
