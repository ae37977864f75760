"""Decisions that all processes take alike. Each function is called by every process, at the same point of the program.

A single process answers at once, without any device.
"""

import collections
import functools
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from janus_jax.errors import UserError
from janus_jax.parallel.alike import processes


def is_first() -> bool:
    """Whether this is the process that writes files, metrics and pictures: number 0, or the only one."""
    return jax.process_index() == 0


def first(function):
    """Runs `function` on process 0 alone and returns its result, a JSON value, on every process. A UserError that it
    raises is raised on every process."""
    if jax.process_count() == 1:
        return function()
    said = {}
    if is_first():
        try:
            said = {"value": function()}
        except UserError as error:
            said = {"error": str(error)}
    said = json.loads(_sent(json.dumps(said).encode()))
    if "error" in said:
        raise UserError(said["error"])
    return said["value"]


def _sent(content: bytes) -> bytes:
    """Process 0's bytes, on every process."""
    length = int(same(np.int32(len(content))))
    return same(np.frombuffer(content.ljust(length)[:length], np.uint8)).tobytes()


def same(array) -> np.ndarray:
    """Process 0's array, on every process; all give one of the same shape and dtype."""
    return np.asarray(array if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(np.asarray(array)))


def gathered(values) -> np.ndarray:
    """The arrays of all processes, stacked: [processes, ...]; all give one of the same shape and dtype."""
    if jax.process_count() == 1:
        return np.asarray(values)[None]
    return np.asarray(multihost_utils.process_allgather(np.asarray(values)))


def read_alike(what: str, read, content=lambda found: repr(found).encode()):
    """Returns read() where every process reads the same. what: how messages name the file; content(found): the bytes
    that are compared. Raises the UserError of this process's read(), or one that names the processes whose file is not
    that of process 0."""
    try:
        found, refused = read(), None
        digest = hashlib.sha256(content(found)).digest()
    except UserError as error:
        found, refused, digest = None, error, bytes(32)
    digests = gathered(np.frombuffer(digest, np.uint8))
    others = np.flatnonzero((digests != digests[0]).any(-1))
    if refused is not None:
        raise refused
    if len(others):
        raise UserError(f"{what} is another file on {processes(others.tolist())} than on process 0: copy it to all")
    return found


@functools.cache
def _any():
    """(sharding of one flag per device, jitted function: whether any is set), over all devices: a TPU runs no program
    on some of each host's chips."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("device",))
    parts, whole = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in (("device",), ()))
    return parts, jax.jit(jnp.any, out_shardings=whole)


class AnyOf:
    """True once a flag is true on any process, on every process at the same look, so that all leave a loop at the same
    step.

    late: the answer given is that of `late` looks earlier, so that nobody waits for the step under way. A single
    process answers at once."""

    def __init__(self, flag, late: int = 0):
        self._flag, self._late, self._asked = flag, late, collections.deque()

    def __bool__(self):
        if jax.process_count() == 1:
            return bool(self._flag)
        parts, ask = _any()
        with jax.set_mesh(parts.mesh):
            mine = np.full(jax.local_device_count(), bool(self._flag))
            self._asked.append(ask(jax.make_array_from_process_local_data(parts, mine)))
        return len(self._asked) > self._late and bool(self._asked.popleft())
