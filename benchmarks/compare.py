"""This project against HF transformers' Janus: random weights of the same sizes, the same work, in turns.

    python -m benchmarks.compare --size tiny --task draw --peer hf

The tasks: draw, pictures under guidance; sft, an AdamW step of draw rows; rl, a step of stage 2, in which pictures are
drawn, looked at, judged by a function and learnt from.

Each side is a process of its own, so that their threads do not meet; both have all cores, and while one works the
other waits. After a first run of each, which compiles, they take turns. Prints the medians, their ratio (HF's seconds
over ours: more than 1 is faster than HF), the spread, the processor time (which other work on the machine changes
less), the most memory that each held, and what this machine does at
most: bytes copied and products of matrices per second, with the share of it that was reached. Writes it all to
benchmarks/results/.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from janus_jax import cli
from janus_jax.errors import UserError

RESULTS = Path(__file__).parent / "results"
SIDES = ("ours", "hf")
TASKS = ("draw", "introspect", "sft", "rl")


def work(side: str, size: str, task: str, seconds_to=sys.stdout) -> None:
    """A side's process: a line in, one run, its seconds out."""
    if side == "ours":
        from benchmarks import ours

        run = ours.task(task, size)
    else:
        import torch

        from benchmarks import hf

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        run = hf.task(task, size)
    print("ready", flush=True)
    for _ in sys.stdin:
        start, used = time.perf_counter(), time.process_time()
        run()
        seconds, used = time.perf_counter() - start, time.process_time() - used
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "cpu_seconds": used, "peak_bytes": peak}), file=seconds_to, flush=True)


class Side:
    """A process that works when it is told."""

    def __init__(self, name, size, task):
        command = [sys.executable, "-m", "benchmarks.compare", "--size", size, "--task", task, "--side", name]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "passive"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)
        self.seconds, self.used, self.peak = [], [], 0
        self._line("ready")

    def _line(self, expected):
        line = self.process.stdout.readline().strip()
        if not line.startswith(expected):
            raise SystemExit(f"a side ended early: {line}")
        return line

    def run(self) -> float:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        result = json.loads(self._line("{"))
        self.seconds.append(result["seconds"])
        self.used.append(result["cpu_seconds"])
        self.peak = result["peak_bytes"]
        return result["seconds"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def ceilings() -> dict[str, float]:
    """What the machine does at most: copies in GB/s, read plus written; products of f32 matrices in GFLOP/s."""
    import numpy as np

    source = np.ones(2**27, np.float32)  # 512 MB: more than a cache holds
    target, n = np.empty_like(source), 4096
    a = np.random.default_rng(0).standard_normal((n, n), np.float32)

    def best(work, times=3):
        seconds = []
        for _ in range(times):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    copy = best(lambda: np.copyto(target, source))
    product = best(lambda: a @ a)
    return {"copy_GB_s": 2 * source.nbytes / copy / 1e9, "matmul_GFLOP_s": 2 * n**3 / product / 1e9}


def needed(size: str, task: str) -> dict[str, float]:
    """The fewest bytes that a task must move and the operations that it must do; of an introspection those of drawing
    alone."""
    import jax

    from benchmarks import sizes
    from janus_jax.models import flops
    from janus_jax.models.janus import Janus, abstract_params

    cfg = sizes.SIZES[size]
    params = abstract_params(Janus(cfg))
    one_step = sum(leaf.size * 4 for name in ("gen_head", "gen_aligner") for leaf in jax.tree.leaves(params[name]))
    one_step += sum(leaf.size * 4 for leaf in jax.tree.leaves(params["llama"]["layers"]))
    I, T = cfg.vq.tokens, sizes.PROMPT
    if task in ("draw", "introspect", "rl"):
        times = 3 * sizes.TRAJECTORIES // (2 * sizes.PICTURES) if task == "introspect" else 1
        rows = 2 * sizes.PICTURES
        cached = 2 * rows * cfg.llama.layers * cfg.llama.kv_heads * cfg.llama.head_dim * 4
        tokens = rows * (T + I)
        operations = flops.decoder(cfg, tokens, rows * flops.causal(T + I)) + flops.code_head(cfg, rows * I)
        operations += flops.vq_decoder(cfg.vq, sizes.PICTURES)
        least = {"bytes": times * (I * one_step + cached * flops.causal(I, T)), "flop": times * operations}
        if task == "rl":  # the reference's pass and the policy's, of two rows of a picture and one of the judge
            scored = flops.decoder(cfg, 3 * tokens // 2, 3 * rows // 2 * flops.causal(T + I))
            scored += flops.code_head(cfg, rows * I)
            least = {"bytes": least["bytes"] + 9 * one_step, "flop": operations + (1 + flops.TRAINED) * scored}
        return least
    rows = sizes.SFT_ROWS[size]
    operations = flops.decoder(cfg, rows * (T + I), rows * flops.causal(T + I)) + flops.code_head(cfg, rows * I)
    return {"bytes": 9 * one_step, "flop": flops.TRAINED * operations}


def report(size: str, task: str, sides: dict[str, Side], repeats: int) -> dict:
    """What was measured, as it is written and printed."""
    most, least = ceilings(), needed(size, task)
    floor = max(least["bytes"] / most["copy_GB_s"] / 1e9, least["flop"] / most["matmul_GFLOP_s"] / 1e9)
    median = {name: statistics.median(side.seconds[1:]) for name, side in sides.items()}
    return {
        "size": size,
        "task": task,
        "repeats": repeats,
        "threads": len(os.sched_getaffinity(0)),
        "machine": platform.processor() or platform.machine(),
        "seconds": median,
        "ratio": median["hf"] / median["ours"],
        "cpu_seconds": {name: statistics.median(side.used[1:]) for name, side in sides.items()},
        "spread": {name: [min(side.seconds[1:]), max(side.seconds[1:])] for name, side in sides.items()},
        "first_seconds": {name: side.seconds[0] for name, side in sides.items()},
        "peak_bytes": {name: side.peak for name, side in sides.items()},
        "ceilings": most,
        "needed": least,
        "floor_seconds": floor,
        "share_of_ceiling": {name: floor / seconds for name, seconds in median.items()},
    }


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("tiny", "small"), default="tiny")
    parser.add_argument("--task", choices=TASKS, default="draw")
    parser.add_argument("--peer", choices=("hf",), default="hf")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each side (default: 5)")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.repeats < 1:
        raise UserError(f"--repeats is {args.repeats}: it must be at least 1")
    if args.side:
        return work(args.side, args.size, args.task)
    sides = {name: Side(name, args.size, args.task) for name in SIDES}
    for _ in range(args.repeats + 1):
        for side in sides.values():
            side.run()
    for side in sides.values():
        side.close()
    result = report(args.size, args.task, sides, args.repeats)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{args.size}_{args.task}.json").write_text(json.dumps(result, indent=1) + "\n")
    for name in SIDES:
        low, high = result["spread"][name]
        print(
            f"{name:5} {result['seconds'][name]:8.3f} s ({low:.3f} to {high:.3f}), "
            f"{result['cpu_seconds'][name]:.3f} s of all cores' time, "
            f"first {result['first_seconds'][name]:.1f} s, peak {result['peak_bytes'][name] / 2**30:.2f} GiB, "
            f"{result['share_of_ceiling'][name]:.0%} of the ceiling"
        )
    most = result["ceilings"]
    print(
        f"copy {most['copy_GB_s']:.1f} GB/s, products {most['matmul_GFLOP_s']:.0f} GFLOP/s, "
        f"floor {result['floor_seconds']:.3f} s"
    )
    print(f"{args.size} {args.task}: ratio {result['ratio']:.2f}")


if __name__ == "__main__":
    cli.run(main)
