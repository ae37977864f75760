"""Turns the shapes data set into codes with a trained tokenizer, for stage 1:

    python -m janus_jax.cache_codes --tokenizer runs/vq/model --data-dir runs/data --out runs/cache.npz

Every picture is encoded and decoded again, and it is the decoded one that is scored and explained: that is the picture
the model would have drawn with these codes, and the one the judge will see. To the rendered pictures, pictures of mixed
codes are added (parts of two pictures of one prompt, or with a few codes replaced): they fail the way a drawing model
fails, not the way a renderer does.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from janus_jax import cli
from janus_jax.checkpoints import loading
from janus_jax.data import cache, labels
from janus_jax.data.shapes_dataset import Shapes
from janus_jax.errors import UserError
from janus_jax.sequences import images

MIXED = 2  # pictures of mixed codes per prompt


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


def build(model, params, source, seed: int = 0, chunk: int = 64):
    """Groups of a `shapes` data source, `chunk` prompts at a time."""
    rng = np.random.default_rng(seed)

    @jax.jit
    def encode(pixels):
        return model.apply({"params": params}, pixels, method="encode_codes")

    @jax.jit
    def decode(codes):
        return model.apply({"params": params}, codes, method="decode_codes")

    parts = []
    for begin in tqdm(range(0, len(source), chunk), desc="prompts", unit=f"x{chunk}"):
        examples = [source[i] for i in range(begin, min(begin + chunk, len(source)))]
        pictures = np.stack([example["pictures"]["image"] for example in examples])  # [P, K, h, w, 3]
        P, K = pictures.shape[:2]
        codes = np.asarray(encode(pictures.reshape(P * K, *pictures.shape[2:]) / np.float32(127.5) - 1)).reshape(
            P, K, -1
        )
        mixed = np.stack([[mix_codes(rng, group) for _ in range(MIXED)] for group in codes])
        codes = np.concatenate([codes, mixed], axis=1)
        pixels = images.to_uint8(decode(codes.reshape(-1, codes.shape[-1])))
        prompts = [example["prompt"].decode() for example in examples]
        parts.append(labels.label(rng, prompts, codes, pixels.reshape(*codes.shape[:2], *pixels.shape[1:])))
    return cache.join(parts)


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, type=Path, help="model folder of train_vq")
    parser.add_argument("--data-dir", required=True, type=Path, help="where the shapes data set lies or will be built")
    parser.add_argument("--split", default="train", choices=("train", "train_free"))
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args(argv)
    cli.writable(args.out)
    model, params = loading.load_vq(args.tokenizer)
    try:
        builder = Shapes(data_dir=args.data_dir, file_format="array_record")
        builder.download_and_prepare()
    except OSError as error:
        raise UserError(f"cannot build the data set in {args.data_dir}: {error}; choose another --data-dir") from error
    groups = build(model, params, builder.as_data_source(args.split))
    cache.save(args.out, groups)
    right = groups.score >= 0.8
    print(f"{len(groups)} prompts, {len(right)} pictures, {right.mean():.3f} of them right")


if __name__ == "__main__":
    cli.run(main)
