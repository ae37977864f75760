"""The decoder: a LLaMA whose inputs are embeddings, so that text and pictures enter the same way.

    embeds [B,T,D], mask bool[B,T] -> hidden [B,T,D]

`mask` is True for a real token. A masked token is seen by nobody and takes no position; what comes out at its
own place is finite and meaningless. Positions count real tokens, so neither left padding nor a masked gap in
the middle changes anything for the tokens around it.

With a cache the T new tokens are appended to it. The cache is a value: it goes in and comes out.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
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


@flax.struct.dataclass
class Cache:
    """Keys and values of the S slots written so far. All rows are written in step; `mask` tells them
    apart.
    """

    k: Array  # [L,B,S,K,H], rotated already
    v: Array  # [L,B,S,K,H]
    mask: Array  # bool[B,S]: the slot holds a real token
    length: Array  # i32[]: slots written, the same for all rows
    count: Array  # i32[B]: real tokens among them, which is the next token's position


# The logical names of a cache's dimensions.
CACHE_NAMES: dict[str, tuple[str, ...]] = {
    "k": ("layers", "batch", "slots", "kv_heads", "head_dim"),
    "v": ("layers", "batch", "slots", "kv_heads", "head_dim"),
    "mask": ("batch", "slots"),
    "length": (),
    "count": ("batch",),
}


class Segments(NamedTuple):
    """Which tokens are real, for attention.splash: new bool[B,T], past bool[B,S] of the cache's slots before them, or
    None without a cache."""

    new: Array
    past: Array | None


def init_cache(cfg: LlamaConfig, batch: int, slots: int, dtype=jnp.float32) -> Cache:
    """An empty cache of S = slots slots. `dtype` is the model's compute dtype."""
    k = jnp.zeros((cfg.layers, batch, slots, cfg.kv_heads, cfg.head_dim), dtype)
    return Cache(
        k=sharding.constrain(k, *CACHE_NAMES["k"]),
        v=sharding.constrain(jnp.zeros_like(k), *CACHE_NAMES["v"]),
        mask=sharding.constrain(jnp.zeros((batch, slots), bool), *CACHE_NAMES["mask"]),
        length=jnp.zeros((), jnp.int32),
        count=sharding.constrain(jnp.zeros((batch,), jnp.int32), *CACHE_NAMES["count"]),
    )


def rotary_angles(positions: Array, head_dim: int, theta: float) -> Array:
    """positions i32[B,T] -> f32[B,T,H/2], position times inverse frequency."""
    frequency = theta ** -(jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    return positions.astype(jnp.float32)[:, :, None] * frequency[None, None, :]


def rotate(x: Array, angles: Array) -> Array:
    """x [B,T,N,H] turned by angles f32[B,T,H/2]; the pairs are (i, i + H/2). The arithmetic is an f32
    island.
    """
    cos, sin = jnp.cos(angles)[:, :, None, :], jnp.sin(angles)[:, :, None, :]
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate((a * cos - b * sin, b * cos + a * sin), axis=-1).astype(x.dtype)


class RMSNorm(nn.Module):
    """x over its root mean square, scaled. An f32 island."""

    eps: float
    dtype: Any

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.eps)
        return (x * scale.astype(jnp.float32)[None, None, :]).astype(self.dtype)


class Attention(nn.Module):
    """Grouped-query attention over the T new tokens, or over the cache with the T new tokens in it."""

    width: int
    heads: int
    kv_heads: int
    head_dim: int
    out_std: float
    dtype: Any

    @nn.compact
    def __call__(self, x, angles, mask, cache):
        """x [B,T,D], angles f32[B,T,H/2], mask bool[B,T,S] or Segments, cache None or (k, v, layer, length) ->
        ([B,T,D], (k, v) | None).
        """
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
        past = None
        if cache is not None:
            all_k, all_v, layer, length = cache
            if isinstance(mask, Segments):
                past = *(self._layer(x, layer) for x in (all_k, all_v)), mask.past
            start = (layer, 0, length, 0, 0)
            all_k = jax.lax.dynamic_update_slice(all_k, k[None].astype(all_k.dtype), start)
            all_v = jax.lax.dynamic_update_slice(all_v, v[None].astype(all_v.dtype), start)
            cache = all_k, all_v
            if not isinstance(mask, Segments):
                k, v = (self._layer(x, layer) for x in cache)
        if isinstance(mask, Segments):
            y = attention.splash(q, k, v, mask.new, past)
        else:
            # Logits and softmax are f32 inside; the function asks for that dtype by promotion, which strict mode
            # refuses. A query that sees nothing gets the mean of all values: meaningless, but finite.
            with jax.numpy_dtype_promotion("standard"):
                y = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None])
        return sharding.einsum("BTNH,NHD->BTD", y, o, ("batch", "length", "width")), cache

    def _layer(self, cached, layer):
        return jax.lax.dynamic_index_in_dim(cached, layer, keepdims=False).astype(self.dtype)


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
    """One layer. The carry is (x, k, v); k and v are the whole cache, updated in place, or None."""

    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    eps: float
    out_std: float
    dtype: Any

    @nn.compact
    def __call__(self, carry, layer, angles, mask, length):
        x, k, v = carry
        with jax.named_scope("attention"):
            attend = Attention(
                self.width, self.heads, self.kv_heads, self.head_dim, self.out_std, self.dtype, name="attn"
            )
            cache = None if k is None else (k, v, layer, length)
            y, cache = attend(RMSNorm(self.eps, self.dtype, name="attn_norm")(x), angles, mask, cache)
            x = x + y
        with jax.named_scope("mlp"):
            mlp = MLP(self.width, self.mlp_width, self.out_std, self.dtype, name="mlp")
            x = x + mlp(RMSNorm(self.eps, self.dtype, name="mlp_norm")(x))
        return (x, *(cache or (None, None))), None


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
        in_axes = (0, nn.broadcast, nn.broadcast, nn.broadcast)
        self.layers = stack(Block, cfg.layers, scan=self.scan, remat=self.remat, in_axes=in_axes)(
            width=cfg.width,
            heads=cfg.heads,
            kv_heads=cfg.kv_heads,
            head_dim=cfg.head_dim,
            mlp_width=cfg.mlp,
            eps=cfg.norm_eps,
            # 2L branches add up in the residual stream.
            out_std=1 / math.sqrt(2 * cfg.layers * cfg.width),
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

    def __call__(
        self, embeds: Array, mask: Array, positions: Array | None = None, cache: Cache | None = None
    ) -> tuple[Array, Cache | None]:
        """embeds [B,T,D], mask bool[B,T], positions i32[B,T] -> (hidden [B,T,D] after the last norm, cache).

        Without a cache: causal attention among the T tokens. With one: the T tokens are written at slots
        length to length+T and attend to every real token written before as well. Positions default to the
        number of real tokens before each token. The caller sees to it that length+T <= S: a write past the
        end would land on the last slots, and `length` is not known while tracing.
        """
        B, T, D = embeds.shape
        before = jnp.cumsum(mask, axis=1, dtype=jnp.int32) - mask.astype(jnp.int32)
        step = jnp.arange(T, dtype=jnp.int32)
        if cache is None:
            k = v = length = None
            keys, slot = mask, step
        else:
            k, v, length = cache.k, cache.v, cache.length
            S = cache.mask.shape[1]
            if T > S:
                raise ValueError(f"{T} new tokens do not fit into a cache of {S} slots")
            before = before + cache.count[:, None]
            keys = jax.lax.dynamic_update_slice(cache.mask, mask, (0, length))
            slot = jnp.arange(S, dtype=jnp.int32)
            step = step + length
        if attention.splashes(self.attention, T):
            visible = Segments(mask, None if cache is None else cache.mask)
        else:
            visible = keys[:, None, :] & (slot[None, :] <= step[:, None])[None]
        positions = before if positions is None else positions
        angles = rotary_angles(positions, self.cfg.head_dim, self.cfg.rope_theta)

        x = sharding.constrain(embeds.astype(self.dtype), "batch", "length", "width")
        layer = jnp.arange(self.cfg.layers, dtype=jnp.int32)
        (x, k, v), _ = self.layers((x, k, v), layer, angles, visible, length)
        if cache is not None:
            count = cache.count + jnp.sum(mask, axis=1, dtype=jnp.int32)
            cache = Cache(k=k, v=v, mask=keys, length=length + T, count=count)
        return self.norm(x), cache
