"""The mean of several models' parameters.

Models that went on from one ancestor often lie in one valley of the loss, whose middle generalises better than its
sides and costs no more to run ("model soups", Wortsman et al. 2022, arXiv 2203.05482).
"""

import functools
from collections.abc import Sequence

import numpy as np

from janus_jax.checkpoints.loading import Source
from janus_jax.checkpoints.tensor_names import Leaf, read
from janus_jax.errors import UserError


def averaged(sources: Sequence[Source], names: Sequence[str]) -> Source:
    """Opened checkpoints as one, which is like the first but for its parameters: the mean of all of theirs, summed in
    f32, in the first's dtypes. A row is read when it is asked for. names: of the checkpoints, for errors.

    Raises UserError where they differ in sizes, tokenizer or embedded world.
    """
    first = sources[0]
    for name, other in zip(names[1:], sources[1:], strict=True):
        size = first.cfg.other_size(other.cfg)
        different = [size[0]] if size else []
        different += ["tokenizer"] if other.tokenizer.content != first.tokenizer.content else []
        different += ["world"] if other.world != first.world else []
        if different:
            raise UserError(
                f"{names[0]} and {name} cannot be averaged, they differ in {', '.join(different)}: "
                "name models that went on from the same one"
            )
    leaves = {path: _mean([source.leaves[path] for source in sources]) for path in first.leaves}
    return first._replace(leaves=leaves)


def _mean(leaves: Sequence[Leaf]) -> Leaf:
    return leaves[0]._replace(row=functools.partial(_mean_row, leaves))


def _mean_row(leaves, layer):
    index = () if layer is None else (slice(layer, layer + 1),)
    total = sum(read(leaf, index).astype(np.float32) for leaf in leaves) / len(leaves)
    return (total if layer is None else total[0]).astype(leaves[0].dtype)
