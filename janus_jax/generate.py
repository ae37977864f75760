"""Draws pictures with introspection:

    python -m janus_jax.generate --checkpoint shapes-rl --prompt "three red circles" --out out

Writes OUT/images/*.png and OUT/trajectories.jsonl as it draws, and at the end OUT/storyboard.png. OUT/index.html shows
all of it, also while it grows; OUT/enlarged/*.png are the pictures of small models with each pixel as a square.
Stopped, the same command goes on with what is missing.
"""

from pathlib import Path

from janus_jax import cli
from janus_jax.data.prompts import read_prompts
from janus_jax.results.gallery import Gallery
from janus_jax.sampling import flags
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.introspect import rollouts
from janus_jax.sequences.request import as_requests


def main(argv):
    parser = cli.Parser("generate", __doc__)
    cli.add_model_flags(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", action="append", help="what to draw; several times for several prompts")
    source.add_argument("--prompts", help="a text file, one prompt per line")
    parser.add_argument("--samples", type=int, default=4, help="pictures of each prompt")
    parser.add_argument("--first-sample", type=int, default=0, help="the number of the first of them")
    parser.add_argument("--rounds", type=int, default=3, help="pictures per trajectory at most")
    parser.add_argument(
        "--context",
        choices=("codes", "reencode"),
        default="codes",
        help="what the next round sees of a picture: the sampled codes, or those of the decoded picture",
    )
    parser.add_argument("--out", required=True, type=Path, help="a folder; what it holds already is not drawn again")
    flags.add_drawing(parser)
    args = parser.parse_args(argv)
    sampling, prompts = flags.drawing(args), args.prompt or read_prompts(args.prompts)
    gallery = Gallery(args.out, settings_of(args, sampling))
    work = [
        (request, args.first_sample + sample)
        for request in as_requests(dict.fromkeys(prompts))
        for sample in range(args.samples)
    ]
    missing = gallery.missing(work)
    with flags.loaded(args) as model, cli.keeping(), cli.Bar(len(work), len(work) - len(missing), "drawing") as bar:
        if missing:
            settings = {"context": args.context, "batch": args.batch, "on_codes": bar.codes}
            for part in rollouts(*model, missing, args.rounds, sampling, args.seed, **settings):
                gallery.add(part.trajectories(model[-1]), args.seed)
                bar.update(len(part))
    print(gallery.finish(f"{args.checkpoint}: draw, look, draw again"), args.out / "index.html", sep="\n")


def settings_of(args, sampling: Sampling) -> dict:
    """What determines the pictures, for the folder to remember; not how many at a time."""
    return {
        "checkpoint": str(args.checkpoint),
        "dtype": args.dtype,
        "rounds": args.rounds,
        "context": args.context,
        "seed": args.seed,
        **sampling.determining,
    }


if __name__ == "__main__":
    cli.run(main)
