"""Draws pictures of the training prompts with a model, has the verifier label them, and adds them to stage 1's data
(a cache of prompts, or one of edits):

    python -m janus_jax.label_drawings --checkpoint runs/base --cache runs/cache.npz --out runs/drawn.npz

The paper's data are made like this: several pictures of every prompt from generators of its time, scored by a judge. A
model that is to judge and mend its own drawings has to have seen how such drawings fail.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from janus_jax import cli, rules
from janus_jax.checkpoints import loading
from janus_jax.data import cache, labels
from janus_jax.errors import UserError
from janus_jax.sampling.defaults import sampling_of
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.introspect import pictures
from janus_jax.sequences.request import Request


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


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m janus_jax.label_drawings",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, help="the model that draws: a folder or a shipped name")
    parser.add_argument("--cache", required=True, nargs="+", type=Path, help="labelled pictures to add to")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--samples", type=int, default=2, help="pictures per prompt")
    parser.add_argument("--cfg", type=float, help="guidance; default: what the checkpoint was made for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=200)
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
    with tqdm(total=len(prompts) * args.samples, unit="picture", desc="drawing") as bar:
        drawn = [
            paint(model, params, processor, prompts, sampling, args.seed, number, args.batch, bar.update)
            for number in range(args.samples)
        ]
    codes, pixels = (np.stack(arrays, axis=1) for arrays in zip(*drawn, strict=True))
    rng = np.random.default_rng(args.seed)
    if edits:
        labelled = labels.label_edits(rng, groups.prompts, sources, codes, pixels)
    else:
        labelled = labels.label(rng, prompts, codes, pixels)
    cache.save(args.out, cache.merge(groups, labelled))
    print(f"{len(labelled.score)} pictures drawn and kept, {(labelled.score >= 0.8).mean():.3f} of them right")


if __name__ == "__main__":
    cli.run(main)
