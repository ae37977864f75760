"""The decoder with a cache: what draws and speaks. The same function as `Llama` without one, written for few tokens.

A step of few tokens takes as long as it takes to read the parameters once. So they are laid out for that beforehand,
by `decode_params`: a tree of arrays per layer instead of stacked ones, from which a loop would first cut its slices,
each a matrix of two axes, inputs first, as a product of few rows reads it, and what reads the same input is one matrix.
"""

import jax
import jax.numpy as jnp

from janus_jax.models import attention
from janus_jax.models.kv_cache import Cache
from janus_jax.models.llama import LlamaConfig, rms_norm, rotary_angles, rotate
from janus_jax.parallel import sharding
from janus_jax.parallel.sharding import P

Array = jax.Array

# G = N / K query heads read one key head: query head k G + g of the K G = N.


def decode_params(params):
    """The model's parameters with llama/layers as a tuple of L dicts of matrices:

    qkv [D,K(G+2)H] (for each key head its G queries, its key, its value), o [NH,D], gate_up [D,F2] (a gate and its
    up, in turns), down [F,D]; attn_norm and mlp_norm [D]. So each splits over heads or MLP width where a mesh asks for
    it. Of all else nothing changes. Given such a tree, returns it.
    """
    layers = params["llama"]["layers"]
    if isinstance(layers, tuple):
        return params
    count = layers["mlp"]["down"].shape[0]
    laid = tuple(_laid(jax.tree.map(lambda x, i=i: x[i], layers)) for i in range(count))
    return {**params, "llama": {**params["llama"], "layers": laid}}


def _laid(layer):
    attn, mlp = layer["attn"], layer["mlp"]
    D, N, H = attn["q"].shape
    K = attn["k"].shape[1]
    q = attn["q"].reshape(D, K, N // K, H)
    qkv = jnp.concatenate([q, attn["k"][:, :, None], attn["v"][:, :, None]], axis=2)
    return {
        "attn_norm": layer["attn_norm"]["scale"],
        "qkv": qkv.reshape(D, -1),
        "o": attn["o"].reshape(N * H, D),
        "mlp_norm": layer["mlp_norm"]["scale"],
        "gate_up": jnp.stack([mlp["gate"], mlp["up"]], axis=-1).reshape(D, -1),
        "down": mlp["down"],
    }


# How those are split (see sharding.PARAM_RULES, whose rules hold for everything else).
DECODE_RULES = (
    (r"llama/layers/\d+/(qkv|gate_up)", P("fsdp", "tensor")),
    (r"llama/layers/\d+/(o|down)", P("tensor", "fsdp")),
    (r"llama/layers/\d+/(attn|mlp)_norm", P()),
    *((regex, spec) for regex, spec in sharding.PARAM_RULES if not regex.startswith("llama/layers")),
)


def decode(
    cfg: LlamaConfig, params, embeds: Array, mask: Array, positions: Array | None, cache: Cache, kernel: str = "auto"
) -> tuple[Array, Cache]:
    """embeds [B,T,D], mask bool[B,T], positions i32[B,T] or None -> (hidden [B,T,D] after the last norm, cache).

    params: llama of `decode_params`. The T tokens are written at slots length to length+T and attend to every real
    token written before as well. Positions default to the number of real tokens before each token. The caller sees to
    it that length+T <= S: a write past the end would land on the last slots, and `length` is not known while tracing.
    kernel: see attention.splashes.
    """
    T, S = mask.shape[1], cache.slots
    if T > S:
        raise ValueError(f"{T} new tokens do not fit into a cache of {S} slots")
    before = jnp.cumsum(mask, axis=1, dtype=jnp.int32) - mask.astype(jnp.int32) + cache.count[:, None]
    angles = rotary_angles(before if positions is None else positions, cfg.head_dim, cfg.rope_theta)
    keys = _written(cache.mask, mask, cache.length, 1)
    if attention.splashes(kernel, T):

        def attend(q, new, old, _):
            return _splash(q, new, old, mask, cache.mask)
    else:
        slot, step = (jnp.arange(size, dtype=jnp.int32) for size in (S, T))
        step = cache.length.reshape(-1, 1) + step[None]  # of all rows, or of each
        visible = keys[:, None, :] & (slot[None, None, :] <= step[:, :, None])

        def attend(q, _, __, all_keys_and_values):
            return _attend(q, *all_keys_and_values, visible)

    x = sharding.constrain(embeds, "batch", "length", "width")
    written = []
    for layer, *old in zip(params["layers"], cache.k, cache.v, strict=True):
        x, both = _block(cfg, layer, x, angles, old, cache.length, attend)
        written.append(both)
    k, v = zip(*written, strict=True)
    count = cache.count + jnp.sum(mask, axis=1, dtype=jnp.int32)
    hidden = rms_norm(x, params["norm"]["scale"], cfg.norm_eps, x.dtype)
    return hidden, Cache(k=k, v=v, mask=keys, length=cache.length + T, count=count)


def _block(cfg, layer, x, angles, old, length, attend):
    """One layer: x [B,T,D] and its cached keys and values -> both anew."""
    B, T, _ = x.shape
    K, H, stream = cfg.kv_heads, cfg.head_dim, ("batch", "length", "width")

    def times(x, name, out):
        # two-dimensional: of a matrix with more axes the compiler would make a copy in every step
        return sharding.einsum("BTI,IO->BTO", x, layer[name].astype(x.dtype), out)

    with jax.named_scope("attention"):
        normed = rms_norm(x, layer["attn_norm"], cfg.norm_eps, x.dtype)
        qkv = times(normed, "qkv", ("batch", "length", "kv_heads")).reshape(B, T, K, -1, H)
        turned, v = rotate(qkv[:, :, :, :-1], angles), qkv[:, :, :, -1]
        q, k = turned[:, :, :, :-1], turned[:, :, :, -1]
        both = [
            _written(past, new.swapaxes(1, 2).astype(past.dtype), length, 2)
            for past, new in zip(old, (k, v), strict=True)
        ]
        x = x + times(attend(q, (k, v), old, both).reshape(B, T, -1), "o", stream)
    with jax.named_scope("mlp"):
        normed = rms_norm(x, layer["mlp_norm"], cfg.norm_eps, x.dtype)
        inner = times(normed, "gate_up", ("batch", "length", "mlp")).reshape(B, T, -1, 2)
        x = x + times(jax.nn.silu(inner[..., 0]) * inner[..., 1], "down", stream)
    return x, both


def _written(past, new, at, axis):
    """past with new written from slot `at` of its axis on: one number for all rows, or one for each."""
    if at.ndim == 0:
        return jax.lax.dynamic_update_slice_in_dim(past, new, at, axis)
    return jax.vmap(lambda past, new, at: jax.lax.dynamic_update_slice_in_dim(past, new, at, axis - 1))(past, new, at)


def _attend(q, k, v, visible):
    """q [B,T,K,G,H], k and v [B,K,S,H], visible bool[B,T,S] -> [B,T,K,G,H]. Scores and softmax are an f32 island. A
    query that sees nothing gets the mean of all values: meaningless, but finite."""
    out = ("batch", "kv_heads", None, "length", "slots")
    scores = sharding.einsum("BTKGH,BKSH->BKGTS", q, k.astype(q.dtype), out, dtype=jnp.float32) * q.shape[-1] ** -0.5
    scores = jnp.where(visible[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    out = ("batch", "length", "kv_heads", None, "head_dim")
    return sharding.einsum("BKGTS,BKSH->BTKGH", weights, v.astype(q.dtype), out)


def _splash(q, new, old, mask, past):
    """The same by attention.splash: q [B,T,K,G,H], new [B,T,K,H], old [B,K,S,H], mask bool[B,T], past bool[B,S]."""
    B, T, K, G, H = q.shape
    before = (*(x.swapaxes(1, 2).astype(q.dtype) for x in old), past)
    return attention.splash(q.reshape(B, T, K * G, H), *new, mask, before).reshape(q.shape)
