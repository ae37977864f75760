"""Pictures for the tokenizer's training: random scenes of the embedded world, drawn on demand."""

import grain
import numpy as np

from janus_jax.shapes import render, scene, text
from janus_jax.shapes.world import SHIPPED, World

CROWDED = 0.6  # share of pictures that are full of objects: of each the tokenizer sees the more


class RandomPictures:
    """A grain random-access source: picture `i` is a pure function of (seed, i). u8[side, side, 3]."""

    def __init__(self, count: int, side: int, seed: int, world: World = SHIPPED):
        self._count, self._side, self._seed, self._world = count, side, seed, world

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        rng, world = np.random.default_rng([self._seed, index]), self._world
        if rng.random() < CROWDED:
            shown = scene.crowd(rng, world)
        else:
            asks = text.all_asks(str(rng.choice(text.CATEGORIES)), world)
            ask = asks[int(rng.integers(len(asks)))]
            shown = (scene.compose if rng.random() < 0.6 else scene.near_miss)(rng, ask, world)
        return render.render(shown, self._side, rng, world)


class _Batches:
    """A grain random-access source: item n is the rows `mine` of the n-th batch of a data set of pictures."""

    def __init__(self, pictures, batch: int, mine):
        self._pictures, self._batch, self._mine = pictures, batch, [int(row) for row in mine]

    def __len__(self):
        return len(self._pictures) // self._batch

    def __getitem__(self, n):
        rows = [self._pictures[int(n) * self._batch + row] for row in self._mine]
        return np.stack(rows).astype(np.float32) / np.float32(127.5) - np.float32(1)


def batches(count: int, side: int, batch: int, seed: int, mine=None, world: World = SHIPPED):
    """An endless grain dataset of f32[batch, side, side, 3] in [-1, 1]; mine: the rows of each batch to make, those of
    this process; None makes all."""
    pictures = grain.MapDataset.source(RandomPictures(count, side, seed, world)).seed(seed).shuffle().repeat()
    source = _Batches(pictures, batch, range(batch) if mine is None else mine)
    return grain.MapDataset.source(source).to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=16))


def right_picture(rng, ask, side: int, world: World = SHIPPED):
    """A random picture that is what the prompt asks for: u8[side, side, 3]."""
    return render.render(scene.compose(rng, ask, world), side, rng, world)
