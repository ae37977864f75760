"""Programs from shapes alone: what they are called with is what the jobs call them with."""

import jax
import numpy as np
import pytest

from janus_jax import cli
from janus_jax.aot import hlo, programs
from janus_jax.data import mixture
from janus_jax.errors import UserError
from janus_jax.models import flops
from janus_jax.models.janus import Janus, JanusConfig
from janus_jax.rl import batches
from janus_jax.rl.programs import in_parts
from janus_jax.sampling.density import Sampling
from janus_jax.sequences.row import Row
from janus_jax.training.logps import token_logps
from janus_jax.training.program import bytes_per_device

TINY = {
    "llama": {"width": 64, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 32, "mlp": 128},
    "siglip": {"width": 32, "layers": 1, "heads": 2, "mlp": 64},
}


def rl(**changes):
    config, _ = cli.parse_config(["--config=configs/shapes_rl.py"], "", workdir=False)
    with config.unlocked():
        config.preset = "shapes"
        config.model = {**TINY, "scan": True}
        config.mesh, config.prompts_per_step, config.group = (2, 2, 2), 2, 4
        config.update(changes)
    return config


def test_stage_2():
    jobs = programs.reinforcement(rl(), jax.devices())
    names = [job.name for job in jobs]
    assert names[:2] == ["begin", "cast to draw"]
    draws = [job for job in jobs if job.name.startswith("draw, ")]
    kinds = list(dict.fromkeys(name.split(",")[0] for name in names))
    assert kinds[2:7] == ["prefill prompts", "draw", "VQ decode", "judge: look", "judge: speak"]
    assert names[-2:] == ["reference", "train step"]
    by_name = dict(zip(names, jobs, strict=True))
    draw, step = draws[-1], by_name["train step"]
    assert draw.mesh == step.mesh
    # while it draws, the training state and the reference lie beside the copy that draws
    state = bytes_per_device(step.holds["parameters"]) + bytes_per_device(step.beside["parameters"])
    assert bytes_per_device(draw.beside["parameters"]) == state
    # a first picture, and the largest cache that there will be
    first, codes = draws[0], JanusConfig.preset("shapes").vq.tokens
    assert sum(job.codes for job in draws) == codes and first.codes == codes
    assert bytes_per_device(first.holds["cache"]) < bytes_per_device(draw.holds["cache"])
    assert 0 < first.least < draw.least
    for job in jobs:
        with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic
            job.lower()


def test_edits_take_room_for_their_sources():
    """In both caches and in a step's batch; the source is painted from and seen."""
    sizes = JanusConfig.preset("shapes")
    plain, edits = (
        {job.name: job for job in programs.reinforcement(rl(task=task), jax.devices())} for task in ("draw", "edit")
    )
    drawn = [
        max(job.holds["cache"].slots for name, job in jobs.items() if name.startswith("draw,"))
        for jobs in (plain, edits)
    ]
    spoken = [jobs["judge: speak"].holds["cache"].slots for jobs in (plain, edits)]
    assert drawn[1] - drawn[0] == sizes.vq.tokens and spoken[1] - spoken[0] == sizes.siglip.tokens
    assert "VQ encode" in edits and "VQ encode" not in plain
    for name, more in (("prefill prompts", sizes.vq.tokens), ("judge: look", sizes.siglip.tokens)):
        lengths = [job.args[2].ids.shape[1] for job in (plain[name], edits[name])]
        assert lengths[1] - lengths[0] == more
    pictures = [job["judge: look"].args[2].pixels.shape[1] for job in (plain, edits)]
    assert pictures == [1, 2]
    (painter, _), (longer, judge) = (job["train step"].args[1] for job in (plain, edits))
    assert longer.ids.shape[1] - painter.ids.shape[1] == sizes.vq.tokens and judge.pixels.shape[1] == 2
    with jax.numpy_dtype_promotion("standard"):
        edits["train step"].lower()


def test_a_chunk_of_a_rollout_has_a_smaller_cache():
    whole, part = (
        next(job for job in programs.reinforcement(rl(rollout_rows=rows), jax.devices()) if job.name.startswith("draw"))
        for rows in (0, 4)
    )
    assert bytes_per_device(whole.holds["cache"]) == pytest.approx(2 * bytes_per_device(part.holds["cache"]), rel=0.01)


def test_what_cannot_be_rehearsed():
    with pytest.raises(UserError, match="preset"):
        programs.reinforcement(rl(preset=""), jax.devices())
    with pytest.raises(UserError, match="does not use the 8 devices"):
        programs.reinforcement(rl(mesh=(1, 1, 3)), jax.devices())


def test_blank_batches_are_like_real_ones():
    """The shapes that collate gives rows that hold something."""
    bucket = mixture.Bucket(60, (mixture.Kind("draw", 0, 2), mixture.Kind("judge", 1, 1)))
    (batch,) = mixture.blank([bucket], codes=4, side=8)
    assert batch.ids.shape == (3, 60) and batch.codes.at.shape == (3, 4) and batch.pixels.shape == (3, 2, 8, 8, 3)
    (drawn,) = mixture.blank([mixture.Bucket(60, (mixture.Kind("draw", 0, 2),))], codes=4, side=8)
    assert drawn.pixels is None and drawn.text is None
    shapes = batches.Layout(first=9, painter=20, judge=30, pictures=2, code_targets=8, text_targets=6)
    painter, judge = batches.blank(shapes, rows=4, side=8)
    assert painter.uncond_ids.shape == (4, 20) and painter.codes.ref_logps.shape == (4, 8) and painter.pixels is None
    assert judge.ids.shape == (4, 30) and judge.text.verdict.shape == (4, 6) and judge.pixels.shape == (4, 2, 8, 8, 3)
    assert Row().pictures == []


def test_arithmetic_by_formula_is_that_of_the_program():
    """A forward pass in f32 without recomputation does what the formulas count; the compiler's text agrees."""
    cfg = JanusConfig.preset("shapes").changed({**TINY, "attention": "dot"})
    model = Janus(cfg)
    bucket = mixture.Bucket(96, (mixture.Kind("draw", 0, 2), mixture.Kind("judge", 0, 2)))
    (batch,) = mixture.blank([bucket], cfg.vq.tokens, cfg.siglip.image_size)
    params = programs.abstract_params(model)

    def score(params, batch):
        return token_logps(model, params, batch, Sampling(cfg_weight=1.0))

    text = jax.jit(score).lower(params, batch).compile().as_text()
    # attention by dot products looks at all pairs, causal or not
    pairs = flops.decoder(cfg, 0, 4 * (96 * 96 - flops.causal(96)))
    # states of targets, and of pictures in their places, are picked by products with ones and zeros
    seen = batch.pixels.shape[1] * cfg.siglip.tokens
    picked = 96 * (batch.text.at.shape[1] + batch.codes.at.shape[1]) + 96 * seen
    picked *= 2 * 4 * cfg.llama.width
    assert hlo.flops(text) == flops.scored(cfg, batch, trained=False) + pairs + picked


@pytest.mark.parametrize("patch", [1, 8])
def test_arithmetic_of_pictures_by_formula(patch):
    cfg = JanusConfig.preset("shapes").changed({**TINY, "vq": {"patch": patch, "image_size": 48 * patch}})
    model = Janus(cfg)
    params = programs.abstract_params(model)
    pictures = jax.ShapeDtypeStruct((2, cfg.vq.tokens), int)
    text = jax.jit(lambda params, codes: model.apply({"params": params}, codes, method="decode_codes"))
    text = text.lower(params, pictures).compile().as_text()
    assert hlo.flops(text) == pytest.approx(flops.vq_decoder(cfg.vq, 2), rel=0.15)  # borders have fewer neighbours

    pixels = jax.ShapeDtypeStruct((2, cfg.vq.image_size, cfg.vq.image_size, 3), np.float32)
    text = jax.jit(lambda params, pixels: model.apply({"params": params}, pixels, method="encode_codes"))
    text = text.lower(params, pixels).compile().as_text()
    assert hlo.flops(text) == pytest.approx(flops.vq_encoder(cfg.vq, 2), rel=0.15)


def test_stage_1():
    config, _ = cli.parse_config(["--config=tests/configs/micro_sft.py"], "", workdir=False)
    config.mesh = (2, 2, 2)
    begin, job = programs.supervised(config, jax.devices())
    with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic
        begin.lower(), job.lower()
    assert job.flops > 0


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_scores_in_parts(parts):
    rows = {"x": np.arange(24.0).reshape(8, 3)}
    got = in_parts(lambda batch: [batch["x"] * 2, batch["x"].sum(1)], rows, parts)
    np.testing.assert_array_equal(got[0], rows["x"] * 2)
    np.testing.assert_array_equal(got[1], rows["x"].sum(1))
