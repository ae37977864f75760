"""Global arrays, whose rows lie on the devices of several hosts, and what numpy on one host sees of them."""

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding


def rows(by_row: NamedSharding, count: int) -> np.ndarray:
    """The rows this host owns of a global batch of `count`, i64[n] in ascending order: those it hands to
    jax.make_array_from_process_local_data. Hosts that share rows (where the mesh's tensor axis spans them) get the
    same ones."""
    parts = {place[0].indices(count) for place in by_row.addressable_devices_indices_map((count,)).values()}
    return np.concatenate([np.arange(*part) for part in sorted(parts)])


def whole(arrays):
    """A tree of global arrays as numpy arrays, every row on every host. All processes call it."""

    def one(array):
        here = not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated
        return np.asarray(array if here else multihost_utils.process_allgather(array, tiled=True))

    return jax.tree.map(one, arrays)
