"""What a profile says, as a table: how long each program ran, of those that --profile DIR recorded.

    python -m benchmarks.profiled DIR

A program is a jitted function of the package. Its time is that in which any of its operations ran, on any thread.
"""

import argparse
import collections
from pathlib import Path

import jax

from janus_jax import cli
from janus_jax.errors import UserError


def united(spans) -> float:
    """The length of a union of intervals."""
    total, end = 0.0, float("-inf")
    for begin, until in sorted(spans):
        total += max(until - max(begin, end), 0.0)
        end = max(end, until)
    return total


def programs(path) -> tuple[dict[str, float], float]:
    """({program: seconds}, seconds from the first operation to the last) of an .xplane.pb file."""
    spans = collections.defaultdict(list)
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                if name := dict(event.stats).get("hlo_module"):
                    spans[name].append((event.start_ns, event.end_ns))
    every = [span for each in spans.values() for span in each]
    if not every:
        raise UserError(f"{path} holds no operation")
    whole = max(end for _, end in every) - min(begin for begin, _ in every)
    return {name: united(each) / 1e9 for name, each in spans.items()}, whole / 1e9


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profiled", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    found = sorted(parser.parse_args(argv).folder.glob("plugins/profile/*/*.xplane.pb"))
    if not found:
        raise UserError("there is no profile in that folder: make one with --profile")
    seconds, whole = programs(found[-1])
    print("| program | s | share |\n|---|---|---|")
    for name, spent in sorted(seconds.items(), key=lambda pair: -pair[1]):
        if spent > whole / 1000:
            print(f"| `{name.removeprefix('jit_')}` | {spent:.3f} | {spent / whole:.0%} |")
    rest = whole - sum(seconds.values())
    print(f"| no operation ran | {rest:.3f} | {rest / whole:.0%} |\n| in all | {whole:.3f} | |")


if __name__ == "__main__":
    cli.run(main)
