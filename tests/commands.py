"""The commands as tests call them: in this process where they refuse their input, else in one of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from janus_jax.errors import UserError

CONFIGS = Path(__file__).parent.parent / "configs"
MICRO = str(Path(__file__).parent / "configs" / "micro_sft.py")


def refused(main, *argv):
    """The one line with which a command refuses its input."""
    with pytest.raises(UserError) as caught:
        main([str(arg) for arg in argv])
    line = str(caught.value)
    assert line and "\n" not in line
    return line


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def sft_flags(world, workdir):
    vq, labelled = world
    return ["--config", MICRO, "--workdir", str(workdir), f"--config.vq={vq}", f"--config.cache={labelled}"]


def environment(tmp_path, devices=1):
    """CPU devices, by default one as on a user's machine, and a compilation cache that the commands of a test share."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}" if devices > 1 else "",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def command(tmp_path, module, *flags, devices=1):
    """Runs a command to its end, which must be a good one."""
    line = [sys.executable, "-m", f"janus_jax.{module}", *map(str, flags)]
    run = subprocess.run(line, env=environment(tmp_path, devices), capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr


RL = {
    "group": 4,
    "prompts_per_step": 4,
    "max_reason_tokens": 6,
    "learning_rate": 3e-3,
    "turn_learning_rate": 3e-3,
    "final_learning_rate": 3e-3,
    "warmup": 1,
    "beta": 0.0,
    "rounds": 2,
    "storyboard_every": 5,
    "retention_every": 5,
    "retention_prompts": 4,
    "credit": "released/own_prompt",
}


def rl_flags(workdir, **changed):
    settings = [f"--config.{key}={value}" for key, value in {**RL, **changed}.items()]
    return ["--config", str(CONFIGS / "shapes_rl.py"), "--workdir", str(workdir), *settings]
