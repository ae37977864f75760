"""Tensor files: safetensors in and out, PyTorch's in, one tensor at a time (no jax).

What is read is mapped, never held: an array takes memory when its values are copied. What is written is asked for
tensor by tensor, so a file of any size needs room for one.
"""

import json
import math
import mmap
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

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
WRAPPERS = ("module", "ema")  # what trainers put around a state dict


class Tensor(NamedTuple):
    """A tensor to be written: `value()` makes it, contiguous or not."""

    shape: tuple[int, ...]
    dtype: np.dtype
    value: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_safetensors(path) -> dict[str, np.ndarray]:
    """The tensors of one file by name, mapped and read-only. Raises UserError where it is missing or damaged."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: copy the checkpoint again") from error
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise UserError(f"{path} cannot be read ({error}): copy it again") from error
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length]) if 2 <= length <= len(data) - 8 else None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise UserError(f"{path} is not a safetensors file (or only the start of one): copy it again")
    tensors, start = {}, 8 + length
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            count = math.prod(shape)
            if dtype not in DTYPES:
                raise UserError(f"{path}: {name} is stored as {dtype}; known: {', '.join(DTYPES)}: convert it first")
            if not (0 <= first <= last and last - first == count * DTYPES[dtype].itemsize):
                raise ValueError(f"{name} does not fill its place")
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path} has a damaged header ({error}): copy it again") from error
        if start + last > len(data):
            raise UserError(f"{path} is truncated ({len(data)} bytes, {name} ends at {start + last}): copy it again")
        tensors[name] = np.frombuffer(data, DTYPES[dtype], count, start + first).reshape(shape)
    return tensors


def read_torch(path) -> dict[str, np.ndarray]:
    """The state dict of a .bin or .pth file, mapped, wrapped or not. Code in the file is refused, not run.

    Needs PyTorch. Raises UserError where that, the file or a state dict in it is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing: copy the checkpoint again")
    try:
        import torch
    except ImportError as error:
        raise UserError(f"reading {path.name} needs PyTorch: pip install 'janus_jax[parity]'") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, EOFError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} holds no plain tensors ({reason}): copy it again, or save its state dict") from error
    inside = [key for key in WRAPPERS if isinstance(state, dict) and isinstance(state.get(key), dict)]
    if len(inside) > 1:
        raise UserError(f"{path} holds {' and '.join(inside)}: save the one that you want alone")
    state = state[inside[0]] if inside else state
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise UserError(f"{path} is no state dict: save a plain one, or wrap it as {' or '.join(WRAPPERS)}")

    def array(name, tensor):
        if tensor.dtype == torch.bfloat16:  # numpy has no such type: its bits travel as integers
            return array(name, tensor.view(torch.int16)).view(ml_dtypes.bfloat16)
        try:
            return tensor.detach().numpy()
        except (TypeError, RuntimeError) as error:
            kind = f"{tensor.dtype} ({tensor.layout})"
            raise UserError(f"{path}: {name} is stored as {kind}: save it as plain float32 or bfloat16") from error

    return {name: array(name, tensor) for name, tensor in state.items()}


def read_file(path) -> dict[str, np.ndarray]:
    """The tensors of one file, by its ending."""
    return read_safetensors(path) if Path(path).suffix == ".safetensors" else read_torch(path)


def read_folder(folder) -> dict[str, np.ndarray]:
    """The tensors of a folder: safetensors, else pytorch_model*.bin; one file or shards, with or without an index.

    Raises UserError where there are none, the index names an absent file or tensor, or two files hold one name.
    """
    folder = Path(folder)
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        files = {path.name for path in folder.glob(pattern)}
        named: dict[str, str] = {}
        for index in folder.glob(pattern + ".index.json"):
            try:
                named |= json.loads(index.read_text())["weight_map"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UserError(f"{index} is not an index of shards: copy it again") from error
        if absent := sorted(set(named.values()) - files):
            raise UserError(f"{folder} lacks {', '.join(absent)}, which its index names: copy the missing files")
        if not files:
            continue
        tensors: dict[str, np.ndarray] = {}
        for name in sorted(set(named.values()) or files):
            shard = read_file(folder / name)
            if twice := sorted(tensors.keys() & shard.keys()):
                raise UserError(f"{folder} holds {twice[0]} in two files: remove the ones that do not belong to it")
            tensors |= shard
        if absent := sorted(named.keys() - tensors.keys()):
            raise UserError(f"{folder} lacks {', '.join(absent)}, which its index names: copy the shards again")
        return tensors
    raise UserError(f"{folder} holds no weights: expected *.safetensors or pytorch_model*.bin")


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
