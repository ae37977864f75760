"""Asks a model about pictures, or about nothing but text, and prints the answer as it comes:

    python -m janus_jax.chat --checkpoint DIR --image a.png b.png --question "What differs between the two?"

From Python: janus_jax.chat(model, params, processor, [(images, question), ...]).
"""

import argparse
import contextlib

from janus_jax import cli
from janus_jax.checkpoints import loading
from janus_jax.sampling import flags
from janus_jax.sampling.answer import GREEDY_ANSWER, chat
from janus_jax.sequences import images, tokens


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m janus_jax.chat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_model_flags(parser)
    parser.add_argument("--image", nargs="+", action="extend", default=[], metavar="FILE", help="pictures, in order")
    parser.add_argument("--question", required=True)
    parser.add_argument("--system", default=tokens.SYSTEM_PROMPT, help='opens the prompt; "" = nothing')
    flags.add_speaking(parser, GREEDY_ANSWER.max_reason_tokens)
    args = parser.parse_args(argv)
    sampling = flags.speaking(args)
    pictures = [images.read(path) for path in args.image]
    model, params, processor = loading.load(args.checkpoint, args.dtype)

    def tell(_, piece):
        with contextlib.suppress(BrokenPipeError):  # raised again by the last print, outside of the model's loop
            print(piece, end="", flush=True)

    chat(model, params, processor, [(pictures, args.question)], sampling, args.seed, system=args.system, listen=tell)
    print()


if __name__ == "__main__":
    cli.run(main)
