"""`load`: a model, its parameters and its processor from a folder or a shipped name."""

import dataclasses
import hashlib
import json
import re
import textwrap
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.checkpoints import model_folder, published, tensor_names, tensorfiles
from janus_jax.checkpoints.tensor_names import Leaf
from janus_jax.errors import UserError
from janus_jax.models import declared
from janus_jax.models.janus import Janus, JanusConfig, abstract_params
from janus_jax.models.vq import VQ, VQConfig
from janus_jax.parallel import sharding
from janus_jax.sequences.processor import Processor
from janus_jax.sequences.tokens import SYSTEM_PROMPT, Tokenizer
from janus_jax.shapes.world import SHIPPED as SHIPPED_WORLD
from janus_jax.shapes.world import WORLDS, World

SHIPPED = ("shapes-sft", "shapes-rl")
DRAWN_WITH = ("cfg_weight", "temperature")  # the fields of Sampling that a checkpoint may set
MOST_DRAWN_WITH = 1000
HUB_FILES = ["*.json", "*.jinja", "*.model", "*.safetensors", "*.bin"]


def find(path) -> Path:
    """The model folder that a path or a shipped name means; a training's workdir means its `model/`, and what is no
    path but looks like OWNER/NAME is fetched from the Hugging Face hub.

    Raises UserError where there is none.
    """
    if str(path) in SHIPPED:
        return Path(str(resources.files("janus_jax") / "assets" / str(path)))
    folder = Path(path)
    for candidate in (folder, folder / "model"):
        if (candidate / model_folder.CONFIG).is_file():
            return candidate
    if (folder / "checkpoints").is_dir():
        raise UserError(f"{folder} is a training that has not finished: run its command again to its end first")
    hint = f"give a model folder, a finished workdir, a hub id, or one of {', '.join(SHIPPED)}"
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(path)) or folder.parent.exists():
        raise UserError(f"no checkpoint at {folder}: {hint}")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(str(path), allow_patterns=HUB_FILES))
    except Exception as error:  # of the hub, of HTTP or of the network: many kinds, and all of them mean this
        reason = textwrap.shorten(str(error), 160, placeholder="...")
        raise UserError(f"no checkpoint at {folder}, and the hub does not give it ({reason}): {hint}") from error


def digest(path) -> str:
    """The SHA-256 that tells a checkpoint from others: of the manifest of a folder of our own, which `load` compares
    with the files, or of the names and the SHA-256 of a published folder's files. Raises UserError as `find` does."""
    folder = find(path)
    manifest = folder / model_folder.MANIFEST
    if manifest.is_file():
        return hashlib.sha256(manifest.read_bytes()).hexdigest()
    names = sorted({file.name for pattern in HUB_FILES for file in folder.glob(pattern)})
    return hashlib.sha256(json.dumps(model_folder.digests_of(folder, names)).encode()).hexdigest()


def processor_of(
    cfg: JanusConfig, tokenizer: Tokenizer, drawn_with: dict | None = None, world: str | None = None
) -> Processor:
    """The processor for a model of these sizes; drawn_with: see drawn_with(); world: the embedded world that it was
    trained on, if any, where questions are asked without a system sentence. Raises UserError where the tokenizer has
    more ids than the model."""
    if tokenizer.size > cfg.llama.vocab_size:
        raise UserError(f"the tokenizer has {tokenizer.size} ids, the model only {cfg.llama.vocab_size}: use its own")
    system = "" if world else SYSTEM_PROMPT
    return Processor(tokenizer, cfg.siglip.image_size, cfg.vq.image_size, drawn_with or {}, system)


class Source(NamedTuple):
    """A checkpoint of any format, opened and not read. extra: {format: {name: tensor}} that no parameter holds; files:
    a published folder's small files, {format: {name: content}}; drawn_with: what its
    configuration says of DRAWN_WITH; world: the name of the embedded world that it was trained on, if any."""

    cfg: JanusConfig
    tokenizer: Tokenizer
    leaves: dict[str, Leaf]
    extra: dict[str, dict[str, np.ndarray]]
    files: dict[str, dict[str, bytes]]
    drawn_with: dict[str, float]
    world: str | None = None


def open_model(path, dtype=None, base=None) -> Source:
    """Opens a checkpoint; of its weights nothing is read yet. Arguments and errors as those of `load`, but dtype None
    keeps the stored ones. Where `path` has a configuration of its own, `base` lends what an export needs beside it."""
    if Path(path).is_file():
        if base is None:
            raise UserError(f"{path} holds weights alone: name the folder of their config.json and tokenizer (--base)")
        return _open_published(find(base), tensorfiles.read_file(path), dtype)
    folder = find(path)
    if model_folder.read_config(folder).get("kind") == "janus":
        source = _open_own(folder, dtype)
    else:
        source = _open_published(folder, None, dtype)
    if base is not None:
        lent = open_model(base)
        source = source._replace(extra=lent.extra | source.extra, files=lent.files | source.files)
    return source


def _own_config(folder, config) -> JanusConfig:
    """The model that a config.json of our own describes."""
    try:
        cfg = JanusConfig.from_dict(config.get("model"))
        for part, entries in cfg.to_dict().items():  # a size that is absent is damage: its default is another model
            if not isinstance(entries, dict):
                continue
            absent = entries.keys() - config["model"].get(part, {}).keys()
            if absent:
                raise UserError(f"{part}.{min(absent)} is missing")
        return cfg
    except ValueError as error:
        raise UserError(f"{folder / model_folder.CONFIG} does not describe a model: {error}") from error


def _open_own(folder, dtype):
    config = model_folder.read_config(folder)
    model_folder.verify(folder, (model_folder.CONFIG,))  # before any number in it is believed
    cfg, drawn_with, tokenizer = _own_config(folder, config), _drawn_with(folder, config), Tokenizer.from_folder(folder)
    extra = [path for path in (folder / model_folder.EXTRA).rglob("*") if path.is_file()]
    read = (tokenizer.file_name, *(str(path.relative_to(folder)) for path in extra))
    leaves = model_folder.open_params(folder, _abstract(cfg), dtype, needed=read)
    files = {}
    for file in (folder / model_folder.EXTRA).glob("*/*"):
        files.setdefault(file.parent.name, {})[file.name] = file.read_bytes()
    return Source(cfg, tokenizer, leaves, model_folder.open_extra(folder), files, drawn_with, config.get("world"))


def _open_published(folder, tensors, dtype):
    """tensors: None for the folder's own."""
    config = model_folder.read_config(folder)
    name = published.format_of(config)
    if name is None and config.get("kind") == "janus":
        raise UserError(f"{folder} is a folder of our own format: for weights alone, --base is a published one")
    if name is None:
        raise UserError(
            f"{folder} is not a janus_jax model nor a published Janus (its {model_folder.CONFIG} says kind = "
            f"{config.get('kind')!r}, model_type = {config.get('model_type')!r})"
        )
    files = {file: (folder / file).read_bytes() for file in published.SIDE_FILES if (folder / file).is_file()}
    others = ()
    try:
        cfg = published.read_config(config, name)
        published.check_preprocessing(folder, cfg)
        if tensors is None:
            others = tensorfiles.weight_files(folder).others
            tensors = tensorfiles.read_folder(folder)
        tensors = published.untied(tensors, config, name)
        shapes = {path: leaf.shape for path, leaf in _abstract(cfg).items()}
        leaves, extra = tensor_names.gather(tensors, shapes, published.FORMATS[name].rules, dtype)
    except UserError as error:
        hint = f" (not read: {', '.join(others)})" if others and "is missing" in str(error) else ""
        where = "" if str(folder) in str(error) else f"{folder}: "
        raise UserError(f"{where}{error}{hint}") from error
    return Source(cfg, Tokenizer.from_folder(folder), leaves, {name: extra} if extra else {}, {name: files}, {})


def _abstract(cfg):
    """{path: shape and dtype} of a model's parameters."""
    return dict(sharding.paths(abstract_params(Janus(cfg))))


def load(path, dtype=jnp.float32, mesh=None, base=None, part: str = ""):
    """Loads a checkpoint: (model, params, processor).

    path: a folder (of our own, in the original format or in that of HF transformers), a shipped name ("shapes-sft",
    "shapes-rl"), a hub id, or one file of weights (.pth, .bin, .safetensors), for which `base` names the folder of
    configuration and tokenizer. dtype: of the parameters and of the computation. mesh: parameters are placed on it by
    the training layout; None = the default device. part: "llama", "siglip", "vq" or another top of the tree, which
    alone is read; "" = all. Raises UserError for anything that is missing, foreign or damaged.
    """
    source = open_model(path, dtype, base)
    leaves = {name: leaf for name, leaf in source.leaves.items() if name.startswith(f"{part}/" if part else "")}
    model = Janus(dataclasses.replace(source.cfg, dtype=jnp.dtype(dtype)))
    shardings = None if mesh is None else sharding.param_shardings(abstract_params(model), mesh)
    processor = processor_of(source.cfg, source.tokenizer, source.drawn_with, source.world)
    return model, model_folder.place(leaves, shardings), processor


def load_vq(path):
    """Loads a tokenizer trained by train_vq, or that of a whole model of our own format: (VQ module, its params in
    f32). Raises UserError as `load` does."""
    folder = find(path)
    config = model_folder.read_config(folder)
    if config.get("kind") == "janus":
        model, params, _ = load(folder, part="vq")
        return VQ(model.cfg.vq), params["vq"]
    if config.get("kind") != "vq":
        raise UserError(
            f"{folder} is not a picture tokenizer, nor a model of our own with one: make one with janus_jax.train_vq"
        )
    model_folder.verify(folder, (model_folder.CONFIG,))
    try:
        model = VQ(declared.build(VQConfig, config.get("vq"), "vq."))
    except ValueError as error:
        raise UserError(f"{folder / model_folder.CONFIG} does not describe a tokenizer: {error}") from error
    size = model.cfg.image_size
    sample = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    abstract = jax.eval_shape(model.init, jax.random.key(0), sample)["params"]
    return model, model_folder.load_params(folder, abstract, jnp.float32)


def _drawn_with(folder, config):
    found = {name: config[name] for name in DRAWN_WITH if name in config}
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, float | int) or not 0 <= value < MOST_DRAWN_WITH:
            raise UserError(
                f"{folder / model_folder.CONFIG} says {name} = {str(value)[:40]!r}: it must be a number from 0 to "
                f"{MOST_DRAWN_WITH}"
            )
    return {name: float(value) for name, value in found.items()}


def drawn_with(path) -> dict[str, float]:
    """The fields of Sampling that a checkpoint says it is to be drawn with. Raises UserError as `load` does."""
    folder = find(path)
    return _drawn_with(folder, model_folder.read_config(folder))


def named_world(path) -> World | None:
    """The embedded world that the config.json of a checkpoint, or of a picture tokenizer, names; None: it names none.
    Raises UserError as `load` does, and for a world that is not known."""
    folder = find(path)
    name = model_folder.read_config(folder).get("world")
    if name is not None and name not in WORLDS:
        known = ", ".join(WORLDS)
        raise UserError(f"{folder / model_folder.CONFIG} names the world {str(name)[:40]!r}: it must be one of {known}")
    return None if name is None else WORLDS[name]


def world_of(path) -> World:
    """The same, and where none is named that of the shipped models."""
    return named_world(path) or SHIPPED_WORLD


def save(
    folder,
    model: Janus,
    params,
    processor: Processor,
    dtype=None,
    drawn_with: dict | None = None,
    world: World | None = None,
) -> None:
    """Writes a model folder of our own format, which `load` and every command read. dtype: floating parameters are
    stored in it, None = in theirs. drawn_with: {"cfg_weight": ..., "temperature": ...} to draw it with, for
    `sampling_of`. world: the embedded world that it was trained on. All processes of a pod call it; process 0 writes.
    """
    config = {"kind": "janus", "model": model.cfg.to_dict(), **(drawn_with or {})}
    config |= {"world": world.name} if world else {}
    tokenizer = processor.tokenizer
    model_folder.save_model(folder, config, params, {tokenizer.file_name: tokenizer.content}, dtype)


def same_sizes(path, cfg: JanusConfig) -> None:
    """Raises UserError unless the checkpoint has the sizes of `cfg`, naming the first that differs."""
    folder = find(path)
    config = model_folder.read_config(folder)
    name = published.format_of(config)
    stored = _own_config(folder, config) if name is None else published.read_config(config, name)
    if different := cfg.other_size(stored):
        entry, mine, theirs = different
        raise UserError(f"{path} has {entry} = {theirs}, the configuration says {mine}: use a checkpoint of this size")
