"""Turns the shapes data set into codes with a trained tokenizer, for stage 1:

    python -m janus_jax.cache_codes --tokenizer runs/vq/model --data-dir runs/data --out runs/cache.npz

or, with --task edit, random edits of random pictures, each a source with the edited picture and near misses:

    python -m janus_jax.cache_codes --task edit --edits 6000 --tokenizer runs/vq/model --out runs/edits.npz

or, with --composed, of fresh prompts, or of edits with --task edit as well:

    python -m janus_jax.cache_codes --composed 20000 --tokenizer runs/vq/model --out runs/composed.npz

Their labels come from the scenes that are rendered. The verifier, which takes most of the time otherwise, reads
nothing, so there can be many more. What the tokenizer spoils (one picture of sixty) is labelled as if it had not.
--draws N makes right pictures alone, for config.draws; --task edit --void N edits of shapes that are not there.

Otherwise every picture is encoded and decoded again, and it is the decoded one that is scored and explained: that is
the picture the model would have drawn with these codes, and the one the judge will see. To the rendered pictures,
pictures of mixed codes are added (parts of two pictures of one prompt, or with a few codes replaced): they fail the way
a drawing model fails, not the way a renderer does. Of some wrong pictures there is also what mends them: what they
show, with the faults mended and the rest kept.
"""

from pathlib import Path

from janus_jax import cli, rules
from janus_jax.checkpoints import loading
from janus_jax.data import building, cache
from janus_jax.data.shapes_dataset import Shapes
from janus_jax.errors import UserError
from janus_jax.models import codec
from janus_jax.shapes import edit, verify
from janus_jax.shapes.world import SHIPPED, World

EDITS = 6000  # unless it is said


def data_set(folder, world: World = SHIPPED):
    """The shapes data set of a world, built where it is not there yet. Raises UserError where it cannot be written."""
    builder = Shapes(config=world.name, data_dir=folder, file_format="array_record")
    try:
        builder.download_and_prepare()
    except OSError as error:
        raise UserError(f"cannot build the data set in {folder}: {error}; choose another --data-dir") from error
    return builder


def _check(args) -> None:
    """Raises UserError for counts that are none, and for flags that do not go together."""
    rules.check_flags(args)
    if args.edits is not None and args.edits < 1:
        raise UserError(f"--edits is {args.edits}: it must be at least 1")
    for name in ("composed", "draws", "void"):
        if getattr(args, name) < 0:
            raise UserError(f"--{name} is {getattr(args, name)}: it must be at least 0")
    if args.draws and (args.composed or args.task == "edit"):
        raise UserError("--draws is a cache of its own: leave --composed and --task edit away")
    chosen = args.kinds or args.objects is not None or args.near != building.NEAR
    if args.void and (args.task != "edit" or args.composed or args.edits is not None or chosen):
        raise UserError("--void is a cache of its own, of edits: give --task edit, and nothing else of edits")
    if args.ordered and (args.task == "edit" or not args.composed):
        raise UserError("--ordered is about the prompts of --composed: leave it away")
    if args.edits is not None and (args.task != "edit" or args.composed):
        raise UserError("--edits counts edits that the verifier labels: give --task edit, and no --composed")
    if args.task != "edit" and chosen:
        raise UserError("--kinds, --objects and --near are about edits: give --task edit")
    for kind in args.kinds or edit.KINDS:
        if args.objects is not None and not edit.least_objects(kind) <= args.objects <= edit.MOST:
            raise UserError(
                f"--objects is {args.objects}: {kind} goes with {edit.least_objects(kind)} to {edit.MOST}; leave the "
                "kind out of --kinds, or choose another number"
            )
    if args.near < 0:
        raise UserError(f"--near is {args.near}: it must be at least 0")
    if args.composed or args.draws or args.task == "edit":
        if args.data_dir or args.split:
            raise UserError(
                "--data-dir and --split are of the data set, which this cache is not made of: leave them away"
            )
    elif args.data_dir is None:
        raise UserError("the data set has to lie somewhere: give --data-dir, --composed N, --draws N, or --task edit")


def main(argv):
    parser = cli.Parser("cache_codes", __doc__)
    parser.add_argument(
        "--tokenizer",
        required=True,
        type=Path,
        help="a workdir of train_vq, or a model of our own format, whose picture tokenizer is taken",
    )
    parser.add_argument("--task", default="draw", choices=("draw", "edit"), help="what the pictures are for")
    parser.add_argument(
        "--data-dir", type=Path, help="where the shapes data set lies or will be built (default: none; it needs one)"
    )
    parser.add_argument(
        "--split",
        choices=("train", "train_free"),
        help="which prompts of the data set: by template, or freely composed (default: train)",
    )
    parser.add_argument("--edits", type=int, help=f"how many, for --task edit without --composed (default: {EDITS})")
    parser.add_argument(
        "--kinds", nargs="+", choices=edit.KINDS, help="of the edits of --task edit (default: all of them)"
    )
    parser.add_argument(
        "--objects", type=int, help=f"of the pictures that are edited (default: as it comes, 1 to {edit.MOST})"
    )
    parser.add_argument(
        "--near", type=int, default=building.NEAR, help=f"wrong pictures of each edit (default: {building.NEAR})"
    )
    parser.add_argument(
        "--void",
        type=int,
        default=0,
        help="with --task edit: so many edits of a shape that the picture does not show, which change nothing, and a "
        "near miss of each (default: 0, none)",
    )
    parser.add_argument(
        "--composed",
        type=int,
        default=0,
        help="so many fresh prompts, or edits with --task edit, labelled by their scenes (default: 0, none)",
    )
    parser.add_argument(
        "--ordered",
        action="store_true",
        help="with --composed: objects stand, row by row, in the order of their names, as those of --draws do",
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=0,
        help="so many fresh prompts with a right picture each, and no more (default: 0, none)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random bits; not of the data set's prompts")
    parser.add_argument("--out", required=True, type=Path, help="the cache to write, a .npz file")
    args = parser.parse_args(argv)
    _check(args)
    cli.writable(args.out)
    vq, params = loading.load_vq(args.tokenizer)
    world = loading.world_of(args.tokenizer)
    encode, decode = codec.in_groups(vq, params)
    side = vq.cfg.image_size
    if args.void:
        groups = building.of_voids(encode, decode, side, args.void, args.seed, world=world)
    elif args.task == "edit":
        count, known = args.composed or args.edits or EDITS, args.composed > 0
        of = {"kinds": args.kinds or edit.KINDS, "objects": args.objects, "near": args.near}
        groups = building.of_edits(encode, decode, side, count, args.seed, world=world, known=known, **of)
    elif args.draws:
        groups = building.of_draws(encode, side, args.draws, args.seed, world=world)
    elif args.composed:
        groups = building.of_prompts(encode, decode, side, args.composed, args.seed, world=world, ordered=args.ordered)
    else:
        source = data_set(args.data_dir, world).as_data_source(args.split or "train")
        groups = building.of_data_set(encode, decode, source, args.seed, world=world)
    cache.save(args.out, groups)
    right = groups.score >= verify.RIGHT
    print(f"{len(groups)} prompts, {len(right)} pictures, {right.mean():.3f} of them right")


if __name__ == "__main__":
    cli.run(main)
