"""Adds a model's own drawings, labelled by the verifier, to stage 1's data:

    python -m janus_jax.label_drawings --checkpoint runs/base --cache runs/cache.npz --out runs/drawn.npz

The paper's data are made like this: several pictures of every prompt from generators of its time, scored by a judge. A
model that is to judge and mend its own drawings has to have seen how such drawings fail. For some wrong drawings there
is also one that mends them; and a drawing of each prompt that can be changed in one fact (the relation mirrored, two
colours exchanged, a count off by one) is judged by the changed one, too.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from janus_jax import cli, rules
from janus_jax.checkpoints import loading
from janus_jax.data import cache, labels, mended
from janus_jax.errors import UserError
from janus_jax.sampling import decode
from janus_jax.sampling.defaults import sampling_of
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.introspect import pictures
from janus_jax.sequences import images
from janus_jax.sequences.request import Request
from janus_jax.shapes.verify import RIGHT

MENDED = 1  # wrong drawings per prompt that are mended


def paint(model, params, processor, prompts, sampling: Sampling, seed: int, number: int, batch: int, progress=None):
    """One picture of each prompt or Request, the sample of that `number`: (codes i32[P,I], pixels u8[P,h,w,3]).

    batch: prompts drawn together. progress: called with the number of finished pictures after each batch.
    """
    parts = []
    for part in pictures(model, params, processor, prompts, number, sampling, seed, batch):
        parts.append(part)
        if progress:
            progress(len(part[0]))
    codes, pixels = zip(*parts, strict=True)
    return np.concatenate(codes), np.concatenate(pixels)


def with_more(rng, model, params, groups, labelled, world):
    """The groups with the labelled drawings, what mends some of them, and groups of other prompts for them."""

    def reproduce(pictures):
        codes = np.asarray(decode.encode_codes(model, params, pictures / np.float32(127.5) - 1))
        return codes, images.to_uint8(decode.decode_codes(model, params, codes))

    drawn = mended.with_mended(rng, labelled, reproduce, MENDED, world)
    # with right pictures beside them: the judge shall not learn that No is what one says
    others = cache.packed(mended.by_changed_prompts(rng, labelled, world))
    others = mended.with_mended(rng, others, reproduce, MENDED, world)
    return cache.join([cache.merge(cache.packed(groups), drawn), others])


def main(argv):
    parser = cli.Parser("label_drawings", __doc__)
    parser.add_argument("--checkpoint", required=True, help="the model that draws: a folder or a shipped name")
    parser.add_argument("--cache", required=True, nargs="+", type=Path, help="labelled pictures to add to")
    parser.add_argument("--out", required=True, type=Path, help="the cache to write, a .npz file")
    parser.add_argument("--samples", type=int, default=2, help="pictures per prompt")
    parser.add_argument("--cfg", type=float, help="guidance weight, 1 = none (default: the checkpoint's own, else 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the random bits")
    parser.add_argument("--batch", type=int, default=200, help="prompts at a time; changes the speed, not the pictures")
    args = parser.parse_args(argv)
    rules.check_flags(args)
    cli.writable(args.out)
    groups = cache.join(map(cache.load, args.cache))
    model, params, processor = loading.load(args.checkpoint)
    if model.cfg.vq.tokens != groups.codes.shape[1]:
        raise UserError(
            f"{args.cache[0]} was made with another picture tokenizer than {args.checkpoint}'s: make it again"
        )
    # at temperature 1 whatever the checkpoint says: a judge needs to see pictures that failed
    sampling = sampling_of(args.checkpoint, temperature=1.0, **({} if args.cfg is None else {"cfg_weight": args.cfg}))
    prompts, edits = [str(prompt) for prompt in groups.prompts], bool((groups.source >= 0).any())
    if edits:
        if (groups.source < 0).any():
            raise UserError("some of --cache are of prompts and some of edits: draw for them in two commands")
        sources = groups.pixels[groups.source]
        prompts = [Request(p, Image.fromarray(source)) for p, source in zip(prompts, sources, strict=True)]
    with cli.Bar(len(prompts) * args.samples, 0, "drawing") as bar:
        drawn = [
            paint(model, params, processor, prompts, sampling, args.seed, number, args.batch, bar.update)
            for number in range(args.samples)
        ]
    codes, pixels = (np.stack(arrays, axis=1) for arrays in zip(*drawn, strict=True))
    rng, world = np.random.default_rng(args.seed), loading.world_of(args.checkpoint)
    if edits:
        labelled = cache.packed(labels.label_edits(rng, groups.prompts, sources, codes, pixels, world))
        result = cache.merge(cache.packed(groups), labelled)
    else:
        labelled = cache.packed(labels.label(rng, prompts, codes, pixels, world))
        result = with_more(rng, model, params, groups, labelled, world)
    cache.save(args.out, result)
    print(f"{len(labelled.score)} pictures drawn and kept, {(labelled.score >= RIGHT).mean():.3f} of them right")


if __name__ == "__main__":
    cli.run(main)
