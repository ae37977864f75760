"""Copies a checkpoint, in another dtype where asked:

python -m janus_jax.convert --src runs/sft --dst janus_jax/assets/shapes-sft --to own --dtype bfloat16
"""

import argparse
from pathlib import Path

import jax.numpy as jnp

from janus_jax import checkpoint, cli, loading
from janus_jax.errors import UserError


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m janus_jax.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--src", required=True, help="a model folder, a finished workdir or a shipped name")
    parser.add_argument("--dst", required=True, type=Path)
    parser.add_argument("--to", choices=("own",), default="own")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of the stored parameters (default: as they are)"
    )
    args = parser.parse_args(argv)
    source = loading.find(args.src)
    if args.dst.exists() and args.dst.resolve() == source.resolve():
        raise UserError("--src and --dst are the same folder: choose another --dst")
    model, params, processor = loading.load(source)
    guidance = checkpoint.read_config(source).get("cfg_weight")
    loading.save(args.dst, model, params, processor, jnp.dtype(args.dtype) if args.dtype else None, guidance)


if __name__ == "__main__":
    cli.run(main)
