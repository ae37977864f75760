"""This project's side of the comparison of a step of stage 2: the very step that janus_jax.train_rl takes."""

import importlib.util
import tempfile
from pathlib import Path

import jax
import numpy as np

from benchmarks import sizes
from janus_jax.checkpoints import loading
from janus_jax.parallel import sharding
from janus_jax.rewards.judge import as_judge
from janus_jax.rl.job import job_of
from janus_jax.rl.requests import Files
from janus_jax.rl.stage import assemble
from janus_jax.sequences.processor import Processor
from janus_jax.sequences.tokens import Tokenizer

CONFIG = Path(__file__).parents[1] / "configs" / "shapes_rl.py"
SETTINGS = {
    "credit": "trajectory",
    "rounds": 1,
    "group": sizes.GROUP,
    "prompts_per_step": sizes.PICTURES // sizes.GROUP,
    "prompt_tokens": sizes.PROMPT,
    "max_reason_tokens": 1,  # the verdict alone
    "cfg_weight": sizes.GUIDANCE,
    "temperature": 1.0,
    "matmul_precision": "",
    "frozen": (r"vq/.*", r"siglip/.*", r"aligner/.*"),
    "retention_every": 0,
    "max_logp_gap": 1e9,
}


def redness(requests, pictures) -> np.ndarray:
    """The judge of both sides."""
    return np.array([np.asarray(picture)[..., 0].mean() / 255 for picture in pictures])


def config_of(size: str, init: str):
    """configs/shapes_rl.py with what is measured."""
    spec = importlib.util.spec_from_file_location("shapes_rl", CONFIG)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.update({**SETTINGS, "init": init})
    config.model = {"scan": sizes.SIZES[size].scan}
    return config


def rl_step(model, params, size: str):
    """f() -> metrics, one step each time: PICTURES pictures are drawn, looked at and judged, and learnt from."""
    tokenizer = Tokenizer.from_folder(loading.find("shapes-sft"))
    processor = Processor(tokenizer, model.cfg.vq.image_size, model.cfg.siglip.image_size)
    mesh = sharding.mesh_of((1, 1, 1))
    with tempfile.TemporaryDirectory() as folder, jax.set_mesh(mesh):
        loading.save(Path(folder) / "init", model, params, processor)
        config = config_of(size, str(Path(folder) / "init"))
        stage, initial = assemble(config, mesh, Files())
        job = job_of(config, stage, as_judge(redness), initial, None, None, ())
        carry, number = job.begin(), 0

    def run():
        nonlocal carry, number
        with jax.set_mesh(mesh):
            carry, values = job.advance(carry, number, None)
        number += 1
        return values

    return run
