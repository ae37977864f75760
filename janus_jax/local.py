"""What of a mesh, of a batch and of its arrays is this process's own; with one process it is all of them."""

import collections

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from janus_jax.errors import UserError


def rows(by_row: NamedSharding, count: int) -> np.ndarray:
    """Which of a global batch's `count` rows lie on this process's devices, i64[n] in order: those it hands to
    jax.make_array_from_process_local_data. Processes that share rows (where the mesh's tensor axis spans them) get the
    same ones."""
    parts = {place[0].indices(count) for place in by_row.addressable_devices_indices_map((count,)).values()}
    return np.concatenate([np.arange(*part) for part in sorted(parts)])


def data(array: jax.Array) -> np.ndarray:
    """This process's rows of an array that is split by row, in the order of `rows`."""
    parts = {shard.index[0].indices(array.shape[0]): shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(parts[part]) for part in sorted(parts)])


def mesh(whole: Mesh) -> Mesh:
    """This process's part of a (data, fsdp, tensor) mesh, as (rows, 1, tensor): to work on alone, between two steps of
    all. The mesh itself where there is one process. Raises UserError where the tensor axis spans processes."""
    if jax.process_count() == 1:
        return whole
    check_tensor(whole)
    groups = whole.devices.reshape(-1, whole.devices.shape[-1])
    own = [group for group in groups if group[0].process_index == jax.process_index()]
    return Mesh(np.array(own)[:, None], whole.axis_names, axis_types=whole.axis_types)


def check_tensor(whole: Mesh) -> None:
    """Raises UserError where the tensor axis of a mesh spans processes."""
    groups = whole.devices.reshape(-1, whole.devices.shape[-1])
    if any(len({device.process_index for device in group}) > 1 for group in groups):
        own = min(collections.Counter(device.process_index for device in groups.flat).values())
        raise UserError(
            f"the mesh's tensor axis of {groups.shape[1]} spans processes, and each has to draw on its own devices: "
            f"set the last of --config.mesh to what divides {own}"
        )


def tree(arrays, own: Mesh):
    """Global arrays that are split over the tensor axis at most, as arrays on `mesh` of their mesh: what lies here
    already, nothing is copied. All processes may then go on by themselves."""

    def one(array):
        if array.sharding.mesh == own:
            return array
        parts = [shard.data for shard in array.addressable_shards]
        return jax.make_array_from_single_device_arrays(array.shape, NamedSharding(own, array.sharding.spec), parts)

    return jax.tree.map(one, arrays)
