"""A block repeated L times over one stacked set of parameters, and what the backward pass may keep of it."""

import flax.linen as nn
import jax

# What the forward pass saves for the backward pass of each block: everything, nothing but the block's input,
# or the results of the matrix multiplications with parameters (attention scores are recomputed).
REMAT = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def stack(block: type[nn.Module], layers: int, *, scan: bool, remat: str, in_axes: tuple) -> type[nn.Module]:
    """A module class that applies `block` L times; block(carry, *inputs) returns (carry, None).

    Leaves have a leading dimension L whether or not `scan` is set, so one parameter tree serves both
    programs: a loop (compiles one block) or L copies of the block in a row. `in_axes`: 0 or nn.broadcast for
    each input.
    """
    if remat not in REMAT:
        raise ValueError(f"unknown remat {remat!r}; known: {', '.join(REMAT)}")
    if remat != "none":
        # Inside a loop nothing can be merged with the forward pass anyway; the barrier would only cost.
        block = nn.remat(block, policy=REMAT[remat], prevent_cse=not scan)
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=in_axes,
        length=layers,
        unroll=1 if scan else layers,
    )
