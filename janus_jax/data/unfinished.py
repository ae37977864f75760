"""Codes of pictures that were made before all were: kept beside the cache that is to hold them, so that a command that
was interrupted goes on where it ended."""

import glob
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from janus_jax.errors import UserError


class Unfinished:
    """Codes i32[N,I] of N picture files, row by row in a hidden file. Use as a context manager; the file stays until
    `forget`."""

    def __init__(self, out, encoder: str, pictures: Sequence[Path], length: int):
        """out: the cache's file; encoder: tells whose codes they are, in letters and digits; length: I. Raises
        UserError where the file cannot be written."""
        out = Path(out)
        self._path = out.with_name(f".{out.name}.{encoder}.codes")
        kind = np.dtype([("stamp", "<u8"), ("codes", "<i4", (length,))])
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "r+b" if self._path.exists() else "w+b")  # noqa: SIM115
            if self._path.stat().st_size != len(pictures) * kind.itemsize:
                self._file.truncate(0)
                self._file.truncate(len(pictures) * kind.itemsize)  # zeros, which take no space
            self._rows = np.fromfile(self._file, kind)
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}; choose another --out") from error
        self._stamps = np.array([_stamp(picture) for picture in pictures], np.uint64)

    def todo(self) -> np.ndarray:
        """The numbers of pictures that have no codes yet, or have changed since."""
        return np.flatnonzero(self._rows["stamp"] != self._stamps)

    def keep(self, numbers, codes) -> None:
        """Writes the codes i32[n,I] of pictures. Raises UserError where there is no space."""
        try:
            for number, row in zip(numbers, codes, strict=True):
                self._rows[number] = self._stamps[number], row
                self._file.seek(int(number) * self._rows.itemsize)
                self._file.write(self._rows[number].tobytes())
            self._file.flush()
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}; make space, then go on") from error

    def codes(self, numbers) -> np.ndarray:
        """i32[n,I] of pictures that have theirs."""
        return self._rows["codes"][numbers].astype(np.int32)

    @staticmethod
    def forget(out) -> None:
        """Removes what was kept for a cache, which is complete."""
        out = Path(out)
        for path in out.parent.glob(f".{glob.escape(out.name)}.*.codes"):
            path.unlink(missing_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()


def _stamp(path) -> int:
    """A number, not 0, that is another one for another path, and for another file there."""
    try:
        found = os.stat(path)
        state = f"{path} {found.st_size} {found.st_mtime_ns}"
    except (OSError, ValueError):
        state = f"{path} is none"
    return int.from_bytes(hashlib.sha256(state.encode("utf-8", "surrogatepass")).digest()[:8], "little") | 1
