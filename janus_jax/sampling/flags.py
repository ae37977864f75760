"""The command-line flags that say how to draw and how to speak."""

import contextlib
import dataclasses

import jax

from janus_jax import profile, rules
from janus_jax.checkpoints import loading
from janus_jax.parallel import sharding
from janus_jax.sampling import decode
from janus_jax.sampling.defaults import sampling_of
from janus_jax.sampling.density import Sampling


@contextlib.contextmanager
def loaded(args):
    """The model that the flags name (cli.add_model_flags): (model, params, processor). With --mesh they lie on it, and
    it is the mesh of the context. The parameters are those that draw, see decode.prepared: as they are split there,
    without fsdp, and no copy as they are stored stays in memory. Raises UserError as `load` does."""
    mesh = sharding.mesh_named(args.mesh) if args.mesh else None
    with jax.set_mesh(mesh) if mesh else contextlib.nullcontext():
        model, params, processor = loading.load(args.checkpoint, args.dtype, mesh)
        yield model, decode.prepared(params), processor


def add_drawing(parser) -> None:
    """The flags that say how to draw."""
    parser.add_argument("--cfg", type=float, help="guidance weight, 1 = none (default: the checkpoint's own, else 5)")
    parser.add_argument("--temperature", type=float, help="of codes and words (default: the checkpoint's own, else 1)")
    parser.add_argument("--image-top-k", type=int, help="of so many codes at most (default: of all)")
    parser.add_argument("--image-top-p", type=float, help="of the likeliest codes of this mass (default: of all)")
    parser.add_argument("--text-top-k", type=int, help="of so many words at most (default: of all)")
    parser.add_argument("--text-top-p", type=float, help="of the likeliest words of this mass (default: of all)")
    parser.add_argument("--max-reason-tokens", type=int, default=80, help="words of a verdict with its reason at most")
    parser.add_argument("--seed", type=int, default=0, help="of the random bits")
    parser.add_argument(
        "--lookahead", type=int, default=1, help="codes that a pass may draw (1); changes the speed, not the pictures"
    )
    parser.add_argument("--batch", type=int, default=64, help="rows at a time; changes the speed, not the pictures")
    parser.add_argument("--profile", metavar="DIR", help=profile.HELP)


def drawing(args) -> Sampling:
    """The Sampling that the flags describe. Raises UserError for values out of range, of any of a command's flags."""
    rules.check_flags(args)
    profile.wanted(args.profile)
    named = {"cfg_weight": args.cfg, "temperature": args.temperature}
    return sampling_of(
        args.checkpoint,
        **{name: value for name, value in named.items() if value is not None},
        image_top_k=args.image_top_k,
        image_top_p=args.image_top_p,
        text_top_k=args.text_top_k,
        text_top_p=args.text_top_p,
        max_reason_tokens=args.max_reason_tokens,
        lookahead=args.lookahead,
    )


def add_speaking(parser, max_tokens: int) -> None:
    """The flags that say how to speak."""
    parser.add_argument("--temperature", type=float, default=0.0, help="0 = the likeliest word each time")
    parser.add_argument("--top-k", type=int, help="of so many words at most (default: of all)")
    parser.add_argument("--top-p", type=float, help="of the likeliest words of this mass (default: of all)")
    parser.add_argument("--max-tokens", type=int, default=max_tokens, help="words of an answer at most")
    parser.add_argument("--seed", type=int, default=0, help="of the random bits")


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
