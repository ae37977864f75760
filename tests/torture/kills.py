"""Trainings of a micro world that are killed or signalled at a random moment, and two in one workdir."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from commands import environment, metrics, rl_flags, sft_flags
from conftest import micro_world

from janus_jax.checkpoints.model_folder import PARAMS

KILLED, SIGNALLED, TOGETHER = 20, 10, 3
LIMIT = 600  # seconds of one run
RL = {"steps": 8, "save_every": 2, "updates": 2}
STAGES = {
    "sft": {},
    "rl": RL,
    "rl-ahead": {**RL, "ahead": True, "refresh_every": 3, "credit": "trajectory", "estimator": "ppo"},
}
NAMES = sorted(STAGES)


class Runs:
    """The trainings, each once without an accident: what it comes to and how long it takes."""

    def __init__(self, folder: Path):
        self.folder, self.world = folder, micro_world(folder)
        self.wholes = {}

    def start(self, stage, workdir) -> subprocess.Popen:
        kind = stage.split("-")[0]
        if kind == "sft":
            flags = sft_flags(self.world, workdir)
        else:
            self.whole("sft")
            flags = rl_flags(workdir, init=self.folder / "sft", **STAGES[stage])
        line = [sys.executable, "-m", f"janus_jax.train_{kind}", *flags]
        return subprocess.Popen(line, env=environment(self.folder), stderr=subprocess.PIPE, text=True)

    def whole(self, stage):
        """(the losses, the model's bytes, seconds) of a stage."""
        if stage not in self.wholes:
            for _ in range(2):  # the second time with what was compiled
                workdir = self.folder / stage
                begin = time.time()
                said = ended(self.start(stage, workdir))
                assert said == (0, said[1]), said
                self.wholes[stage] = (*result(workdir), time.time() - begin)
                if stage == "sft" or _ == 1:
                    break
                workdir.rename(self.folder / f"{stage}-first")
        return self.wholes[stage]


def ended(process) -> tuple[int | None, str]:
    """(exit status, what was said); None after LIMIT seconds."""
    try:
        said = process.communicate(timeout=LIMIT)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return None, process.communicate()[1]
    return process.returncode, said


def result(workdir):
    """(losses by step, each step once; the model's bytes)."""
    return [(line["step"], line["loss"]) for line in metrics(workdir)], (workdir / "model" / PARAMS).read_bytes()


def outcome(runs: Runs, seed: int, workdir: Path, number: int) -> tuple[str, str]:
    """(what came of a run that gets a signal at a moment, and is started again till it ends; what was done)."""
    rng, stage = np.random.default_rng([number, seed]), NAMES[seed % len(NAMES)]
    losses, model, seconds = runs.whole(stage)
    what = f"{seed}: {stage}"
    for _ in range(1 + int(rng.integers(2))):
        moment = float(rng.uniform(0, seconds))
        process = runs.start(stage, workdir)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        process.send_signal(number)
        status, said = ended(process)
        what += f", {signal.Signals(number).name} at {moment:.1f} s of {seconds:.1f}: {status}"
        # -number: before the command could say what it does then, or when it had nothing left to do
        if status not in (0, 143, -number) or "Traceback" in said:
            return "traceback", f"{what}: {said[-300:]}"
    status, said = ended(runs.start(stage, workdir))
    if status != 0 or "Traceback" in said:
        return "traceback", f"{what}: then {status}: {said[-300:]}"
    got = result(workdir)
    same = [got[0] == losses, got[1] == model]
    return ("equal" if all(same) else "silent"), f"{what}: losses equal {same[0]}, model equal {same[1]}"


def _signalled(done, number, count):
    with TemporaryDirectory() as folder:
        runs = None
        for seed in range(count):
            if done(seed):
                continue
            runs = runs or Runs(Path(folder))
            with TemporaryDirectory() as scratch:
                yield seed, *outcome(runs, seed, Path(scratch) / "w", number)


def killed(done: Callable[[int], bool]):
    """(seed, result, what) of kill -9."""
    yield from _signalled(done, signal.SIGKILL, KILLED)


def signalled(done: Callable[[int], bool]):
    """(seed, result, what) of SIGTERM."""
    yield from _signalled(done, signal.SIGTERM, SIGNALLED)


def together(done: Callable[[int], bool]):
    """(seed, result, what) of two runs in one workdir: the second is refused in a line, the first goes on."""
    with TemporaryDirectory() as folder:
        runs = None
        for seed in filter(lambda seed: not done(seed), range(TOGETHER)):
            runs = runs or Runs(Path(folder))
            stage, workdir = NAMES[seed], Path(folder) / f"together{seed}"
            losses, model, _ = runs.whole(stage)
            first = runs.start(stage, workdir)
            while not (workdir / "lock").is_file() and first.poll() is None:
                time.sleep(0.01)
            status, said = ended(runs.start(stage, workdir))
            refused = status == 2 and re.fullmatch(r"error: .*\n", said)
            kept = ended(first)[0] == 0 and result(workdir) == (losses, model)
            yield seed, ("refused" if refused and kept else "traceback"), f"{stage}: {json.dumps(said[-300:])}"
