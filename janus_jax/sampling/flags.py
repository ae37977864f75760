"""The command-line flags that say how to draw and how to speak."""

import dataclasses

from janus_jax import rules
from janus_jax.sampling.defaults import sampling_of
from janus_jax.sampling.density import Sampling


def add_drawing(parser) -> None:
    """The flags that say how to draw."""
    parser.add_argument("--cfg", type=float, help="guidance weight, 1 = none (default: the checkpoint's own, else 5)")
    parser.add_argument("--temperature", type=float, help="default: the checkpoint's own, else 1")
    parser.add_argument("--image-top-k", type=int)
    parser.add_argument("--image-top-p", type=float)
    parser.add_argument("--text-top-k", type=int)
    parser.add_argument("--text-top-p", type=float)
    parser.add_argument("--max-reason-tokens", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64, help="rows at a time; changes the speed, not the pictures")


def drawing(args) -> Sampling:
    """The Sampling that the flags describe. Raises UserError for values out of range, of any of a command's flags."""
    rules.check_flags(args)
    named = {"cfg_weight": args.cfg, "temperature": args.temperature}
    return sampling_of(
        args.checkpoint,
        **{name: value for name, value in named.items() if value is not None},
        image_top_k=args.image_top_k,
        image_top_p=args.image_top_p,
        text_top_k=args.text_top_k,
        text_top_p=args.text_top_p,
        max_reason_tokens=args.max_reason_tokens,
    )


def add_speaking(parser, max_tokens: int) -> None:
    """The flags that say how to speak."""
    parser.add_argument("--temperature", type=float, default=0.0, help="0 = greedy (the default)")
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--max-tokens", type=int, default=max_tokens)
    parser.add_argument("--seed", type=int, default=0)


def speaking(args) -> Sampling:
    """The Sampling that the flags describe; temperature 0 = the likeliest word each time. Raises UserError as
    `drawing` does."""
    rules.check_flags(args)
    sampling = Sampling(
        temperature=args.temperature or 1.0,
        text_top_k=args.top_k,
        text_top_p=args.top_p,
        max_reason_tokens=args.max_tokens,
    )
    return sampling if args.temperature else dataclasses.replace(sampling, text_top_k=1, text_top_p=None)
