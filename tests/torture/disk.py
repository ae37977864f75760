"""A training on a disk that fills at some moment: a line, and with room again the same command goes on."""

import contextlib
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torture.kills import NAMES, Runs, ended, result

COUNT = 6
ROOM = 256  # MB


@contextlib.contextmanager
def disk(megabytes: float):
    """A folder that is a file system of its own; only root may make one."""
    with TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(megabytes * 1024)}k", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def outcome(runs: Runs, seed: int) -> tuple[str, str]:
    """(what came of a training on a disk too small, which is then made larger; what was done)."""
    rng, stage = np.random.default_rng(seed), NAMES[seed % len(NAMES)]
    losses, model, _ = runs.whole(stage)
    needed = sum(path.stat().st_size for path in (runs.folder / stage).rglob("*") if path.is_file()) / 2**20
    size = float(rng.uniform(0.05, 1.0)) * needed
    with disk(size) as folder:
        workdir = folder / "w"
        status, said = ended(runs.start(stage, workdir))
        lines = said.replace("\r", "\n").splitlines()
        errors = [line for line in lines if line.strip() and not re.match(r"(sft|rl): +\d+%", line)]
        what = f"{seed}: {stage}, {size:.1f} of {needed:.1f} MB: {status}: {errors}"
        if status not in (0, 2) or len(errors) > 1 or "Traceback" in said:
            return "traceback", what
        subprocess.run(["mount", "-o", f"remount,size={ROOM}m", str(folder)], check=True)
        again, said = ended(runs.start(stage, workdir))
        if again != 0:
            return "traceback", f"{what}; with room again {again}: {said[-300:]}"
        same = result(workdir) == (losses, model)
    return ("equal" if same else "silent"), what


def trials(done: Callable[[int], bool]):
    """(seed, result, what) of the trials that are not done."""
    todo = [seed for seed in range(COUNT) if not done(seed)]
    if os.name != "posix" or os.geteuid() != 0 or not todo:
        return
    with TemporaryDirectory() as folder:
        runs = Runs(Path(folder))
        for seed in todo:
            yield seed, *outcome(runs, seed)
