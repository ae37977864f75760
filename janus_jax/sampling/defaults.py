"""How a checkpoint is to be drawn with, and asked, unless one says otherwise."""

from janus_jax.checkpoints import loading
from janus_jax.sampling.density import Sampling
from janus_jax.sequences import tokens


def sampling_of(path, **changes) -> Sampling:
    """The Sampling that a checkpoint was made for, with `changes` to its fields; path: as for `load`. Raises UserError
    as `load` does, and for values out of range."""
    return Sampling(**(loading.drawn_with(path) | changes))


def system_of(path) -> str:
    """The sentence that opens a question's prompt: Janus's own; none for a model of the embedded world, which learnt to
    answer without. path: as for `load`. Raises UserError as `load` does."""
    return "" if loading.named_world(path) else tokens.SYSTEM_PROMPT
