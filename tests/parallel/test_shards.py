"""Which rows of a global array lie on this host. (Arrays of several processes: test_hosts.py.)"""

from types import SimpleNamespace

import jax

from janus_jax.parallel import sharding, shards


def test_rows_of_a_process():
    """In a slice whose devices are not in the order of its processes, and where two processes share rows."""

    def by_row(*parts):
        return SimpleNamespace(addressable_devices_indices_map=lambda shape: dict(enumerate((p,) for p in parts)))

    assert shards.rows(by_row(slice(6, 8), slice(2, 4)), 8).tolist() == [2, 3, 6, 7]
    assert shards.rows(by_row(slice(4, 6), slice(4, 6)), 8).tolist() == [4, 5]
    scattered = [slice(n, n + 1) for n in (13, 2, 7, 11, 0, 5)]
    assert shards.rows(by_row(*scattered), 16).tolist() == [0, 2, 5, 7, 11, 13]
    assert shards.rows(by_row(slice(None)), 3).tolist() == [0, 1, 2]
    mesh = sharding.make_mesh(2, 2, 2)
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp")))
    assert shards.rows(whole, 8).tolist() == list(range(8))
