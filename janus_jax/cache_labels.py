"""Turns a released label file and its pictures into codes, for stage 1:

    python -m janus_jax.cache_labels --checkpoint DIR --labels labels.jsonl --images FOLDER --out runs/labels.npz

The painter's side of a picture is encoded once; what the judge sees is read from the picture's file again while
training, so the files must stay where they are.
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from janus_jax import cli
from janus_jax.checkpoints import loading
from janus_jax.data import cache, label_file
from janus_jax.errors import UserError
from janus_jax.sampling import decode
from janus_jax.sequences import images, tokens


def build(model, params, processor, prompts, batch: int, source="", progress=None) -> cache.Groups:
    """Groups of label_file.Labelled prompts. batch: pictures encoded together; source: the label file's name, for
    errors; progress: called with the number of finished pictures. Raises UserError naming the line of a prompt that is
    too long, or of a picture that cannot be read."""

    def at_line(prompt, function, *args):
        try:
            return function(*args)
        except UserError as error:
            raise UserError(f"{source}, line {prompt.line}: {error}") from error

    for prompt in prompts:
        at_line(prompt, tokens.prompt_ids, processor.tokenizer, prompt.prompt)
    pictures = [(prompt, picture) for prompt in prompts for picture in prompt.pictures]
    codes = []
    for begin in range(0, len(pictures), batch):
        part = pictures[begin : begin + batch]
        pixels = [processor.for_generation(at_line(prompt, images.read, picture.path)) for prompt, picture in part]
        pixels += pixels[-1:] * (batch - len(part))  # one size for all batches
        codes.append(np.asarray(decode.encode_codes(model, params, np.stack(pixels)))[: len(part)])
        if progress:
            progress(len(part))
    return cache.Groups(
        prompts=np.array([prompt.prompt for prompt in prompts]),
        start=np.cumsum([0] + [len(prompt.pictures) for prompt in prompts]),
        codes=np.concatenate(codes),
        pixels=cache.PictureFiles(
            np.array([str(picture.path.resolve()) for _, picture in pictures]), processor.understanding_size
        ),
        score=np.array([picture.score for _, picture in pictures], np.float32),
        reasons=np.array([picture.reason for _, picture in pictures]),
        captions=np.full(len(pictures), ""),
    )


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m janus_jax.cache_labels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, help="whose picture tokenizer encodes: a folder or shipped name")
    parser.add_argument("--labels", required=True, type=Path, metavar="FILE.jsonl")
    parser.add_argument("--images", required=True, type=Path, metavar="FOLDER", help="what img_path is relative to")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--batch", type=int, default=16, help="pictures at a time")
    args = parser.parse_args(argv)
    cli.at_least(1, batch=args.batch)
    cli.writable(args.out)
    prompts = label_file.read(args.labels, args.images)
    model, params, processor = loading.load(args.checkpoint)
    with tqdm(total=sum(len(prompt.pictures) for prompt in prompts), unit="picture", desc="encoding") as bar:
        groups = build(model, params, processor, prompts, args.batch, args.labels, bar.update)
    cache.save(args.out, groups)
    right = groups.score >= label_file.RIGHT
    print(f"{len(groups)} prompts, {len(right)} pictures, {right.mean():.3f} of them right")


if __name__ == "__main__":
    cli.run(main)
