"""Steps per second of stage 1, for the shapes of a configuration's batches: no data is needed.

    python -m benchmarks.steps --config configs/shapes_sft.py

Fresh parameters of the configuration's sizes and batches in which nothing is padding; what is measured does not depend
on either. The step is the one that janus_jax.train_sft takes.
"""

import statistics
import time

import jax
import numpy as np

from janus_jax import cli
from janus_jax.data import mixture
from janus_jax.models.janus import Janus, init_params
from janus_jax.parallel import sharding
from janus_jax.training import settings, sft

STEPS = 8


def full(batch):
    """A blank batch with something at each of its positions, and every target trained."""
    targets = {
        name: getattr(batch, name)._replace(weight=np.ones_like(getattr(batch, name).weight))
        for name in ("text", "codes")
        if getattr(batch, name) is not None
    }
    return batch._replace(mask=np.ones_like(batch.mask), **targets)


def main(argv):
    config, _ = cli.parse_config(argv, __doc__, workdir=False)
    settings.check_sft(config)
    mesh = sharding.mesh_of(config.mesh)
    with jax.set_mesh(mesh):
        model = Janus(sft.configured_model(config))
        params = init_params(model, jax.random.key(0), mesh=mesh)
        built, _ = sft.build(config, model, params, mesh)
        cfg = model.cfg
        batch = tuple(map(full, mixture.blank(sft.buckets_of(config, mesh), cfg.vq.tokens, cfg.siglip.image_size)))
        state, seconds = built.initial(params), []
        for _ in range(STEPS + 1):
            start, used = time.perf_counter(), time.process_time()
            state, metrics = built.step(state, batch)
            jax.block_until_ready(metrics)
            seconds.append((time.perf_counter() - start, time.process_time() - used))
    took, busy = (statistics.median(each) for each in zip(*seconds[1:], strict=True))
    print(
        f"{1 / took:.2f} steps per second; {took:.3f} s a step, {busy:.3f} s of CPU time, the first {seconds[0][0]:.1f}"
    )


if __name__ == "__main__":
    cli.run(main)
