"""Agreement with the PyTorch reference, on weights that are made from the tensors' names (golden/weights.py).

The numbers were computed once by the reference; golden/*.npz holds samples of them: `X.idx` are flat indices
into the array X, in PyTorch's layout (channels before height and width), `X.val` the values there.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from reference import CFG, GOLDEN, SPEC, close, from_original, golden_model, sample_close

from janus_jax.checkpoints.tensor_names import ORIGINAL, place
from janus_jax.models.janus import JanusConfig
from janus_jax.models.llama import LlamaConfig
from janus_jax.models.siglip import Block, SiglipConfig


@pytest.fixture(scope="module")
def model():
    return golden_model()


@pytest.fixture(scope="module")
def pictures():
    """image_a and image_b as f32[2,384,384,3] in [-1,1]; at this size both preprocessings are this."""
    read = [np.asarray(Image.open(GOLDEN / f"image_{x}.png").convert("RGB"), np.float32) for x in "ab"]
    return jnp.asarray(np.stack(read) / np.float32(127.5) - 1)


def nchw(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


def test_the_configuration_is_the_reference():
    # in our words: a tiny decoder, SigLIP-L cut to 3 blocks, VQ-16 in full
    llama = LlamaConfig(1024, 256, layers=3, heads=4, kv_heads=4, head_dim=64, mlp=688, max_positions=4096)
    assert CFG == JanusConfig(llama, SiglipConfig(layers=3))


def test_every_name_has_a_place_and_every_rule_is_used():
    used = set()
    for name in SPEC:
        place(name)
        used.add(next(i for i, (regex, _, _) in enumerate(ORIGINAL) if re.fullmatch(regex, name)))
    assert used == set(range(len(ORIGINAL)))
    with pytest.raises(ValueError, match="'language_model.model.layer.0'"):
        place("language_model.model.layer.0")


def test_incomplete_or_foreign_tensors_are_refused():
    abstract = {"llama": {"norm": {"scale": jax.ShapeDtypeStruct((4,), jnp.float32)}}}
    tensors = {"language_model.model.norm.weight": np.ones(4, np.float32)}
    np.testing.assert_array_equal(from_original(tensors, abstract)["llama"]["norm"]["scale"], np.ones(4))
    with pytest.raises(ValueError, match="do not fit .*: language_model.model.norm.weight is missing$"):
        from_original({}, abstract)
    with pytest.raises(ValueError, match=r"norm.weight is \[5\], not \[4\]"):
        from_original({"language_model.model.norm.weight": np.ones(5, np.float32)}, abstract)
    with pytest.raises(ValueError, match="gen_embed.weight is unexpected"):
        from_original({**tensors, "gen_embed.weight": np.ones((2, 2), np.float32)}, abstract)


def test_vq_encodes_like_the_reference(model, pictures):
    janus, params, run = model
    golden = np.load(GOLDEN / "vq.npz")
    sample_close(nchw(pictures), golden, "encode.pixels", spread=0.01)
    z = jax.jit(lambda p, x: janus.apply({"params": p}, x, method=lambda m, x: m.vq.encode(x)))(params, pictures)
    close(nchw(z), golden["encode.latents"])
    codes = janus.apply({"params": params}, z, method=lambda m, z: m.vq.quantize(z))
    clear = golden["encode.margin"] > 3e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(np.asarray(codes)[clear], golden["encode.ids"][clear])


def test_vq_decodes_like_the_reference(model):
    janus, params, run = model
    golden = np.load(GOLDEN / "vq.npz")
    codes = jnp.asarray(golden["decode.ids"])[:1]  # one of the two pictures: seconds matter
    zq = janus.apply({"params": params}, codes, method=lambda m, codes: m.vq.lookup(codes))
    sample_close(nchw(zq.reshape(1, 24, 24, 8)), golden, "decode.quant", spread=0.01)
    sample_close(nchw(run("decode_codes", codes)), golden, "decode.pixels")


def test_siglip_and_aligner_like_the_reference(model, pictures):
    janus, params, run = model
    golden = np.load(GOLDEN / "siglip.npz")

    def towers(p, x):
        features, kept = janus.apply(
            {"params": p},
            x,
            method=lambda m, x: m.siglip(x),
            capture_intermediates=lambda m, _: m.name == "patch",
        )
        return features, kept["intermediates"]["siglip"]["patch"]["__call__"][0]

    features, patches = jax.jit(towers)(params, pictures)
    sample_close(patches.reshape(2, 576, 1024), golden, "patch_embed")
    sample_close(features, golden, "features")
    aligned = run("understand", pictures)
    sample_close(aligned, golden, "aligned")
    close(aligned[:, 0], golden["aligned.first_token"][:2])


def test_siglip_first_block_like_the_reference(model, pictures):
    # The output of one block: the tower's own block class on the first layer's slice of the stacked
    # parameters.
    janus, params, run = model
    golden = np.load(GOLDEN / "siglip.npz")
    tower = params["siglip"]
    kernel = tower["patch"]["kernel"].reshape(-1, 1024)
    patches = np.asarray(pictures).reshape(2, 24, 16, 24, 16, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 576, -1)
    x = jnp.asarray(patches) @ kernel + tower["patch"]["bias"][None, None] + tower["positions"][None]
    sample_close(x, golden, "embedded")
    first = {"params": jax.tree.map(lambda w: w[0], tower["layers"])}
    x, _ = jax.jit(Block(heads=16, mlp=4096, dtype=jnp.float32).apply)(first, x)
    sample_close(x, golden, "block0")


def test_text_logits_like_the_reference(model):
    janus, params, run = model
    golden = np.load(GOLDEN / "llm.npz")
    ids, real = jnp.asarray(golden["input_ids"]), golden["attention_mask"].astype(bool)
    embeds = run("embed_text", ids)
    np.testing.assert_allclose(embeds[:, -4:], golden["text.hidden_embed"], atol=1e-6, rtol=0)
    hidden = run("decode", embeds, jnp.asarray(real))
    close(hidden[:, -4:], golden["text.hidden_final"])
    logits = np.asarray(run("text_logits", hidden))
    close(logits[real], golden["text.logits"][real])


def test_image_logits_like_the_reference(model):
    janus, params, run = model
    golden = np.load(GOLDEN / "llm.npz")
    ids, mask = jnp.asarray(golden["input_ids"]), jnp.asarray(golden["attention_mask"].astype(bool))
    codes = jnp.asarray(golden["image_tokens"])
    pictures = run("embed_codes", codes)
    close(pictures[:, :4], golden["image_embeds.first4"])
    embeds = jnp.concatenate([run("embed_text", ids), pictures], axis=1)
    mask = jnp.concatenate([mask, jnp.ones(codes.shape, bool)], axis=1)
    hidden = run("decode", embeds, mask)[:, ids.shape[1] - 1 :]
    logits = np.asarray(run("code_logits", hidden))
    some = golden["image.logits.vals"]
    close(logits[..., golden["image.logits.cols"]], some)
    np.testing.assert_array_equal(logits.argmax(-1), golden["image.logits.argmax"])
    close(jax.nn.logsumexp(logits, axis=-1), golden["image.logits.lse"], some.std())
