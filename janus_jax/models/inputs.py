"""From the ids, codes and pictures of a Batch to the decoder's input embeddings, and back to single positions."""

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.models.janus import Janus
from janus_jax.parallel import sharding
from janus_jax.sequences.batch import CODE, SEEN, TEXT, Batch

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
        if pixels.dtype == jnp.uint8:
            pixels = pixels.astype(jnp.float32) / 127.5 - 1.0
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


def is_guided(batch: Batch) -> bool:
    """Whether a batch's codes are scored under guidance, from two rows per sequence."""
    return batch.uncond_ids is not None and batch.codes is not None


def embed_batch(model: Janus, params, batch: Batch, guided: bool = False):
    """Embeddings [B,T,D] of a batch's rows; guided: [2B,T,D], paired with those of the unconditional rows, which are
    the same sequences but for the prompt's words: only text embeddings differ."""
    embeds = embed(model, params, batch.ids, batch.kind, batch.pixels)
    if not guided:
        return embeds
    text = batch.kind == TEXT
    words = model.apply({"params": params}, jnp.where(text, batch.uncond_ids, 0), method="embed_text")
    # stated, so that the compiler does not try another split on the way
    pair = (sharding.constrain(x, *STATES) for x in (embeds, jnp.where(text[..., None], words, embeds)))
    return sharding.constrain(paired(*pair), *STATES)


def paired(conditional, unconditional):
    """Rows [B,...] of either kind as [2B,...], for one pass over both: each unconditional row follows its conditional
    one. So the two lie on one device of a mesh, and guidance sends nothing."""
    stack = np.stack if isinstance(conditional, np.ndarray) else jnp.stack
    return stack([conditional, unconditional], axis=1).reshape(-1, *conditional.shape[1:])


def unpaired(rows):
    """Undoes `paired`: (conditional, unconditional)."""
    pairs = rows.reshape(-1, 2, *rows.shape[1:])
    return pairs[:, 0], pairs[:, 1]
