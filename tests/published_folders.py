"""Published folders of a tiny model, made by hand: a tower small enough stands in the tables of the original's towers
under a name of its own."""

import functools
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from janus_jax import convert
from janus_jax.checkpoints import published
from janus_jax.checkpoints.tensor_names import ORIGINAL, slots
from janus_jax.errors import UserError
from janus_jax.models.janus import Janus, JanusConfig, abstract_params
from janus_jax.models.llama import LlamaConfig
from janus_jax.models.siglip import SiglipConfig
from janus_jax.models.vq import VQConfig
from janus_jax.parallel import sharding
from janus_jax.sequences.tokens import Tokenizer

GOLDEN = Path(__file__).parent / "golden"
TOKENIZER = Tokenizer.from_folder(GOLDEN)
CFG = JanusConfig(
    LlamaConfig(vocab_size=1024, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=40, max_positions=512),
    SiglipConfig(image_size=16, patch_size=8, width=24, layers=3, heads=2, mlp=48),
    VQConfig(image_size=4, channels=32, channel_multipliers=(1, 2), res_blocks=1, z_channels=16, codebook_size=64),
)
BF16 = np.dtype(ml_dtypes.bfloat16)
POOL = "vision_model.vision_tower.attn_pool.q.weight"
USED = "gen_vision_model.quantize.codebook_used"


def refused(match):
    """A UserError in one line."""
    return pytest.raises(UserError, match=f"^[^\n]*{match}[^\n]*$")


@functools.cache
def shapes(cfg=CFG):
    return {path: leaf.shape for path, leaf in sharding.paths(abstract_params(Janus(cfg)))}


def tensors_of(rules, dtype=np.float32, seed=0, cfg=CFG):
    """Random tensors under published names. dtype: one, or a function of the name."""
    rng = np.random.default_rng(seed)
    named = {name: slot.tensor_shape for name, slot in slots(shapes(cfg), rules).items()}
    if rules is ORIGINAL:
        named |= {POOL: (24, 24), USED: (7,)}
    kind = dtype if callable(dtype) and not isinstance(dtype, type) else lambda _: dtype
    return {name: rng.standard_normal(shape, np.float32).astype(kind(name)) for name, shape in named.items()}


def folder_of(path, name, tensors, cfg=CFG, dtype="float32", shards=1):
    """A published folder, its weights written by the safetensors library itself."""
    path.mkdir()
    for file, content in published.small_files(cfg, name, dtype, TOKENIZER, tied=False).items():
        (path / file).write_bytes(content)
    if shards == 1:
        save_file(tensors, path / "model.safetensors", {"format": "pt"})
        return path
    files = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    for i, file in enumerate(files):
        save_file({n: tensors[n] for n in sorted(tensors)[i::shards]}, path / file)
    index = {n: files[i % shards] for i, n in enumerate(sorted(tensors))}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return path


def weights_of(path):
    return {name: tensor for file in Path(path).glob("*.safetensors") for name, tensor in load_file(file).items()}


def identical(got, expected):
    assert got.keys() == expected.keys()
    for name in expected:
        assert (got[name].dtype, got[name].shape) == (expected[name].dtype, expected[name].shape), name
        assert got[name].tobytes() == expected[name].tobytes(), name


def run(**flags):
    convert.main([str(word) for key, value in flags.items() for word in (f"--{key}", value)])
