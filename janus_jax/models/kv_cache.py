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
    length: Array  # i32[]: slots written, the same for all rows; i32[B], one for each, while a lookahead draws
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


def grown(cache: Cache, slots: int) -> Cache:
    """The cache with room for `slots` at least; the one that is given is used up where it is too small. Array by array,
    so that memory holds all of them once and one of them twice."""
    if cache.slots >= slots:
        return cache
    parts = {name: tuple(_grow(x, slots, CACHE_NAMES[name]) for x in getattr(cache, name)) for name in ("k", "v")}
    return cache.replace(mask=_grow(cache.mask, slots, CACHE_NAMES["mask"]), **parts)


def _grow(x, slots, names):
    larger = _padded(x, slots, names)
    x.delete()  # a donated array of another size is kept until its last name is gone, which a caller has
    return larger


@functools.partial(jax.jit, static_argnums=(1, 2))
def _padded(x, slots, names):
    at = names.index("slots")
    more = [(0, slots - size if axis == at else 0) for axis, size in enumerate(x.shape)]
    return sharding.constrain(jnp.pad(x, more), *names)


def take_rows(cache: Cache, rows) -> Cache:
    """The cache of some rows i32[N], in that order; rows may repeat."""
    k, v = (tuple(take(x, rows, CACHE_NAMES[name]) for x in getattr(cache, name)) for name in ("k", "v"))
    mask, count = (take(getattr(cache, name), rows, CACHE_NAMES[name]) for name in ("mask", "count"))
    return cache.replace(k=k, v=v, mask=mask, count=count)


def join_rows(first: Cache, second: Cache, rows) -> Cache:
    """The cache of some rows i32[N] of two caches of equal slots, those of the second counted after the first's. Where
    one is written further than the other, the other has a hole."""
    k, v = (
        tuple(
            _join(*both, rows, CACHE_NAMES[name])
            for both in zip(getattr(first, name), getattr(second, name), strict=True)
        )
        for name in ("k", "v")
    )
    mask, count = (
        _join(getattr(first, name), getattr(second, name), rows, CACHE_NAMES[name]) for name in ("mask", "count")
    )
    return Cache(k, v, mask, jnp.maximum(first.length, second.length), count)


@functools.partial(jax.jit, static_argnums=3)
def _join(x, y, rows, names):
    return sharding.constrain(jnp.concatenate([x, y])[rows], *names)


@functools.partial(jax.jit, static_argnums=2)
def take(x, rows, names):
    """Some rows i32[N] of an array whose dimensions have these logical names."""
    return sharding.constrain(x[rows], *names)
