"""The picture tokenizer's training: its parts by hand, its phases, and what the shipped one keeps of pictures."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from commands import command

from janus_jax import train_vq
from janus_jax.checkpoints import loading
from janus_jax.sampling import decode
from janus_jax.sequences import images
from janus_jax.shapes import render, scene, text, verify

CONFIG = str(Path(__file__).parent.parent / "configs" / "shapes_vq.py")


def test_merge_ground_by_hand():
    """Codes 0 and 2 stand for ground, 0 more often; 1 for an object; 3 is not used."""
    codebook = np.arange(8, dtype=np.float32).reshape(4, 2)
    pictures = np.full((2, 4, 4, 3), 200, np.uint8)  # 2 x 2 patches of 2 px
    pictures[0, :2, 2:] = (250, 0, 0)  # the second patch of the first picture
    codes = np.array([[0, 1, 0, 0], [0, 0, 2, 2]])
    merged, count = train_vq.merge_ground(codebook, codes, pictures)
    assert count == 2
    np.testing.assert_array_equal(merged, codebook[[0, 1, 0, 3]])


def test_kmeans_codebook_by_hand():
    """Two tight bundles of directions: their unit means."""
    around = [[1.0, 0.0], [0.98, 0.2], [0.98, -0.2], [0.0, -1.0], [0.2, -0.98], [-0.2, -0.98]]
    book = train_vq.kmeans_codebook(np.array(around)[None], 2, seed=0)
    np.testing.assert_allclose(sorted(book.tolist()), [[0, -1], [1, 0]], atol=1e-6)


def test_loss_by_hand():
    """One picture of two pixels, 1 and -1 in every channel: contrast 1 at both, so emphasis 1."""
    pixels = jnp.asarray(np.array([1.0, -1.0], np.float32).reshape(1, 1, 2, 1) * np.ones(3, np.float32))
    z = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
    outputs = {
        "pixels": pixels + 0.5,
        "z": z,
        "zq": jnp.array([[[1.0, 0.0], [0.6, 0.8]]]),
        "codes": jnp.array([[0, 1]]),
        "similarity": jnp.array([[100.0, 0.0], [0.0, 100.0]]),
    }
    total, metrics = train_vq.make_loss(True, commitment=0.25, entropy=0.1, temperature=1.0)(outputs, pixels)
    commit = (0.6**2 + 0.2**2) / 2
    assert metrics["reconstruction"] == pytest.approx(1.2 * 0.25, rel=1e-5)
    assert metrics["commitment"] == pytest.approx(commit, rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(2, rel=1e-4) and metrics["codes_used"] == 2
    # codebook and commitment terms are alike in value; sharp single assignments have entropy 0, their mean ln 2
    assert total == pytest.approx(1.2 * 0.25 + 1.25 * commit + 0.1 * (0 - np.log(2)), rel=1e-4)
    assert train_vq.make_loss(False, 0.25, 0.1, 1.0)(outputs, pixels)[0] == pytest.approx(1.2 * 0.25, rel=1e-5)


@pytest.mark.slow
def test_three_phases_and_resume(tmp_path):
    flags = ["--config", CONFIG, "--workdir", str(tmp_path), "--config.batch=8", "--config.pictures=600"]
    flags += ["--config.steps=(2,2,2)", "--config.log_every=1", "--config.save_every=1"]
    command(tmp_path, "train_vq", *flags)
    _, params = loading.load_vq(tmp_path / "model")
    np.testing.assert_allclose(np.linalg.norm(params["codebook"], axis=-1), 1, atol=0.05)
    first = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    for path in (tmp_path / "model").iterdir():
        path.unlink()
    command(tmp_path, "train_vq", *flags)  # all phases are there: only the model is written again
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == first


def test_what_the_shipped_tokenizer_keeps():
    """The verifier agrees with the truth on at least 98% of reconstructions, of right pictures and of near misses."""
    model, params, _ = loading.load("shapes-sft")
    rng = np.random.default_rng(0)
    asks, pixels = [], []
    for i in range(400):
        asks.append(text.parse(text.train_prompt(rng)))
        compose = scene.compose if i % 2 else scene.near_miss
        pixels.append(render.render(compose(rng, asks[-1]), model.cfg.vq.image_size, rng))
    truth = np.array([verify.matches(ask, verify.read(x)) for ask, x in zip(asks, pixels, strict=True)])
    codes = decode.encode_codes(model, params, np.stack(pixels) / np.float32(127.5) - 1)
    decoded = images.to_uint8(decode.decode_codes(model, params, codes))
    got = np.array([verify.matches(ask, verify.read(x)) for ask, x in zip(asks, decoded, strict=True)])
    assert 150 < truth.sum() < 250
    assert (got == truth).mean() >= 0.98
