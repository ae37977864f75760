"""Asks a model about pictures, or about nothing but text, and prints the answer as it comes:

    python -m janus_jax.chat --checkpoint DIR --image a.png b.png --question "What differs between the two?"

With --mesh an answer is printed once it is whole.

From Python: janus_jax.chat(model, params, processor, [(images, question), ...]).
"""

import contextlib

from janus_jax import cli
from janus_jax.sampling import flags
from janus_jax.sampling.answer import GREEDY_ANSWER, chat
from janus_jax.sequences import images


def main(argv):
    parser = cli.Parser("chat", __doc__)
    cli.add_model_flags(parser)
    parser.add_argument("--image", nargs="+", action="extend", default=[], metavar="FILE", help="pictures, in order")
    parser.add_argument(
        "--question", required=True, action="append", help="several are asked one by one, each of the same pictures"
    )
    parser.add_argument(
        "--system", help="opens the prompt (default: Janus's own sentence, nothing for a model of the embedded world)"
    )
    flags.add_speaking(parser, GREEDY_ANSWER.max_reason_tokens)
    args = parser.parse_args(argv)
    sampling = flags.speaking(args)
    pictures = [images.read(path) for path in args.image]

    def tell(_, piece):  # what listens to a program has it on one device
        with contextlib.suppress(BrokenPipeError):  # raised again by the last print, outside of the model's loop
            print(piece, end="", flush=True)

    with flags.loaded(args) as model:
        for question in args.question:
            listen = None if args.mesh else tell
            (said,) = chat(*model, [(pictures, question)], sampling, args.seed, system=args.system, listen=listen)
            print(said if args.mesh else "", flush=True)


if __name__ == "__main__":
    cli.run(main)
