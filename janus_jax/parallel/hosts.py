"""Several processes as one training: which one this is, how it joins the others, how it leaves.

Each process runs the same command. `start` finds its number in the environment, waits until all are there (see
`rollcall`: who is missing is named every minute), joins them through jax.distributed, and refuses to go on where their
code or settings differ (see `alike`). A single process finds nothing and goes on alone.
"""

import os
import sys
import warnings
from typing import NamedTuple

import jax
from jax._src import clusters  # what jax.distributed.initialize() asks, which has no public name

from janus_jax.errors import UserError
from janus_jax.parallel import alike, rollcall

PORT = 8482  # of jax's coordinator, as jax chooses it on TPUs; the roll is called at the next one
PATIENCE = 30 * 60.0  # seconds: the hosts of a slice may come up many minutes apart
INTERVAL = 60.0  # seconds between two lines about who is missing

# The environments in which jax itself finds its place. Kubernetes alone is not one: not every pod is part of a job.
PLATFORMS = (clusters.OmpiCluster, clusters.SlurmCluster, clusters.GkeTpuCluster, clusters.GceTpuCluster)


class Place(NamedTuple):
    """Where a process stands among its peers: the coordinator's host and port, how many processes there are, which one
    this is, and which of its host's devices it uses (None: all)."""

    host: str
    port: int
    count: int
    index: int
    devices: tuple[int, ...] | None = None


def place_of(environ) -> Place | None:
    """A process's place, or None for one that is alone.

    Of JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; without them of what jax knows of the platform
    (TPU slices, one or several, on GKE or as Cloud TPU VMs; Slurm; Open MPI). Raises UserError where they are
    incomplete or make no sense.
    """
    devices = None
    if environ.get("JAX_COORDINATOR_ADDRESS"):
        address = environ["JAX_COORDINATOR_ADDRESS"]
        count, index = (_number(environ, name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
    else:
        address, count, index, devices = _platform()
    if address is None:
        return None
    host, _, port = address.rpartition(":")
    host, port = (host, port) if host else (port, str(PORT))
    if not port.isdecimal() or not 0 < int(port) < 65535:
        raise UserError(f"JAX_COORDINATOR_ADDRESS {address!r} is not HOST:PORT: set it to that")
    if not 0 <= index < count:
        raise UserError(f"process {index} of {count} cannot be: set JAX_PROCESS_ID to 0 ... JAX_NUM_PROCESSES - 1")
    return Place(host.strip("[]"), int(port), count, index, devices) if count > 1 else None


def _number(environ, name):
    value = environ.get(name, "")
    if not value.isdecimal():
        raise UserError(f"{name} is {value!r}, which is no number: a pod needs it set on each process")
    return int(value)


def _platform():
    """(address, count, index, devices) of a platform that jax knows, Nones elsewhere."""
    nothing = (None, None, None, None)
    try:
        platform = next((one for one in PLATFORMS if one.is_env_present()), None)
    except (ImportError, OSError):  # a TPU VM without a metadata server (Colab), or one that cannot be asked
        return nothing
    if platform is None:
        return nothing
    try:
        if platform.get_process_count() < 2:
            return nothing
        found = clusters.ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, None, platform.name, int(PATIENCE)
        )
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        raise UserError(
            f"the platform ({platform.name}) does not say which process this is ({error}): set "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID on each process"
        ) from error
    address, count, index, devices = found
    return address, count, index, None if devices is None else tuple(devices)


def start(config) -> None:
    """Joins the training this process belongs to, if it is one of several. Before anything touches a device.

    Raises UserError: on a process whose number cannot be, on all who wait where one does not come within PATIENCE, and
    on all alike where their code or settings differ.
    """
    place = place_of(os.environ)
    if place is None:
        if jax.process_count() > 1:  # the TPU runtime knows its slice
            raise UserError(
                f"this is one of the {jax.process_count()} hosts of a slice, and was started alone: start the command "
                "on all, with JAX_COORDINATOR_ADDRESS=HOST:PORT of the first, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
            )
        return
    if place.index:
        rollcall.call(place.host, place.port + 1, place.count, place.index, INTERVAL, PATIENCE)
        _join(place)
    else:
        with rollcall.open_roll(place.host, place.port + 1, place.count) as roll:
            rollcall.wait_for_all(roll, INTERVAL, PATIENCE)
            _join(place)  # returns when all have joined, so each has heard that all are there
    if refusal := alike.refusal(alike.facts(config), place.index, place.count):
        jax.distributed.shutdown()  # waits for the others, who refuse, too
        raise UserError(refusal)


def _join(place):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM away from us: until cli.Stop is there a signal shall end the process, and then set a flag.
    jax.config.update("jax_enable_preemption_service", False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jax asks each platform for the devices, and some say what they lack
        jax.distributed.initialize(
            coordinator_address=f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}",
            num_processes=place.count,
            process_id=place.index,
            local_device_ids=place.devices,
            shutdown_timeout_seconds=int(PATIENCE),  # the others wait there while process 0 writes the model
        )


def leave(status: int) -> None:
    """Ends this process after an error. One of several ends at once: an orderly end waits for the others, who wait for
    this one."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
