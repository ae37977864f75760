"""`load`: a model, its parameters and its processor from a folder or a shipped name."""

import json
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp

from janus_jax import checkpoint, sharding
from janus_jax.errors import UserError
from janus_jax.models.janus import Janus, JanusConfig, abstract_params
from janus_jax.models.vq import VQ, VQConfig
from janus_jax.processor import Processor
from janus_jax.tokens import Tokenizer

SHIPPED = ("shapes-sft", "shapes-rl")


def find(path) -> Path:
    """The model folder that a path or a shipped name means; a training's workdir means its `model/`.

    Raises UserError where there is none.
    """
    if str(path) in SHIPPED:
        return Path(str(resources.files("janus_jax") / "assets" / str(path)))
    folder = Path(path)
    for candidate in (folder, folder / "model"):
        if (candidate / checkpoint.CONFIG).is_file():
            return candidate
    if (folder / "checkpoints").is_dir():
        raise UserError(f"{folder} is a training that has not finished: run its command again to its end first")
    raise UserError(
        f"no checkpoint at {folder}: give a model folder, a finished workdir, or one of {', '.join(SHIPPED)}"
    )


def processor_of(cfg: JanusConfig, tokenizer: Tokenizer) -> Processor:
    """The processor for a model of these sizes. Raises UserError where the tokenizer has more ids than the model."""
    if tokenizer.size > cfg.llama.vocab_size:
        raise UserError(f"the tokenizer has {tokenizer.size} ids, the model only {cfg.llama.vocab_size}: use its own")
    return Processor(tokenizer, cfg.siglip.image_size, cfg.vq.image_size)


def load(path, dtype=jnp.float32, mesh=None):
    """Loads a checkpoint: (model, params, processor).

    path: a folder or a shipped name ("shapes-sft", "shapes-rl"). dtype: of the parameters and of the computation.
    mesh: parameters are placed on it by the training layout; None = the default device. Raises UserError for
    anything that is missing, foreign or damaged.
    """
    folder = find(path)
    config = checkpoint.read_config(folder)
    if config.get("kind") != "janus":
        raise UserError(
            f"{folder} is not a janus_jax model (its {checkpoint.CONFIG} says kind = {config.get('kind')!r})"
        )
    checkpoint.verify(folder, (checkpoint.CONFIG,))  # before any number in it is believed
    try:
        cfg = JanusConfig.from_dict({**config["model"], "dtype": jnp.dtype(dtype).name})
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{folder / checkpoint.CONFIG} does not describe a model: {error}") from error
    model = Janus(cfg)
    abstract = abstract_params(model)
    shardings = None if mesh is None else sharding.param_shardings(abstract, mesh)
    params = checkpoint.load_params(folder, abstract, dtype, shardings)
    return model, params, processor_of(cfg, Tokenizer.from_folder(folder))


def load_vq(path):
    """Loads a tokenizer trained by train_vq: (VQ module, its params in f32)."""
    folder = find(path)
    config = checkpoint.read_config(folder)
    if config.get("kind") != "vq":
        raise UserError(f"{folder} is not a picture tokenizer: make one with janus_jax.train_vq")
    checkpoint.verify(folder, (checkpoint.CONFIG,))
    model = VQ(VQConfig(**config["vq"]))
    size = model.cfg.image_size
    sample = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    abstract = jax.eval_shape(model.init, jax.random.key(0), sample)["params"]
    return model, checkpoint.load_params(folder, abstract, jnp.float32)


def guidance_of(path, otherwise: float = 5.0) -> float:
    """The guidance weight that a checkpoint was trained to be drawn with, or `otherwise` where it does not say."""
    return float(checkpoint.read_config(find(path)).get("cfg_weight", otherwise))


def save(folder, model: Janus, params, processor: Processor, dtype=None, cfg_weight: float | None = None) -> None:
    """Writes an own checkpoint that `load` reads; see checkpoint.save_model. cfg_weight: the guidance to draw with."""
    config = {"kind": "janus", "model": model.cfg.to_dict()}
    if cfg_weight is not None:
        config["cfg_weight"] = cfg_weight
    tokenizer = processor.tokenizer
    checkpoint.save_model(folder, config, params, {tokenizer.file_name: tokenizer.content}, dtype)


def same_sizes(folder, cfg: JanusConfig) -> None:
    """Raises UserError unless the checkpoint has the sizes of `cfg`, naming the first that differs."""
    stored = checkpoint.read_config(find(folder)).get("model", {})
    for part in ("llama", "siglip", "vq"):
        mine = json.loads(json.dumps(cfg.to_dict()[part]))
        for name, value in mine.items():
            if stored.get(part, {}).get(name) != value:
                raise UserError(
                    f"{folder} has {part}.{name} = {stored.get(part, {}).get(name)}, the configuration says "
                    f"{value}: use a checkpoint of this size"
                )
