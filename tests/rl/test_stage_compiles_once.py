"""What a step of stage 2 compiles: nothing, from the second one on."""

import jax
import numpy as np
import pytest
from commands import CONFIGS
from tiny import MODEL, params, processor

from janus_jax import cli, train_rl
from janus_jax.checkpoints import loading

COMPILED = "/jax/core/compile/backend_compile_duration"
SETTINGS = {
    "credit": "released/always_second",  # all rows go on: no rows are taken away, which has its own few shapes
    "steps": 3,
    "rounds": 2,
    "group": 4,
    "prompts_per_step": 2,
    "prompt_tokens": 64,
    "max_reason_tokens": 4,
    "retention_every": 0,
    "storyboard_every": 10,
    "save_every": 10,
    "max_logp_gap": 1e9,  # not the question here
    "cfg_weight": 2.0,
}


@pytest.mark.usefixtures("quick_compiles")
def test_stage_2(tmp_path):
    counts, asked = [], []

    def count(event, duration, **_):
        if event == COMPILED:
            counts.append(duration)

    def judge(requests, pictures):
        """Called in each step between drawing and learning."""
        asked.append(len(counts))
        return np.random.default_rng(len(asked)).random(len(pictures))

    loading.save(tmp_path / "init", MODEL, params(), processor())
    flags = [f"--config.{name}={value}" for name, value in SETTINGS.items()]
    config, workdir = cli.parse_config(
        [
            "--config",
            str(CONFIGS / "shapes_rl.py"),
            "--workdir",
            str(tmp_path / "w"),
            f"--config.init={tmp_path / 'init'}",
            *flags,
        ],
        "",
    )
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax's own arithmetic
            train_rl.train(config, workdir, judge=judge)
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    first, second, third = asked
    assert 0 < first < second  # drawing compiles, and learning
    assert third == second  # the second step's learning and the third's drawing do not
