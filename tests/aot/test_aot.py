"""Compiled for TPUs that are not there (libtpu, no hardware): launch/test.sh --aot.

The golden tables say where every leaf of the training state lies and what it takes on a device. Where a change to them
is meant: JANUS_JAX_REGOLD=1 python -m pytest -m aot tests/aot/test_aot.py -k shardings, and read the diff.
"""

import json
import os
from pathlib import Path

import jax
import pytest
from aot_listing import listing

from janus_jax import cli, compile
from janus_jax.aot import hlo, programs, topology
from janus_jax.aot.topology import parse
from janus_jax.parallel import sharding

pytestmark = pytest.mark.aot
CONFIGS, GOLDENS = Path(__file__).parents[2] / "configs", Path(__file__).parents[1] / "goldens_aot"


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
    *_, job = programs.supervised(config, topology.devices(parse(place)))
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


@pytest.mark.parametrize(
    "job, place",
    [("janus_pro_1b_rl", "v5e-8"), pytest.param("janus_pro_7b_rl", "v5p-16", marks=pytest.mark.slow)],
)
def test_policy_gradient_steps(job, place):
    """Of 16 trajectories of one round: all that is in the step, compiled in a minute."""
    few = ["--config.prompts_per_step=2", "--config.group=8", "--config.rounds=1", "--config.micro_batches=1"]
    jobs = compile.programs_of(configured(job, place, *few), parse(place))
    row = compile.measure(jobs[-1], parse(place).hbm, compile.QUICK)
    assert row["program"] == "train step" and row["fits"], f"{row['peak'] / 2**30:.2f} GiB"
    sent = {kind: each["bytes"] for kind, each in row["collectives"].items()}
    # what moves rows about is the gradient of two look-ups of words, which the compiler makes one
    assert sent["all-gather"] > 100 * (sent.get("all-to-all", 0) + sent.get("ragged-all-to-all", 0))
    assert 0.5 < row["model_flops"] / row["hlo_flops"] < 1.2


@pytest.mark.parametrize("attention", ["auto", "dot"])
def test_prefills(attention):
    """By the kernel where that is not ruled out; what draws, a token at a time, never."""
    config = configured("janus_pro_1b_rl", "v5e-4")
    config.model = {**dict(config.model), "attention": attention}
    jobs = {job.name.split(",")[0]: job for job in compile.programs_of(config, parse("v5e-4"))}
    look = jobs["judge: look"]
    if attention == "auto":
        assert compile.measure(look, parse("v5e-4").hbm, compile.QUICK)["fits"]
    assert ("splash_mha" in look.lower().as_text(debug_info=True)) == (attention == "auto")
    assert "splash_mha" not in jobs["draw"].lower().as_text(debug_info=True)


def test_a_mesh_over_two_slices():
    """The data axis runs across them, all others within one."""
    mesh = sharding.mesh_of((2, 4, 1), topology.devices(parse("v5e:2x2@2")))
    for row, index in zip(mesh.devices, (0, 1), strict=True):
        assert {device.slice_index for device in row.flat} == {index}
    # so has the mesh of a configuration that is told of two
    jobs = programs.supervised(configured("janus_pro_1b_sft", "v5e-4@2"), topology.devices(parse("v5e:2x2@2")))
    assert jobs[-1].mesh.shape == {"data": 2, "fsdp": 4, "tensor": 1}


@pytest.mark.parametrize(
    "job, place", [("janus_pro_1b_sft", "v5e-4"), ("janus_pro_7b_sft", "v5e-16"), ("janus_pro_7b_sft", "v5p-8")]
)
def test_shardings(job, place):
    (one,) = [step(job, place)]
    text, path = listing(one.holds), GOLDENS / f"{job}_{place}.txt"
    if os.environ.get("JANUS_JAX_REGOLD"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text().splitlines() == text.splitlines()


def test_decoding_gathers_no_parameter():
    """The loop that draws, on eight machines, as configs/janus_pro_7b_rl.py has it."""
    config = configured("janus_pro_7b_rl", "v5e-32")
    jobs = compile.programs_of(config, parse("v5e-32"))
    draw = next(job for job in jobs if job.name.startswith("draw"))
    text = draw.lower().compile(compiler_options=compile.QUICK).as_text()
    assert not hlo.gathered(text, least=4096 * 1024)
    sent = hlo.collectives(text)
    part = draw.args[-1]
    assert sent["all-reduce"].count >= 2 * 30 * part
    # beside the sums of the tensor axis at most the codes that were chosen, a few bytes a token
    assert set(sent) <= {"all-reduce", "all-gather"}
    assert "all-gather" not in sent or sent["all-gather"].bytes < part * 2**16


def test_a_code_moves_little_more_than_it_must():
    """The parameters once, and the cache: no matrix is copied in the loop that draws, and keys are written in place."""
    config, _ = cli.parse_config([f"--config={CONFIGS}/janus_pro_generate.py"], "", workdir=False)
    jobs = compile.programs_of(config, parse("v5e-1"))
    row = compile.measure(next(job for job in jobs if job.codes), parse("v5e-1").hbm, compile.QUICK)
    assert 1 <= row["loop_bytes"] / row["least_bytes"] < 1.3
    line = compile.drawn([row], parse("v5e-1"))
    assert f"at least {row['codes'] * row['least_bytes'] / 2**30:.0f} GiB per device" in line


def test_what_does_not_fit(capsys):
    """A table, and exit status 1."""
    flags = ["--config", str(CONFIGS / "janus_pro_generate.py"), "--topology", "v5e-1", "--quick", "--json"]
    with pytest.raises(SystemExit) as exit:
        compile.main([*flags, "--config.batch=256", "--config.rounds=1"])
    assert exit.value.code == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert not all(row["fits"] for row in report["programs"])
    rows = report["programs"]
    assert any("NO" in compile.lines(row, [20] * len(compile.HEAD)) for row in rows)
