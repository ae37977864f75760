"""Drawing from the model with a KV cache: jitted pieces, each a function of values.

    prefill   an empty cache with sequences in it, as a Batch says them
    extend    appends known positions to a cache, as a Batch says them
    draw      appends a picture, code by code
    speak     appends words: a verdict and its reason, or an answer

Random bits depend on (seed, request, sample, round, position) alone, never on the batch a row happens to sit in: every
row carries its own key, and position t of a draw uses fold_in(key, t).
"""

import functools
from collections.abc import Callable, Iterator

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.models.decoder import DECODE_RULES, decode_params
from janus_jax.models.inputs import embed_batch, paired, unpaired
from janus_jax.models.janus import Janus
from janus_jax.models.kv_cache import Cache, grown, init_cache
from janus_jax.parallel import sharding, shards
from janus_jax.sampling import density, lookahead
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


def _append(model, params, cache, batch, guided):
    """(cache with the batch's rows appended, the last position's hidden state [B,D])."""
    mask, positions = batch.mask, batch.positions
    if guided:
        mask, positions = (x if x is None else paired(jnp.asarray(x), jnp.asarray(x)) for x in (mask, positions))
    hidden, cache = apply(model, params, "decode", embed_batch(model, params, batch, guided), mask, positions, cache)
    return cache, hidden[:, -1]


@functools.partial(jax.jit, static_argnames=("model", "slots", "guided"))
def prefill(model: Janus, params, batch: Batch, slots: int | None = None, guided: bool = False):
    """An empty cache of `slots` (None: as many as the batch has positions) with a batch's B rows in it: (cache, last
    hidden [B,D]). guided: 2B rows, each conditional one followed by its unconditional one (batch.uncond_ids), as `draw`
    wants them."""
    B, T = batch.ids.shape
    cache = init_cache(model.cfg.llama, B * (1 + guided), slots or T, model.cfg.dtype)
    return _append(model, params, cache, batch, guided)


def extend(model: Janus, params, cache: Cache, batch: Batch, guided: bool = False):
    """Appends a batch's positions to a cache, which is used up: (cache, last hidden [B,D]); masked ones leave a hole
    that nothing sees. guided: as in `prefill`."""
    return append(model, params, grown(cache, int(cache.length) + batch.ids.shape[1]), batch, guided)


@functools.partial(jax.jit, static_argnames=("model", "guided"), donate_argnames="cache")
def append(model: Janus, params, cache: Cache, batch: Batch, guided: bool = False):
    """`extend` where the cache has room."""
    return _append(model, params, cache, batch, guided)


# A picture is drawn in parts of about so many codes, whole lines of it, and the cache grows between them.
PART = 64
FIRST = 128  # slots of a cache that is about to grow


def part_of(vq) -> int:
    """The codes of a part: as many whole lines of a picture as make at most PART codes and divide its height."""
    lines = max((n for n in range(1, vq.grid + 1) if vq.grid % n == 0 and n * vq.grid <= PART), default=1)
    return lines * vq.grid


def slots_for(need: int, most: int) -> int:
    """The slots of a cache that must hold `need` tokens now and `most` in the end: a power of two, so that pictures
    that begin at different places share their programs; `most` where that is not much larger."""
    size = FIRST
    while size < need:
        size *= 2
    return size if 5 * most > 6 * size else most


def parts(vq, begin: int, ahead: int = 1) -> list[tuple[int, int, int]]:
    """(first code, codes, slots of the cache) of each part of a picture that begins at slot `begin`. ahead: codes of a
    pass, which for rows that are done lie beyond the part, see lookahead.py."""
    each, end, beyond = part_of(vq), begin + vq.tokens, ahead if ahead > 1 else 0
    places = range(0, vq.tokens, each)
    return [(first, each, slots_for(begin + first + each, end) + beyond) for first in places]


def draw(
    model: Janus,
    params,
    cache: Cache,
    hidden,
    keys,
    sampling: density.Sampling,
    guided: bool,
    more: bool = True,
    on_codes: Callable[[int, int], None] | None = None,
):
    """Draws a picture after what the cache holds, whose last hidden state is [B,D].

    guided: the cache's rows are B pairs, a conditional one and the unconditional one of the same sample; a chosen code
    feeds both. keys u32[B,2]. more: whether anything follows the picture; if not, its last code may be missing in
    the cache. on_codes: called with (codes drawn, codes of a picture) as they come. The cache is used up, and grows as
    the picture does, so that a code costs what the ones before it take. Returns (cache with the picture appended, codes
    i32[B,I], logps f32[B,I] of the codes under the density they were drawn from).
    """
    I, drawn = model.cfg.vq.tokens, []
    steps = drawing(model, params, cache, hidden, keys, sampling, guided, more)
    for after, *part in steps:
        if on_codes and drawn:
            jax.block_until_ready(drawn[-1])  # the part before, while this one is drawn
            on_codes(sum(codes.shape[1] for codes, _ in drawn), I)
        cache = after
        drawn.append(part)
    codes, logps = _joined(drawn)
    if on_codes:
        jax.block_until_ready(codes)
        on_codes(I, I)
    return cache, codes, logps


def drawing(
    model: Janus, params, cache: Cache, hidden, keys, sampling, guided: bool, more: bool = True, stride=None
) -> Iterator:
    """`draw` part by part: yields (cache, codes i32[B,n], logps f32[B,n]) of each; the next step uses up the cache.
    stride: codes of a part; None: as many as are drawn on one size of the cache."""
    I = model.cfg.vq.tokens
    for begin, length, slots in parts(model.cfg.vq, int(cache.length), sampling.lookahead):
        cache = grown(cache, slots)
        for first in range(begin, begin + length, stride or length):
            count = min(stride or length, begin + length - first)
            fed = more or count < I  # of several parts the last one would be a program of its own
            part = draw_part(model, params, cache, hidden, keys, sampling, guided, np.int32(first), count, fed)
            cache, hidden, codes, logps, _ = part
            yield cache, codes, logps


@jax.jit
def _joined(parts):
    return [jnp.concatenate(each, axis=1) for each in zip(*parts, strict=True)]


@functools.partial(jax.jit, static_argnames=("model", "guided", "count", "fed"), donate_argnames="cache")
def draw_part(
    model, params, cache, hidden, keys, sampling: density.Sampling, guided: bool, first, count: int, fed: bool = True
):
    """The codes first..first+count of a picture, for which the cache has room: (cache, hidden [B,D], codes
    i32[B,count], their logps, passes of the decoder i32[]). fed: the last code, too. See `draw`."""
    params = decode_params(params)  # not in every step
    run = functools.partial(apply, model, params)
    if sampling.lookahead > 1:
        return lookahead.draw_part(run, cache, hidden, keys, sampling, guided, first, count)

    def pick(hidden, place):
        logits = run("code_logits", hidden[:, None])[:, 0]
        cond, uncond = unpaired(logits) if guided else (logits, None)
        logps = density.code_logps(cond, uncond, sampling)
        codes = density.choose(keys, place, logps)
        return codes, jnp.take_along_axis(logps, codes[:, None], axis=-1)[:, 0]

    def step(carry, place):
        cache, hidden = carry
        picked = codes, _ = pick(hidden, place)
        tokens = paired(codes, codes) if guided else codes
        embeds = run("embed_codes", tokens[:, None])
        hidden, cache = run("decode", embeds, jnp.ones((len(tokens), 1), bool), None, cache)
        return (cache, hidden[:, -1]), picked

    places = first + jnp.arange(count - (not fed), dtype=jnp.int32)
    (cache, hidden), (codes, logps) = jax.lax.scan(step, (cache, hidden), places)
    if not fed:
        last = pick(hidden, first + count - 1)
        codes, logps = (jnp.concatenate([x, one[None]]) for x, one in zip((codes, logps), last, strict=True))
    return cache, hidden, codes.T, logps.T, jnp.asarray(len(places), jnp.int32)


@flax.struct.dataclass
class Speech:
    """What is being said, of at most M words: ids i32[B,M], PAD where there is none (yet), with log-probabilities logps
    f32[B,M]; p_yes f32[B]: softmax over the logits of Yes and No at the first word, before temperature. position i32[]:
    how many words there are; done bool[B]: the row has ended; hidden [B,D]: the last hidden state."""

    hidden: jax.Array
    position: jax.Array
    done: jax.Array
    p_yes: jax.Array
    ids: jax.Array
    logps: jax.Array


@functools.partial(jax.jit, static_argnames=("model", "special", "verdict"), donate_argnames="cache")
def speak(
    model: Janus, params, cache: Cache, hidden, keys, sampling: density.Sampling, special: SpecialIds, verdict=True
):
    """Says words up to EOS or sampling.max_reason_tokens; with `verdict` the first is Yes or No and nothing else.

    The cache must have room for max_reason_tokens slots. Returns (cache, ids i32[B,M] with PAD after a row's end,
    logps f32[B,M], p_yes f32[B]), see Speech; EOS itself is not fed, the caller appends what follows it.
    """
    said = _silence(hidden, sampling, special)
    cache, said = _say(model, params, cache, said, keys, sampling, special, verdict, sampling.max_reason_tokens)
    return cache, said.ids, said.logps, said.p_yes


def speaking(model: Janus, params, cache: Cache, hidden, keys, sampling, special, verdict=True) -> Iterator:
    """`speak` word by word: yields after each what it would return, as far as it is said. The next step uses up the
    cache."""
    said = _silence(hidden, sampling, special)
    for position in range(sampling.max_reason_tokens):
        cache, said = _said(model, params, cache, said, keys, sampling, special, verdict, np.int32(position + 1))
        yield cache, said.ids, said.logps, said.p_yes
        if shards.whole(said.done).all():
            return


def _silence(hidden, sampling, special) -> Speech:
    """Nothing, as yet, after a last hidden state [B,D]."""
    B, M = hidden.shape[0], sampling.max_reason_tokens
    return Speech(
        hidden=hidden,
        position=jnp.zeros((), jnp.int32),
        done=jnp.zeros((B,), bool),
        p_yes=jnp.zeros((B,), jnp.float32),
        ids=jnp.full((B, M), special.pad, jnp.int32),
        logps=jnp.zeros((B, M), jnp.float32),
    )


def _say(model, params, cache, said: Speech, keys, sampling, special, verdict, until):
    """Goes on up to word number `until`, or to the end of all rows: (cache, Speech)."""
    params = decode_params(params)  # not in every step
    yes_no = special.yes, special.no

    def go_on(carry):
        _, said = carry
        return (said.position < until) & ~jnp.all(said.done)

    def step(carry):
        cache, said = carry
        position, done = said.position, said.done
        logits = apply(model, params, "text_logits", said.hidden[:, None])[:, 0]
        p_yes = jnp.where(position == 0, jax.nn.softmax(logits[:, jnp.array(yes_no)])[:, 0], said.p_yes)
        each = density.text_logps(logits, sampling, jnp.full(done.shape, verdict & (position == 0)), yes_no)
        token = jnp.where(done, special.pad, density.choose(keys, position, each))
        chosen = jnp.take_along_axis(each, token[:, None], axis=-1)[:, 0]
        ids = said.ids.at[:, position].set(token)
        logps = said.logps.at[:, position].set(jnp.where(done, 0.0, chosen))
        done = done | (token == special.eos)
        embeds = apply(model, params, "embed_text", token[:, None])
        hidden, cache = apply(model, params, "decode", embeds, ~done[:, None], None, cache)
        return cache, Speech(hidden[:, -1], position + 1, done, p_yes, ids, logps)

    return jax.lax.while_loop(go_on, step, (cache, said))


_said = functools.partial(jax.jit, static_argnames=("model", "special", "verdict"), donate_argnames="cache")(_say)


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
