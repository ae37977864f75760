"""The shipped configurations: slices of real models by name, one or several; sizes of the small one."""

import runpy

import pytest

from janus_jax import cli
from janus_jax.models.janus import JanusConfig
from janus_jax.models.vq import VQConfig
from janus_jax.rl.programs import check_rows
from janus_jax.shapes.world import WORLDS
from janus_jax.training.sft import buckets_of

JOBS = ("1b_sft", "7b_sft", "1b_rl", "7b_rl", "7b_edit_rl")


def configured(job, place):
    return cli.parse_config([f"--config=configs/janus_pro_{job}.py:{place}"], "", workdir=False)[0]


def slices_of(job):
    return runpy.run_path(f"configs/janus_pro_{job}.py")["SLICES"]


class Shape:
    """As much of a mesh as rows are divided by."""

    def __init__(self, shape):
        self.shape = dict(zip(("data", "fsdp", "tensor"), shape, strict=True))


@pytest.mark.parametrize("job", JOBS)
def test_rows_divide_on_every_slice(job):
    for place, settings in slices_of(job).items():
        for count in (1, 2):
            config = configured(job, place if count == 1 else f"{place}@{count}")
            data, fsdp, tensor = settings["mesh"]
            assert tuple(config.mesh) == (count * data, fsdp, tensor)
            micro_batches = settings.get("micro_batches", 1 if "sft" in job else 16)
            if "sft" in job:
                assert sum(bucket.rows for bucket in buckets_of(config, Shape(config.mesh))) == 128
            else:  # a chip has as many rows, at a time, of one slice and of two
                assert config.micro_batches * count == micro_batches
                assert config.rollout_rows == count * settings.get("rollout_rows", 64)
                check_rows(config, Shape(config.mesh))


def test_buckets_of_joined_slices_have_the_same_samples():
    one, two = (configured("7b_sft", place) for place in ("v5e-16", "v5e-16@2"))

    def samples(config):
        counts = {}
        for _, kinds in config.buckets:
            for task, earlier, rows in kinds:
                counts[task, earlier] = counts.get((task, earlier), 0) + rows
        return counts

    assert samples(one) == samples(two)
    assert all(sum(rows for *_, rows in kinds) % 32 == 0 for _, kinds in two.buckets)


def test_a_slice_that_is_not_named():
    config = configured("7b_rl", "v5e-64")
    assert tuple(config.mesh) == (1, -1, 4) and config.micro_batches == 16 and config.moments == "float32"


def test_bfloat16_where_it_is_said():
    for job in JOBS:
        for place in slices_of(job):
            config = configured(job, place)
            kept = "bfloat16" if (job, place) == ("1b_sft", "v6e-1") else "float32"
            assert config.moments == config.gradients == kept


def test_the_small_model_draws_with_its_own_tokenizer():
    """The picture tokenizer that configs/shapes_vq.py trains has the sizes of the preset that is trained on it."""
    config, _ = cli.parse_config(["--config=configs/shapes_vq.py"], "", workdir=False)
    cfg = JanusConfig.preset("shapes")
    assert VQConfig(**config.vq) == cfg.vq
    assert cfg.vq.image_size == cfg.siglip.image_size == WORLDS[config.world].side
    assert cfg.llama.vocab_size >= WORLDS[config.world].pieces
