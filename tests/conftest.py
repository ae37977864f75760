"""Eight CPU devices, strict promotion, and parameters for tests."""

import os

# Before jax is imported: the number of devices cannot be changed afterwards.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import dataclasses
import io

import jax
import numpy as np
import pytest
from PIL import Image

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def quick_compiles():
    """For files whose time is nearly all compilation, of programs that run once on a few numbers:
    pytestmark = pytest.mark.usefixtures("quick_compiles")"""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The micro world, (folder of a picture tokenizer, cache file)."""
    return micro_world(tmp_path_factory.mktemp("world"))


def micro_world(folder):
    """(folder of a picture tokenizer, cache file), written there: the shipped model's, and two dozen prompts."""
    # the package is imported by those who need it: some tests say what importing it costs
    from janus_jax.checkpoints import loading, model_folder
    from janus_jax.data import building, cache, shapes_dataset
    from janus_jax.models import codec
    from janus_jax.shapes import text

    model, params, _ = loading.load("shapes-sft")
    vq = {"kind": "vq", "vq": dataclasses.asdict(model.cfg.vq)}
    model_folder.save_model(folder / "vq", vq, params["vq"], {})
    rng = np.random.default_rng(0)
    source = []
    for _, example in shapes_dataset.examples([text.train_prompt(rng) for _ in range(24)], 1):
        pictures = np.stack([np.asarray(Image.open(io.BytesIO(p["image"]))) for p in example["pictures"]])
        source.append({"prompt": example["prompt"].encode(), "pictures": {"image": pictures}})
    cache.save(folder / "cache.npz", building.of_data_set(*codec.in_groups(*loading.load_vq(folder / "vq")), source))
    return folder / "vq", folder / "cache.npz"
