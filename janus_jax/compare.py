"""Compares evaluations pairwise, as Markdown tables:

    python -m janus_jax.compare --baseline runs/eval_sft.json runs/eval_rl0.json runs/eval_rl1.json runs/eval_rl2.json

All files must come from the same prompts and samples. Errors within a run are clustered by prompt and, in parentheses,
by the held-out combination that prompts share; across runs (seeds) they are the standard error of the runs' means.
"""

from pathlib import Path

from janus_jax import cli
from janus_jax.results.compare import read, tables


def main(argv):
    parser = cli.Parser("compare", __doc__)
    parser.add_argument(
        "--baseline", required=True, type=Path, metavar="FILE.json", help="what the others are compared with"
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="FILE.json", help="evaluations: runs of one recipe")
    args = parser.parse_args(argv)
    print(tables(read(args.baseline), [read(path) for path in args.runs]))


if __name__ == "__main__":
    cli.run(main)
