"""Everything that may go wrong, many times:

    python -m tests.torture [--out FILE] [--parts kills,signals,...]      about an hour on two cores

Each trial has a number, which is its seed; what came of it is a line of FILE (runs/torture.jsonl), and the same command
goes on with the trials that are not in it. Counts are printed at the end:

    equal       nothing was lost: the same bits as without the accident, or what was read is what was there
    refused     one line that names the mend
    traceback   a fault: anything else that was raised
    silent      a fault: nonsense was taken, or something was lost, without a word

With a fault the exit status is 1. A trial that hangs is a traceback after its time limit.
"""

import argparse
import collections
import json
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / name) for name in ("", "sequences", "checkpoints", "training")]

from torture import disk, kills, mutations, records, settings  # noqa: E402

PARTS = {
    "kills": kills.killed,
    "signals": kills.signalled,
    "together": kills.together,
    "mutations": mutations.trials,
    "settings": settings.trials,
    "records": records.trials,
    "disk": disk.trials,
}
RESULTS = ("equal", "refused", "traceback", "silent")


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/torture.jsonl"))
    parser.add_argument("--parts", default=",".join(PARTS))
    args = parser.parse_args(argv)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    parts = args.parts.split(",")
    lines = args.out.read_text(encoding="utf-8").splitlines() if args.out.is_file() else []
    done = {(line["part"], line["seed"]): line["result"] for line in map(json.loads, lines)}
    with open(args.out, "a", encoding="utf-8") as file:
        for part in parts:
            for seed, result, what in PARTS[part](lambda seed, part=part: (part, seed) in done):
                done[part, seed] = result
                file.write(json.dumps({"part": part, "seed": seed, "result": result, "what": what}) + "\n")
                file.flush()
                if result in ("traceback", "silent"):
                    print(f"{result}: {part} {what}", flush=True)
    counts = collections.Counter((part, result) for (part, _), result in done.items())
    print(f"{'':10}" + "".join(f"{result:>11}" for result in RESULTS))
    for part in parts:
        print(f"{part:10}" + "".join(f"{counts[part, result]:11}" for result in RESULTS))
    return int(any(counts[part, result] for part in parts for result in ("traceback", "silent")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
