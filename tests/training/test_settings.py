"""Every setting of every shipped configuration has a rule, and what makes no sense is refused by name."""

from pathlib import Path

import pytest

from janus_jax import cli
from janus_jax.errors import UserError
from janus_jax.rl.advantages import ESTIMATORS
from janus_jax.rl.credit import CREDITS
from janus_jax.training import settings

ROOT = Path(__file__).parent.parent.parent
NAN, INF = float("nan"), float("inf")


def read(file):
    return cli.parse_config([f"--config={ROOT / file}"], "", workdir=False)[0]


def check_rl(config):
    settings.check_rl(config, CREDITS, ESTIMATORS)


CHECKS = {
    "configs/shapes_vq.py": (settings.check_vq, settings.VQ, {"vq"}),
    "configs/shapes_base.py": (settings.check_sft, settings.SFT, {"model", "buckets"}),
    "configs/shapes_sft.py": (settings.check_sft, settings.SFT, {"model", "buckets"}),
    "configs/janus_pro_1b_sft.py": (settings.check_sft, settings.SFT, {"model", "buckets"}),
    "configs/janus_pro_7b_sft.py": (settings.check_sft, settings.SFT, {"model", "buckets"}),
    "tests/configs/micro_sft.py": (settings.check_sft, settings.SFT, {"model", "buckets"}),
    "configs/shapes_rl.py": (check_rl, settings.RL, {"model", "reward"}),
    "configs/janus_pro_1b_rl.py": (check_rl, settings.RL, {"model", "reward", "preset"}),
    "configs/janus_pro_7b_rl.py": (check_rl, settings.RL, {"model", "reward", "preset"}),
    "configs/janus_pro_generate.py": (settings.check_drawing, settings.DRAWING, {"model"}),
}


@pytest.mark.parametrize("file", CHECKS)
def test_shipped_configurations(file):
    check, table, elsewhere = CHECKS[file]
    config = read(file)
    check(config)
    assert set(config) == set(table) | elsewhere  # each setting has a rule, and each rule its setting


SFT, RL, VQ = "configs/shapes_sft.py", "configs/shapes_rl.py", "configs/shapes_vq.py"


@pytest.mark.parametrize(
    "file, name, values",
    [
        *((SFT, name, (NAN, INF, -1.0)) for name in ("learning_rate", "weight_decay", "final_learning_rate")),
        *((SFT, name, (NAN, -0.1, 2.0)) for name in ("verdict_share", "drop_prompt", "judged_right")),
        (SFT, "shares", ((1, -1, 1, 1), (0, 0, 0, 0), (1, NAN, 1, 1), (1, 1, 1), (), (1,) * 6)),
        (SFT, "buckets", ((), ((60, ()),), (60, 80), ((0, (("draw", 0, 1),)),), ((60, (("paint", 0, 1),)),))),
        (SFT, "buckets", (((60, (("draw", 0),)),), ((60, (("draw", 0, 0),)),), ((60, (("draw", -1, 1),)),))),
        (SFT, "decay_steps", (-5,)),
        (SFT, "optimizer", ("magic",)),
        (SFT, "moments", ("float16",)),
        (SFT, "frozen", (("(",),)),
        (SFT, "mesh", ((1, 1), (1, 1, -2))),
        *((SFT, name, (0, -1, 2**31)) for name in ("steps", "log_every", "save_every", "micro_batches")),
        (SFT, "seed", (-1, 2**32)),
        (SFT, "warmup", (-1,)),
        (SFT, "temperature", (0.0, NAN)),
        *((RL, name, (NAN, INF, -1.0)) for name in ("beta", "clip_high", "cfg_weight", "gamma", "final_learning_rate")),
        *((RL, name, (NAN, -0.5, 1.5)) for name in ("free_prompts", "most_missing", "clip_low", "gae_lambda")),
        (RL, "max_logp_gap", (NAN, INF)),
        (RL, "clip_norm", (0.0, NAN)),
        (RL, "pause_seconds", (-1.0, NAN, INF)),
        (RL, "rollout_rows", (-1,)),
        (RL, "turn_learning_rate", (0.0, NAN)),
        *((RL, name, (0,)) for name in ("updates", "prompts_per_step", "rounds", "storyboard_every", "prompt_tokens")),
        (RL, "credit", ("magic",)),
        (RL, "estimator", ("magic",)),
        (RL, "schedule", ("magic",)),
        (VQ, "steps", ((1, 1), (1, 1, -1))),
        (VQ, "learning_rates", ((1e-3, NAN, 1e-3),)),
        (VQ, "batch", (0,)),
        (VQ, "commitment", (NAN, -1.0)),
    ],
)
def test_settings_out_of_range(file, name, values):
    for value in values:
        config = read(file)
        with config.ignore_type():
            config[name] = value
        with pytest.raises(UserError, match=name) as caught:
            CHECKS[file][0](config)
        assert "\n" not in str(caught.value) and f"config.{name}" in str(caught.value)


@pytest.mark.parametrize("changed", [{"ahead": True, "redraws": 1}, {"min_group": 9}, {"rounds": 3}, {"turn_step": 1}])
def test_settings_that_do_not_go_together(changed):
    config = read(RL)
    config.update(changed)
    with pytest.raises(UserError, match="--config"):
        check_rl(config)


def test_groups_of_one():
    """Nobody to compare with; who credits tokens against expectations needs nobody."""
    config = read(RL)
    config.group = 1
    with pytest.raises(UserError, match="grpo compares the members of a group: set --config.group to at least 2"):
        check_rl(config)
    config.update({"estimator": "ppo", "credit": "trajectory"})
    check_rl(config)


def test_a_configuration_of_earlier_code():
    """What a setting means that is not there yet, and what is refused without."""
    config = read(SFT)
    with config.unlocked():
        del config["moments"], config["gradients"]
    settings.check_sft(config)
    assert config.moments == config.gradients == "float32"
    with config.unlocked():
        del config["seed"]
    with pytest.raises(UserError, match="the configuration has no seed: add config.seed, a whole number"):
        settings.check_sft(config)
