"""Attention where many tokens attend at once: training, and prefills.

`dense` has the scores in memory. `splash` is the Pallas kernel of jax for TPUs, which never writes them there. What is
seen is what the decoder says: real tokens, in causal order. The kernel knows that as segments: a token sees those of
its own segment, real tokens are one segment, masked ones another. So a masked token is seen by no real one, and what
comes out at its place is finite and meaningless.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import PartitionSpec as P

from janus_jax.parallel import sharding

Array = jax.Array

CHOICES = ("auto", "dot", "splash")
LANES = 128  # the kernel's blocks are multiples of this
LARGEST = 512  # block that is tried first
# Of `dense`: queries of a block at least, and blocks at most, each of which is a part of the program.
QUERIES, BLOCKS = 128, 4


def splashes(choice: str, length: int) -> bool:
    """Whether `length` new tokens attend by the kernel. choice: "auto": where the programs are for a TPU, and there are
    enough tokens to fill a block; "dot": never; "splash": wherever a block can be filled, interpreted off a TPU."""
    return length >= LANES and (choice == "splash" or (choice == "auto" and platform() == "tpu"))


def dense(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """q [B,T,N,H], k and v [B,T,K,H], mask bool[B,T] -> [B,T,N,H], causal among the T tokens.

    Queries go in blocks, each of which meets the keys up to its own end alone. Scores and softmax are an f32 island. A
    query that sees nothing gets the mean of values: meaningless, but finite.
    """
    T, H = q.shape[1], q.shape[-1]
    q = (q.astype(jnp.float32) * H**-0.5).astype(q.dtype)
    k, v = (_for_each(x, q.shape[2]) for x in (k, v))
    step, count = jnp.arange(T), min(max(T // QUERIES, 1), BLOCKS)
    visible = mask[:, None, :] & (step[None, :] <= step[:, None])[None]
    edges = [T * n // count for n in range(count + 1)]
    blocks = [
        _weighed(q[:, begin:end], k[:, :end], v[:, :end], visible[:, begin:end, :end])
        for begin, end in itertools.pairwise(edges)
    ]
    return jnp.concatenate(blocks, axis=1)


def _for_each(x, heads: int):
    """Keys or values [B,S,K,H] as [B,S,N,H], once for each query head: an axis of one head's queries would make the
    products half as slow again on a CPU."""
    B, S, K, H = x.shape
    return x if K == heads else jnp.broadcast_to(x[:, :, :, None], (B, S, K, heads // K, H)).reshape(B, S, heads, H)


def _weighed(q, k, v, visible):
    """q [B,T,N,H], k and v [B,S,N,H], visible bool[B,T,S] -> [B,T,N,H]."""
    scores = sharding.einsum("BTNH,BSNH->BNTS", q, k, ("batch", "heads", "length", "slots"), dtype=jnp.float32)
    scores = jnp.where(visible[:, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return sharding.einsum("BNTS,BSNH->BTNH", weights, v, ("batch", "length", "heads", "head_dim"))


def platform() -> str:
    """What is compiled for: the devices of the mesh in the context, or else the default ones."""
    mesh = jax.sharding.get_abstract_mesh()
    device = None if mesh.empty else mesh.abstract_device
    return jax.default_backend() if device is None else device.platform


def splash(q: Array, k: Array, v: Array, mask: Array, past: tuple[Array, Array, Array] | None = None) -> Array:
    """q [B,T,N,H], k and v [B,T,K,H], mask bool[B,T] -> [B,T,N,H], causal among the T tokens.

    past: (k, v [B,S,K,H], mask bool[B,S]) of tokens before these, all of which they see where mask is True; then there
    is no gradient. On a mesh each device takes its own rows and heads.
    """
    mesh = jax.sharding.get_abstract_mesh()
    run = functools.partial(_splash, interpret=platform() != "tpu")
    arrays = (q, k, v, mask, *(past or ()))
    if mesh.empty or mesh.are_all_axes_manual:
        return run(*arrays)
    # a device's query heads are those of its key heads
    rows, _, heads, _ = sharding.activation_spec(("batch", "length", "kv_heads", "head_dim"), k.shape, mesh)
    specs = tuple(P(rows, None, heads, None) if x.ndim == 4 else P(rows, None) for x in arrays)
    return jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=specs[0], check_vma=False)(*arrays)


def _splash(q, k, v, mask, past_k=None, past_v=None, past_mask=None, *, interpret):
    T, H = q.shape[1], q.shape[-1]
    q = (q.astype(jnp.float32) * H**-0.5).astype(q.dtype)
    if past_k is None:
        return _attend(q, k, v, mask, mask, True, interpret)
    # Two softmaxes, over the past and over the new tokens, made one by the sums of their exponentials. Where the past
    # is empty its sum is that of masked scores, which is nothing beside any other.
    new, new_sum = _attend(q, k, v, mask, mask, True, interpret, sums=True)
    old, old_sum = _attend(q, past_k, past_v, jnp.ones_like(mask), past_mask, False, interpret, sums=True)
    share = jax.nn.sigmoid(old_sum - new_sum)[:, :T, :, None]
    return (new.astype(jnp.float32) * (1 - share) + old.astype(jnp.float32) * share).astype(q.dtype)


def _attend(q, k, v, live, keys, causal, interpret, sums=False):
    """One softmax over the keys in the queries' segment; sums: also the logarithm of its denominator, f32[B,T,N]."""
    T, N = q.shape[1:3]
    q, k, v = (_padded(x).swapaxes(1, 2) for x in (q, k, v))
    segments = kernel.SegmentIds(q=_padded(live).astype(jnp.int32), kv=_padded(keys).astype(jnp.int32))
    shape = (q.shape[2], k.shape[2])
    rows, columns = _block(shape[0]), _block(shape[1])
    blocks = kernel.BlockSizes(
        block_q=rows,
        block_kv=columns,
        block_kv_compute=columns,
        block_q_dkv=rows,
        block_kv_dkv=columns,
        block_kv_dkv_compute=columns,
        block_q_dq=rows,
        block_kv_dq=columns,
    )
    each = masks.CausalMask(shape) if causal else masks.FullMask(shape)
    attend = kernel.make_splash_mha(
        mask=masks.MultiHeadMask([each] * N),
        block_sizes=blocks,
        save_residuals=sums,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # the kernel's own arithmetic
        out = jax.vmap(attend)(q, k, v, segments)
    if not sums:
        return out.swapaxes(1, 2)[:, :T]
    out, (total,) = out
    return out.swapaxes(1, 2)[:, :T], total.swapaxes(1, 2)[:, :T]


def _padded(x):
    """x with its second axis padded by zeros to a multiple of LANES; after all others, so that none sees it."""
    short = -x.shape[1] % LANES
    return jnp.pad(x, [(0, 0), (0, short)] + [(0, 0)] * (x.ndim - 2)) if short else x


def _block(length):
    return next(size for size in range(LARGEST, 0, -LANES) if length % size == 0)
