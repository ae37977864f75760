"""The tiny model that the tests of sequences, sampling and training share."""

import dataclasses
import functools
from types import MappingProxyType

import jax
import numpy as np

from janus_jax.models.janus import Janus, JanusConfig, abstract_params
from janus_jax.models.llama import LlamaConfig
from janus_jax.models.siglip import SiglipConfig
from janus_jax.models.vq import VQConfig
from janus_jax.sampling.density import Sampling
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.processor import Processor
from janus_jax.shapes.vocabulary import train_tokenizer
from janus_jax.shapes.world import SHIPPED, HeldOut
from janus_jax.training.logps import token_logps

# 16 codes and 4 seen positions per picture, a small vocabulary of the embedded world. Sizes divide by 2 for the meshes.
MODEL = Janus(
    JanusConfig(
        llama=LlamaConfig(vocab_size=480, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=48),
        siglip=SiglipConfig(image_size=16, patch_size=8, width=16, layers=1, heads=2, mlp=32),
        vq=VQConfig(
            image_size=16,
            channels=8,
            channel_multipliers=(1, 1, 2),
            res_blocks=1,
            z_channels=8,
            codebook_size=16,
            code_dim=4,
            groups=4,
        ),
    )
)
I, SEES = MODEL.cfg.vq.tokens, MODEL.cfg.siglip.tokens
EOS, PAD, YES, NO = 2, 3, 11, 12  # of processor(), as a test of rows says
GUIDED = Sampling(cfg_weight=5.0)
# A world that is not the shipped one, for what takes a world: a shape and a colour that the other has no words for.
OTHER = dataclasses.replace(
    SHIPPED,
    name="other",
    side=72,
    shapes=("circle", "square", "pentagon"),
    colors=MappingProxyType({name: SHIPPED.colors[name] for name in ("red", "blue")} | {"teal": (165.0, 0.8, 0.6)}),
    validation=HeldOut(*[frozenset()] * 5),
    test=HeldOut(
        colors=frozenset({("teal", "pentagon")}),
        counts=frozenset({(3, "pentagon")}),
        pairs=frozenset({frozenset({"circle", "pentagon"})}),
        places=frozenset({("square", "left", "circle")}),
        wordings=frozenset({0}),
    ),
)


@functools.cache
def params(seed=0):
    """Parameters large enough for every part to matter (numpy: compiling an init takes longer)."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        x = rng.standard_normal(leaf.shape) * 0.3
        if path[0].key == "gen_head":
            x *= 0.5  # guidance magnifies: no picture shall be a foregone conclusion
        if path[-1].key == "lm_head":
            x[:, EOS] *= 5  # reasons that end, and reasons that do not
        # device_put, not asarray: under a mesh, of whoever asks first, that would commit them to its devices
        return jax.device_put(np.asarray(1 + x if path[-1].key == "scale" else x, leaf.dtype))

    return jax.tree_util.tree_map_with_path(draw, abstract_params(MODEL))


@functools.cache
def processor() -> Processor:
    world = dataclasses.replace(SHIPPED, pieces=MODEL.cfg.llama.vocab_size)
    return Processor(train_tokenizer(sentences=400, world=world), 16, 16)


@functools.partial(jax.jit, static_argnames="method")
def run(method, params, *args):
    return MODEL.apply({"params": params}, *args, method=method)


@functools.partial(jax.jit, static_argnames="yes_no")
def score(params, batch, sampling=GUIDED, yes_no=(YES, NO)):
    return token_logps(MODEL, params, batch, sampling, yes_no)


def grammar() -> Grammar:
    return Grammar.of(MODEL.cfg, processor().tokenizer)


def picture(seed):
    return np.random.default_rng(seed).uniform(-1, 1, (16, 16, 3)).astype(np.float32)


def codes(seed):
    return np.random.default_rng(100 + seed).integers(0, 16, I).tolist()
