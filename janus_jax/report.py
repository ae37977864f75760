"""A static report of a training, from what lies in its workdir: curves of all metrics and the storyboards.

    python -m janus_jax.report --workdir runs/rl0

writes `report.html` there, which opens from disk: no server, no script, no network. Stage 2 writes it by itself
whenever it draws a storyboard.
"""

import argparse
from pathlib import Path

from janus_jax import cli
from janus_jax.results.report import write


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m janus_jax.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, type=Path, help="of train_vq, train_sft or train_rl")
    print(write(parser.parse_args(argv).workdir))


if __name__ == "__main__":
    cli.run(main)
