"""The loop of a supervised stage: batches in, state out, with resume, checkpoints, metrics and a clean SIGTERM."""

import collections
import time

import jax

from janus_jax import cli
from janus_jax.parallel import hosts
from janus_jax.training.metrics import Metrics
from janus_jax.training.step import MOST_SKIPPED, Built, check_skipped, in_a_row
from janus_jax.training.workdir import Checkpoints

AHEAD = 2  # steps that may be under way beside the one just started


def fit(workdir, title, built: Built, initial, dataset, place, config, stop: cli.Stop) -> tuple:
    """Trains from what `initial()` gives, or from the newest checkpoint of the workdir, to `config.steps`.

    built: the stage's step and the form of its state; initial() -> parameters, called once: who gives them away there
    and keeps no other hold of them does not have them on the devices twice. dataset: a grain IterDataset; place(batch)
    puts a host batch on the mesh. The data position is saved with the state, so that a resumed run sees the very
    batches that the uninterrupted one would have seen, on any mesh and number of processes.
    stop: set by a signal; on any process it stops all at the same step.
    Returns (state, finished): finished is False after a SIGTERM, which saves first. Raises UserError, having saved,
    after train_step.MOST_SKIPPED updates in a row that were not finite.
    """
    iterator = iter(dataset)
    stop = hosts.AnyOf(stop, late=AHEAD)
    with Checkpoints(workdir, title) as checkpoints, Metrics(workdir, title, hosts.is_first()) as metrics:
        checkpoints.discard_unsealed()
        first = checkpoints.latest()
        params = initial()
        if first is not None:
            del params
            restored = checkpoints.restore(first, {"state": built.abstract}, ["data"])
            state = restored["state"]
            iterator.set_state(restored["data"])
        else:
            state = built.initial(params)
            del params
        done = saved = first or 0
        skipped = 0
        late, clock = None, time.time()
        ahead = collections.deque()
        with cli.progress(done, config.steps, title, hosts.is_first()) as bar:
            while done < config.steps and skipped < MOST_SKIPPED and not stop:
                state, values = built.step(state, place(next(iterator)))
                done += 1
                # Enough steps under way to keep the device busy, and no more: after a signal all of them have to end
                # before the state can be saved.
                ahead.append(values)
                if len(ahead) > AHEAD:
                    skipped = in_a_row(skipped, jax.block_until_ready(ahead.popleft()))
                bar.update()
                checkpoints.poll()
                if done % config.log_every == 0 or done == config.steps:
                    # Values of one logging interval ago are ready; fetching today's would stall the device.
                    if late:
                        bar.set_postfix(loss=f"{metrics.write(*late)['loss']:.4f}")
                    now = time.time()
                    late = (done, {**values, "steps_per_second": config.log_every / (now - clock)})
                    clock = now
                if done % config.save_every == 0:
                    if late:  # what a resumed run will not write again
                        metrics.write(*late)
                        late = None
                    checkpoints.save(done, {"state": state}, {"data": iterator.get_state()})
                    saved = done
        if late:
            metrics.write(*late)
        if done > saved:
            checkpoints.save(done, {"state": state}, {"data": iterator.get_state()})
    check_skipped(skipped)
    return jax.block_until_ready(state), done >= config.steps
