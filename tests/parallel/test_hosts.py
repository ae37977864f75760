"""Several processes as one training: which one this is, what each makes and knows, then whole trainings on loopback."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import metrics, rl_flags, sft_flags
from jax._src.clusters import cloud_tpu_cluster, cluster
from trajectories import made, rollout_of

from janus_jax.checkpoints import loading
from janus_jax.checkpoints.model_folder import PARAMS
from janus_jax.checkpoints.tensorfiles import read_safetensors
from janus_jax.data import cache, mixture, pictures
from janus_jax.errors import UserError
from janus_jax.parallel import agree, hosts
from janus_jax.parallel.hosts import Place, place_of
from janus_jax.rl import rollouts
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.tokens import Tokenizer

ROOT = Path(__file__).parents[2]
LAUNCHER = str(ROOT / "launch" / "local_pod.sh")

# Who am I?


def environ(address="10.0.0.1:9000", count="4", index="2"):
    return {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": count, "JAX_PROCESS_ID": index}


def platform(monkeypatch, given):
    """The environment of a TPU VM, seen by jax as one; its metadata server says nothing, and every name is known."""
    for name in ("JAX_COORDINATOR_ADDRESS", "TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr(cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", lambda key: ("", 404))
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "10.0.0.1")


GKE = {"TPU_WORKER_HOSTNAMES": "janus-0.janus,janus-1.janus", "TPU_WORKER_ID": "1"}
SLICES = {"MEGASCALE_NUM_SLICES": "3", "MEGASCALE_SLICE_ID": "2", "MEGASCALE_COORDINATOR_ADDRESS": "lead:8080"}


@pytest.mark.parametrize(
    "given, place",
    [
        ({}, None),
        (environ(), Place("10.0.0.1", 9000, 4, 2)),
        (environ(address="[::1]:9000"), Place("::1", 9000, 4, 2)),
        (environ(address="lead"), Place("lead", hosts.PORT, 4, 2)),
        (environ(count="1", index="0"), None),
        (GKE, Place("janus-0.janus", hosts.PORT, 2, 1)),
        ({**GKE, **environ()}, Place("10.0.0.1", 9000, 4, 2)),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, None),
        ({**GKE, **SLICES}, Place("lead", hosts.PORT, 6, 5)),
    ],
)
def test_place(monkeypatch, given, place):
    platform(monkeypatch, given)
    assert place_of(os.environ) == place


def test_place_in_slurm(monkeypatch):
    """A process for each device: jax's own rule there."""
    platform(monkeypatch, {})
    monkeypatch.setattr(cluster, "running_in_cloud_tpu_vm", False)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[003-004]", "SLURM_NTASKS": "8", "SLURM_PROCID": "5"}
    for name, value in {**slurm, "SLURM_LOCALID": "1"}.items():
        monkeypatch.setenv(name, value)
    assert place_of(os.environ) == Place("node003", 65536 - 4096 + 7, 8, 5, (1,))


def test_a_metadata_server_that_is_not_there(monkeypatch):
    def none(key):
        raise ConnectionError("no route")

    platform(monkeypatch, {})
    monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", none)
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
    assert place_of(os.environ) is None


@pytest.mark.parametrize(
    "given, message",
    [
        (environ(index="4"), "process 4 of 4 cannot be: set JAX_PROCESS_ID"),
        (environ(index=""), "JAX_PROCESS_ID is '', which is no number"),
        (environ(count="two"), "JAX_NUM_PROCESSES is 'two'"),
        (environ(address="lead:port"), "'lead:port' is not HOST:PORT"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, r"the platform \(gketpu\) does not say which process this is .*'None'"),
    ],
)
def test_no_place(monkeypatch, given, message):
    platform(monkeypatch, given)
    with pytest.raises(UserError, match=message):
        place_of(os.environ)


# Who makes which rows


def groups():
    """Three prompts, each with a right and a wrong picture."""
    rng = np.random.default_rng(0)
    return cache.Groups(
        prompts=np.array(["a red circle", "a blue square", "two green stars"]),
        start=np.array([0, 2, 4, 6]),
        codes=rng.integers(0, 9, (6, 4)).astype(np.int32),
        pixels=rng.integers(0, 255, (6, 8, 8, 3)).astype(np.uint8),
        score=np.array([1, 0] * 3, np.float32),
        reasons=np.array(["Yes", "No, it is wrong."] * 3),
        captions=np.array(["a picture"] * 6),
    )


def rows_of(batch, order):
    return jax.tree.map(lambda leaf: leaf[order], batch)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_processes_share_the_same_rows():
    """However many processes make a batch, its rows are the same, and a row is never made twice."""
    grammar = Grammar(Tokenizer.from_folder(loading.find("shapes-sft")), codes=4, seen=4)
    maker = mixture.RowMaker(groups(), grammar)
    buckets = [
        mixture.Bucket(120, (mixture.Kind("draw", 0, 3), mixture.Kind("judge", 0, 5))),
        mixture.Bucket(160, (mixture.Kind("redraw", 1, 4),)),
    ]
    whole = mixture.Steps(maker, buckets, 7, 5)
    for order in (np.arange(8), np.array([1, 4, 5, 7, 0, 2, 3, 6])):
        for parts in (2, 4):
            mine = [[np.split(order[order < b.rows], parts)[p] for b in buckets] for p in range(parts)]
            shared = [mixture.Steps(maker, buckets, 7, 5, one) for one in mine]
            for step, b in ((0, 0), (0, 1), (3, 0)):
                made = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(part[step][b] for part in shared))
                assert_equal(made, rows_of(whole[step][b], np.concatenate([one[b] for one in mine])))
    rows = np.concatenate([whole[step][0].ids for step in range(5)])
    assert len(np.unique(rows, axis=0)) > 8  # and they do differ
    kinds = [np.unique(whole[step][0].text.group[:, 0]) for step in range(5)]
    assert len({tuple(k) for k in kinds}) == 1


def test_processes_share_the_same_pictures():
    whole = iter(pictures.batches(50, 16, 4, seed=3))
    parts = [iter(pictures.batches(50, 16, 4, seed=3, mine=mine)) for mine in ([0, 2], [1, 3])]
    for _ in range(3):
        batch = next(whole)
        assert len({picture.tobytes() for picture in batch}) == 4
        for part, mine in zip(parts, ([0, 2], [1, 3]), strict=True):
            np.testing.assert_array_equal(next(part), batch[mine])


# Deciding together: what the other process says is scripted


@pytest.fixture
def other(monkeypatch):
    """A list of what a second process says at each look, None: the same as this one."""
    says = []

    def gathered(mine):
        theirs = says.pop(0)
        return np.stack([mine, mine if theirs is None else np.asarray(theirs, mine.dtype)])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(agree, "gathered", gathered)
    return says


def test_rewards_of_all(other, monkeypatch):
    """Process 0 has those of trajectories 0 and 2, process 1 that of 1; one reward is missing, and stays so."""
    rollout = rollout_of([made(False, True), made(True), made(False, False)])
    nan = np.nan
    first, second = [[0.5, nan], [nan, nan], [1.0, 0.0]], [[nan, nan], [0.25, nan], [nan, nan]]
    other += [None, None, [second]]  # the names of the scores, and their length, are the same
    rewards = rollouts.of_all(rollout, [{"match": np.float32([0.5, nan, 1.0, 0.0])}], {})
    expected = np.float32([[0.5, nan], [0.25, nan], [1.0, 0.0]])
    np.testing.assert_array_equal(rewards.total, expected)
    np.testing.assert_array_equal(rewards.scores["match"], expected)
    # the same as process 1 sees it: what the script says is then process 0's share
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    says = [None, None, np.float32([first])]

    def gathered(mine):
        theirs = says.pop(0)
        return np.stack([mine if theirs is None else theirs, mine])

    monkeypatch.setattr(agree, "gathered", gathered)
    np.testing.assert_array_equal(rollouts.of_all(rollout, [{"match": np.float32([0.25])}], {}).total, expected)


class Pending:
    """Rewards that are there at the `ready`-th look."""

    def __init__(self, ready, lines=()):
        self.looks, self.ready, self.lines, self.abandoned = 0, ready, list(lines), False

    def poll(self):
        self.looks += 1
        assert self.looks <= self.ready  # not again once they are there
        return (["rewards"] if self.looks == self.ready else None), self.lines[self.looks - 1 : self.looks]

    def abandon(self):
        self.abandoned = True


def awaited(pending, stops=()):
    """(outcome, lines told). stops: what stop() says at each look, False when they have run out."""
    stops, lines = list(stops), []
    stop = lambda: stops.pop(0) if stops else False  # noqa: E731
    return rollouts.awaited(pending, stop, lines.append), lines


def test_rewards_are_awaited_together(other):
    """[has rewards, was told to stop, has a line to say, has failed] of the other process at each look."""
    other[:] = [[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]
    assert awaited(Pending(1)) == (["rewards"], [""]) and not other  # the other is late, and says why
    other[:] = [[1, 0, 0, 0]] * 3
    assert awaited(Pending(3, ["3 are missing"])) == (["rewards"], ["3 are missing"]) and not other
    other[:] = [[0, 0, 0, 0], [0, 1, 0, 0]]
    pending = Pending(1)
    assert awaited(pending) == (None, []) and pending.abandoned
    other[:] = [[0, 0, 0, 0], [0, 0, 0, 0]]
    assert awaited(Pending(9), stops=[False, True]) == (None, [])
    other[:] = [[0, 0, 0, 0], [0, 0, 0, 1]]
    with pytest.raises(UserError, match="the judge of process 1 failed"):
        awaited(Pending(9))
    other[:] = [[1, 0, 0, 0]]
    with pytest.raises(AssertionError):  # as it is, after the other has been told
        awaited(Pending(0))
    assert not other
    other[:] = [[1, 1, 0, 0]]  # all is there: the step is done, and the loop stops after it
    assert awaited(Pending(1), stops=[True]) == (["rewards"], [])


# The launcher


def launcher(count, *command, **settings):
    line = [LAUNCHER, str(count), *map(str, command)]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


def test_the_launcher_names_the_one_that_died():
    began = time.time()
    process = launcher(3, "bash", "-c", "if ((JAX_PROCESS_ID == 1)); then kill -9 $$; fi; echo up; sleep 100; exit 0")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + 9 and time.time() - began < 30
    assert err == "local_pod.sh: process 1 of 3 was killed by signal 9 (KILL); ending the other 2\n"
    assert set(out.splitlines()) <= {"[0] up", "[2] up"}
    process = launcher(2, "bash", "-c", "exit $((JAX_PROCESS_ID * 3))")
    assert "process 1 of 2 ended with status 3; ending the other" in process.communicate(timeout=60)[1]
    assert process.returncode == 3


@pytest.mark.parametrize("killed", [0, 1])
def test_the_launcher_names_the_one_that_was_killed(killed, tmp_path):
    """Its peer, which fails because it is gone, is not what ended the run."""
    command = """
        if ((JAX_PROCESS_ID == $0)); then echo $$ >"$1/made"; mv "$1/made" "$1/pid"; sleep 1; kill -9 $$; fi
        until [[ -f "$1/pid" ]]; do sleep 0.1; done
        while kill -0 "$(<"$1/pid")"; do sleep 0.01; done
        exit 1"""
    process = launcher(2, "bash", "-c", command, killed, tmp_path)
    assert f"process {killed} of 2 was killed by signal 9 (KILL)" in process.communicate(timeout=60)[1]
    assert process.returncode == 128 + 9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_launcher_hands_signals_on(number):
    trap = "trap 'echo saved; exit 0' TERM; echo up; sleep 100 & wait"
    process = launcher(2, "bash", "-c", trap)
    assert {process.stdout.readline() for _ in range(2)} == {"[0] up\n", "[1] up\n"}
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and sorted(out.splitlines()) == ["[0] saved", "[1] saved"] and err == ""


def test_the_launcher_sets_the_scene():
    show = 'echo "$JAX_PROCESS_ID/$JAX_NUM_PROCESSES $JAX_PLATFORMS $JAX_COORDINATOR_ADDRESS"; echo "$@" >&2'
    process = launcher(2, "bash", "-c", show, "name", "a b", env={**os.environ, "JAX_PLATFORMS": ""})
    out, _ = process.communicate(timeout=60)
    lines = sorted(out.splitlines())
    assert process.returncode == 0 and len(lines) == 4
    assert [line.split(" 127.")[0] for line in lines] == ["[0] 0/2 cpu", "[0] a b", "[1] 1/2 cpu", "[1] a b"]
    assert lines[0].split(":")[1] == lines[2].split(":")[1]


@pytest.mark.parametrize(
    "wrong", [[], *([n, "true"] for n in ("0", "two", "-1", "1e3", "257", "99999999999999999999")), ["2"]]
)
def test_the_launcher_refuses(wrong):
    run = subprocess.run([LAUNCHER, *wrong], capture_output=True, text=True)
    assert run.returncode == 2 and len(run.stderr.splitlines()) == 1 and "N COMMAND" in run.stderr


# Whole trainings: tests/pod_worker.py counts in its parameter how often it has seen each sample


def environment(**more):
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", **more}


def worker(workdir, count, *flags, **more):
    command = (sys.executable, "-m", "tests.pod_worker", workdir, *flags)
    return launcher(count, *command, env=environment(**more))


def ended(process, status=0, seconds=900):
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == status, out[-3000:] + err[-2000:]
    return out, err


def children(process):
    """{process index: pid} of a launcher's trainings."""
    found = {}
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        try:
            settings = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        found |= {int(s[15:]): int(pid) for s in settings if s.startswith(b"JAX_PROCESS_ID=")}
    return found


def steps_of(workdir):
    path = workdir / "metrics.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.is_file() else []


def when(condition, process, seconds=600):
    deadline = time.time() + seconds
    while not condition():
        assert process.poll() is None and time.time() < deadline, process.communicate()
        time.sleep(0.02)


def seen(workdir):
    return read_safetensors(workdir / "model" / PARAMS)["seen"]


def stopped_by_one(workdir, count, index, flags=()):
    """Runs until some steps are done, then sends SIGTERM to process `index` alone: the step at which all stopped."""
    before = max(steps_of(workdir), default=0)
    process = worker(workdir, count, "--pause=0.2", *flags)
    when(lambda: max(steps_of(workdir), default=0) > before + 1, process)
    os.kill(children(process)[index], signal.SIGTERM)
    ended(process)
    assert not (workdir / "model").exists()
    last = max(int(path.parent.name) for path in workdir.glob("checkpoints/*/commit_success.txt"))
    assert before < last < 20
    return last


def test_those_who_differ_end_at_once(tmp_path):
    command = f'exec {sys.executable} -m tests.pod_worker {tmp_path} --pause "0.$JAX_PROCESS_ID"'
    out, err = ended(launcher(2, "bash", "-c", command, env=environment()), status=2)
    assert "[0] error: the processes differ: config.pause is 0.0 on process 0, 0.1 on process 1: give all" in out
    assert out.count("the processes differ") == 2 and "ended with status 2" in err
    assert not list(tmp_path.iterdir())


OWN = """
import jax, numpy as np
from ml_collections import ConfigDict
from janus_jax.parallel import agree, hosts, sharding, shards
hosts.start(ConfigDict())
def on(*axes):
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
mesh, whole = sharding.mesh_of((1, -1, 2)), np.arange(48, dtype=np.float32).reshape(8, 6)
x = jax.make_array_from_callback((8, 6), on("fsdp", "tensor"), lambda place: whole[place])
with jax.set_mesh(mesh):
    everywhere = jax.device_put(x, on())
    twice = jax.jit(lambda x, rows: 2 * x[rows])(x, np.arange(8)[::-1])  # an array of numpy is the same on all
found = shards.whole({"x": x, "twice": twice, "everywhere": everywhere, "here": whole})
for name in ("x", "everywhere", "here"):
    np.testing.assert_array_equal(found[name], whole)
np.testing.assert_array_equal(found["twice"], 2 * whole[::-1])
rows = jax.device_put(np.arange(8), on(("data", "fsdp")))
firsts = agree.gathered(np.array(agree.is_first())).tolist()
print(shards.rows(rows.sharding, 8).tolist(), agree.first(lambda: "said"), firsts)
"""


def test_what_is_a_process_own():
    """Of arrays on a mesh of two processes with four devices each: its rows, and what it can have of the others'."""
    devices = environment(XLA_FLAGS="--xla_force_host_platform_device_count=4")
    out, _ = ended(launcher(2, sys.executable, "-c", OWN, env=devices))
    assert "[0] [0, 1, 2, 3] said [True, False]\n" in out and "[1] [4, 5, 6, 7] said [True, False]\n" in out


DRAWS = """
import sys
import jax, numpy as np
from ml_collections import ConfigDict
from janus_jax.parallel import agree, hosts, sharding, shards
hosts.start(ConfigDict())
sys.path[:0] = ["tests"]
from tiny import MODEL, params, processor
from trajectories import SAMPLING, PROMPTS
from janus_jax.sampling.introspect import introspect
mesh, given = sharding.mesh_of((1, int(sys.argv[2]), -1)), jax.device_get(params())
def place(leaf, where):
    return jax.make_array_from_callback(leaf.shape, where, lambda at: leaf[at])
given = jax.tree.map(place, given, sharding.param_shardings(given, mesh, without=("fsdp",)))
with jax.set_mesh(mesh):
    drawn = introspect(MODEL, given, processor(), PROMPTS, 3, 2, SAMPLING, seed=5, batch=4)
shots = [shot for t in drawn for shot in t.rounds]
names = ("codes", "p_yes", "verdict", "image")
numbers = {name: np.stack([np.asarray(getattr(shot, name)) for shot in shots]) for name in names}
np.savez(f"{sys.argv[1]}/{jax.process_count()}.{jax.process_index()}.npz", **numbers)
"""


@pytest.mark.parametrize("fsdp", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_drawing_together(tmp_path, fsdp):
    """Two processes of two devices each draw what one of four draws, and both have all of it; also where each row lies
    on both (fsdp 1)."""
    for count in (1, 2):
        devices = f"--xla_force_host_platform_device_count={4 // count}"
        devices = environment(XLA_FLAGS=devices, JAX_DISABLE_MOST_OPTIMIZATIONS="1")
        ended(launcher(count, sys.executable, "-c", DRAWS, tmp_path, fsdp, env=devices))
    one, *two = (np.load(tmp_path / f"{name}.npz") for name in ("1.0", "2.0", "2.1"))
    assert 6 < len(one["codes"]) <= 12  # some were drawn again
    for other in two:
        for name in ("codes", "verdict", "image"):
            np.testing.assert_array_equal(other[name], one[name])
        np.testing.assert_allclose(other["p_yes"], one["p_yes"], atol=1e-5)


def test_killed_stopped_and_resumed_by_fewer(tmp_path):
    """Two processes, one killed; two again, one told to stop; then one alone ends it: each sample was seen once."""
    process = worker(tmp_path, 2, "--pause=0.2")
    when(lambda: list(tmp_path.glob("checkpoints/*/commit_success.txt")), process)
    os.kill(children(process)[1], signal.SIGKILL)
    began = time.time()
    _, err = ended(process, status=128 + 9)
    assert time.time() - began < 60 and "process 1 of 2 was killed by signal 9 (KILL)" in err
    stopped_by_one(tmp_path, 2, index=1)
    ended(worker(tmp_path, 1))
    np.testing.assert_array_equal(seen(tmp_path), np.ones(160, np.float32))


def test_more_and_fewer_processes(tmp_path):
    """4 -> 1 -> 2 -> 4 processes, on other meshes: each sample was seen once."""
    first = stopped_by_one(tmp_path, 4, index=3)
    devices = "--xla_force_host_platform_device_count=2"
    second = stopped_by_one(tmp_path, 1, index=0)
    third = stopped_by_one(tmp_path, 2, index=0, flags=["--data=2"])
    assert 0 < first < second < third
    ended(worker(tmp_path, 4, "--data=4", XLA_FLAGS=devices))
    np.testing.assert_array_equal(seen(tmp_path), np.ones(160, np.float32))
    assert sorted(set(steps_of(tmp_path))) == list(range(1, 21))


@pytest.mark.slow
def test_a_folder_that_is_not_shared(tmp_path, monkeypatch):
    command = f'exec {sys.executable} -m tests.pod_worker {tmp_path}/"$JAX_PROCESS_ID"'
    out, _ = ended(launcher(2, "bash", "-c", command, env=environment()), status=2)
    assert out.count("of process 1 is not that of process 0: give a --workdir that all share") == 2


# The stages themselves, on the micro world of conftest.py


def train(tmp_path, stage, count, *flags, devices=1):
    """Runs a stage in `count` processes to its end. Compiled without most optimisations: a program runs a few times."""
    quick = {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    command = (sys.executable, "-m", f"janus_jax.train_{stage}", *map(str, flags))
    ended(launcher(count, *command, env=environment(**quick)), seconds=3000)


def by_step(workdir):
    """{step: metrics}; a step that was done again after a resume counts once."""
    return {line["step"]: line for line in metrics(workdir)}


def assert_close(got, expected, names, rtol=1e-5):
    assert got.keys() == expected.keys()
    for step, line in expected.items():
        for name in names:
            assert got[step][name] == pytest.approx(line[name], rel=rtol, abs=1e-6, nan_ok=True), (step, name)


@pytest.mark.slow
def test_sft_of_any_number_of_processes(world, tmp_path):
    """1, 2 and 4 processes have the same losses; what 4 save, 1 goes on from, and 2 from what 1 saved."""
    fixed = ("--config.decay_steps=4", "--config.save_every=2", "--config.model.llama.layers=1")

    def sft(name, count, steps):
        flags = (*sft_flags(world, tmp_path / name), *fixed, "--config.mesh=(1,-1,1)", f"--config.steps={steps}")
        train(tmp_path, "sft", count, *flags)

    sft("straight", 1, 4)
    sft("fewer", 4, 2)
    sft("fewer", 1, 4)
    sft("more", 1, 2)
    sft("more", 2, 4)
    expected = by_step(tmp_path / "straight")
    assert list(expected) == [1, 2, 3, 4] and expected[4]["loss"] < expected[1]["loss"]
    names = ("loss", "grad_norm", "draw", "verdict", "reason", "redraw")
    for name in ("fewer", "more"):
        assert_close(by_step(tmp_path / name), expected, names)
    one, two = (read_safetensors(tmp_path / name / "model" / PARAMS) for name in ("straight", "more"))
    assert one.keys() == two.keys()
    for path, leaf in one.items():  # gathered from two processes; Adam's first steps are +-1 whatever the gradient
        np.testing.assert_allclose(two[path], leaf, atol=2e-3, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"ahead": True},
        {"redraws": 1, "rollout_rows": 4},
        {"reward.kind": "model"},
        {"estimator": "ppo", "mesh": "(1,1,-1)"},
    ],
    ids=["ahead", "redraws", "model", "ppo"],
)
def test_rl_of_two_processes(world, tmp_path, settings):
    """Two processes draw what one draws, and learn the same; one goes on from their checkpoint, the rollout in flight
    included."""
    train(tmp_path, "sft", 1, *sft_flags(world, tmp_path / "init"), "--config.steps=10")
    base = {"credit": "trajectory", "steps": 3, "save_every": 2, "warmup": 0, "group": 2, "mesh": "(1,-1,1)"}
    base |= {"init": tmp_path / "init", "retention_every": 3, "storyboard_every": 3}
    settings = base | settings

    def rl(name, count, devices):
        train(tmp_path, "rl", count, *rl_flags(tmp_path / name, **settings), devices=devices)

    rl("one", 1, 2)
    rl("two", 2, 1)
    expected = by_step(tmp_path / "one")
    names = ("loss", "grad_norm", "entropy_text", "reward_first", "reward_final", "diversity", "rounds", "idle_first")
    assert list(expected) == [1, 2, 3]
    assert_close(by_step(tmp_path / "two"), expected, names, rtol=1e-4)
    assert by_step(tmp_path / "two")[3]["retention"] == pytest.approx(expected[3]["retention"])
    groups = [line["groups_drawn"] for line in expected.values()]
    assert [line["groups_drawn"] for line in by_step(tmp_path / "two").values()] == groups
    assert max(groups) == 4 * (1 + settings.get("redraws", 0))
    assert (tmp_path / "two" / "storyboard_00003.png").is_file()
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "3")
    shutil.rmtree(tmp_path / "two" / "model")
    rl("two", 1, 2)
    assert_close(by_step(tmp_path / "two"), expected, names, rtol=1e-4)
    assert len(metrics(tmp_path / "two")) == 4 and (tmp_path / "two" / "model").is_dir()
