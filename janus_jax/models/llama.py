"""The decoder: a LLaMA whose inputs are embeddings, so that text and pictures enter the same way.

    embeds [B,T,D], mask bool[B,T] -> hidden [B,T,D]

`mask` is True for a real token. A masked token is seen by nobody and takes no position; what comes out at its
own place is finite and meaningless. Positions count real tokens, so neither left padding nor a masked gap in
the middle changes anything for the tokens around it.

With a cache, see decoder.py.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from janus_jax.errors import UserError
from janus_jax.models import attention, declared
from janus_jax.models.stack import stack
from janus_jax.parallel import sharding

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Sizes of the decoder; the defaults are Janus-Pro-1B."""

    vocab_size: int = declared.whole(102400, 1, 2**22)
    width: int = declared.whole(2048, 1, 2**16)
    layers: int = declared.whole(24, 1, 1024)
    heads: int = declared.whole(16, 1, 1024)
    kv_heads: int = declared.whole(16, 1, 1024)
    head_dim: int = declared.whole(128, 2, 4096)
    mlp: int = declared.whole(5632, 1, 2**20)
    rope_theta: float = declared.real(1e4, 1e10)
    norm_eps: float = declared.real(1e-6, 0.1)
    max_positions: int = declared.whole(16384, 1, 2**24)

    def __post_init__(self):
        declared.check(self, "llama.")
        if self.heads % self.kv_heads:
            raise UserError(f"llama: {self.heads} heads cannot share {self.kv_heads} kv_heads evenly")
        if self.head_dim % 2:
            raise UserError(f"llama.head_dim {self.head_dim} is odd; rotary positions need pairs")


def rotary_angles(positions: Array, head_dim: int, theta: float) -> Array:
    """positions i32[B,T] -> f32[B,T,H/2], position times inverse frequency."""
    frequency = theta ** -(jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    return positions.astype(jnp.float32)[:, :, None] * frequency[None, None, :]


def rotate(x: Array, angles: Array) -> Array:
    """x [B,T,...,H] turned by angles f32[B,T,H/2]; the pairs are (i, i + H/2). The arithmetic is an f32 island."""
    angles = jnp.expand_dims(angles, tuple(range(2, x.ndim - 1)))
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate((a * cos - b * sin, b * cos + a * sin), axis=-1).astype(x.dtype)


def rms_norm(x: Array, scale: Array, eps: float, dtype) -> Array:
    """x [B,T,D] over its root mean square, scaled by [D]. An f32 island."""
    x = x.astype(jnp.float32)
    x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + eps)
    return (x * scale.astype(jnp.float32)[None, None, :]).astype(dtype)


class RMSNorm(nn.Module):
    """See rms_norm."""

    eps: float
    dtype: Any

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        return rms_norm(x, scale, self.eps, self.dtype)


class Attention(nn.Module):
    """Grouped-query attention among the T tokens."""

    width: int
    heads: int
    kv_heads: int
    head_dim: int
    out_std: float
    kernel: str
    dtype: Any

    @nn.compact
    def __call__(self, x, angles, mask):
        """x [B,T,D], angles f32[B,T,H/2], mask bool[B,T] -> [B,T,D]."""
        D, N, K, H = self.width, self.heads, self.kv_heads, self.head_dim
        normal = nn.initializers.normal
        std = D**-0.5  # by fan-in: at small widths a fixed 0.02 leaves attention uniform for a long time
        q = self.param("q", normal(std), (D, N, H), jnp.float32).astype(self.dtype)
        k = self.param("k", normal(std), (D, K, H), jnp.float32).astype(self.dtype)
        v = self.param("v", normal(std), (D, K, H), jnp.float32).astype(self.dtype)
        o = self.param("o", normal(self.out_std), (N, H, D), jnp.float32).astype(self.dtype)

        q = rotate(sharding.einsum("BTD,DNH->BTNH", x, q, ("batch", "length", "heads", "head_dim")), angles)
        k = rotate(sharding.einsum("BTD,DKH->BTKH", x, k, ("batch", "length", "kv_heads", "head_dim")), angles)
        v = sharding.einsum("BTD,DKH->BTKH", x, v, ("batch", "length", "kv_heads", "head_dim"))
        if attention.splashes(self.kernel, x.shape[1]):
            y = attention.splash(q, k, v, mask)
        else:
            y = attention.dense(q, k, v, mask)
        return sharding.einsum("BTNH,NHD->BTD", y, o, ("batch", "length", "width"))


class MLP(nn.Module):
    """SwiGLU."""

    width: int
    mlp: int
    out_std: float
    dtype: Any

    @nn.compact
    def __call__(self, x):
        D, F = self.width, self.mlp
        normal = nn.initializers.normal
        gate = self.param("gate", normal(D**-0.5), (D, F), jnp.float32).astype(self.dtype)
        up = self.param("up", normal(D**-0.5), (D, F), jnp.float32).astype(self.dtype)
        down = self.param("down", normal(self.out_std), (F, D), jnp.float32).astype(self.dtype)
        inner = ("batch", "length", "mlp")
        h = nn.silu(sharding.einsum("BTD,DF->BTF", x, gate, inner)) * sharding.einsum("BTD,DF->BTF", x, up, inner)
        return sharding.einsum("BTF,FD->BTD", h, down, ("batch", "length", "width"))


class Block(nn.Module):
    """One layer."""

    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    eps: float
    out_std: float
    kernel: str
    dtype: Any

    @nn.compact
    def __call__(self, x, angles, mask):
        with jax.named_scope("attention"):
            sizes = self.width, self.heads, self.kv_heads, self.head_dim
            attend = Attention(*sizes, self.out_std, self.kernel, self.dtype, name="attn")
            x = x + attend(RMSNorm(self.eps, self.dtype, name="attn_norm")(x), angles, mask)
        with jax.named_scope("mlp"):
            mlp = MLP(self.width, self.mlp_width, self.out_std, self.dtype, name="mlp")
            x = x + mlp(RMSNorm(self.eps, self.dtype, name="mlp_norm")(x))
        return x, None


class Llama(nn.Module):
    """The decoder with its text embedding and text head. Params: embed_tokens [V,D], layers/..., norm,
    lm_head [D,V].
    """

    cfg: LlamaConfig
    dtype: Any = jnp.float32
    scan: bool = True
    remat: str = "none"
    attention: str = "auto"

    def setup(self):
        cfg = self.cfg
        self.embed_tokens = self.param(
            "embed_tokens", nn.initializers.normal(0.5), (cfg.vocab_size, cfg.width), jnp.float32
        )
        in_axes = (nn.broadcast, nn.broadcast)
        self.layers = stack(Block, cfg.layers, scan=self.scan, remat=self.remat, in_axes=in_axes)(
            width=cfg.width,
            heads=cfg.heads,
            kv_heads=cfg.kv_heads,
            head_dim=cfg.head_dim,
            mlp_width=cfg.mlp,
            eps=cfg.norm_eps,
            # 2L branches add up in the residual stream.
            out_std=1 / math.sqrt(2 * cfg.layers * cfg.width),
            kernel=self.attention,
            dtype=self.dtype,
        )
        self.norm = RMSNorm(cfg.norm_eps, self.dtype)
        self.lm_head = self.param("lm_head", nn.initializers.normal(0.02), (cfg.width, cfg.vocab_size), jnp.float32)

    def embed(self, ids: Array) -> Array:
        """ids i32[B,T] -> [B,T,D]."""
        return sharding.take(self.embed_tokens, ids, ("batch", "length", "width")).astype(self.dtype)

    def logits(self, hidden: Array) -> Array:
        """hidden [B,T,D] -> f32[B,T,V]."""
        head = self.lm_head.astype(self.dtype)
        out = ("batch", "length", "vocab")
        return sharding.einsum("BTD,DV->BTV", hidden.astype(self.dtype), head, out, dtype=jnp.float32)

    def __call__(self, embeds: Array, mask: Array, positions: Array | None = None) -> Array:
        """embeds [B,T,D], mask bool[B,T], positions i32[B,T] -> hidden [B,T,D] after the last norm.

        Causal attention among the T tokens. Positions default to the number of real tokens before each token.
        """
        if positions is None:
            positions = jnp.cumsum(mask, axis=1, dtype=jnp.int32) - mask.astype(jnp.int32)
        angles = rotary_angles(positions, self.cfg.head_dim, self.cfg.rope_theta)
        x = sharding.constrain(embeds.astype(self.dtype), "batch", "length", "width")
        x, _ = self.layers(x, angles, mask)
        return self.norm(x)
