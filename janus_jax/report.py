"""Writes a training's report anew: curves of all metrics and the storyboards, from what lies in its workdir.

    python -m janus_jax.report --workdir runs/rl0

writes `report.html` there, which opens from disk: no server, no script, no network. A training writes it
at its end, stage 2 also whenever it draws a storyboard.
"""

from pathlib import Path

from janus_jax import cli
from janus_jax.results.report import write


def main(argv):
    parser = cli.Parser("report", __doc__)
    parser.add_argument("--workdir", required=True, type=Path, help="of train_vq, train_sft or train_rl")
    print(write(parser.parse_args(argv).workdir))


if __name__ == "__main__":
    cli.run(main)
