"""TPU slices by name: what a chip can hold, and the devices of a slice that nobody rents yet.

    v5e:4x4     16 chips as a 4x4 torus        v5e-16   the same, by the name that clouds use
    v5p:2x2x1   4 chips                        v5p-8    the same: v4, v5p and tpu7x names count cores, two a chip
    v5e:4x4@2   two such slices, joined by the data centre's network

The devices come from libtpu, which describes and compiles for a TPU on a machine without one.
"""

import dataclasses
import importlib.util
import math
import os
import re

from janus_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation. hbm: GiB that programs may use on a device (what libtpu 0.0.42 refuses to exceed; a little less
    than the data sheet's); bandwidth: GB/s between a device and its memory, by the data sheet; axes: of its torus;
    devices: that jax shows per chip; cores: per chip in the names of slices; host: chips of one machine in a larger
    slice; settings: what libtpu must be told beside the shape."""

    hbm: float
    bandwidth: float
    axes: int
    devices: int = 1
    cores: int = 1
    host: tuple[int, ...] = (2, 2, 1)
    settings: tuple[tuple[str, str], ...] = ()


CHIPS = {
    # Without megacore libtpu shows the two cores of a v4 chip as two devices.
    "v4": Chip(30.75, 1228, 3, cores=2, settings=(("chip_config_name", "megacore"),)),
    "v5e": Chip(15.75, 819, 2),
    "v5p": Chip(95.74, 2765, 3, cores=2),
    "v6e": Chip(31.25, 1640, 2),
    "tpu7x": Chip(94.75, 3690, 3, devices=2, cores=2),
}

# The usual shapes, by the number of chips: what a slice named by a number is.
SHAPES = {
    2: {1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16), 256: (16, 16)},
    3: {
        1: (1, 1, 1),
        4: (2, 2, 1),
        8: (2, 2, 2),
        16: (2, 2, 4),
        32: (2, 4, 4),
        64: (4, 4, 4),
        128: (4, 4, 8),
        256: (4, 8, 8),
        512: (8, 8, 8),
    },
}

MEND = "install libtpu, which compiles without a TPU: in the checkout, pip install -e '.[aot]'"


@dataclasses.dataclass(frozen=True)
class Topology:
    """Some equal slices: the chip's name, the chips along each axis of a slice, the number of slices."""

    chip: str
    shape: tuple[int, ...]
    slices: int = 1

    def __str__(self):
        return f"{self.chip}:{'x'.join(map(str, self.shape))}{self._slices}"

    @property
    def _slices(self) -> str:
        return f"@{self.slices}" if self.slices > 1 else ""

    @property
    def name(self) -> str:
        """As clouds call a slice, v5e-16; of several with their number, v5e-16@2."""
        return f"{self.chip}-{math.prod(self.shape) * CHIPS[self.chip].cores}{self._slices}"

    @property
    def chips(self) -> int:
        """Chips in all slices."""
        return math.prod(self.shape) * self.slices

    @property
    def hbm(self) -> int:
        """Bytes that programs may use on one device."""
        return int(CHIPS[self.chip].hbm * 2**30)

    @property
    def host(self) -> tuple[int, int, int]:
        """Chips of one machine, along each axis. The small flat slices are one machine."""
        shape = (*self.shape, 1, 1)[:3]
        return shape if self.shape == (2, 4) or math.prod(shape) < 4 else CHIPS[self.chip].host


def parse(name: str) -> Topology:
    """The topology that a name means, see above. Raises UserError for one that is none."""
    found = re.fullmatch(r"(?P<chip>[a-z0-9]+)(:(?P<shape>\d+(x\d+)+)|-(?P<size>\d+))(@(?P<slices>\d+))?", name)
    if not found or found["chip"] not in CHIPS:
        raise UserError(
            f"{name!r} is no topology: write CHIP:SHAPE, as in v5e:4x4, v5p:2x2x1 or v5e:4x4@2; "
            f"chips: {', '.join(CHIPS)}"
        )
    chip, slices = CHIPS[found["chip"]], int(found["slices"] or 1)
    if found["shape"]:
        shape = tuple(int(size) for size in found["shape"].split("x"))
    else:
        shape = SHAPES[chip.axes].get(int(found["size"]) / chip.cores, ())
    if len(shape) != chip.axes or 0 in shape or not slices:
        sizes = ", ".join(str(size * chip.cores) for size in SHAPES[chip.axes])
        raise UserError(
            f"{name!r} is no slice of {found['chip']}: its shapes have {chip.axes} axes, its named sizes are {sizes}"
        )
    return Topology(found["chip"], shape, slices)


def devices(topology: Topology) -> list:
    """The devices of a topology, to compile for and not to compute on. Raises UserError where libtpu is absent or does
    not know such a slice."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"there is no libtpu: {MEND}")
    # Where the metadata of a cloud's machine are asked for, a machine elsewhere waits minutes for the answer.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # Nothing is run on a chip, so another process that compiles, or computes, is no reason to refuse.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    name = f"{topology.chip}:{'x'.join(map(str, topology.shape))}"
    settings = dict(CHIPS[topology.chip].settings) | {"chips_per_host_bounds": topology.host}
    if topology.slices > 1:
        settings["num_slices"] = topology.slices
    try:
        return topologies.get_topology_desc(name, platform="tpu", **settings).devices
    except Exception as error:  # of the plugin: one kind for all that it refuses
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"libtpu does not make a slice {topology}: {reason}; choose another shape") from error


def machine(topology: Topology) -> Topology:
    """One machine of a topology, as a slice of its own: on a part of a slice whose chips are not all connected with
    each other (v5e) the compiler makes no program."""
    whole = math.prod(topology.host) >= math.prod(topology.shape)
    shape = topology.shape if whole else topology.host[: len(topology.shape)]
    return Topology(topology.chip, shape)
