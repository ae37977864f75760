"""The model. What a letter in a shape, an einsum or a comment stands for, everywhere in this project:

    B   batch (prompts x group)       I   codes per picture        N   query heads
    T   query length                  C   codebook size            K   key and value heads
    S   key length, cache slots       E   code width               H   width of a head
    L   layers                        D   decoder width            F   MLP width
    V   text vocabulary

Masks are True for what is kept. Pictures are [B,H,W,3] or [B,h,w,3]: there H and W, h and w are height and
width.
"""

from janus_jax.models.janus import Janus, JanusConfig, abstract_params, init_params
from janus_jax.models.kv_cache import Cache, init_cache
from janus_jax.models.llama import LlamaConfig
from janus_jax.models.siglip import SiglipConfig
from janus_jax.models.vq import VQ, VQConfig

__all__ = [
    "VQ",
    "Cache",
    "Janus",
    "JanusConfig",
    "LlamaConfig",
    "SiglipConfig",
    "VQConfig",
    "abstract_params",
    "init_cache",
    "init_params",
]
