"""Names of slices, what the compiler's messages mean, and the table. What needs libtpu is in test_aot.py."""

import types

import jax
import pytest

from janus_jax import compile
from janus_jax.aot import topology
from janus_jax.aot.topology import Topology, parse
from janus_jax.errors import UserError
from janus_jax.parallel import sharding


@pytest.mark.parametrize(
    "name, shape, slices, chips",
    [
        ("v5e:4x4", (4, 4), 1, 16),
        ("v5e-16", (4, 4), 1, 16),
        ("v5p-8", (2, 2, 1), 1, 4),  # named by cores, two a chip
        ("v5p:2x2x1", (2, 2, 1), 1, 4),
        ("v4-16", (2, 2, 2), 1, 8),
        ("v6e-1", (1, 1), 1, 1),
        ("tpu7x-8", (2, 2, 1), 1, 4),
        ("v5e:4x4@2", (4, 4), 2, 32),
    ],
)
def test_names(name, shape, slices, chips):
    place = parse(name)
    assert (place.shape, place.slices, place.chips) == (shape, slices, chips)
    assert parse(str(place)) == place
    assert parse(place.name).shape == shape


@pytest.mark.parametrize(
    "name", ["v5e", "v3-8", "v5e:4", "v5e:2x2x2", "v5p:4x4", "v5e-7", "v5p-7", "v5e:0x4", "v5e:4x4@0"]
)
def test_what_is_no_slice(name):
    with pytest.raises(UserError, match="slice|topology"):
        parse(name)


def test_a_machine_of_a_slice():
    assert Topology("v5e", (2, 4)).host == (2, 4, 1)  # eight chips in one machine
    assert Topology("v5e", (4, 4)).host == (2, 2, 1)
    assert Topology("v6e", (1, 1)).host == (1, 1, 1)
    assert Topology("v5p", (2, 2, 4)).host == (2, 2, 1)
    assert topology.machine(parse("v5e-32")) == parse("v5e:2x2")
    assert topology.machine(parse("v5p-16@2")) == parse("v5p:2x2x1")
    assert topology.machine(parse("v5e-1")) == parse("v5e:1x1")
    assert topology.machine(parse("v6e-8")) == parse("v6e:2x4")


def test_without_libtpu(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"libtpu.*pip install -e '\.\[aot\]'"):
        topology.devices(parse("v5e-16"))


def test_the_data_axis_spans_the_slices():
    """Devices of one slice lie along fsdp and tensor, never those of two."""

    def device(i):
        fields = {"id": i, "slice_index": i // 4, "process_index": i // 4, "device_kind": "x", "platform": "cpu"}
        return types.SimpleNamespace(**fields)

    devices = [device(i) for i in range(8)]
    with pytest.raises(UserError, match="does not lay its data axis over 2 slices"):
        sharding.mesh_of((1, 8, 1), devices)
    grid = jax.experimental.mesh_utils.create_hybrid_device_mesh((1, 2, 2), (2, 1, 1), devices)
    for data in range(2):
        assert {each.slice_index for each in grid[data].flat} == {data}


@pytest.mark.parametrize(
    "message, size",
    [
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 27.50G of 15.75G hbm.", 27.5 * 2**30),
        ("RESOURCE_EXHAUSTED: ... for HLO temporaries (400.00G) exceeds available HBM (15.25G).", 400 * 2**30),
        ("INVALID_ARGUMENT: something else", None),
    ],
)
def test_messages_of_the_compiler(message, size):
    assert compile.out_of_memory(message) == size


def test_configurations_that_take_a_slice(tmp_path):
    plain, taking = tmp_path / "plain.py", tmp_path / "taking.py"
    plain.write_text("def get_config():\n    pass\n")
    taking.write_text("def get_config(slice_name='v5e-1'):\n    pass\n")
    place = parse("v5e:4x4@2")
    assert compile.of_slice([f"--config={plain}", "--config.a=1"], place) == [f"--config={plain}", "--config.a=1"]
    assert compile.of_slice([f"--config={taking}", "--config.a=1"], place) == [
        f"--config={taking}:v5e-16@2",
        "--config.a=1",
    ]
    assert compile.of_slice([f"--config={taking}:v5e-4"], place) == [f"--config={taking}:v5e-4"]
