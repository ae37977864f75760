"""Edits pictures as instructions say:

    python -m janus_jax.edit --checkpoint DIR --image a.png --instruction "make the circle blue" --samples 4 --out out
    python -m janus_jax.edit --checkpoint DIR --edits edits.jsonl --rounds 2 --out out

Several --instruction are turns on one picture, each on the result of the one before. A line of edits.jsonl is {"image":
FILE, "instruction": TEXT}, or a list of TEXTs that are turns; files are relative to it. With --rounds above 1 the model
judges its edit and draws it again after a No. The model sees the centre of a picture, a square, and draws at its own
size: OUT/images/*.png are those squares, OUT/placed/*.png the sources with the chosen edit in its place, by the number
of the edit and the sample. OUT/trajectories.jsonl grows with them, and the same command goes on with what is missing;
OUT/storyboard.png shows source, edit, verdict and what differs, OUT/index.html all edits.
"""

from pathlib import Path

from janus_jax import cli
from janus_jax.data import records
from janus_jax.data.edits import Edit, read_edits
from janus_jax.errors import UserError
from janus_jax.results.gallery import Gallery
from janus_jax.sampling import flags
from janus_jax.sampling.edit import placed_back
from janus_jax.sampling.introspect import rollouts
from janus_jax.sequences import images
from janus_jax.sequences.request import Request


def arguments(argv):
    """The flags."""
    parser = cli.Parser("edit", __doc__)
    cli.add_model_flags(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--image", metavar="FILE", type=Path, action="append", help="what to edit; several alike")
    source.add_argument("--edits", metavar="FILE.jsonl", type=Path, help="pictures with their instructions")
    parser.add_argument("--instruction", action="append", default=[], help="what to change; several are turns")
    parser.add_argument("--samples", type=int, default=4, help="edits of each picture")
    parser.add_argument("--rounds", type=int, default=1, help="pictures per trajectory at most")
    parser.add_argument("--out", required=True, type=Path, help="a folder; what it holds already is not drawn again")
    flags.add_drawing(parser)
    records.add_flags(parser)
    args = parser.parse_args(argv)
    if (args.image is None) == bool(args.instruction):
        raise UserError("--instruction goes with --image, and --image with --instruction: give both, or --edits alone")
    return args


def main(argv):
    args = arguments(argv)
    sampling = flags.drawing(args)
    edits = [Edit(image, args.instruction) for image in args.image or ()]
    if args.edits:
        edits = read_edits(args.edits, records.tally_of(args, args.edits), args.allow_outside)
    pictures = {path: images.read(path) for path in dict.fromkeys(path for path, _ in edits)}
    names = {"checkpoint": str(args.checkpoint), "dtype": args.dtype, "rounds": args.rounds, "seed": args.seed}
    gallery = Gallery(args.out, names | sampling.determining)
    turns = max(len(instructions) for _, instructions in edits)
    # of each edit and sample, what the next turn starts from
    squares = {path: images.centre(picture) for path, picture in pictures.items()}
    begun = {(n, s): (str(path), squares[path]) for n, (path, _) in enumerate(edits) for s in range(args.samples)}
    # edits that begin alike have their first pictures in common
    kinds = {(path, *told[: turn + 1]) for path, told in edits for turn in range(len(told))}
    with flags.loaded(args) as model, cli.keeping(), cli.Bar(len(kinds) * args.samples, 0, "editing") as bar:
        for turn in range(turns):
            work, sources, whose = [], {}, {}
            for (n, sample), (name, picture) in begun.items():
                if turn < len(edits[n].instructions):
                    key = edits[n].instructions[turn], name, sample
                    if key not in whose:
                        sources[id(picture)] = name
                        work.append((Request(key[0], picture), sample))
                    whose.setdefault(key, []).append((n, sample))
            missing = gallery.missing(work, sources)
            bar.update(len(work) - len(missing))
            if missing:
                how = {"batch": args.batch, "on_codes": bar.codes}
                for part in rollouts(*model, missing, args.rounds, sampling, args.seed, **how):
                    gallery.add(part.trajectories(model[-1]), args.seed, sources)
                    bar.update(len(part))
            for line in gallery.lines:
                if mine := whose.get((line["prompt"], line.get("source"), line["sample"])):
                    name = str(args.out / line["rounds"][line["final"]]["image"])
                    begun |= dict.fromkeys(mine, (name, images.read(name)))
    place(args, edits, pictures, begun)
    board = gallery.finish(f"{args.checkpoint}: {'edit, look, edit again' if args.rounds > 1 else 'edits'}")
    print(board, args.out / "index.html", sep="\n")


def place(args, edits, pictures, ended) -> None:
    """Writes the sources with the last turn's edits in their places."""
    folder = args.out / "placed"
    try:
        folder.mkdir(exist_ok=True)
        for (n, sample), (_, edited) in ended.items():
            placed_back(pictures[edits[n].image], edited).save(folder / f"{n:04d}_{sample}.png")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; make room, and start again") from error


if __name__ == "__main__":
    cli.run(main)
