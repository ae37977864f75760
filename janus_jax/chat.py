"""Asks a model about pictures, or about nothing but text, and prints the answer as it comes:

    python -m janus_jax.chat --checkpoint DIR --image a.png b.png --question "What differs between the two?"

From Python: janus_jax.chat(model, params, processor, [(images, question), ...]).
"""

import argparse
import contextlib

from janus_jax import cli, images, loading, tokens
from janus_jax.density import Sampling
from janus_jax.errors import UserError
from janus_jax.understand import GREEDY_ANSWER, chat


def sampling_of(args) -> Sampling:
    """The Sampling that the flags describe; temperature 0 = the likeliest word each time. Raises UserError."""
    try:
        if args.temperature == 0:
            return Sampling(text_top_k=1, max_reason_tokens=args.max_tokens)
        return Sampling(
            temperature=args.temperature,
            text_top_k=args.top_k,
            text_top_p=args.top_p,
            max_reason_tokens=args.max_tokens,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def add_sampling_flags(parser, max_tokens: int) -> None:
    """The flags that say how to speak."""
    parser.add_argument("--temperature", type=float, default=0.0, help="0 = greedy (the default)")
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--max-tokens", type=int, default=max_tokens)
    parser.add_argument("--seed", type=int, default=0)


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m janus_jax.chat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_model_flags(parser)
    parser.add_argument("--image", nargs="+", action="extend", default=[], metavar="FILE", help="pictures, in order")
    parser.add_argument("--question", required=True)
    parser.add_argument("--system", default=tokens.SYSTEM_PROMPT, help='opens the prompt; "" = nothing')
    add_sampling_flags(parser, GREEDY_ANSWER.max_reason_tokens)
    args = parser.parse_args(argv)
    sampling = sampling_of(args)
    pictures = [images.read(path) for path in args.image]
    model, params, processor = loading.load(args.checkpoint, args.dtype)

    def tell(_, piece):
        with contextlib.suppress(BrokenPipeError):  # raised again by the last print, outside of the model's loop
            print(piece, end="", flush=True)

    chat(model, params, processor, [(pictures, args.question)], sampling, args.seed, system=args.system, listen=tell)
    print()


if __name__ == "__main__":
    cli.run(main)
