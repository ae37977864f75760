"""Copies a checkpoint, from any format and dtype to any other, bit by bit where they agree:

python -m janus_jax.convert --src deepseek-ai/Janus-Pro-1B --dst janus-1b --to own --dtype bfloat16
python -m janus_jax.convert --src runs/janus_sft --dst for-torch --to hf
python -m janus_jax.convert --src ema.pth --base Janus-Pro-1B --dst janus-ema --to own
"""

import argparse
import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from janus_jax import cli
from janus_jax.checkpoints import loading, model_folder, published, tensorfiles
from janus_jax.checkpoints.tensor_names import Leaf, cast, read, scatter
from janus_jax.checkpoints.tensorfiles import Tensor
from janus_jax.errors import UserError


def plain(arrays, dtype) -> dict[str, Tensor]:
    """Mapped arrays, ready to be written."""
    return {n: Tensor(x.shape, cast(x.dtype, dtype), functools.partial(np.asarray, x)) for n, x in arrays.items()}


def write_own(folder, source: loading.Source, dtype) -> None:
    """Writes our own format; what came with a published model goes to its `extra/`."""
    config = {"kind": "janus", "model": source.cfg.to_dict(), **source.drawn_with}
    params = {p: Tensor(leaf.shape, leaf.dtype, functools.partial(read, leaf)) for p, leaf in source.leaves.items()}
    files = {f"{model_folder.EXTRA}/{name}/{n}": x for name, each in source.files.items() for n, x in each.items()}
    files[source.tokenizer.file_name] = source.tokenizer.content
    extra = {name: plain(arrays, dtype) for name, arrays in source.extra.items()}
    model_folder.write_model(folder, config, params, files, extra)


def write_published(folder, source: loading.Source, name: str, dtype) -> None:
    """Writes the published format `name`. Raises UserError where it has no such model, before anything is written."""
    tied = name == "hf" and is_tied(source.leaves["llama/embed_tokens"], source.leaves["llama/lm_head"])
    tensors = scatter(source.leaves, published.FORMATS[name].rules) | plain(source.extra.get(name, {}), dtype)
    if tied:
        del tensors["lm_head.weight"]
    most = max(source.leaves.values(), key=lambda leaf: np.prod(leaf.shape)).dtype.name
    files = published.small_files(source.cfg, name, most, source.tokenizer, tied) | source.files.get(name, {})
    with model_folder.replacing(folder) as scratch:
        for file, content in files.items():
            (scratch / file).write_bytes(content)
        tensorfiles.write_shards(scratch, tensors)


def is_tied(table: Leaf, head: Leaf, rows: int = 1024) -> bool:
    """Whether the text head [D,V] is the table of embeddings [V,D], looked at some rows at a time."""
    parts = (slice(i, i + rows) for i in range(0, table.shape[0], rows))
    return all(np.array_equal(read(table, (part,)), read(head, (slice(None), part)).T) for part in parts)


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m janus_jax.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--src", required=True, help="a model folder of any format, a workdir, a hub id, a shipped name or a .pth file"
    )
    parser.add_argument("--dst", required=True, type=Path)
    parser.add_argument("--to", choices=("own", *published.FORMATS), default="own")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of the stored parameters (default: as they are)"
    )
    parser.add_argument(
        "--base",
        help="a published folder: of the configuration and the tokenizer for a bare .pth file; for a trained model, of "
        "the tensors that the model does not use but an export shall carry",
    )
    args = parser.parse_args(argv)
    sources = {Path(path) for path in (args.src, args.base) if path}
    sources |= {path / "model" for path in sources}  # a workdir means that
    if args.dst.resolve() in {path.resolve() for path in sources}:
        raise UserError("--src and --dst are the same folder: choose another --dst")
    dtype = jnp.dtype(args.dtype) if args.dtype else None
    source = loading.open_model(args.src, dtype, args.base)
    loading.processor_of(source.cfg, source.tokenizer)
    if args.to == "own":
        write_own(args.dst, source, dtype)
    else:
        write_published(args.dst, source, args.to, dtype)


if __name__ == "__main__":
    cli.run(main)
