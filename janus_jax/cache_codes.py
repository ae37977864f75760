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

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from janus_jax import cli, rules
from janus_jax.checkpoints import loading
from janus_jax.data import cache, composed, labels, mended
from janus_jax.data.shapes_dataset import Shapes
from janus_jax.errors import UserError
from janus_jax.sequences import images
from janus_jax.shapes import edit, edit_pairs, verify
from janus_jax.shapes.world import SHIPPED, World

MIXED = 1  # pictures of mixed codes per prompt
MENDED = 2  # wrong pictures per prompt that are mended
NEAR = 3  # near misses per edit
EDITS = 6000  # unless it is said


def mix_codes(rng, codes):
    """One picture's codes i32[I], mixed from those of a prompt's pictures i32[K, I]: the first part of one and the rest
    of another, or one with a small block of another."""
    first, second = codes[rng.permutation(len(codes))[:2]]
    side = round(len(first) ** 0.5)
    mixed = first.reshape(side, side).copy()
    if rng.random() < 0.5:
        cut = int(rng.integers(side, len(first) - side))
        mixed.reshape(-1)[cut:] = second[cut:]
    else:
        height, width = rng.integers(1, side // 2 + 1, 2)
        row, column = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
        window = (slice(row, row + height), slice(column, column + width))
        mixed[window] = second.reshape(side, side)[window]
    return mixed.reshape(-1)


def codec(model, params):
    """encode(pictures u8[P, K, h, w, 3]) -> codes i32[P, K, I], and decode(codes) -> such pictures."""

    @jax.jit
    def encode(pixels):
        return model.apply({"params": params}, pixels, method="encode_codes")

    @jax.jit
    def decode(codes):
        return model.apply({"params": params}, codes, method="decode_codes")

    def encode_all(pictures):
        flat = pictures.reshape(-1, *pictures.shape[2:]) / np.float32(127.5) - 1
        return np.asarray(encode(flat)).reshape(*pictures.shape[:2], -1)

    def decode_all(codes):
        pixels = images.to_uint8(decode(codes.reshape(-1, codes.shape[-1])))
        return pixels.reshape(*codes.shape[:2], *pixels.shape[1:])

    return encode_all, decode_all


def with_mixed(rng, codes):
    """codes i32[P, K, I] of prompts' pictures, and MIXED further ones of each: i32[P, K + MIXED, I]."""
    mixed = np.stack([[mix_codes(rng, group) for _ in range(MIXED)] for group in codes])
    return np.concatenate([codes, mixed], axis=1)


def build(model, params, source, seed: int = 0, chunk: int = 64, world: World = SHIPPED):
    """Groups of a `shapes` data source, `chunk` prompts at a time."""
    rng, (encode, decode), parts = np.random.default_rng(seed), codec(model, params), []

    def reproduce(pictures):
        codes = encode(pictures[None])
        return codes[0], decode(codes)[0]

    for begin in tqdm(range(0, len(source), chunk), desc="prompts", unit=f"x{chunk}"):
        examples = [source[i] for i in range(begin, min(begin + chunk, len(source)))]
        pictures = np.stack([example["pictures"]["image"] for example in examples])  # [P, K, h, w, 3]
        codes = with_mixed(rng, encode(pictures))
        prompts = [example["prompt"].decode() for example in examples]
        groups = labels.label(rng, prompts, codes, decode(codes), world)
        groups = mended.with_mended(rng, groups, reproduce, MENDED, world)
        parts.append(cache.packed(groups))
    return cache.join(parts)


def build_composed(
    model, params, count: int, seed: int = 0, chunk: int = 64, world: World = SHIPPED, ordered: bool = False
):
    """Groups of `count` fresh prompts with right and wrong pictures, labelled by their scenes; `chunk` at a time.
    ordered: see composed.scenes."""
    encode, decode = codec(model, params)

    def part(rng, prompts):
        return composed.judged(rng, prompts, encode, decode, chunk, model.cfg.image_size, world, ordered)

    return _of_fresh_prompts(part, count, seed, chunk, world)


def build_draws(model, params, count: int, seed: int = 0, chunk: int = 256, world: World = SHIPPED):
    """Groups of `count` fresh prompts with one right picture each, see composed.draws; `chunk` at a time."""
    encode, _ = codec(model, params)

    def part(rng, prompts):
        return composed.draws(rng, prompts, encode, chunk, model.cfg.image_size, world)

    return _of_fresh_prompts(part, count, seed, chunk, world)


def _of_fresh_prompts(part, count, seed, chunk, world):
    rng, parts = np.random.default_rng(seed), []
    for begin in tqdm(range(0, count, chunk), desc="prompts", unit=f"x{chunk}"):
        parts.append(part(rng, [composed.fresh_prompt(rng, world) for _ in range(min(chunk, count - begin))]))
    return cache.join(parts)


def build_edits(
    model,
    params,
    count: int,
    seed: int = 0,
    chunk: int = 64,
    world: World = SHIPPED,
    known: bool = False,
    kinds: Sequence[str] = edit.KINDS,
    objects: int | None = None,
    near: int = NEAR,
):
    """Groups of `count` random edits of some kinds, of pictures of so many objects (None = of any number), unless known
    less the few whose source does not survive its codes; `chunk` at a time. known: labelled by their scenes, and so
    without pictures of mixed codes. near: near misses of each."""
    rng, (encode, decode), parts = np.random.default_rng(seed), codec(model, params), []
    side = model.cfg.image_size
    for begin in tqdm(range(0, count, chunk), desc="edits", unit=f"x{chunk}"):
        drawn = [
            edit.random_edit(rng, str(rng.choice(kinds)), world=world, objects=objects)
            for _ in range(min(chunk, count - begin))
        ]
        wrong = [[edit_pairs.near_miss(rng, e, world) for _ in range(near)] for e in drawn]
        pictures = [edit.draw(e, side, rng, others, world) for e, others in zip(drawn, wrong, strict=True)]
        codes = encode(np.array(pictures))
        readings = None
        if known:
            scenes = [(e.source, e.target, *others) for e, others in zip(drawn, wrong, strict=True)]
            readings = [verify.Reading(one.items) for of_edit in scenes for one in of_edit]
        else:
            codes = with_mixed(rng, codes)
        pixels = decode(codes)
        instructions = [e.instruction for e in drawn]
        groups = labels.label_edits(rng, instructions, pixels[:, 0], codes, pixels, world, readings)
        found = np.flatnonzero(np.diff(groups.start))  # a source that is kept is the first of its group
        first = groups.start[:-1][found]
        start = np.append(first, groups.start[-1])
        groups = dataclasses.replace(groups, prompts=groups.prompts[found], start=start, source=first)
        parts.append(cache.packed(groups))
    return cache.join(parts)


def build_void_edits(model, params, count: int, seed: int = 0, chunk: int = 128, world: World = SHIPPED):
    """Groups of `count` edits of shapes that their pictures do not show, see composed.voids; `chunk` at a time."""
    rng, (encode, decode), parts = np.random.default_rng(seed), codec(model, params), []
    for begin in tqdm(range(0, count, chunk), desc="edits", unit=f"x{chunk}"):
        drawn = [edit.void_edit(rng, world) for _ in range(min(chunk, count - begin))]
        parts.append(composed.voids(rng, drawn, encode, decode, chunk, model.cfg.image_size, world))
    return cache.join(parts)


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
    chosen = args.kinds or args.objects is not None or args.near != NEAR
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
    parser.add_argument("--tokenizer", required=True, type=Path, help="a workdir of train_vq, or its model folder")
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
    parser.add_argument("--near", type=int, default=NEAR, help=f"wrong pictures of each edit (default: {NEAR})")
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
    model, params = loading.load_vq(args.tokenizer)
    world = loading.world_of(args.tokenizer)
    if args.void:
        groups = build_void_edits(model, params, args.void, args.seed, world=world)
    elif args.task == "edit":
        count, known = args.composed or args.edits or EDITS, args.composed > 0
        of = {"kinds": args.kinds or edit.KINDS, "objects": args.objects, "near": args.near}
        groups = build_edits(model, params, count, args.seed, world=world, known=known, **of)
    elif args.draws:
        groups = build_draws(model, params, args.draws, args.seed, world=world)
    elif args.composed:
        groups = build_composed(model, params, args.composed, args.seed, world=world, ordered=args.ordered)
    else:
        source = data_set(args.data_dir, world).as_data_source(args.split or "train")
        groups = build(model, params, source, args.seed, world=world)
    cache.save(args.out, groups)
    right = groups.score >= verify.RIGHT
    print(f"{len(groups)} prompts, {len(right)} pictures, {right.mean():.3f} of them right")


if __name__ == "__main__":
    cli.run(main)
