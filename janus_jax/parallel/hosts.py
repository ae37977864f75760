"""Several processes as one training: how they find each other, start only where they are alike, and decide together.

Each process of a pod runs the same command. `start` finds its place in the environment and meets the others at process
0, over plain sockets, before jax knows of anything: a process that is missing, or that runs other code, is then named
in a line, where jax would wait or compute nonsense. A single process finds nothing and goes on alone.
"""

import collections
import functools
import hashlib
import importlib.metadata
import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from janus_jax.errors import UserError

PORT = 8482  # of the coordinator, as jax chooses it on TPUs; the meeting is at the next one
PATIENCE = 30 * 60.0  # seconds: the hosts of a slice may come up many minutes apart
INTERVAL = 60.0  # seconds between two lines about who is missing


class Place(NamedTuple):
    """Where a process stands in its pod: the coordinator's host and port, how many processes, and which one."""

    host: str
    port: int
    count: int
    index: int


def place_of(environ) -> Place | None:
    """A process's place, or None for one that is alone.

    Of JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; without them of what GKE gives the pods of a TPU
    slice (TPU_WORKER_HOSTNAMES, TPU_WORKER_ID, and for several slices MEGASCALE_*). Raises UserError where they are
    incomplete or make no sense.
    """
    if environ.get("JAX_COORDINATOR_ADDRESS"):
        host, _, port = environ["JAX_COORDINATOR_ADDRESS"].rpartition(":")
        host, port = (host, port) if host else (port, PORT)
        count, index = (_number(environ, name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
    else:
        hosts = [name.strip() for name in environ.get("TPU_WORKER_HOSTNAMES", "").split(",") if name.strip()]
        slices = _number(environ, "MEGASCALE_NUM_SLICES", "1")
        if len(hosts) * slices < 2:
            return None
        host, port = environ.get("MEGASCALE_COORDINATOR_ADDRESS", hosts[0]).split(":")[0], PORT
        count = len(hosts) * slices
        index = _number(environ, "MEGASCALE_SLICE_ID", "0") * len(hosts) + _number(environ, "TPU_WORKER_ID")
    if not str(port).isdecimal() or not 0 < int(port) < 65535:
        raise UserError(
            f"JAX_COORDINATOR_ADDRESS {environ['JAX_COORDINATOR_ADDRESS']!r} is not HOST:PORT: set it to that"
        )
    if not 0 <= index < count:
        raise UserError(f"process {index} of {count} cannot be: set JAX_PROCESS_ID to 0 ... JAX_NUM_PROCESSES - 1")
    return Place(host.strip("[]"), int(port), count, index) if count > 1 else None


def _number(environ, name, default=""):
    value = environ.get(name, default)
    if not value.isdecimal():
        raise UserError(f"{name} is {value!r}, which is no number: a pod needs it set on each process")
    return int(value)


# What has to be alike


def facts(config) -> dict[str, str]:
    """What all processes must agree on: the code, the libraries, and every setting of a ConfigDict."""
    versions = {name: _version(name) for name in ("jax", "jaxlib", "libtpu", "numpy", "pillow")}
    settings = {f"config.{name}": json.dumps(value, default=str) for name, value in _flat(config.to_dict())}
    return {"commit": commit(), "code": _code(), **versions, **settings}


def _flat(tree, prefix=""):
    for name, value in sorted(tree.items()):
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def commit() -> str:
    """The commit this code was checked out from: JANUS_COMMIT (launch/tpu.sh sets it, where there is no git folder), or
    git's word; else the package's version."""
    if os.environ.get("JANUS_COMMIT"):
        return os.environ["JANUS_COMMIT"][:12]
    try:
        line = ["git", "-C", str(Path(__file__).parents[1]), "rev-parse", "--short=12", "HEAD"]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return _version("janus_jax")


def _code():
    """A digest of the package's own sources: what a commit does not say of files that were changed since."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def differences(of: dict[int, dict[str, str]]) -> str:
    """One line that names who differs in what, "" where all are alike. of: the facts by process."""
    parts = []
    for name in dict.fromkeys(name for one in of.values() for name in one):
        holders = collections.defaultdict(list)
        for index in sorted(of):
            holders[of[index].get(name, "absent")].append(index)
        if len(holders) > 1:
            told = [f"{value[:60]} on {_processes(indices)}" for value, indices in holders.items()]
            parts.append(f"{name} is {', '.join(told)}")
    if not parts:
        return ""
    more = f"; and {len(parts) - 5} more" if len(parts) > 5 else ""
    return f"the processes differ: {'; '.join(parts[:5])}{more}: give all of them the same code and command"


def _processes(indices):
    return f"process{'es' if len(indices) > 1 else ''} {', '.join(map(str, indices))}"


# Meeting


def meet(place: Place, mine: dict[str, str], interval: float = INTERVAL, patience: float = PATIENCE) -> None:
    """Returns once all processes are there and alike; until then says every `interval` seconds who is missing.

    mine: see `facts`. Raises UserError, on each process the same, where they differ or one does not come within
    `patience` seconds.
    """
    deadline = time.monotonic() + patience
    refusal = _receive(place, mine, interval, deadline) if place.index == 0 else _visit(place, mine, interval, deadline)
    if refusal:
        raise UserError(refusal)


def _say(place, line):
    print(f"process {place.index} of {place.count}: {line}", file=sys.stderr, flush=True)


def _receive(place, mine, interval, deadline):
    """Process 0's side. Returns the refusal, "" for none."""
    guests, told = {}, time.monotonic()
    with _listen(place) as server:
        server.settimeout(min(interval, 0.2))
        while True:
            for index in [index for index, (guest, _) in guests.items() if not _is_open(guest)]:
                guests.pop(index)[0].close()
            missing = [index for index in range(1, place.count) if index not in guests]
            if not missing:
                verdict = differences({0: mine, **{index: said for index, (_, said) in guests.items()}})
                break
            if time.monotonic() > deadline:
                verdict = f"{_processes(missing)} of {place.count} did not come: look at their hosts, start all again"
                break
            if time.monotonic() - told > interval:
                told = time.monotonic()
                _say(place, f"waiting for {_processes(missing)}")
                for guest, _ in guests.values():
                    _send(guest, {"missing": missing})
            try:
                guest = server.accept()[0]
            except TimeoutError:
                continue
            index, said, count = _hello(guest)
            if index is None:  # a stranger: whoever scans ports
                guest.close()
            elif index in (0, *guests) or count != place.count or not index < place.count:
                verdict = (
                    f"a process calls itself {index} of {count}, where process 0 is one of {place.count} and "
                    f"{_processes([0, *sorted(guests)])} there already: set JAX_PROCESS_ID and JAX_NUM_PROCESSES"
                )
                guests[-1] = (guest, {})
                break
            else:
                guests[index] = (guest, said)
        for guest, _ in guests.values():
            _send(guest, {"verdict": verdict})
            guest.close()
    return verdict


def _listen(place):
    try:
        return socket.create_server((place.host, place.port + 1))
    except OSError:  # the address may be another's that leads here
        try:
            return socket.create_server(("", place.port + 1))
        except OSError as error:
            raise UserError(
                f"cannot listen on port {place.port + 1} ({error.strerror}): choose another JAX_COORDINATOR_ADDRESS"
            ) from error


def _hello(guest):
    """(index, facts, count) of a process that has just connected; the index is None if it is none."""
    guest.settimeout(5)
    try:
        said = json.loads(guest.makefile("rb").readline(1 << 20))
        return int(said["index"]), dict(said["facts"]), int(said["count"])
    except (OSError, ValueError, TypeError, KeyError):
        return None, {}, 0


def _send(guest, message):
    try:
        guest.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        pass  # it has gone, which the next look will show


def _is_open(guest):
    """A guest sends nothing after its hello: what can be read is its end."""
    return not select.select([guest], [], [], 0)[0]


def _visit(place, mine, interval, deadline):
    """The other processes' side, as `_receive`. Comes again where process 0 goes away, which may be started anew."""
    told = time.monotonic()
    while time.monotonic() < deadline + interval:  # process 0 gives up first, and says so
        try:
            with socket.create_connection((place.host, place.port + 1), timeout=min(interval, 10)) as door:
                door.settimeout(3 * interval + 10)  # process 0 speaks every `interval`; a dead host says nothing
                _send(door, {"index": place.index, "count": place.count, "facts": mine})
                for line in door.makefile("rb"):
                    message = json.loads(line)
                    if "verdict" in message:
                        return message["verdict"]
                    _say(place, f"waiting for {_processes(message['missing'])}")
        except (OSError, ValueError):
            pass
        if time.monotonic() - told > interval:
            told = time.monotonic()
            _say(place, f"waiting for process 0 at {place.host}:{place.port + 1}")
        time.sleep(min(interval, 0.5))
    return f"process 0 at {place.host}:{place.port + 1} did not come: look at its host, and start all again"


def start(config, environ=os.environ) -> None:
    """Joins the pod this process belongs to, if there is one. Before anything touches a device. Raises UserError as
    `meet` does."""
    place = place_of(environ)
    if place is None:
        if jax.process_count() > 1:  # the TPU runtime knows its slice
            raise UserError(
                f"this is one of the {jax.process_count()} hosts of a slice, and was started alone: start the command "
                "on all, with JAX_COORDINATOR_ADDRESS=HOST:PORT of the first, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
            )
        return
    meet(place, facts(config))
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM away from us: until cli.Stop is there a signal shall end the process, and then set a flag.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator_address=f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}",
        num_processes=place.count,
        process_id=place.index,
        initialization_timeout=int(PATIENCE),
        shutdown_timeout_seconds=int(PATIENCE),  # the others wait there while process 0 writes the model
    )


def leave(status: int) -> None:
    """Ends this process after an error. In a pod at once: an orderly end waits for the others, who wait for us."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


# Deciding together


def is_first() -> bool:
    """Whether this is the process that writes files, metrics and pictures: number 0, or the only one."""
    return jax.process_index() == 0


def first(function):
    """What `function()`, run by process 0 alone, returns, on all processes; a JSON value. Its UserError is all's."""
    if jax.process_count() == 1:
        return function()
    said = {}
    if is_first():
        try:
            said = {"value": function()}
        except UserError as error:
            said = {"error": str(error)}
    said = json.loads(_tell(json.dumps(said).encode()))
    if "error" in said:
        raise UserError(said["error"])
    return said["value"]


def _tell(content: bytes) -> bytes:
    """Process 0's bytes, on all processes."""
    length = int(same(np.int32(len(content))))
    return same(np.frombuffer(content.ljust(length)[:length], np.uint8)).tobytes()


def same(array) -> np.ndarray:
    """Process 0's array, on all processes."""
    return np.asarray(array if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(np.asarray(array)))


def gathered(values) -> np.ndarray:
    """Each process's array, stacked: [processes, ...]. All processes call it."""
    if jax.process_count() == 1:
        return np.asarray(values)[None]
    return np.asarray(multihost_utils.process_allgather(np.asarray(values)))


def read_alike(what: str, read, content=lambda found: repr(found).encode()):
    """read(), where all processes read the same; all call it. what: names the file; content(found): its bytes. Raises
    its UserError, or on all processes one that names those who read something else than process 0."""
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
        raise UserError(f"{what} is another file on {_processes(others.tolist())} than on process 0: copy it to all")
    return found


@functools.cache
def _any():
    """(sharding of one flag per device, whether any is set), on all devices: a TPU runs no program on some of each
    host's chips."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("device",))
    parts, whole = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in (("device",), ()))
    return parts, jax.jit(jnp.any, out_shardings=whole)


class AnyOf:
    """True once a flag is true on any process: the same answer on all of them at the same look, so that all leave a
    loop at the same step. In a pod the answer is of `late` looks ago: nobody waits for the step under way."""

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


# Global arrays


def rows(by_row: NamedSharding, count: int) -> np.ndarray:
    """Which of a global batch's `count` rows lie on this process's devices, i64[n] in order: those it hands to
    jax.make_array_from_process_local_data. Processes that share rows (where the mesh's tensor axis spans them) get the
    same ones."""
    parts = {place[0].indices(count) for place in by_row.addressable_devices_indices_map((count,)).values()}
    return np.concatenate([np.arange(*part) for part in sorted(parts)])


def whole(arrays):
    """A tree of global arrays as numpy arrays, all of them on every process. All processes call it."""

    def one(array):
        here = not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated
        return np.asarray(array if here else multihost_utils.process_allgather(array, tiled=True))

    return jax.tree.map(one, arrays)
