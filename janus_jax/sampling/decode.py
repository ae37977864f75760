"""Drawing from the model with a KV cache: jitted pieces, each a function of values.

    prefill   an empty cache with sequences in it, as a Batch says them
    extend    appends known positions to a cache, as a Batch says them
    draw      appends a picture, code by code
    speak     appends words: a verdict and its reason, or an answer

Random bits depend on (seed, request, sample, round, position) alone, never on the batch a row happens to sit in: every
row carries its own key, and position t of a draw uses fold_in(key, t).
"""

import contextlib
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.models.decoder import DECODE_RULES, decode_params
from janus_jax.models.inputs import embed_batch, paired, unpaired
from janus_jax.models.janus import Janus
from janus_jax.models.kv_cache import Cache, init_cache
from janus_jax.parallel import sharding, shards
from janus_jax.sampling import density
from janus_jax.sequences.batch import Batch
from janus_jax.sequences.request import Request
from janus_jax.sequences.tokens import SpecialIds


def apply(model: Janus, params, method: str, *args):
    """A method of the model on given parameters."""
    return model.apply({"params": params}, *args, method=method)


def prepared(params):
    """A model's parameters as they draw, see decode_params, which every function here takes as well as the stored ones:
    preparing them once is a copy of the decoder less in each. On the mesh of the context they are split over `tensor`
    alone."""
    if isinstance(params["llama"]["layers"], tuple):
        return params
    mesh, shardings = jax.sharding.get_mesh(), None
    if not mesh.empty:
        shapes = jax.eval_shape(decode_params, params)
        shardings = sharding.param_shardings(shapes, mesh, DECODE_RULES, without=("fsdp",))
    return jax.jit(decode_params, out_shardings=shardings)(params)


def row_key(seed: int, request: Request, sample: int, turn: int):
    """The key data u32[2] of one (seed, request, sample, turn); turns of a trajectory: 2 round for its picture,
    2 round + 1 for its verdict. Computed on the host: rows are many and small."""
    words = [seed, *request.digest, sample, turn]
    return np.random.SeedSequence(words).generate_state(2, np.uint32)


def _choose(keys, position, logps):
    """One token per row from logps f32[B,V], by the row's own key u32[B,2] and the position i32[]."""

    def one(key, row):
        return jax.random.categorical(jax.random.fold_in(jax.random.wrap_key_data(key), position), row)

    return jax.vmap(one)(keys, logps).astype(jnp.int32)


def _append(model, params, cache, batch, guided):
    """(cache with the batch's rows appended, the last position's hidden state [B,D])."""
    mask, positions = batch.mask, batch.positions
    if guided:
        mask, positions = (x if x is None else paired(jnp.asarray(x), jnp.asarray(x)) for x in (mask, positions))
    hidden, cache = apply(model, params, "decode", embed_batch(model, params, batch, guided), mask, positions, cache)
    return cache, hidden[:, -1]


@functools.partial(jax.jit, static_argnames=("model", "slots", "guided"))
def prefill(model: Janus, params, batch: Batch, slots: int, guided: bool = False):
    """An empty cache of `slots` with a batch's B rows in it: (cache, last hidden [B,D]). guided: 2B rows, each
    conditional one followed by its unconditional one (batch.uncond_ids), as `draw` wants them."""
    rows = batch.ids.shape[0] * (1 + guided)
    return _append(model, params, init_cache(model.cfg.llama, rows, slots, model.cfg.dtype), batch, guided)


@functools.partial(jax.jit, static_argnames=("model", "guided"), donate_argnames="cache")
def extend(model: Janus, params, cache: Cache, batch: Batch, guided: bool = False):
    """Appends a batch's positions to a cache: (cache, last hidden [B,D]); masked ones leave a hole that nothing sees.
    guided: as in `prefill`."""
    return _append(model, params, cache, batch, guided)


@functools.partial(jax.jit, static_argnames=("model", "guided"), donate_argnames="cache")
def draw(model: Janus, params, cache: Cache, hidden, keys, sampling: density.Sampling, guided: bool):
    """Draws a picture after what the cache holds, whose last hidden state is [B,D].

    guided: the cache's rows are B pairs, a conditional one and the unconditional one of the same sample; a chosen code
    feeds both. keys u32[B,2]. Returns (cache with the picture appended, codes i32[B,I], logps f32[B,I] of the codes
    under the density they were drawn from).
    """
    params = decode_params(params)  # not in every step

    def step(carry, position):
        cache, hidden = carry
        logits = apply(model, params, "code_logits", hidden[:, None])[:, 0]
        cond, uncond = unpaired(logits) if guided else (logits, None)
        logps = density.code_logps(cond, uncond, sampling)
        codes = _choose(keys, position, logps)
        chosen = jnp.take_along_axis(logps, codes[:, None], axis=-1)[:, 0]
        fed = paired(codes, codes) if guided else codes
        embeds = apply(model, params, "embed_codes", fed[:, None])
        hidden, cache = apply(model, params, "decode", embeds, jnp.ones((len(fed), 1), bool), None, cache)
        return (cache, hidden[:, -1]), (codes, chosen)

    steps = jnp.arange(model.cfg.vq.tokens)
    (cache, _), (codes, logps) = jax.lax.scan(step, (cache, hidden), steps)
    return cache, codes.T, logps.T


_LISTENERS: dict[int, Callable] = {}


def _hear(number, tokens):
    _LISTENERS[int(number)](tokens)


@contextlib.contextmanager
def listening(hear: Callable[[np.ndarray], None]):
    """A number to give to `speak` as its listener: it calls hear(tokens i32[B]) after every step. The compiled program
    holds a number and looks the function up; if it held the function, every other function would need a compilation."""
    number = max(_LISTENERS, default=0) + 1
    _LISTENERS[number] = hear
    try:
        yield np.int32(number)
        jax.effects_barrier()
    finally:
        del _LISTENERS[number]


@functools.partial(jax.jit, static_argnames=("model", "special", "verdict"), donate_argnames="cache")
def speak(
    model: Janus,
    params,
    cache: Cache,
    hidden,
    keys,
    sampling: density.Sampling,
    special: SpecialIds,
    verdict: bool = True,
    listener=None,
):
    """Says words up to EOS or sampling.max_reason_tokens; with `verdict` the first is Yes or No and nothing else.

    The cache must have room for max_reason_tokens slots. Returns (cache, ids i32[B,M] with PAD after a row's end,
    logps f32[B,M], p_yes f32[B]); EOS itself is not fed, the caller appends what follows it. p_yes is the softmax over
    the logits of Yes and No at the first word, before temperature. listener: of `listening`, who hears every step's
    tokens i32[B].
    """
    params = decode_params(params)  # not in every step
    B, M = hidden.shape[0], sampling.max_reason_tokens
    eos, pad, yes_no = special.eos, special.pad, (special.yes, special.no)
    first = apply(model, params, "text_logits", hidden[:, None])[:, 0]
    p_yes = jax.nn.softmax(first[:, jnp.array(yes_no)])[:, 0]

    def go_on(carry):
        position, _, _, done, *_ = carry
        return (position < M) & ~jnp.all(done)

    def step(carry):
        position, cache, hidden, done, ids, logps = carry
        logits = apply(model, params, "text_logits", hidden[:, None])[:, 0]
        each = density.text_logps(logits, sampling, jnp.full((B,), verdict & (position == 0)), yes_no)
        token = jnp.where(done, pad, _choose(keys, position, each))
        if listener is not None:
            jax.debug.callback(_hear, listener, token, ordered=True)
        chosen = jnp.take_along_axis(each, token[:, None], axis=-1)[:, 0]
        ids = ids.at[:, position].set(token)
        logps = logps.at[:, position].set(jnp.where(done, 0.0, chosen))
        done = done | (token == eos)
        embeds = apply(model, params, "embed_text", token[:, None])
        hidden, cache = apply(model, params, "decode", embeds, ~done[:, None], None, cache)
        return position + 1, cache, hidden[:, -1], done, ids, logps

    blank = jnp.full((B, M), pad, jnp.int32)
    carry = (jnp.zeros((), jnp.int32), cache, hidden, jnp.zeros((B,), bool), blank, jnp.zeros((B, M), jnp.float32))
    _, cache, _, _, ids, logps = jax.lax.while_loop(go_on, step, carry)
    return cache, ids, logps, p_yes


def encoded(model: Janus, params, pixels) -> np.ndarray:
    """pixels f32[B,h,w,3] in [-1,1] -> codes i32[B,I], as numpy on every host."""
    return shards.whole(encode_codes(model, params, pixels))


@functools.partial(jax.jit, static_argnames="model")
def decode_codes(model: Janus, params, codes):
    """codes i32[B,I] -> pixels f32[B,h,w,3]."""
    pixels = apply(model, params, "decode_codes", sharding.constrain(codes, "batch", None))
    return sharding.constrain(pixels, "batch", None, None, None)


@functools.partial(jax.jit, static_argnames="model")
def encode_codes(model: Janus, params, pixels):
    """pixels f32[B,h,w,3] in [-1,1] -> codes i32[B,I]."""
    codes = apply(model, params, "encode_codes", sharding.constrain(pixels, "batch", None, None, None))
    return sharding.constrain(codes, "batch", None)
