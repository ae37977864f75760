"""Asks a model whether pictures match prompts:

    python -m janus_jax.judge --checkpoint shapes-rl --image a.png --prompt "two red circles"
    python -m janus_jax.judge --checkpoint shapes-rl --pairs pairs.jsonl > verdicts.jsonl

A line of pairs.jsonl is {"image": FILE, "prompt": TEXT}, files relative to pairs.jsonl. Prints one JSON object per
picture: {"image", "prompt", "p_yes", "reason"}.

From Python: janus_jax.judge(model, params, processor, images, prompts).
"""

import argparse
import json

from janus_jax import cli
from janus_jax.checkpoints import loading
from janus_jax.data import records
from janus_jax.data.pairs import read_pairs
from janus_jax.errors import UserError
from janus_jax.sampling import flags
from janus_jax.sampling.answer import GREEDY_VERDICT, judge
from janus_jax.sequences import images, tokens


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m janus_jax.judge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_model_flags(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--image", metavar="FILE")
    source.add_argument("--pairs", metavar="FILE.jsonl")
    parser.add_argument("--prompt", help="what the picture of --image should show")
    parser.add_argument("--batch", type=int, default=8, help="pictures at a time")
    records.add_flags(parser)
    flags.add_speaking(parser, GREEDY_VERDICT.max_reason_tokens)
    args = parser.parse_args(argv)
    if (args.image is None) != (args.prompt is None):
        raise UserError("--prompt goes with --image, and --image with --prompt: give both, or --pairs alone")
    if args.batch < 1:
        raise UserError("--batch must be at least 1")
    sampling = flags.speaking(args)
    if args.pairs:
        read = read_pairs(args.pairs, tally=records.tally_of(args, args.pairs), allow_outside=args.allow_outside)
        pairs = [pair[:2] for pair in read]
    else:
        pairs = [(args.image, args.prompt)]
        images.read(args.image)
    model, params, processor = loading.load(args.checkpoint, args.dtype)
    for _, prompt in pairs:
        tokens.prompt_ids(processor.tokenizer, prompt)  # all are refused before any is printed
    for begin in range(0, len(pairs), args.batch):
        paths, prompts = zip(*pairs[begin : begin + args.batch], strict=True)
        pictures = [images.read(path) for path in paths]
        said = judge(model, params, processor, pictures, prompts, sampling, args.seed, args.batch)
        for path, prompt, (p_yes, reason) in zip(paths, prompts, said, strict=True):
            line = {"image": str(path), "prompt": prompt, "p_yes": p_yes, "reason": reason}
            print(json.dumps(line, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    cli.run(main)
