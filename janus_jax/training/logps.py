"""Log-probabilities of a Batch's targets under the model: the one forward pass that both stages train through."""

import math

import jax
import jax.numpy as jnp

from janus_jax.models import attention
from janus_jax.models.inputs import embed_batch, is_guided, paired, states_at, unpaired
from janus_jax.models.janus import Janus
from janus_jax.parallel import sharding
from janus_jax.sampling import density
from janus_jax.sampling.density import Sampling
from janus_jax.sequences.batch import Batch

# Logits that stand whole on a device, in bytes. What has more is computed part by part, and once more by the backward
# pass, which takes longer where memory is no matter.
WHOLE = 2**28


@jax.custom_vjp
def chosen(logits, ids):
    """Log-probabilities f32[...] of ids i32[...] under softmax(logits f32[...,V]); -inf where the logit is. Its
    gradient, one-hot minus softmax, is written in one pass over the logits."""
    return _chosen(logits, ids)[0]


def _chosen(logits, ids):
    total = jax.nn.logsumexp(logits, axis=-1)
    if sharding.on_one_device() and attention.platform() != "tpu":
        own = jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
    else:  # by comparison: where the vocabulary is split over a mesh each part looks for the id in its own
        own = jnp.sum(jnp.where(_is_id(logits, ids), logits, 0.0), axis=-1)
    return own - total, (logits, ids, total)


def _chosen_gradient(kept, gradient):
    logits, ids, total = kept
    softmax = jnp.exp(logits - total[..., None])
    return gradient[..., None] * (_is_id(logits, ids).astype(logits.dtype) - softmax), None


chosen.defvjp(_chosen, _chosen_gradient)


def _is_id(logits, ids):
    return jax.nn.one_hot(ids, logits.shape[-1], dtype=bool)


def _scored(logits_of, width: int, ids, *inputs):
    """(log-probabilities of ids i32[B,N], entropies), f32[B,N] each, under logits_of(*inputs) f32[B,N,width]. inputs:
    arrays [B,N,...] or None; of more logits than WHOLE only some places' stand at a time."""

    @jax.named_scope("heads")
    def score(ids, *inputs):
        logits = logits_of(*inputs)
        return chosen(logits, ids), density.entropy(jax.nn.log_softmax(jax.lax.stop_gradient(logits)))

    B, N = ids.shape
    parts = min(math.ceil(4 * B * N * width / sharding.row_parts() / WHOLE), N)
    if parts == 1:
        return score(ids, *inputs)
    places = math.ceil(N / parts)

    def cut(x):
        padded = jnp.pad(x, [(0, 0), (0, parts * places - N)] + [(0, 0)] * (x.ndim - 2))
        each = padded.reshape(B, parts, places, *x.shape[2:]).swapaxes(0, 1)
        return sharding.constrain(each, None, "batch", *[None] * (x.ndim - 1))

    score = jax.checkpoint(score, prevent_cse=False)  # in a loop nothing can be merged with the forward pass
    scored = jax.lax.map(lambda each: score(*each), jax.tree.map(cut, (ids, *inputs)))
    return tuple(x.swapaxes(0, 1).reshape(B, -1)[:, :N] for x in scored)


def _value(params, name, states):
    """{} without a value head."""
    if "value" not in params:
        return {}
    head = params["value"]
    return {f"{name}_value": jnp.sum(states.astype(jnp.float32) * head["kernel"][None, None], -1) + head["bias"]}


def _trained(batch):
    """bool[B,T]: the tokens that are targets."""
    rows = jnp.arange(batch.ids.shape[0])[:, None]
    trained = jnp.zeros(batch.ids.shape, bool)
    for targets in (batch.text, batch.codes):
        if targets is not None:
            trained = trained.at[rows, targets.at + 1].max(targets.weight > 0)
    return trained


def token_logps(
    model: Janus,
    params,
    batch: Batch,
    sampling: Sampling,
    yes_no=None,
    *,
    text_sampling: Sampling | None = None,
    context=None,
) -> dict:
    """Log-probabilities of the batch's targets under the sampling density.

    With `batch.uncond_ids` codes are scored under guidance, from two rows per sequence. yes_no: ids of Yes and No,
    needed where `batch.text.verdict` marks tokens that were sampled from these two alone. text_sampling: the words'
    density, where it is another one. context: input embeddings, as of inputs.embed_batch, of all that is no target.
    Returns {"text": f32[B,N], "codes": f32[B,N], "text_entropy", "codes_entropy"} (entropies in nats, no gradient
    meant), each only where the batch has such targets; where params has a head "value" also "text_value" and
    "codes_value" f32[B,N], what it expects before the token.
    """

    def apply(method, *args):
        return model.apply({"params": params}, *args, method=method)

    def twice(x):
        return paired(x, x) if guided else x

    guided = is_guided(batch)
    embeds = embed_batch(model, params, batch, guided)
    if context is not None:
        embeds = jnp.where(twice(_trained(batch))[..., None], embeds, context)
    mask, positions = twice(batch.mask), None if batch.positions is None else twice(batch.positions)
    hidden = apply("decode", embeds, mask, positions)
    hidden, unguided = unpaired(hidden) if guided else (hidden, None)
    result = {}
    if batch.codes is not None:
        states = states_at(hidden, batch.codes.at)
        others = states_at(unguided, batch.codes.at) if guided else None

        def code_logits(states, others):
            cond, uncond = (None if x is None else apply("code_logits", x) for x in (states, others))
            return density.code_logits(cond, uncond, sampling)

        scored = _scored(code_logits, model.cfg.vq.codebook_size, batch.codes.ids, states, others)
        result |= dict(zip(("codes", "codes_entropy"), scored, strict=True)) | _value(params, "codes", states)
    if batch.text is not None:
        states = states_at(hidden, batch.text.at)

        def text_logits(states, verdict):
            return density.text_logits(apply("text_logits", states), text_sampling or sampling, verdict, yes_no)

        scored = _scored(text_logits, model.cfg.llama.vocab_size, batch.text.ids, states, batch.text.verdict)
        result |= dict(zip(("text", "text_entropy"), scored, strict=True)) | _value(params, "text", states)
    return result
