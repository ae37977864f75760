"""Compiled for TPUs that are not there (libtpu, no hardware): launch/test.sh --aot.

The golden tables say where every leaf of the training state lies and what it takes on a device. Where a change to them
is meant: JANUS_JAX_REGOLD=1 python -m pytest -m aot tests/test_aot.py -k shardings, and read the diff.
"""

import json
import os
from pathlib import Path

import jax
import pytest

from janus_jax import cli, compile, hlo, program, sharding, supervised, topology
from janus_jax.topology import parse

pytestmark = pytest.mark.aot
CONFIGS, GOLDENS = Path(__file__).parent.parent / "configs", Path(__file__).parent / "goldens_aot"


@pytest.fixture(autouse=True)
def promotion():
    """As the commands run: optax, and the gradient of jax's own attention in bfloat16, promote."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def configured(job, place, *flags):
    config, _ = cli.parse_config([f"--config={CONFIGS / job}.py:{place}", *flags], "", workdir=False)
    return config


def step(job, place, **changes):
    """The program of a job's training step, with one short bucket: compiled in a minute, and all that is in it."""
    config = configured(job, place)
    config.buckets = ((896, (("redraw", 0, 16), ("judge", 0, 16))),)
    for name, value in changes.items():
        config.model = {**dict(config.model), name: value}
    (job,) = supervised.programs(config, sharding.mesh_of(config.mesh, topology.devices(parse(place))))
    return job


@pytest.mark.parametrize(
    "job, place, attention",
    [
        ("janus_pro_1b_sft", "v5e-4", "splash"),
        ("janus_pro_1b_sft", "v5p-8", "dot"),
        ("janus_pro_7b_sft", "v5e-16", "splash"),
        ("janus_pro_7b_sft", "v5p-8", "splash"),
    ],
)
def test_training_steps(job, place, attention):
    one = step(job, place, attention=attention)
    row = compile.measure(one, parse(place).hbm, compile.QUICK)
    assert row["fits"], f"{row['peak'] / 2**30:.2f} GiB"
    kinds = row["collectives"]
    assert kinds["all-gather"]["bytes"] > 0, "fsdp gathers each layer's parameters"
    assert not {"all-to-all", "ragged-all-to-all"} & set(kinds), "nothing moves rows about"
    assert 0.5 < row["model_flops"] / row["hlo_flops"] < 1.2
    assert ("splash_mha" in one.lower().as_text(debug_info=True)) == (attention == "splash")


def test_a_step_over_two_slices():
    """Between slices, along `data`, runs the sum of gradients alone."""
    config = configured("janus_pro_1b_sft", "v5e-4", "--config.mesh=(2,4,1)", "--config.micro_batches=1")
    mesh = sharding.mesh_of(config.mesh, topology.devices(parse("v5e:2x2@2")))
    for row, index in zip(mesh.devices, (0, 1), strict=True):
        assert {device.slice_index for device in row.flat} == {index}


@pytest.mark.parametrize(
    "job, place", [("janus_pro_1b_sft", "v5e-4"), ("janus_pro_7b_sft", "v5e-16"), ("janus_pro_7b_sft", "v5p-8")]
)
def test_shardings(job, place):
    (one,) = [step(job, place)]
    text, path = program.listing(one.holds), GOLDENS / f"{job}_{place}.txt"
    if os.environ.get("JANUS_JAX_REGOLD"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text().splitlines() == text.splitlines()


def test_decoding_gathers_no_parameter():
    """The loop that draws, on one machine of v5e-32 with tensor = 4, as configs/janus_pro_7b_rl.py has it."""
    config = configured("janus_pro_7b_rl", "v5e-32")
    jobs = compile.programs_of(config, parse("v5e-32"))
    draw = next(job for job in jobs if job.name == "draw")
    text = draw.lower().compile(compiler_options=compile.QUICK).as_text()
    assert not hlo.gathered(text, least=4096 * 1024)
    assert hlo.collectives(text)["all-reduce"].count >= 2 * 30 * 576


def test_what_does_not_fit(capsys):
    """A table, and exit status 1."""
    flags = ["--config", str(CONFIGS / "janus_pro_generate.py"), "--topology", "v5e-1", "--quick", "--json"]
    with pytest.raises(SystemExit) as exit:
        compile.main([*flags, "--config.batch=256", "--config.rounds=1"])
    assert exit.value.code == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert not all(row["fits"] for row in report["programs"])
    assert "NO" in compile.table(report)
