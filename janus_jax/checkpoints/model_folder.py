"""Checkpoints on disk.

Two kinds. A *model* is a folder that anyone can load: `config.json`, the tokenizer's file, `params.safetensors`
(leaves by their '/'-joined path, any dtype) and `manifest.json` (SHA-256 of each file); what a published model brought
and the parameters do not hold lies in `extra/`. A model that does not fit its manifest is refused. A *workdir* is a
training in progress: orbax checkpoints under `checkpoints/`, each with sums over its bits (training/workdir.py), and at
the end a model folder `model/`.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np

from janus_jax.checkpoints import jsonfile
from janus_jax.checkpoints.tensor_names import Leaf, cast, is_floating, read, stacked
from janus_jax.checkpoints.tensorfiles import Tensor, first_few, in_file_order, read_safetensors, write_safetensors
from janus_jax.errors import UserError
from janus_jax.parallel import agree, shards

MANIFEST = "manifest.json"
PARAMS = "params.safetensors"
CONFIG = "config.json"
EXTRA = "extra"


def digests_of(folder, names) -> dict[str, str]:
    """The SHA-256 of each named file, several at a time: of a large checkpoint one core would take minutes."""

    def digest(name):
        with open(folder / name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(names, pool.map(digest, names), strict=True))


def _sync(path) -> None:
    """Has the disk hold a file, or the names in a folder, so that a power cut after this does not lose them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some mounts know no such thing, above all for folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS, errno.EACCES, errno.EPERM):
            raise
    finally:
        os.close(handle)


def _sync_all(folder) -> None:
    for path in (*Path(folder).rglob("*"), folder):
        _sync(path)


def seal(folder) -> None:
    """Writes the manifest of a finished folder. It appears once all that it lists, and itself, is on the disk."""
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    digests = digests_of(folder, [str(path.relative_to(folder)) for path in paths])
    scratch = folder / (MANIFEST + ".tmp")
    scratch.write_text(json.dumps(digests, indent=1) + "\n")
    _sync_all(folder)
    scratch.rename(folder / MANIFEST)
    _sync(folder)


def verify(folder, names=None, needed=()) -> None:
    """Raises UserError unless the files of a folder are exactly what its manifest says.

    names: those that are compared, None for all that it lists; needed: some of them that it must list, as it must list
    one at all."""
    folder = Path(folder)
    try:
        digests = jsonfile.read(folder / MANIFEST)
    except (OSError, UserError) as error:
        raise UserError(
            f"{folder} has no readable {MANIFEST}: it was not finished or is damaged; use another one"
        ) from error
    names = list(digests if names is None else names)
    unlisted = [name for name in (*names, *needed) if not isinstance(digests.get(name), str)]
    if unlisted or not names:
        what = ", ".join(unlisted) or "any file"
        raise UserError(f"{folder / MANIFEST} does not list {what}: it is damaged; copy it again or use another one")
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: the checkpoint is damaged; copy it again or use another one")
    for name, digest in digests_of(folder, names).items():
        if digest != digests[name]:
            raise UserError(f"{folder / name} is damaged (checksum differs): copy it again or use another one")


def _is_model(folder):
    """Whether a folder is a model of ours or a published one: what may be replaced."""
    try:
        config = read_config(folder)
    except UserError:
        return False
    return (folder / MANIFEST).is_file() or "kind" in config or "model_type" in config


@contextlib.contextmanager
def replacing(folder):
    """A scratch folder that becomes `folder` when the block ends well, in place of an older model, and vanishes when
    it does not. Raises UserError where the place cannot be written."""
    folder = Path(folder)
    try:
        if folder.exists() and not folder.is_dir() or folder.is_dir() and any(folder.iterdir()):
            if not _is_model(folder):
                raise UserError(f"cannot write {folder}: something else than a model is there; choose another place")
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UserError(f"cannot write to {folder.parent}: {error.strerror}; choose another place") from error
    try:
        os.chmod(scratch, 0o755)
        yield scratch
        _sync_all(scratch)
        if folder.exists():  # aside first: a kill leaves the older model under another name, not half of it
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            folder.rename(aside / folder.name)
            scratch.rename(folder)
            _sync(folder.parent)
            shutil.rmtree(aside)
        else:
            scratch.rename(folder)
            _sync(folder.parent)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}; choose another place") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_model(folder, config: dict, params: Mapping[str, Tensor], files: Mapping[str, bytes], extra=None) -> None:
    """Writes a model folder; it appears under its name only once it is complete, and replaces an older one.

    config: JSON-able. params: by path. files: further ones by name, which may have folders in it. extra: for each
    format, tensors of it that are no parameters, by name. Raises UserError where the place cannot be written.
    """
    with replacing(folder) as scratch:
        write_safetensors(scratch / PARAMS, params)
        (scratch / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
        for name, content in files.items():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).write_bytes(content)
        for name, tensors in (extra or {}).items():
            (scratch / EXTRA).mkdir(exist_ok=True)
            write_safetensors(scratch / EXTRA / f"{name}.safetensors", tensors)
        seal(scratch)


def save_model(folder, config: dict, params, files: dict[str, bytes], dtype=None) -> None:
    """`write_model` of a nested dict of arrays, fetched one by one. dtype: floating leaves are stored in it; None keeps
    theirs. All processes of a pod call it, and process 0 writes."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    fetch = {path: functools.partial(shards.whole, leaf) for path, leaf in flat.items()}
    tensors = {path: Tensor(x.shape, cast(np.dtype(x.dtype), dtype), fetch[path]) for path, x in flat.items()}
    if agree.is_first():
        write_model(folder, config, tensors, files)
    else:
        for tensor in in_file_order(tensors):  # what process 0 gathers, it gathers with us
            tensor.value()


def read_config(folder) -> dict:
    """The config.json of a model folder. Raises UserError where it is missing or no JSON object."""
    try:
        return jsonfile.read(Path(folder) / CONFIG)
    except FileNotFoundError as error:
        raise UserError(f"{folder} is not a checkpoint: it has no {CONFIG}") from error


def open_params(folder, abstract: Mapping[str, Any], dtype=None, needed=()) -> dict[str, Leaf]:
    """The parameters of a model folder, mapped. abstract: shape and dtype of the leaves that it must hold, by path;
    where they are floating-point numbers, they may be stored as others of these. needed: further files that the
    manifest must list. Raises UserError for damage, and for missing, unexpected or mis-shaped leaves."""
    verify(folder, needed=(CONFIG, PARAMS, *needed))
    arrays = read_safetensors(Path(folder) / PARAMS)
    problems = [f"{path} is missing" for path in abstract.keys() - arrays.keys()]
    problems += [f"{path} is unexpected" for path in arrays.keys() - abstract.keys()]
    for path in abstract.keys() & arrays.keys():
        if arrays[path].shape != abstract[path].shape:
            problems.append(f"{path} is {list(arrays[path].shape)}, not {list(abstract[path].shape)}")
        if is_floating(abstract[path].dtype) and not is_floating(arrays[path].dtype):
            problems.append(f"{path} is stored as {arrays[path].dtype.name}, not as floating-point numbers")
    if problems:
        raise UserError(f"{folder} does not hold this model: {first_few(sorted(problems))}")

    def leaf(path):
        def row(layer):
            return arrays[path] if layer is None else arrays[path][layer]

        return Leaf(abstract[path].shape, cast(arrays[path].dtype, dtype), row, stacked(path))

    return {path: leaf(path) for path in abstract}


def open_extra(folder) -> dict[str, dict[str, np.ndarray]]:
    """What a model folder holds beside its parameters, mapped: {format: {name: tensor}}."""
    return {path.stem: read_safetensors(path) for path in sorted((Path(folder) / EXTRA).glob("*.safetensors"))}


def is_finite(array: np.ndarray, step: int = 2**20) -> bool:
    """Whether no number of a contiguous floating-point array is NaN or infinite; looked at piece by piece, by the bits
    of the exponent, which takes no memory to speak of."""
    if not is_floating(array.dtype):
        return True
    bits = array.reshape(-1).view(f"u{array.dtype.itemsize}")
    infinity = np.array(np.inf, array.dtype).view(bits.dtype)
    return not any(((bits[i : i + step] & infinity) == infinity).any() for i in range(0, len(bits), step))


def _finite(path, leaf, index=()):
    """A part of a leaf, read."""
    values = read(leaf, index)
    if not is_finite(values):
        raise UserError(f"the weights are ruined: {path} holds NaN or infinity; use another checkpoint")
    return values


def place(leaves: Mapping[str, Leaf], shardings=None):
    """Reads leaves one by one to where they belong; each device's part alone is read for it.

    shardings: a tree of them, or None for the default device. Returns the nested dict of arrays. Raises UserError for
    a leaf that holds NaN or infinity.
    """
    places = flax.traverse_util.flatten_dict(shardings, sep="/") if shardings is not None else {}
    result = {}
    for path, leaf in leaves.items():
        if path in places:
            array = jax.make_array_from_callback(leaf.shape, places[path], functools.partial(_finite, path, leaf))
        else:
            array = jax.device_put(_finite(path, leaf))
        result[path] = jax.block_until_ready(array)  # the host's copy goes before the next one comes
    return flax.traverse_util.unflatten_dict(result, sep="/")


def load_params(folder, abstract, dtype=None, shardings=None):
    """The parameters of a model folder as the tree `abstract` (of ShapeDtypeStructs).

    Floating leaves become `dtype`, or keep their stored one; `shardings` as for `place`. Raises UserError as
    `open_params` and `place` do.
    """
    return place(open_params(folder, flax.traverse_util.flatten_dict(abstract, sep="/"), dtype), shardings)
