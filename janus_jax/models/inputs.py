"""From the ids, codes and pictures of a Batch to the decoder's input embeddings, and back to single positions."""

import jax
import jax.numpy as jnp

from janus_jax.models.janus import Janus
from janus_jax.parallel import sharding
from janus_jax.sequences.batch import CODE, SEEN, TEXT

STATES = ("batch", "length", "width")  # the logical names of embeddings and hidden states


def embed(model: Janus, params, ids, kind, pixels):
    """Embeddings [B,T,D] of mixed sequences: text, codes and seen pictures, each by its own encoder."""

    def apply(method, *args):
        return model.apply({"params": params}, *args, method=method)

    # An id of one kind may lie outside the other's table: look up 0 there, the result is not used.
    code = kind == CODE
    embeds = apply("embed_text", jnp.where(kind == TEXT, ids, 0))
    embeds = jnp.where(code[..., None], apply("embed_codes", jnp.where(code, ids, 0)), embeds)
    if pixels is not None:
        B, P = pixels.shape[:2]
        seen = kind == SEEN
        features = apply("understand", pixels.reshape(B * P, *pixels.shape[2:])).reshape(B, -1, embeds.shape[-1])
        place = jnp.clip(jnp.cumsum(seen, 1) - 1, 0, features.shape[1] - 1)
        features = states_at(features, place)
        embeds = jnp.where(seen[..., None], features, embeds)
    return embeds


def states_at(states, index):
    """states [B,T,D] at index i32[B,N] -> [B,N,D]."""
    # As a product with ones and zeros, exact at this precision: the gradient of an index per row is a scatter, which
    # takes a TPU's compiler longer than the decoder. The product is a thousandth of the model's arithmetic.
    ones = jax.nn.one_hot(index, states.shape[1], dtype=states.dtype)
    picked = jnp.einsum("BNT,BTD->BND", ones, states, precision=jax.lax.Precision.HIGHEST)
    return sharding.constrain(picked, *STATES)
