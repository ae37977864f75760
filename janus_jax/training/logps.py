"""Log-probabilities of a Batch's targets under the model: the one forward pass that both stages train through."""

import jax
import jax.numpy as jnp

from janus_jax.models import attention
from janus_jax.models.inputs import embed_batch, is_guided, paired, states_at, unpaired
from janus_jax.models.janus import Janus
from janus_jax.sampling import density
from janus_jax.sampling.density import Sampling
from janus_jax.sequences.batch import Batch


def _chosen(logps, ids):
    if _on_one_device():
        return jnp.take_along_axis(logps, ids[..., None], axis=-1)[..., 0]
    # by comparison, not by indexing: where the vocabulary is split over a mesh each part looks for the id in its own
    return jnp.sum(jnp.where(jax.nn.one_hot(ids, logps.shape[-1], dtype=bool), logps, 0.0), axis=-1)


def _on_one_device() -> bool:
    """Where an index per row is cheap: nothing is split, and its gradient, a scatter, is not for a TPU's compiler."""
    mesh = jax.sharding.get_abstract_mesh()
    return (mesh.empty or mesh.size == 1) and attention.platform() != "tpu"


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
        cond = apply("code_logits", states)
        uncond = apply("code_logits", states_at(unguided, batch.codes.at)) if guided else None
        logps = density.code_logps(cond, uncond, sampling)
        result |= {"codes": _chosen(logps, batch.codes.ids), "codes_entropy": density.entropy(logps)}
        result |= _value(params, "codes", states)
    if batch.text is not None:
        states = states_at(hidden, batch.text.at)
        logits = apply("text_logits", states)
        logps = density.text_logps(logits, text_sampling or sampling, batch.text.verdict, yes_no)
        result |= {"text": _chosen(logps, batch.text.ids), "text_entropy": density.entropy(logps)}
        result |= _value(params, "text", states)
    return result
