"""The loop of a supervised stage: an interrupted training goes on as if it had not been."""

import errno
import functools
import json
import threading
import weakref
from types import SimpleNamespace

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_commands import refused

from janus_jax.checkpoints import model_folder
from janus_jax.checkpoints.model_folder import MANIFEST
from janus_jax.errors import UserError
from janus_jax.training.loop import AHEAD, fit
from janus_jax.training.step import Built, init_state, make_train_step
from janus_jax.training.workdir import Checkpoints

STEPS = 7
PARAMS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3) / 10}
TX = optax.sgd(0.1, momentum=0.9)  # optax.adamw promotes dtypes implicitly, which the tests refuse


class Stop:
    """Becomes true after so many looks at it."""

    def __init__(self, after=STEPS + 1):
        self.left = after

    def __bool__(self):
        self.left -= 1
        return self.left < 0


@functools.cache
def step():
    return make_train_step(
        lambda params, batch: params["w"] @ batch,
        lambda outputs, batch: (jnp.sum(jnp.square(outputs - 1.0)), {}),
        TX,
        {"w": True},
    )


def initial(params):
    return init_state(jax.tree.map(jnp.array, params), TX, {"w": True})  # a copy, as train_step.build makes it


def train(workdir, stop, watch=lambda number: None, more=lambda values: {}, steps=STEPS, bad=(), given=lambda: PARAMS):
    """Trains on batches that differ from step to step, those of `bad` not finite; watch(n) is called before the n-th
    step of this run, and more(values) gives it further metrics."""
    batches = [np.random.default_rng(i).normal(size=(3, 4)).astype(np.float32) for i in range(steps)]
    for i in bad:
        batches[i][:] = np.nan
    batches = grain.MapDataset.source(batches).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), initial(PARAMS))
    calls = iter(range(steps + 1))

    def watched(state, batch):
        watch(next(calls))
        state, values = step()(state, batch)
        return state, {**values, **more(values)}

    config = SimpleNamespace(steps=steps, log_every=1, save_every=2)
    built = Built(watched, initial, abstract)
    return fit(workdir, "toy", built, given, batches, jnp.asarray, config, stop)


@pytest.mark.parametrize("before", [0, 2])
def test_parameters_are_given_away(tmp_path, before):
    """Beside the state, and what was restored, those it began with do not stay."""
    if before:
        train(tmp_path, Stop(after=before))
    parameters = [jax.tree.map(jnp.asarray, PARAMS)]
    hold, alive = weakref.ref(parameters[0]["w"]), []
    train(tmp_path, Stop(), given=parameters.pop, watch=lambda number: alive.append(hold() is not None))
    assert alive == [False] * (STEPS - before)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("after", [1, 2, 5])
def test_stopped_and_resumed(tmp_path, after):
    """A signal saves; the resumed run sees the batches that were left, and ends in the very same state."""
    straight, finished = train(tmp_path / "straight", Stop())
    assert finished and int(straight.step) == STEPS
    state, finished = train(tmp_path / "cut", Stop(after))
    assert not finished and int(state.step) == after
    state, finished = train(tmp_path / "cut", Stop())
    assert finished
    assert_equal(state, straight)
    again, finished = train(tmp_path / "cut", Stop())  # nothing is left to do
    assert finished
    assert_equal(again, straight)


def test_killed_and_resumed(tmp_path):
    """A save counts soon after it, not only from the next save on: a kill costs one interval at most."""
    straight, _ = train(tmp_path / "straight", Stop())

    class Killed(BaseException):
        pass

    def watch(number):
        if number == 5:
            folder = tmp_path / "cut" / "checkpoints"
            for _ in range(200):  # the save of step 4 is under way, that of step 2 has long been sealed
                if (folder / "2" / MANIFEST).is_file():
                    break
            assert (folder / "2" / MANIFEST).is_file()
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "cut", Stop(), watch)
    (tmp_path / "cut" / "checkpoints" / "4" / MANIFEST).unlink(missing_ok=True)  # as if killed while saving
    state, finished = train(tmp_path / "cut", Stop())
    assert finished
    assert_equal(state, straight)


def test_few_steps_are_under_way_at_once(tmp_path):
    """After a signal the steps under way have to end before the state can be saved."""
    waited = []

    class Pending(float):
        def block_until_ready(self):
            waited.append(int(self))
            return self

    started = iter(range(STEPS))

    def more(values):
        number = next(started)
        assert waited == list(range(max(number - AHEAD, 0)))
        return {"number": Pending(number)}

    train(tmp_path, Stop(), more=more)


def test_a_save_is_sealed_without_waiting_for_the_next(tmp_path):
    with Checkpoints(tmp_path, "toy") as checkpoints:
        checkpoints.save(1, {"state": initial(PARAMS)})
        while not (tmp_path / "checkpoints" / "1" / MANIFEST).is_file():
            checkpoints.poll()
        assert checkpoints.latest() == 1


def test_steps_do_not_wait_for_a_seal(tmp_path, monkeypatch):
    seal, begun, may_end = model_folder.seal, threading.Event(), threading.Event()

    def slow(folder):
        begun.set()
        assert may_end.wait(60)
        seal(folder)

    monkeypatch.setattr(model_folder, "seal", slow)
    with Checkpoints(tmp_path, "toy") as checkpoints:
        checkpoints.save(1, {"state": initial(PARAMS)})
        for _ in range(600):
            checkpoints.poll()
            if begun.wait(0.1):
                break
        checkpoints.poll()
        assert checkpoints.latest() is None
        may_end.set()
        checkpoints.save(2, {"state": initial(PARAMS)})
        assert checkpoints.latest() == 1
    assert (tmp_path / "checkpoints" / "2" / MANIFEST).is_file()


def test_a_seal_that_fails(tmp_path, monkeypatch, capsys):
    """Is said in a line; it does not take the place of what ended the training before."""

    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model_folder, "seal", full)
    with pytest.raises(UserError, match="cannot write to .*checkpoints: No space left on device"):
        with Checkpoints(tmp_path / "a", "toy") as checkpoints:
            checkpoints.save(1, {"state": initial(PARAMS)})
    with pytest.raises(UserError, match="the density"):
        with Checkpoints(tmp_path / "b", "toy") as checkpoints:
            checkpoints.save(1, {"state": initial(PARAMS)})
            raise UserError("the density trained is another one")
    assert "the last checkpoint is lost: cannot write to" in capsys.readouterr().err


def test_a_workdir_of_another_stage(tmp_path):
    train(tmp_path, Stop(2))
    assert "'toy', not 'rl'" in refused(lambda argv: Checkpoints(tmp_path, "rl"))


def test_updates_that_are_not_finite(tmp_path):
    """A few are skipped and change nothing; ten in a row end the run, with the state before them saved."""
    with_few, finished = train(tmp_path / "few", Stop(99), steps=20, bad=(*range(3, 12), *range(13, 18)))
    assert finished and np.isfinite(with_few.params["w"]).all()
    metrics = [json.loads(line) for line in (tmp_path / "few" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] - 1 for line in metrics if line["skipped"]] == [*range(3, 12), *range(13, 18)]

    before, _ = train(tmp_path / "before", Stop(3), steps=20)
    line = refused(lambda argv: train(tmp_path / "many", Stop(99), steps=20, bad=range(3, 20)))
    assert "10 updates in a row" in line and "learning_rate" in line
    folder = tmp_path / "many" / "checkpoints"
    saved = max(int(path.name) for path in folder.iterdir() if (path / MANIFEST).is_file())
    assert 13 <= saved <= 13 + AHEAD
    after, _ = train(tmp_path / "many", Stop(0), steps=20)
    np.testing.assert_array_equal(after.params["w"], before.params["w"])
    assert_equal(after.opt_state, before.opt_state)
