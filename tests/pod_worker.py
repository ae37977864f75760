"""A training that counts what it sees, for tests of pods: python pod_worker.py WORKDIR [--data=2] [--pause=SECONDS]

Its one parameter, `seen`, has a place for each sample of the data; a step of SGD adds one where a sample is in the
batch. So the trained parameter itself says what was lost or seen twice, whatever was stopped, killed and resumed.
"""

import argparse
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from janus_jax import cli
from janus_jax.checkpoints.model_folder import save_model
from janus_jax.parallel import hosts, sharding, shards
from janus_jax.training import step as train_step
from janus_jax.training.loop import AHEAD, fit, supervised

ROWS, STEPS = 8, 20
RULES = ((r"seen", jax.sharding.PartitionSpec(("data", "fsdp"))),)


class Samples:
    """Step i has the samples ROWS * i ...; pause: seconds that making them takes."""

    def __init__(self, mine, pause):
        self.mine, self.pause = mine, pause

    def __len__(self):
        return STEPS

    def __getitem__(self, step):
        time.sleep(self.pause)
        return np.asarray(ROWS * int(step) + self.mine, np.int32)


def main(argv):
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    parser.add_argument("--data", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0)
    flags = parser.parse_args(argv)
    hosts.start(ConfigDict({"pause": flags.pause}))
    mesh = sharding.mesh_of((flags.data, -1, 1))
    by_row = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp")))
    source = Samples(shards.rows(by_row, ROWS), flags.pause)
    dataset = grain.MapDataset.source(source).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))

    def loss(outputs, batch):
        return -jnp.sum(outputs), {}

    with jax.set_mesh(mesh):
        params = {"seen": np.zeros(ROWS * STEPS, np.float32)}
        built = train_step.build(
            lambda params, batch: params["seen"][batch],
            loss,
            optax.sgd(1.0),
            params,
            {"seen": True},
            mesh,
            by_row,
            rules=RULES,
        )
        config = ConfigDict({"steps": STEPS, "save_every": 4})
        job = supervised(built, [params], dataset, by_row)
        state, finished = fit(flags.workdir, "count", job, config, cli.Stop(), ahead=AHEAD)
        if finished:
            save_model(f"{flags.workdir}/model", {"kind": "count"}, state.params, {})


if __name__ == "__main__":
    cli.run(main, hosts.leave)
