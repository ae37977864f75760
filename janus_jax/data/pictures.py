"""Pictures for the tokenizer's training: random scenes of the embedded world, drawn on demand."""

import grain
import numpy as np

from janus_jax.shapes import render, scene, text


class RandomPictures:
    """A grain random-access source: picture `i` is a pure function of (seed, i). u8[side, side, 3]."""

    def __init__(self, count: int, side: int, seed: int):
        self._count, self._side, self._seed = count, side, seed

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        rng = np.random.default_rng([self._seed, index])
        asks = text.all_asks(str(rng.choice(text.CATEGORIES)))
        ask = asks[int(rng.integers(len(asks)))]
        compose = scene.compose if rng.random() < 0.6 else scene.near_miss
        return render.render(compose(rng, ask), self._side, rng)


class _Batches:
    """A grain random-access source: item n is the rows `mine` of the n-th batch of a data set of pictures."""

    def __init__(self, pictures, batch: int, mine):
        self._pictures, self._batch, self._mine = pictures, batch, [int(row) for row in mine]

    def __len__(self):
        return len(self._pictures) // self._batch

    def __getitem__(self, n):
        rows = [self._pictures[int(n) * self._batch + row] for row in self._mine]
        return np.stack(rows).astype(np.float32) / np.float32(127.5) - np.float32(1)


def batches(count: int, side: int, batch: int, seed: int, mine=None):
    """An endless grain dataset of f32[batch, side, side, 3] in [-1, 1]; mine: the rows of each batch to make, those of
    this process; None makes all."""
    pictures = grain.MapDataset.source(RandomPictures(count, side, seed)).seed(seed).shuffle().repeat()
    source = _Batches(pictures, batch, range(batch) if mine is None else mine)
    return grain.MapDataset.source(source).to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=16))


def right_picture(rng, ask, side: int):
    """A random picture that is what the prompt asks for: u8[side, side, 3]."""
    return render.render(scene.compose(rng, ask), side, rng)
