"""PyTorch's .bin and .pth files without PyTorch: a zip archive whose data.pkl says how tensors lie in storages, each of
them a member of its own, stored as it is (https://pytorch.org/docs/stable/notes/serialization.html).

A pickle may name code to be run. Here every name stands for something of this file: a dtype, a function that makes a
view of the mapped file, or, for what else torch can save, an Odd, which does nothing. Any other name is refused.
"""

import collections
import math
import mmap
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np

from janus_jax.errors import UserError

DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
WRAPPERS = ("module", "ema")  # what trainers put around a state dict
HEADER = 30  # bytes of a zip member's own header, before its name


class Odd:
    """What stands for anything of torch's that is no plain tensor. name: torch's."""

    def __init__(self, name):
        self.name = name

    def __call__(self, *args):
        return self

    def __setstate__(self, state):
        pass


def view(storage, offset, size, stride, *_):
    """A tensor: `size` elements of a storage, `stride` elements apart."""
    if isinstance(storage, Odd):
        return storage
    if min(offset, *size, *stride, 0) < 0:
        raise pickle.UnpicklingError("a tensor has a negative size")
    if not math.prod(size):
        return np.empty(size, storage.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= len(storage):
        raise pickle.UnpicklingError("a tensor is longer than its storage")
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


class _Unpickler(pickle.Unpickler):
    """Reads data.pkl. archive: the ZipFile; root: what its members' names begin with; data: the mapped file."""

    def __init__(self, file, archive, root, data):
        super().__init__(file)
        self._archive, self._root, self._data = archive, root, data

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return view
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if module.split(".")[0] == "torch":
            return Odd(f"{module}.{name}")
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid):
        _, dtype, key, _, count = pid
        if isinstance(dtype, Odd):
            return dtype
        member = self._archive.getinfo(f"{self._root}data/{key}")
        if member.compress_type != zipfile.ZIP_STORED or count * dtype.itemsize > member.file_size:
            raise pickle.UnpicklingError(f"the storage {key} is compressed, or cut short")
        lengths = self._data[member.header_offset + HEADER - 4 : member.header_offset + HEADER]
        begin = member.header_offset + HEADER + sum(int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
        return np.frombuffer(self._data, dtype, count, begin)


def _load(path):
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        root = next(name for name in names if name.endswith("data.pkl")).removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise pickle.UnpicklingError("its numbers are big-endian")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with archive.open(f"{root}data.pkl") as pickled:
            return _Unpickler(pickled, archive, root, data).load()


def read(path) -> dict[str, np.ndarray]:
    """The state dict of a .bin or .pth file, mapped and read-only, wrapped or not. Code in the file is refused, not
    run. Raises UserError where the file, or a state dict in it, is missing."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing: copy the checkpoint again")
    try:
        state = _load(path)
    except Exception as error:  # of zip, of pickle or of what damage makes of either: many kinds, one meaning
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path} holds no plain tensors ({reason}): copy it again, or save its state dict") from error
    inside = [key for key in WRAPPERS if isinstance(state, dict) and isinstance(state.get(key), dict)]
    if len(inside) > 1:
        raise UserError(f"{path} holds {' and '.join(inside)}: save the one that you want alone")
    state = state[inside[0]] if inside else state
    if not isinstance(state, dict) or not all(isinstance(tensor, np.ndarray | Odd) for tensor in state.values()):
        raise UserError(f"{path} is no state dict: save a plain one, or wrap it as {' or '.join(WRAPPERS)}")
    for name, tensor in state.items():
        if isinstance(tensor, Odd):
            raise UserError(f"{path}: {name} is stored by {tensor.name}: save it as plain float32 or bfloat16")
    return dict(state)
