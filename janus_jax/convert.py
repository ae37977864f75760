"""Copies a checkpoint, from any format and dtype to any other, bit by bit where they agree:

python -m janus_jax.convert --src deepseek-ai/Janus-Pro-1B --dst janus-1b --to own --dtype bfloat16
python -m janus_jax.convert --src janus-1b --dst janus-1b-hf --to hf
python -m janus_jax.convert --src ema.pth --base deepseek-ai/Janus-Pro-1B --dst janus-ema --to own
python -m janus_jax.convert --src runs/a --average runs/b runs/c --dst runs/mean
python -m janus_jax.convert --src runs/rl0 --dst rl0 --push ORG/NAME --license apache-2.0 --results runs/eval_rl0.json

--average writes the mean of several models that went on from the same one: it is often better than each of them.

--push uploads the folder to the Hugging Face hub, with a card: the recipe (a workdir's settings), numbers, licence, and
how to load it.
"""

import functools
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from janus_jax import cli
from janus_jax.checkpoints import hub, loading, model_folder, published, tensorfiles
from janus_jax.checkpoints.average import averaged
from janus_jax.checkpoints.tensor_names import Leaf, cast, read, scatter
from janus_jax.checkpoints.tensorfiles import Tensor
from janus_jax.errors import UserError
from janus_jax.results.model_card import card


def plain(arrays, dtype) -> dict[str, Tensor]:
    """Mapped arrays, ready to be written."""
    return {n: Tensor(x.shape, cast(x.dtype, dtype), functools.partial(np.asarray, x)) for n, x in arrays.items()}


def sound(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same, which raise UserError where they hold NaN or infinity."""

    def value(name, tensor):
        array = np.ascontiguousarray(tensor.value())
        if not model_folder.is_finite(array):
            raise UserError(f"the weights are ruined: {name} holds NaN or infinity; use another checkpoint")
        return array.reshape(tensor.shape)

    return {name: tensor._replace(value=functools.partial(value, name, tensor)) for name, tensor in tensors.items()}


def write_own(folder, source: loading.Source, dtype) -> None:
    """Writes our own format; what came with a published model goes to its `extra/`."""
    config = {"kind": "janus", "model": source.cfg.to_dict(), **source.drawn_with}
    config |= {"world": source.world} if source.world else {}
    params = {p: Tensor(leaf.shape, leaf.dtype, functools.partial(read, leaf)) for p, leaf in source.leaves.items()}
    files = {f"{model_folder.EXTRA}/{name}/{n}": x for name, each in source.files.items() for n, x in each.items()}
    files[source.tokenizer.file_name] = source.tokenizer.content
    extra = {name: plain(arrays, dtype) for name, arrays in source.extra.items()}
    model_folder.write_model(folder, config, sound(params), files, extra)


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
        tensorfiles.write_shards(scratch, sound(tensors))


def is_tied(table: Leaf, head: Leaf, rows: int = 1024) -> bool:
    """Whether the text head [D,V] is the table of embeddings [V,D], looked at some rows at a time."""
    parts = (slice(i, i + rows) for i in range(0, table.shape[0], rows))
    return all(np.array_equal(read(table, (part,)), read(head, (slice(None), part)).T) for part in parts)


def card_of(args, source: loading.Source) -> str:
    """The card of what is pushed."""
    license = args.license or ("apache-2.0" if args.src in loading.SHIPPED else None)
    if license is None:
        raise UserError("--push needs --license, an id of the hub's like apache-2.0, or other")
    settings = Path(args.src) / "settings.json"  # of a workdir
    recipe = {}
    if settings.is_file() and not args.average:  # a mean was made by no single training
        recipe = json.loads(settings.read_text(encoding="utf-8"))
    parameters = sum(int(np.prod(leaf.shape)) for leaf in source.leaves.values())
    names = [Path(src).resolve().name if Path(src).exists() else src for src in (args.src, *args.average)]
    origin = names[0] if len(names) == 1 else f"the mean of {', '.join(names)}"
    return card(args.push, args.to, license, parameters, origin, recipe, args.results)


def arguments(argv):
    """The flags."""
    parser = cli.Parser("convert", __doc__)
    parser.add_argument(
        "--src", required=True, help="a model folder of any format, a workdir, a hub id, a shipped name or a .pth file"
    )
    parser.add_argument("--dst", required=True, type=Path, help="the folder to write")
    parser.add_argument("--to", choices=("own", *published.FORMATS), default="own", help="the format to write")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of the stored parameters (default: as they are)"
    )
    parser.add_argument(
        "--base",
        help="a published folder: of the configuration and the tokenizer for a bare .pth file; for a trained model, of "
        "the tensors that the model does not use but an export shall carry (default: none)",
    )
    parser.add_argument(
        "--average",
        nargs="+",
        default=[],
        metavar="SRC",
        help="more models like --src: the mean of all their parameters is written (default: --src's own)",
    )
    parser.add_argument(
        "--push", metavar="ORG/NAME", help="a repository of the Hugging Face hub to upload it to (default: none)"
    )
    parser.add_argument(
        "--license", help="of what is pushed: an id of the hub's, like apache-2.0, or other (default: none)"
    )
    parser.add_argument(
        "--results", action="append", default=[], metavar="FILE.json", help="numbers for the card, by evaluate"
    )
    parser.add_argument("--private", action="store_true", help="make the repository a private one")
    args = parser.parse_args(argv)
    if not args.push and (args.license or args.results or args.private):
        raise UserError("--license, --results and --private go with --push: give that, too")
    return args


def main(argv):
    args = arguments(argv)
    sources = {Path(path) for path in (args.src, args.base, *args.average) if path}
    sources |= {path / "model" for path in sources}  # a workdir means that
    if args.dst.resolve() in {path.resolve() for path in sources}:
        raise UserError("--dst is the same folder as one that is read: choose another --dst")
    api = hub.api(args.push) if args.push else None
    dtype = jnp.dtype(args.dtype) if args.dtype else None
    source = loading.open_model(args.src, dtype, args.base)
    if args.average:
        names = [args.src, *args.average]
        bases = [args.base if Path(path).is_file() else None for path in args.average]  # of weights alone
        others = [loading.open_model(path, dtype, base) for path, base in zip(args.average, bases, strict=True)]
        source = averaged([source, *others], names)
    loading.processor_of(source.cfg, source.tokenizer)
    content = card_of(args, source) if args.push else ""
    if args.to == "own":
        write_own(args.dst, source, dtype)
    else:
        write_published(args.dst, source, args.to, dtype)
    if args.push:
        print(hub.push(api, args.dst, args.push, content, args.private))


if __name__ == "__main__":
    cli.run(main)
