"""Labelled pictures of prompts, as codes: what stage 1 reads.

A *group* is a prompt with several pictures, each with its codes, the picture that the judge sees (what the codes decode
to, or the original), the judge's score and the reason. A group with a source is one of edits: its prompt is the
instruction, its pictures are edits of the source, which is one of them itself: a copy, and so a wrong one. The cache is
one `.npz` of flat arrays, so that any picture is a
slice away; N texts are two of them, their bytes and where each ends, so that a long one costs what it is long.
"""

import contextlib
import dataclasses
import itertools
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from janus_jax.errors import UserError
from janus_jax.sequences import images


@dataclasses.dataclass(frozen=True)
class PictureFiles:
    """Pictures that stay in their files, N paths (texts), and are read, letterboxed, when they are asked for: [i] is
    u8[side,side,3]. Raises UserError where a file has gone."""

    paths: Sequence[str]
    side: int

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the array they would be: (N, side, side, 3)."""
        return len(self.paths), self.side, self.side, 3

    def __getitem__(self, i) -> np.ndarray:
        return images.letterbox(images.read(self.paths[i]), self.side)


@dataclasses.dataclass(frozen=True)
class PackedPictures:
    """N pictures u8[side,side,3], each compressed by itself: one of the embedded world takes a tenth or less. blobs:
    array of N bytes objects. [i] is a picture, [array of n] u8[n,side,side,3]."""

    blobs: np.ndarray
    side: int

    @classmethod
    def of(cls, pixels) -> "PackedPictures":
        """Of an array u8[N,side,side,3]."""
        blobs = np.empty(len(pixels), object)
        blobs[:] = [zlib.compress(picture.tobytes(), 1) for picture in pixels]
        return cls(blobs, pixels.shape[1])

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the array that they would be."""
        return len(self.blobs), self.side, self.side, 3

    def __getitem__(self, i) -> np.ndarray:
        if np.ndim(i):
            found = [self[each] for each in np.arange(len(self.blobs))[i]]
            return np.stack(found) if found else np.zeros((0, *self.shape[1:]), np.uint8)
        return np.frombuffer(zlib.decompress(self.blobs[i]), np.uint8).reshape(self.shape[1:])


TEXTS = ("prompts", "reasons", "captions")


@dataclasses.dataclass(frozen=True)
class Groups:
    """prompts: P texts; start i64[P+1]: pictures start[p]..start[p+1] belong to prompt p; codes i32[N,I];
    pixels u8[N,h,w,3], PackedPictures or PictureFiles; score f32[N], 1 = right; reasons: N texts that begin with Yes or
    No; captions: N texts that say what a picture shows; source i64[P]: the picture that a prompt's pictures are edits
    of, -1 for a prompt that says what to draw; None: no prompt has any; mended i64[N]: of a wrong picture the one that
    shows the same with its faults mended, -1 where there is none; None: no picture has one. Texts are arrays of str
    objects, whatever they are given as."""

    prompts: np.ndarray
    start: np.ndarray
    codes: np.ndarray
    pixels: np.ndarray | PackedPictures | PictureFiles
    score: np.ndarray
    reasons: np.ndarray
    captions: np.ndarray
    source: np.ndarray | None = None
    mended: np.ndarray | None = None

    def __post_init__(self):
        if self.mended is None:
            object.__setattr__(self, "mended", np.full(len(self.codes), -1))
        if self.source is None:
            object.__setattr__(self, "source", np.full(len(self.prompts), -1))
        for name in TEXTS:
            object.__setattr__(self, name, _strings(getattr(self, name)))

    def __len__(self):
        return len(self.prompts)

    def pictures(self, prompt: int) -> np.ndarray:
        """Indices of a prompt's pictures."""
        return np.arange(self.start[prompt], self.start[prompt + 1])


def save(path, groups: Groups) -> None:
    """Writes a cache file; it appears once it is complete. Raises UserError where the place cannot be written."""
    path = Path(path)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.npz")
    arrays = {field.name: getattr(groups, field.name) for field in dataclasses.fields(Groups)}
    texts = {name: arrays.pop(name) for name in TEXTS}
    if isinstance(arrays["pixels"], PictureFiles):
        files = arrays.pop("pixels")
        texts["pixels"], arrays["side"] = files.paths, files.side
    packed = arrays.pop("pixels") if isinstance(arrays.get("pixels"), PackedPictures) else None
    encoded = {name: [str(value).encode("utf-8") for value in values] for name, values in texts.items()}
    if packed is not None:
        encoded["packed"], arrays["side"] = packed.blobs, packed.side
    for name, values in encoded.items():
        arrays[f"{name}.bytes"] = np.frombuffer(b"".join(values), np.uint8)
        arrays[f"{name}.ends"] = np.cumsum([len(value) for value in values], dtype=np.int64)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(scratch, **arrays)
        scratch.rename(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --out") from error


def load(path) -> Groups:
    """Reads a cache file. Raises UserError where it is missing or not one."""
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            names = [field.name for field in dataclasses.fields(Groups)]
            # caches of before have no sources, or no mended pictures
            names = [name for name in names if name not in ("source", "mended") or name in file]
            packed = "packed.ends" in file
            arrays = {
                name: _texts(file, name) if f"{name}.ends" in file else file[name]
                for name in names
                if not (packed and name == "pixels")
            }
            if packed:
                arrays["pixels"] = PackedPictures(_objects(_pieces(file, "packed")), int(file["side"]))
            elif "side" in file:
                arrays["pixels"] = PictureFiles(arrays["pixels"], int(file["side"]))
            return Groups(**arrays)
    except (OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is not a cache of labelled pictures ({error}): make it with janus_jax.cache_codes"
        ) from error


def _pieces(file, name) -> list[bytes]:
    data, ends = file[f"{name}.bytes"].tobytes(), file[f"{name}.ends"].tolist()
    if ends and (ends[-1] != len(data) or any(a > b for a, b in itertools.pairwise([0, *ends]))):
        raise ValueError(f"the ends of {name} do not go with their bytes")
    return [data[begin:end] for begin, end in itertools.pairwise([0, *ends])]


def _texts(file, name) -> np.ndarray:
    return _strings([piece.decode("utf-8") for piece in _pieces(file, name)])


def _objects(values) -> np.ndarray:
    """Values as an array of objects: one of fixed width would give each the length of the longest."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _strings(texts) -> np.ndarray:
    return _objects([str(text) for text in texts])


_PER_PICTURE = ("codes", "pixels", "score", "reasons", "captions")


def join(parts) -> Groups:
    """Several caches as one, their prompts one after another. Raises UserError where their pictures do not go together:
    codes of several lengths, pixels of several sizes, or pixels of some and files of others."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    forms = {(type(part.pixels), part.pixels.shape[1:], part.codes.shape[1]) for part in parts}
    if len(forms) > 1:
        raise UserError("the caches were made with several picture tokenizers, or in several ways: make them alike")
    offsets = np.cumsum([0] + [len(part.codes) for part in parts])
    start = np.concatenate(
        [part.start[:-1] + offset for part, offset in zip(parts, offsets, strict=False)] + [offsets[-1:]]
    )
    arrays = {name: _concatenated([getattr(part, name) for part in parts]) for name in ("prompts", *_PER_PICTURE)}
    for name in ("source", "mended"):
        indices = [(getattr(part, name), offset) for part, offset in zip(parts, offsets, strict=False)]
        arrays[name] = np.concatenate([np.where(index < 0, -1, index + offset) for index, offset in indices])
    return Groups(start=start, **arrays)


def _concatenated(arrays):
    if isinstance(arrays[0], PackedPictures):
        return PackedPictures(np.concatenate([packed.blobs for packed in arrays]), arrays[0].side)
    if isinstance(arrays[0], PictureFiles):
        return PictureFiles([path for files in arrays for path in files.paths], arrays[0].side)
    return np.concatenate(arrays)


def _ordered(values, order):
    """Values in another order."""
    if isinstance(values, PackedPictures):
        return PackedPictures(values.blobs[order], values.side)
    return values[order]


def chosen(groups: Groups, prompts: Sequence[int]) -> Groups:
    """The groups of some prompts, by their numbers, in that order."""
    kept = [groups.pictures(p) for p in prompts]
    order = np.concatenate(kept)
    place = np.full(len(groups.codes), -1)
    place[order] = np.arange(len(order))

    def moved(indices):
        return np.where(indices < 0, -1, place[indices])

    return Groups(
        prompts=groups.prompts[list(prompts)],
        start=np.cumsum([0, *map(len, kept)]),
        source=moved(groups.source[list(prompts)]),
        mended=moved(groups.mended[order]),
        **{name: _ordered(getattr(groups, name), order) for name in _PER_PICTURE},
    )


def packed(groups: Groups) -> Groups:
    """The same with its pictures compressed; those in files stay there."""
    if not isinstance(groups.pixels, np.ndarray):
        return groups
    return dataclasses.replace(groups, pixels=PackedPictures.of(groups.pixels))


def merge(first: Groups, second: Groups) -> Groups:
    """Two caches of the same prompts as one: each prompt has the pictures of both, the first's before the second's.
    The sources are the first's. Raises ValueError where the prompts differ."""
    if not np.array_equal(first.prompts, second.prompts):
        raise ValueError("the two caches are of different prompts")
    prompt = np.concatenate([np.repeat(np.arange(len(part)), np.diff(part.start)) for part in (first, second)])
    order = np.argsort(prompt, kind="stable")
    both, place = join([first, second]), np.argsort(order)
    return Groups(
        prompts=first.prompts,
        start=first.start + second.start,
        source=np.where(first.source < 0, -1, place[first.source]),
        mended=np.where(both.mended < 0, -1, place[both.mended])[order],
        **{name: _ordered(getattr(both, name), order) for name in _PER_PICTURE},
    )
