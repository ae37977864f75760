"""Published model folders: the original format and that of HF transformers, and the small files that torch's tools want
beside configuration and weights.

The weights are the same numbers in both. HF's own code departs from the original in one place: its VQ encoder looks
for the nearest codebook row without scaling latents and rows to unit length, so it may give other codes for a picture.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from janus_jax.checkpoints import jsonfile, tensor_names
from janus_jax.checkpoints.published_config import read_hf, read_original, write_hf, write_original
from janus_jax.errors import UserError
from janus_jax.models.janus import JanusConfig
from janus_jax.sequences import images, tokens
from janus_jax.sequences.tokens import Tokenizer

_CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|User|>: ' if message['role'] == 'user' else '<|Assistant|>: ' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] | trim -}}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{{- '<image_placeholder>\\n' if part['type'] == 'image' else part['text'] | trim -}}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '\\n\\n' if message['role'] == 'user' else '" + tokens.EOS + "' -}}"
    "{%- endfor -%}"
    "{{- '<|Assistant|>:' if add_generation_prompt else '' -}}"
)
_TEXT = {"bos_token": tokens.BOS, "eos_token": tokens.EOS, "pad_token": tokens.PAD}
_TEXT_OF_HF = {
    **_TEXT,
    "image_token": tokens.PLACEHOLDER,
    "boi_token": tokens.BEGIN_IMAGE,
    "eoi_token": tokens.END_IMAGE,
}
_PIXELS = {
    "do_normalize": True,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "min_size": images.MIN_SIDE,
    "rescale_factor": 1 / 255,
}


def _files_original(cfg: JanusConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    added = [tokens.USER, tokens.ASSISTANT, tokens.BEGIN_IMAGE, tokens.PLACEHOLDER, tokens.END_IMAGE]
    return {
        "tokenizer.json": tokenizer.with_bos(),
        "tokenizer_config.json": {
            **_TEXT,
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": cfg.llama.max_positions,
            "tokenizer_class": "LlamaTokenizerFast",
            "unk_token": None,
        },
        "special_tokens_map.json": {**_TEXT, "additional_special_tokens": added},
        "preprocessor_config.json": {
            **_PIXELS,
            "background_color": list(images.GREY),
            "image_processor_type": "VLMImageProcessor",
            "image_size": cfg.siglip.image_size,
            "processor_class": "VLChatProcessor",
        },
        "processor_config.json": {
            "add_special_token": False,
            "ignore_id": -100,
            "image_tag": tokens.PLACEHOLDER,
            "mask_prompt": True,
            "num_image_tokens": cfg.siglip.tokens,
            "processor_class": "VLChatProcessor",
            "sft_format": "deepseek",
        },
    }


def _files_hf(cfg: JanusConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    special, size = tokenizer.special, cfg.siglip.image_size
    return {
        "tokenizer.json": tokenizer.with_bos(),
        "tokenizer_config.json": {
            **_TEXT_OF_HF,
            "clean_up_tokenization_spaces": False,
            "extra_special_tokens": {name: _TEXT_OF_HF[name] for name in ("image_token", "boi_token", "eoi_token")},
            "model_max_length": cfg.llama.max_positions,
            "padding_side": "left",
            "processor_class": "JanusProcessor",
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
        "special_tokens_map.json": _TEXT_OF_HF,
        "preprocessor_config.json": {
            **_PIXELS,
            "image_processor_type": "JanusImageProcessor",
            "processor_class": "JanusProcessor",
            "size": {"height": size, "width": size},
        },
        "processor_config.json": {
            "num_image_tokens": cfg.siglip.tokens,
            "processor_class": "JanusProcessor",
            "use_default_system_prompt": True,
        },
        "chat_template.jinja": _CHAT_TEMPLATE.encode(),
        "generation_config.json": {
            "bos_token_id": special.bos,
            "eos_token_id": special.eos,
            "pad_token_id": special.pad,
            "generation_kwargs": {"boi_token_id": special.begin_image},
            "guidance_scale": 5,
        },
    }


class Format(NamedTuple):
    """One way to publish a model. read: config.json -> JanusConfig; write: its inverse, given the weights' dtype, the
    tokenizer and whether the text head is the table of embeddings; files: what else the folder needs, by name (bytes,
    or what becomes JSON)."""

    model_type: str
    rules: tensor_names.Rules
    read: Callable[[Mapping], JanusConfig]
    write: Callable[[JanusConfig, str, Tokenizer, bool], dict]
    files: Callable[[JanusConfig, Tokenizer], dict[str, Any]]


FORMATS = {
    "original": Format("multi_modality", tensor_names.ORIGINAL, read_original, write_original, _files_original),
    "hf": Format("janus", tensor_names.HF, read_hf, write_hf, _files_hf),
}
# Files that a format keeps beside its weights; between two folders of one format they travel as they are.
SIDE_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "generation_config.json",
)


def format_of(config: Mapping) -> str | None:
    """The name of the format that a config.json is of, or None."""
    return next((name for name, each in FORMATS.items() if config.get("model_type") == each.model_type), None)


def read_config(config: Mapping, name: str) -> JanusConfig:
    """The model that a config.json of the format `name` describes. Raises UserError for one that we do not compute."""
    try:
        return FORMATS[name].read(config)
    except UserError as error:
        about = "" if str(error).startswith("config.json") else "config.json does not describe a model: "
        raise UserError(f"{about}{error}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"config.json does not describe a model ({error!r}): copy it again") from error


def check_preprocessing(folder, cfg: JanusConfig) -> None:
    """Raises UserError where a folder's preprocessor_config.json prepares pictures in another way than sequences/images
    does for this model."""
    path = Path(folder) / "preprocessor_config.json"
    try:
        said = jsonfile.read(path)
    except FileNotFoundError:
        return
    size = cfg.siglip.image_size
    sizes = {"image_size": size, "size": {"height": size, "width": size}}
    if said.get("size") in (size, {"shortest_edge": size}, {"longest_edge": size}):  # other ways to say the same
        del sizes["size"]
    steps = dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True)
    for name, value in {**_PIXELS, **steps, "background_color": list(images.GREY), **sizes}.items():
        found = said.get(name)
        if found is not None and not _is_close(found, value):
            raise UserError(f"{path} says {name} = {str(found)[:60]}, this model sees pictures with {value} alone")


def _is_close(a, b):
    """Whether two values of JSON are the same up to rounding."""
    if isinstance(b, list):
        return isinstance(a, list) and len(a) == len(b) and all(map(_is_close, a, b))
    if isinstance(b, bool) or not isinstance(b, int | float):
        return a == b
    return not isinstance(a, bool) and isinstance(a, int | float) and abs(a - b) <= 1e-6 * abs(b)


def untied(tensors: Mapping[str, Any], config: Mapping, name: str) -> Mapping[str, Any]:
    """The tensors with a text head: HF leaves it out of the file where it is the table of embeddings."""
    head, table = "lm_head.weight", "model.language_model.embed_tokens.weight"
    tied = name == "hf" and head not in tensors and table in tensors and config.get("tie_word_embeddings", True)
    return {**tensors, head: tensors[table]} if tied else tensors


def small_files(cfg: JanusConfig, name: str, dtype: str, tokenizer: Tokenizer, tied: bool) -> dict[str, bytes]:
    """All files of a folder in the format `name` but the weights; arguments as those of Format.write. Raises UserError
    where the format cannot express the model."""
    if tokenizer.file_name != "tokenizer.json":
        raise UserError(f"the {name} format wants a tokenizer.json, this model has {tokenizer.file_name}: use --to own")
    config = FORMATS[name].write(cfg, dtype, tokenizer, tied)
    try:
        mine, theirs = cfg.to_dict(), FORMATS[name].read(config).to_dict()
        different = [f"{p}.{k}" for p in ("llama", "siglip", "vq") for k in mine[p] if mine[p][k] != theirs[p][k]]
        if different:
            raise ValueError(f"{', '.join(different)} would be lost")
    except ValueError as error:
        raise UserError(f"the {name} format has no such model ({error}): use --to own") from error
    files = {"config.json": config, **FORMATS[name].files(cfg, tokenizer)}
    return {n: v if isinstance(v, bytes) else (json.dumps(v, indent=2) + "\n").encode() for n, v in files.items()}
