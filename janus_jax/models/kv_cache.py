"""What the decoder keeps of the tokens before: their keys and values, a value that goes in and comes out.

An array per layer, in the order that attention reads it.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp

from janus_jax.parallel import sharding

Array = jax.Array


@flax.struct.dataclass
class Cache:
    """Keys and values of S slots, of which the first `length` are written. All rows are written in step; `mask` tells
    them apart.
    """

    k: tuple[Array, ...]  # a layer each: [B,K,S,H], rotated already
    v: tuple[Array, ...]  # a layer each: [B,K,S,H]
    mask: Array  # bool[B,S]: the slot holds a real token
    length: Array  # i32[]: slots written, the same for all rows
    count: Array  # i32[B]: real tokens among them, which is the next token's position

    @property
    def slots(self) -> int:
        """S."""
        return self.mask.shape[1]


# The logical names of a cache's dimensions; of k and v, those of a layer.
CACHE_NAMES: dict[str, tuple[str, ...]] = {
    "k": ("batch", "kv_heads", "slots", "head_dim"),
    "v": ("batch", "kv_heads", "slots", "head_dim"),
    "mask": ("batch", "slots"),
    "length": (),
    "count": ("batch",),
}


def _placed(cache: Cache) -> Cache:
    return Cache(
        **{
            name: jax.tree.map(lambda x, names=names: sharding.constrain(x, *names), getattr(cache, name))
            for name, names in CACHE_NAMES.items()
        }
    )


def init_cache(cfg, batch: int, slots: int, dtype=jnp.float32) -> Cache:
    """An empty cache of S = slots slots for a decoder of sizes `cfg`. `dtype`: the model's compute dtype."""

    def empty():
        return tuple(jnp.zeros((batch, cfg.kv_heads, slots, cfg.head_dim), dtype) for _ in range(cfg.layers))

    return _placed(
        Cache(
            k=empty(),
            v=empty(),
            mask=jnp.zeros((batch, slots), bool),
            length=jnp.zeros((), jnp.int32),
            count=jnp.zeros((batch,), jnp.int32),
        )
    )


def take_rows(cache: Cache, rows) -> Cache:
    """The cache of some rows i32[N], in that order; rows may repeat."""
    k, v = (tuple(_take(x, rows, CACHE_NAMES[name]) for x in getattr(cache, name)) for name in ("k", "v"))
    mask, count = (_take(getattr(cache, name), rows, CACHE_NAMES[name]) for name in ("mask", "count"))
    return cache.replace(k=k, v=v, mask=mask, count=count)


@functools.partial(jax.jit, static_argnums=2)
def _take(x, rows, names):
    return sharding.constrain(x[rows], *names)
