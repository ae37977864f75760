"""The loop of all stages: an interrupted training goes on as if it had not been."""

import functools
import json
import types
import weakref
from unittest import mock

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from janus_jax.errors import UserError
from janus_jax.training import loop
from janus_jax.training.loop import AHEAD, Job, fit, supervised
from janus_jax.training.step import Built, init_state, make_train_step
from janus_jax.training.workdir import FILE, Checkpoints

STEPS = 7
PARAMS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3) / 10}
TX = optax.sgd(0.1, momentum=0.9)  # optax.adamw promotes dtypes implicitly, which the tests refuse
PLACE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def refused(match):
    """A UserError in one line."""
    return pytest.raises(UserError, match=f"^[^\n]*{match}[^\n]*$")


class Stop:
    """Becomes true after so many looks at it."""

    def __init__(self, after=STEPS + 1):
        self.left, self.at_once = after, lambda: None

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


def train(
    workdir,
    stop,
    watch=lambda number: None,
    more=lambda values: {},
    steps=STEPS,
    bad=(),
    given=None,
    ahead=AHEAD,
    log_every=1,
    **settings,
):
    """Trains on batches that differ from step to step, those of `bad` not finite; watch(n) is called before the n-th
    step of this run, and more(values) gives it further metrics."""
    batches = [np.random.default_rng(i).normal(size=(3, 4)).astype(np.float32) for i in range(max(steps, STEPS))]
    for i in bad:
        batches[i][:] = np.nan
    batches = grain.MapDataset.source(batches).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=PLACE), initial(PARAMS))
    calls = iter(range(steps + 1))

    def watched(state, batch):
        watch(next(calls))
        state, values = step()(state, batch)
        return state, {**values, **more(values)}

    config = ConfigDict({"steps": steps, "save_every": 2, "learning_rate": 0.1, **settings})
    job = supervised(Built(watched, initial, abstract), given or [PARAMS], batches, PLACE)
    return fit(workdir, "toy", job, config, stop, log_every=log_every, ahead=ahead)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def saved(workdir):
    with Checkpoints(workdir, "toy") as checkpoints:
        return checkpoints.steps()


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("before", [0, 2])
def test_parameters_are_given_away(tmp_path, before):
    """Beside the state, and what was restored, those it began with do not stay."""
    if before:
        train(tmp_path, Stop(after=before))
    parameters = [jax.tree.map(jnp.asarray, PARAMS)]
    hold, alive = weakref.ref(parameters[0]["w"]), []
    train(tmp_path, Stop(), given=parameters, watch=lambda number: alive.append(hold() is not None))
    assert alive == [False] * (STEPS - before)


@pytest.mark.parametrize("after", [1, 2, 5])
def test_stopped_and_resumed(tmp_path, capfd, after):
    """A signal saves; the resumed run sees the batches that were left, and ends in the very same state."""
    straight, finished = train(tmp_path / "straight", Stop())
    assert finished and int(straight.step) == STEPS
    state, finished = train(tmp_path / "cut", Stop(after))
    assert not finished and int(state.step) == after
    assert f"stopped after step {after} of {STEPS}; the same command goes on" in capfd.readouterr().err
    state, finished = train(tmp_path / "cut", Stop())
    assert finished and "stopped" not in capfd.readouterr().err
    assert_equal(state, straight)
    again, finished = train(tmp_path / "cut", Stop())  # nothing is left to do
    assert finished
    assert_equal(again, straight)
    assert [line["step"] for line in lines(tmp_path / "cut")] == list(range(1, STEPS + 1))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("ahead", [0, AHEAD])
def test_killed_and_resumed(ahead, tmp_path):
    """A kill costs one interval at most; each step stands once in the metrics."""
    straight, _ = train(tmp_path / "straight", Stop())

    def watch(number):
        if number == 5:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "cut", Stop(), watch, ahead=ahead)
    assert saved(tmp_path / "cut") == [4, 2]
    state, finished = train(tmp_path / "cut", Stop(), ahead=ahead)
    assert finished
    assert_equal(state, straight)
    assert [line["step"] for line in lines(tmp_path / "cut")] == list(range(1, STEPS + 1))
    losses = [[line["loss"] for line in lines(tmp_path / name)] for name in ("cut", "straight")]
    assert losses[0] == losses[1]


def test_few_steps_are_under_way_at_once(tmp_path):
    """After a signal the steps under way have to end before the state can be saved."""
    waited = []

    class Pending(float):
        def block_until_ready(self):
            if int(self) not in waited:
                waited.append(int(self))
            return self

    started = iter(range(STEPS))

    def more(values):
        number = next(started)
        assert waited[1:] == list(range(1, number))[: len(waited[1:])]
        assert len(waited) >= number - AHEAD
        return {"number": Pending(number)}

    train(tmp_path, Stop(), more=more)


def test_the_pace_counts_the_steps_between_lines(tmp_path, monkeypatch):
    """Each takes a second: also those of a resumed run's first line, and of the last one."""
    clock = iter(range(1000))
    stand_in = types.SimpleNamespace(time=lambda: 0.0)
    monkeypatch.setattr(loop, "time", stand_in)

    def watch(number):
        second = float(next(clock))
        stand_in.time = lambda: second + 1

    train(tmp_path, Stop(2), watch, log_every=3)
    stand_in.time = lambda: 2.0
    train(tmp_path, Stop(), watch, log_every=3)
    assert [(line["step"], line["steps_per_second"]) for line in lines(tmp_path)] == [(3, 1.0), (6, 1.0), (7, 1.0)]


def test_more_steps_and_fewer(tmp_path):
    train(tmp_path, Stop(), steps=4)
    with refused("has gone 4 steps, more than config.steps = 3"):
        train(tmp_path, Stop(), steps=3)
    state, finished = train(tmp_path, Stop(), steps=7)
    assert finished and int(state.step) == 7


def test_settings_are_kept_with_the_first_checkpoint(tmp_path):
    """A run that was refused before leaves none, so that the right command is taken."""

    def refuse(number):
        raise UserError("the prompt is too long")

    with refused("too long"):
        train(tmp_path, Stop(), refuse)
    assert not (tmp_path / FILE).exists()
    train(tmp_path, Stop(3))
    assert json.loads((tmp_path / FILE).read_text()) == {"steps": 7, "save_every": 2, "learning_rate": 0.1}


def test_a_refusal_on_the_way_saves_what_was_learnt(tmp_path):
    def watch(number):
        if number == 3:
            raise UserError("the prompt is too long")

    with refused("too long"):
        train(tmp_path, Stop(), watch)
    assert saved(tmp_path) == [3, 2]


@pytest.mark.parametrize("damage", ["empty", "missing"])
def test_a_damaged_newest_checkpoint(damage, tmp_path, capfd):
    """Is said in a line and set aside; the run goes on from the one before, to the same end."""
    straight, _ = train(tmp_path / "straight", Stop())
    train(tmp_path / "cut", Stop(5))
    assert saved(tmp_path / "cut") == [5, 4]
    for path in (tmp_path / "cut" / "checkpoints" / "5" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"") if damage == "empty" else path.unlink()
    capfd.readouterr()
    state, finished = train(tmp_path / "cut", Stop())
    assert finished
    assert_equal(state, straight)
    said = [line for line in capfd.readouterr().err.splitlines() if line and "toy: " not in line]
    assert len(said) == 1 and "checkpoints/5 is damaged" in said[0] and "goes on from step 4" in said[0]
    assert [line["step"] for line in lines(tmp_path / "cut")] == list(range(1, STEPS + 1))
    assert list((tmp_path / "cut").glob("damaged_5_*"))


def test_where_all_checkpoints_are_damaged(tmp_path):
    """The run is refused, and nothing is moved."""
    train(tmp_path, Stop(5))
    for path in (tmp_path / "checkpoints").glob("*/state/manifest.ocdbt"):
        path.write_bytes(b"")
    with refused("checkpoints/5 is damaged.*another --workdir"):
        train(tmp_path, Stop())
    assert saved(tmp_path) == [5, 4]


def test_updates_that_are_not_finite(tmp_path):
    """A few are skipped and change nothing; ten in a row end the run, with the state before them saved."""
    with_few, finished = train(tmp_path / "few", Stop(99), steps=20, bad=(*range(3, 12), *range(13, 18)))
    assert finished and np.isfinite(with_few.params["w"]).all()
    assert [line["step"] - 1 for line in lines(tmp_path / "few") if line["skipped"]] == [*range(3, 12), *range(13, 18)]

    before, _ = train(tmp_path / "before", Stop(3), steps=20)
    with refused(r"1\d updates in a row .*learning_rate"):
        train(tmp_path / "many", Stop(99), steps=20, bad=range(3, 20))
    assert saved(tmp_path / "many") == [4, 2]
    assert "learning_rate" not in json.loads((tmp_path / "many" / FILE).read_text())  # as it is told to change it
    after, _ = train(tmp_path / "many", Stop(0), steps=20)
    np.testing.assert_array_equal(after.params["w"], before.params["w"])
    assert_equal(after.opt_state, before.opt_state)


def test_parameters_that_were_never_sound_are_not_saved(tmp_path):
    for steps in (5, 20):
        with refused(r"\d+ updates in a row"):
            train(tmp_path, Stop(99), steps=steps, given=[{"w": np.full((2, 3), np.nan, np.float32)}])
        assert saved(tmp_path) == []


# A synchronous stage


def synchronous(workdir, stop, after=lambda carry, done, written, metrics: None, waits=()):
    """Counts; at the steps `waits` it waits for something, and is told to stop there."""

    def advance(carry, number, pause):
        if number in waits:
            pause(f"step {number} waits")
            return None
        return {"count": carry["count"] + 1}, {"loss": 0.5, "skipped": 0.0}

    def resume(checkpoints, step):
        place = jax.ShapeDtypeStruct((), np.int32, sharding=PLACE)
        return checkpoints.restore(step, {"state": {"count": place}})["state"]

    job = Job(lambda: {"count": jnp.int32(0)}, resume, lambda carry: ({"state": carry}, {}), advance, after)
    return fit(workdir, "count", job, ConfigDict({"steps": 6, "save_every": 4}), stop)


def test_after_each_step(tmp_path):
    seen = []
    synchronous(
        tmp_path, Stop(), lambda carry, done, written, metrics: seen.append((int(carry["count"]), done, written))
    )
    assert [(count, done, written["loss"]) for count, done, written in seen] == [(i, i, 0.5) for i in range(1, 7)]


def test_what_is_refused_after_a_step_is_saved(tmp_path):
    def after(carry, done, written, metrics):
        if done == 3:
            raise UserError("the density trained is not the one sampled")

    with refused("density"):
        synchronous(tmp_path, Stop(), after)
    carry, finished = synchronous(tmp_path, Stop(0))
    assert int(carry["count"]) == 3 and not finished


def test_a_pause_saves_at_once(tmp_path, capfd):
    carry, finished = synchronous(tmp_path, Stop(), waits=(3,))
    assert not finished and int(carry["count"]) == 3
    assert "step 3 waits" in capfd.readouterr().err
    carry, finished = synchronous(tmp_path, Stop())
    assert finished and int(carry["count"]) == 6
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 7))


def test_a_signal_ends_at_once_before_the_first_step_only(tmp_path):
    stop, seen = Stop(), []

    def after(carry, done, written, metrics):
        seen.append(stop.at_once)

    assert stop.at_once
    synchronous(tmp_path, stop, after)
    assert seen == [None] * 6


def test_metrics_without_a_value_are_named_once(tmp_path, capsys):
    """With the reason, and left out beside the bar; the file says null."""
    values = iter([{"a": np.nan, "b": 1.0}, {"a": np.nan, "b": np.nan}, {"a": 2.0, "b": 3.0}])

    def advance(carry, number, pause):
        return carry, {"skipped": 0.0, **next(values)}

    config = ConfigDict({"steps": 3, "save_every": 10})
    job = Job(dict, None, lambda carry: ({}, {}), advance, shown=("a", "b"), why=lambda name: f"no {name} today")
    log = []
    with mock.patch.object(loop.tqdm, "set_postfix", lambda self, shown: log.append(shown)):
        fit(tmp_path, "x", job._replace(items=lambda carry: ({"state": {"w": np.zeros(1)}}, {})), config, Stop())
    said = [line for line in capsys.readouterr().err.splitlines() if "no value of" in line]
    assert [line[line.index("step") :] for line in said] == [
        "step 1: no value of a (no a today)",
        "step 2: no value of b (no b today)",
    ]
    assert log == [{"b": "1"}, {}, {"a": "2", "b": "3"}]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["a"] for line in lines] == [None, None, 2.0]
