"""How a checkpoint is to be drawn with, unless one says otherwise."""

from janus_jax.checkpoints import loading
from janus_jax.sampling.density import Sampling


def sampling_of(path, **changes) -> Sampling:
    """The Sampling that a checkpoint was made for, with `changes` to its fields; path: as for `load`. Raises UserError
    as `load` does, and for values out of range."""
    return Sampling(**(loading.drawn_with(path) | changes))
