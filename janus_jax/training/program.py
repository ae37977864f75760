"""A jitted program with the shapes it runs on: what can be compiled, and counted, before there is a device."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Program(NamedTuple):
    """function: jitted; args, kwargs: what it is called with, arrays or ShapeDtypeStructs, with their places on `mesh`.

    holds: {phase: tree} of what it works on (of its arguments, and of its results where these are its own), beside:
    the same of all that lies on the devices meanwhile and is not touched; phases are "parameters", "optimizer" and
    "cache". flops: what the model needs, by formula, for the whole mesh. unknown: how often a loop runs at most whose
    end depends on what is sampled. Of a loop that draws also codes: how many of the first picture come from it, and
    least: the fewest bytes that a device must move for each, the parameters once and the filled part of the cache.
    """

    name: str
    mesh: jax.sharding.Mesh
    function: Callable
    args: tuple
    kwargs: dict
    holds: dict[str, Any]
    beside: dict[str, Any]
    flops: int
    unknown: int = 1
    codes: int = 0
    least: int = 0

    def lower(self):
        """The program, traced for its mesh."""
        with jax.set_mesh(self.mesh):
            return self.function.lower(*self.args, **self.kwargs)


def placed(tree, places):
    """A tree of arrays or shapes as ShapeDtypeStructs that lie so; places: one sharding, or a tree of them."""
    if isinstance(places, jax.sharding.Sharding):
        one = places
        places = jax.tree.map(lambda _: one, tree)
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, places)


def bytes_per_device(tree) -> int:
    """Bytes that a tree of placed ShapeDtypeStructs takes on each device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )


def of_arguments(job: Program) -> list:
    """The arrays that a program is called with and whose place is known."""
    leaves = jax.tree.leaves((job.args, job.kwargs))
    return [leaf for leaf in leaves if getattr(leaf, "sharding", None) is not None]
