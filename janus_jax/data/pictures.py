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


def batches(count: int, side: int, batch: int, seed: int, shard=(0, 1)):
    """An endless grain dataset of f32[batch, side, side, 3] in [-1, 1]; `shard` is (process, processes)."""
    dataset = grain.MapDataset.source(RandomPictures(count, side, seed)).seed(seed).shuffle()
    dataset = dataset[shard[0] :: shard[1]].repeat().map(lambda x: x.astype(np.float32) / 127.5 - 1.0)
    return dataset.batch(batch, drop_remainder=True).to_iter_dataset(
        grain.ReadOptions(num_threads=2, prefetch_buffer_size=16)
    )


def right_picture(rng, ask, side: int):
    """A random picture that is what the prompt asks for: u8[side, side, 3]."""
    return render.render(scene.compose(rng, ask), side, rng)
