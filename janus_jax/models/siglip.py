"""The understanding encoder: the SigLIP vision transformer, without its pooling head.

pixels f32[B,H,W,3] normalised -> features [B,I,width], I = (H/patch)**2 patches row by row
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from janus_jax.errors import UserError
from janus_jax.models import declared
from janus_jax.models.stack import stack
from janus_jax.parallel import sharding

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class SiglipConfig:
    """Sizes of the encoder; the defaults are SigLIP-L/16 at 384 px."""

    image_size: int = declared.whole(384, 1, 4096)
    patch_size: int = declared.whole(16, 1, 4096)
    width: int = declared.whole(1024, 1, 2**16)
    layers: int = declared.whole(24, 1, 1024)
    heads: int = declared.whole(16, 1, 1024)
    mlp: int = declared.whole(4096, 1, 2**20)

    def __post_init__(self):
        declared.check(self, "siglip.")
        if self.image_size % self.patch_size:
            raise UserError(
                f"siglip.image_size {self.image_size} is not a multiple of siglip.patch_size {self.patch_size}"
            )
        if self.width % self.heads:
            raise UserError(f"siglip.width {self.width} does not split into {self.heads} heads")

    @property
    def tokens(self) -> int:
        """Vectors per picture."""
        return (self.image_size // self.patch_size) ** 2


class LayerNorm(nn.Module):
    """Layer normalisation, eps 1e-6, an f32 island (the stock one raises under strict promotion in bf16)."""

    dtype: Any
    eps: float = 1e-6

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        x = x.astype(jnp.float32)
        x = x - x.mean(-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.eps)
        return (x * scale.astype(jnp.float32)[None, None] + bias.astype(jnp.float32)[None, None]).astype(self.dtype)


class Block(nn.Module):
    """Pre-norm attention and MLP. Query, key and value come from one fused projection, in that order."""

    heads: int
    mlp: int
    dtype: Any

    @nn.compact
    def __call__(self, x):
        B, I, D = x.shape
        dense = functools.partial(nn.Dense, dtype=self.dtype, dot_general=sharding.dot_general)
        qkv = dense(3 * D, name="qkv")(LayerNorm(self.dtype, name="norm1")(x))
        q, k, v = (part.reshape(B, I, self.heads, D // self.heads) for part in jnp.split(qkv, 3, axis=-1))
        # scores and softmax are an f32 island; S: the patches again
        scores = jnp.einsum("BINH,BSNH->BNIS", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
        y = jnp.einsum("BNIS,BSNH->BINH", jax.nn.softmax(scores, axis=-1).astype(self.dtype), v)
        x = x + dense(D, name="out")(y.reshape(B, I, D))
        h = nn.gelu(dense(self.mlp, name="fc1")(LayerNorm(self.dtype, name="norm2")(x)), approximate=False)
        return x + dense(D, name="fc2")(h), None


class Siglip(nn.Module):
    """The encoder. Params: patch (convolution), positions [I,D], layers/..., norm."""

    cfg: SiglipConfig
    dtype: Any = jnp.float32
    scan: bool = True
    remat: str = "none"

    def setup(self):
        cfg = self.cfg
        patch = (cfg.patch_size, cfg.patch_size)
        self.patch = nn.Conv(cfg.width, patch, strides=patch, padding="VALID", dtype=self.dtype)
        self.positions = self.param("positions", nn.initializers.normal(0.02), (cfg.tokens, cfg.width), jnp.float32)
        self.layers = stack(Block, cfg.layers, scan=self.scan, remat=self.remat, in_axes=())(
            heads=cfg.heads, mlp=cfg.mlp, dtype=self.dtype
        )
        self.norm = LayerNorm(self.dtype)

    def __call__(self, pixels: Array) -> Array:
        """pixels f32[B,H,W,3], H = W = image_size, normalised -> features [B,I,width]."""
        size = self.cfg.image_size
        if pixels.shape[1:] != (size, size, 3):
            raise ValueError(f"pictures of shape {pixels.shape[1:]}, the encoder was made for {(size, size, 3)}")
        x = self.patch(pixels.astype(self.dtype))
        x = x.reshape(x.shape[0], self.cfg.tokens, self.cfg.width) + self.positions.astype(self.dtype)[None]
        x, _ = self.layers(x)
        return self.norm(x)
