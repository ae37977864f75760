"""Several codes in one pass, and the same picture: exact lookahead.

Every position has its own random key, so a picture is a function of its keys: code q is what q's key picks from the
density that the codes before it give. A pass feeds the last code and W - 1 guesses of those after it, and picks a code
at each place by the place's own key. As far as the guesses are what was picked they were right, and so is the pick
after them; what was picked beyond is the next guess. At least one code comes of each pass, at most W, and always the
codes that would have come one at a time (predictive sampling, Wiggers and Hoogeboom 2020, arXiv 2002.09928; the same
with the density of large models: speculative Jacobi decoding, arXiv 2410.01699).

It pays where a pass of W tokens takes little longer than one of a single token: with few rows, whose steps are bound by
reading the parameters. Rows go at their own pace within a part of a picture, and wait for each other at its end.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from janus_jax.models.inputs import paired, unpaired
from janus_jax.models.kv_cache import Cache
from janus_jax.sampling import density


class _Progress(NamedTuple):
    """fed i32[B]: codes of the part that stand in the cache; window i32[B,W]: the next code, and guesses; hidden [R,D]:
    after the last that was fed, of R = B or 2B rows; codes i32[B,count+W], logps: of the part, and what lies beyond."""

    passes: jax.Array
    cache: Cache
    hidden: Any
    fed: jax.Array
    window: jax.Array
    codes: jax.Array
    logps: jax.Array


def draw_part(apply, cache: Cache, hidden, keys, sampling: density.Sampling, guided: bool, first, count: int):
    """As decode.draw_part, W = sampling.lookahead codes a pass: (cache, hidden, codes i32[B,count], logps, passes
    i32[]). apply(method, *args): the model on its parameters. The cache has room for count + W tokens: rows that
    are done go on guessing beyond the part until the others are."""
    B, W = keys.shape[0], sampling.lookahead
    each = (lambda x: paired(x, x)) if guided else lambda x: x
    begin, seen = cache.length, cache.count

    def pick(hidden, fed):
        """(codes i32[B,T], logps) after hidden [R,T,D], of the places first + fed + 0..T."""
        logits = apply("code_logits", hidden)
        cond, uncond = unpaired(logits) if guided else (logits, None)
        logps = density.code_logps(cond, uncond, sampling)
        places = first + fed[:, None] + jnp.arange(hidden.shape[1], dtype=jnp.int32)[None]
        codes = jax.vmap(density.choose, in_axes=(None, 1, 1), out_axes=1)(keys, places, logps)
        return codes, jnp.take_along_axis(logps, codes[..., None], axis=-1)[..., 0]

    def advance(now: _Progress) -> _Progress:
        cache = now.cache.replace(length=begin + each(now.fed), count=seen + each(now.fed))
        embeds = apply("embed_codes", each(now.window))
        after, cache = apply("decode", embeds, jnp.ones(embeds.shape[:2], bool), None, cache)
        codes, logps = pick(after, now.fed + 1)
        right = jnp.cumprod(now.window[:, 1:] == codes[:, :-1], axis=1, dtype=jnp.int32).sum(1, dtype=jnp.int32)
        new = jnp.minimum(1 + right, count - now.fed)
        last = jnp.take_along_axis(after, jnp.maximum(each(new) - 1, 0)[:, None, None], axis=1)[:, 0]
        # the pick after the last confirmed one, and those after it; the last of all stands for what nobody picked
        ahead = jnp.minimum(jnp.maximum(new - 1, 0)[:, None] + jnp.arange(W, dtype=jnp.int32)[None], W - 1)
        return _Progress(
            passes=now.passes + 1,
            cache=cache,
            hidden=jnp.where(each(new)[:, None] > 0, last, now.hidden),
            fed=now.fed + new,
            window=jnp.take_along_axis(codes, ahead, axis=1),
            codes=_put(now.codes, codes, now.fed + 1),
            logps=_put(now.logps, logps, now.fed + 1),
        )

    none = jnp.zeros((B,), jnp.int32)
    code, logp = pick(hidden[:, None], none)
    room = ((0, 0), (0, count + W - 1))
    start = _Progress(
        jnp.zeros((), jnp.int32), cache, hidden, none, jnp.tile(code, (1, W)), jnp.pad(code, room), jnp.pad(logp, room)
    )
    start = start._replace(cache=cache.replace(length=begin + each(none)))
    end = jax.lax.while_loop(lambda now: jnp.any(now.fed < count), advance, start)
    slots = jnp.arange(cache.slots, dtype=jnp.int32)
    written = end.cache.mask & (slots < begin + count)[None]  # guesses beyond the end are no tokens
    cache = end.cache.replace(mask=written, length=begin + count, count=seen + count)
    return cache, end.hidden, end.codes[:, :count], end.logps[:, :count], end.passes


def _put(row, new, at):
    """row [B,N] with new [B,W] written at at i32[B]."""
    return jax.vmap(lambda row, new, at: jax.lax.dynamic_update_slice(row, new, (at,)))(row, new, at)
