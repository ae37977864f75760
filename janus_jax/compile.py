"""Says what a job needs of a TPU slice, without one: python -m janus_jax.compile --config C --topology T[,T...]

Compiles every program that the job would run, for a slice that need not be there, and says how many bytes lie on each
chip, what the programs send between chips, and how much of their arithmetic is the model's. T: v5e:4x4, or v5e-16 as
clouds call it; v5p:2x2x1; v5e:4x4@2 for two slices. C: a configuration of train_sft or of train_rl, or one with
`prompt_tokens`, `batch` and `rounds` for drawing alone; one that says how to use each slice is given its name. Exit
status 1 where something does not fit, 2 on bad input. Nothing is computed, and no weights are read.
"""

import ast
import json
import re
import sys
import time
from pathlib import Path

import jax

from janus_jax import cli
from janus_jax.aot import hlo, programs, topology, traffic
from janus_jax.errors import UserError
from janus_jax.rl.advantages import ESTIMATORS
from janus_jax.rl.credit import CREDITS
from janus_jax.training import program, settings

PHASES = ("parameters", "optimizer", "cache")
GIB = 2**30
# Cutting products up so that their parts overlap with collectives makes most of a large program's code.
QUICK = {
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": 1_000_000,
    "xla_tpu_enable_async_collective_fusion": False,
    "exec_time_optimization_effort": -1.0,
}


def arguments(argv):
    """(the flags of this command, the others)."""
    parser = cli.Parser("compile", __doc__)
    parser.add_argument(
        "--topology", required=True, metavar="T[,T...]", help="slices to compile for, as v5e-8 or v5p:2x2x1"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="compile a few times faster, without overlapping products and collectives; bytes differ a little",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="the job; --config.key=value changes it, and train_rl --help --config FILE lists its keys",
    )
    args, rest = parser.parse_known_args(argv)
    return args, [f"--config={args.config}", *rest]


def of_slice(argv, place: topology.Topology):
    """The flags with the slice's name given to a configuration that takes one."""
    path = argv[0].removeprefix("--config=")
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return argv  # FILE:SLICE already, or cli says what is wrong
    takes = any(
        isinstance(node, ast.FunctionDef) and node.name == "get_config" and node.args.args for node in tree.body
    )
    return [f"{argv[0]}:{place.name}", *argv[1:]] if takes else argv


def programs_of(config, place: topology.Topology) -> list[program.Program]:
    """All programs of the job that a configuration describes."""
    devices = topology.devices(place)
    if "buckets" in config:
        return programs.supervised(config, devices)
    if "prompts_per_step" in config:
        settings.check_rl(config, CREDITS, ESTIMATORS)
        return programs.reinforcement(config, devices)
    settings.check_drawing(config)
    return programs.generation(config, topology.devices(topology.machine(place)))


def measure(job: program.Program, hbm: int, options: dict) -> dict:
    """One program compiled: bytes per device by phase, collectives, arithmetic, time. options: the compiler's."""
    began = time.time()
    lowered = job.lower()
    traced = time.time()
    row = {"program": job.name, "mesh": dict(job.mesh.shape)}
    phases = {phase: 0 for phase in PHASES}
    for trees in (job.holds, job.beside):
        for phase, tree in trees.items():
            phases[phase] += program.bytes_per_device(tree)
    beside = sum(program.bytes_per_device(tree) for tree in job.beside.values())
    row |= {"bytes": phases, "hbm": hbm}
    try:
        compiled = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        used = out_of_memory(str(error))
        if used is None:
            raise
        row |= {"peak": used + beside, "fits": False}
    else:
        text, stats = compiled.as_text(), compiled.memory_analysis()
        peak = peak_of(stats, program.bytes_per_device(program.of_arguments(job))) + beside
        row |= {"peak": peak, "fits": peak <= hbm}
        row["collectives"] = {kind: each._asdict() for kind, each in hlo.collectives(text, job.unknown).items()}
        row["hlo_flops"] = hlo.flops(text, job.unknown)
        if job.least:
            row |= {"codes": job.codes, "least_bytes": job.least, "loop_bytes": traffic.moved(text)}
    phases["temporaries"] = max(row["peak"] - sum(phases.values()), 0)
    row["model_flops"] = job.flops // job.mesh.size
    row |= {"trace_seconds": traced - began, "compile_seconds": time.time() - traced}
    return row


def peak_of(stats, arguments: int) -> int:
    """Bytes on a device while a program runs, code included. arguments: bytes of all that it is called with; what it
    does not use is not in the compiler's count, and lies there nevertheless."""
    arrays = stats.output_size_in_bytes - stats.alias_size_in_bytes + stats.temp_size_in_bytes
    return max(arguments, stats.argument_size_in_bytes) + arrays + stats.generated_code_size_in_bytes


def out_of_memory(message: str) -> int | None:
    """The bytes that the compiler wanted, of its message; None where that is about something else."""
    if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
        return None
    found = re.search(r"Used ([\d.]+)([KMG]) of", message) or re.search(r"\(([\d.]+)([KMG])\) exceeds", message)
    return int(float(found[1]) * 2 ** {"K": 10, "M": 20, "G": 30}[found[2]]) if found else 0


HEAD = ("program", "mesh", "params", "optim.", "cache", "temp.", "peak", "fits", "model TFLOP", "of HLO", "s")


def mesh_of(sizes: dict) -> str:
    """A mesh's sizes as the table has them."""
    return "x".join(map(str, sizes.values()))


def widths_of(jobs: list[program.Program]) -> list[int]:
    """The widths of the table's columns, before any of its figures is known."""
    names, meshes = [job.name for job in jobs], [mesh_of(job.mesh.shape) for job in jobs]
    texts = [max(map(len, (title, *column))) for title, column in zip(HEAD, (names, meshes), strict=False)]
    return texts + [max(len(title), 6) for title in HEAD[2:]]


def line(cells, widths) -> str:
    """One line of the table."""
    return "  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def opening(config: str, place: topology.Topology, widths) -> str:
    """What stands above a slice's figures."""
    chip = topology.CHIPS[place.chip]
    shown = "device (two on a chip)" if chip.devices == 2 else "chip"
    what = f"{config} on {place}, {place.chips} chips"
    return f"{what}; bytes are GiB per {shown}, where programs may use {chip.hbm}\n{line(HEAD, widths)}"


def lines(row: dict, widths) -> str:
    """A program's figures for people, and what it sends."""
    sizes = [f"{row['bytes'][phase] / GIB:.2f}" for phase in (*PHASES, "temporaries")]
    share = f"{row['model_flops'] / row['hlo_flops']:.2f}" if row.get("hlo_flops") else "-"
    cells = (
        row["program"],
        mesh_of(row["mesh"]),
        *sizes,
        f"{row['peak'] / GIB:.2f}",
        "yes" if row["fits"] else "NO",
        f"{row['model_flops'] / 1e12:.4g}",
        share,
        f"{row['compile_seconds']:.0f}",
    )
    found = [line(cells, widths)]
    for kind, each in row.get("collectives", {}).items():
        found.append(f"      {kind}: {each['count']}, {each['bytes'] / GIB:.2f} GiB")
    if "loop_bytes" in row:
        least, moves = row["least_bytes"], row["loop_bytes"]
        found.append(f"      a code moves {moves / GIB:.3f} GiB, at least {least / GIB:.3f}: {moves / least:.2f} x")
    return "\n".join(found)


def measured(config, name: str, place: topology.Topology, options: dict, shown: bool) -> dict:
    """A slice's report, {"config", "topology", "chips", "programs"}; shown: each program's figures are printed as they
    are found. Raises UserError where the configuration describes no job."""
    try:
        jobs = programs_of(config, place)
    except AttributeError as error:
        raise UserError(f"{name} describes no job: {error}") from error
    widths, rows = widths_of(jobs), []
    if shown:
        print(opening(name, place, widths), flush=True)
    for job in jobs:
        rows.append(measure(job, place.hbm, options))
        if shown:
            print(lines(rows[-1], widths), flush=True)
    if shown and (told := drawn(rows, place)):
        print(told, flush=True)
    return {"config": name, "topology": str(place), "chips": place.chips, "programs": rows}


def drawn(rows, place: topology.Topology) -> str:
    """A line on the first picture: what its codes must move, and the seconds that the chip's bandwidth allows; empty
    where nothing draws."""
    chip = topology.CHIPS[place.chip]
    parts = [row for row in rows if row.get("codes")]
    codes = sum(row["codes"] for row in parts)
    if not codes or not all("loop_bytes" in row for row in parts):
        return ""
    least, moves = (sum(row["codes"] * row[name] for row in parts) for name in ("least_bytes", "loop_bytes"))
    seconds = [each / chip.bandwidth / 1e9 for each in (least, moves)]
    return (
        f"  the codes of a batch's first pictures ({codes}): at least {least / GIB:.0f} GiB per device, "
        f"{seconds[0]:.2f} s at {chip.bandwidth:.0f} GB/s; as compiled {moves / GIB:.0f} GiB, {seconds[1]:.2f} s: "
        f"{moves / least:.2f} x"
    )


def main(argv):
    # Nothing is computed: where libtpu is installed and no TPU is there, jax need not go and look for one.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # programs for absent chips cannot be read back
    args, rest = arguments(argv)
    places = [topology.parse(name) for name in args.topology.split(",")]
    reports = []
    for place in places:
        config, _ = cli.parse_config(of_slice(rest, place), __doc__, workdir=False)
        with cli.quiet():
            reports.append(measured(config, args.config, place, QUICK if args.quick else {}, shown=not args.json))
    if args.json:
        print(json.dumps(reports))
    if not all(row["fits"] for report in reports for row in report["programs"]):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
