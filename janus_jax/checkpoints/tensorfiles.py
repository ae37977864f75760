"""Tensor files: safetensors in and out, PyTorch's in (torchfile.py), one tensor at a time (no jax).

What is read is mapped, never held: an array takes memory when its values are copied. What is written is asked for
tensor by tensor, so a file of any size needs room for one.
"""

import fnmatch
import json
import math
import mmap
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from janus_jax.checkpoints import jsonfile, torchfile
from janus_jax.errors import UserError

DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
SHARD = 5 * 10**9  # bytes; the size that torch's tools cut at


class Tensor(NamedTuple):
    """A tensor to be written: `value()` makes it, contiguous or not."""

    shape: tuple[int, ...]
    dtype: np.dtype
    value: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_safetensors(path) -> dict[str, np.ndarray]:
    """The tensors of one file by name, mapped and read-only. Raises UserError where it is missing or damaged.

    The safetensors library reads and checks the header. It copies every tensor that it hands to numpy, so the values
    themselves are views of the mapped file: the library has checked that they lie one behind the other and fill it.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing: copy the checkpoint again")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            entries = [(name, file.get_slice(name)) for name in file.offset_keys()]
            entries = [(name, one.get_dtype(), tuple(one.get_shape())) for name, one in entries]
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} is no whole safetensors file ({reason}): copy it again") from error
    tensors, place = {}, 8 + int.from_bytes(data[:8], "little")
    for name, kind, shape in entries:
        if kind not in DTYPES:
            raise UserError(f"{path}: {name} is stored as {kind}; known: {', '.join(DTYPES)}: convert it first")
        count = math.prod(shape)
        tensors[name] = np.frombuffer(data, DTYPES[kind], count, place).reshape(shape)
        place += count * DTYPES[kind].itemsize
    return tensors


def read_file(path) -> dict[str, np.ndarray]:
    """The tensors of one file, by its ending."""
    return read_safetensors(path) if Path(path).suffix == ".safetensors" else torchfile.read(path)


class Files(NamedTuple):
    """Which files of a folder hold its weights. index: {tensor: file name} where one says so; others: weight files that
    are not read."""

    names: tuple[str, ...]
    index: dict[str, str]
    others: tuple[str, ...]


def weight_files(folder) -> Files:
    """The files to read: those of the index, model.safetensors, its numbered shards, the same of pytorch_model.bin, or
    whatever *.safetensors or pytorch_model*.bin there are; the first of these that there is.

    Raises UserError where there are none or one is absent."""
    folder = Path(folder)
    here = {path.name for end in ("safetensors", "bin") for path in folder.glob(f"*.{end}") if path.is_file()}

    def chosen(names, index=None):
        if absent := sorted(set(names) - here):
            why = "which its index names" if index else "of a model in numbered files"
            raise UserError(f"{folder} lacks {first_few(absent)}, {why}: copy the missing files")
        return Files(tuple(sorted(names)), index or {}, tuple(sorted(here - set(names))))

    for stem, end in (("model", "safetensors"), ("pytorch_model", "bin")):
        path = folder / f"{stem}.{end}.index.json"
        if path.is_file():
            index = jsonfile.read(path).get("weight_map")
            if not isinstance(index, dict) or not index or not all(isinstance(name, str) for name in index.values()):
                raise UserError(f"{path} is not an index of shards: copy it again")
            if outside := [name for name in index.values() if not name or Path(name).name != name]:
                raise UserError(f"{path} names {outside[0]!r}, which is no file of its folder: copy it again")
            return chosen(set(index.values()), index)
        if f"{stem}.{end}" in here:
            return chosen({f"{stem}.{end}"})
        counts = {found[1] for name in here if (found := re.fullmatch(rf"{stem}-\d+-of-(\d{{1,5}})\.{end}", name))}
        if counts:
            count = min(counts)
            numbers = (f"{i + 1:0{len(count)}d}" for i in range(int(count)))
            return chosen({f"{stem}-{number}-of-{count}.{end}" for number in numbers})
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        if names := {name for name in here if fnmatch.fnmatchcase(name, pattern)}:
            return chosen(names)
    raise UserError(f"{folder} holds no weights: expected *.safetensors or pytorch_model*.bin")


def read_folder(folder) -> dict[str, np.ndarray]:
    """The tensors of a folder, from the files that `weight_files` chooses. Where there is an index, it says from which
    file a tensor is read; other tensors of that file are ignored.

    Raises UserError as `weight_files` does, where a file lacks a tensor of the index, or where two files hold one name.
    """
    files = weight_files(folder)
    tensors: dict[str, np.ndarray] = {}
    for file in files.names:
        shard = read_file(Path(folder) / file)
        if files.index:
            shard = {name: tensor for name, tensor in shard.items() if files.index.get(name) == file}
        if twice := sorted(tensors.keys() & shard.keys()):
            raise UserError(f"{folder} holds {twice[0]} in two files: remove the ones that do not belong to it")
        tensors |= shard
    if absent := sorted(files.index.keys() - tensors.keys()):
        raise UserError(f"{folder}: {first_few(absent)} not in the file that the index names: copy the shards again")
    return tensors


def first_few(words: list[str], most: int = 24) -> str:
    """A list for a message: the first words, and how many more there are."""
    return "; ".join(words[:most]) + (f"; and {len(words) - most} more" if len(words) > most else "")


def in_file_order(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The tensors in the order in which `write_safetensors` asks for their values."""
    return [tensor for _, tensor in _ordered(tensors)]


def _ordered(tensors):
    return sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)  # so that each stays aligned


def write_safetensors(path, tensors: Mapping[str, Tensor]) -> None:
    """Writes one file. Raises OSError as the system does; then a part of the file is left."""
    header: dict = {"__metadata__": {"format": "pt"}}  # transformers refuses a file without it
    place = 0
    ordered = _ordered(tensors)
    for name, tensor in ordered:
        offsets = [place, place := place + tensor.nbytes]
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in ordered:  # without a name, one value is gone before the next is made
            file.write(np.ascontiguousarray(tensor.value(), tensor.dtype).reshape(-1).view(np.uint8).data)


def write_shards(folder, tensors: Mapping[str, Tensor], limit: int = SHARD) -> None:
    """Writes model.safetensors, or numbered shards of at most `limit` bytes of data (or one tensor) and an index."""
    shards: list[dict[str, Tensor]] = [{}]
    room = limit
    for name, tensor in tensors.items():
        if shards[-1] and tensor.nbytes > room:
            shards.append({})
            room = limit
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        write_safetensors(Path(folder) / "model.safetensors", tensors)
        return
    files = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    for file, shard in zip(files, shards, strict=True):
        write_safetensors(Path(folder) / file, shard)
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
        "weight_map": {name: file for file, shard in zip(files, shards, strict=True) for name in shard},
    }
    (Path(folder) / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
