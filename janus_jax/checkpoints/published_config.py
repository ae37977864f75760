"""The config.json of published folders, both ways: the original format's (`multi_modality`) and that of HF
transformers (`janus`).

Reading gives a JanusConfig or raises: UserError for what this model does not compute, and what Python says of a value
that makes no sense. Writing always succeeds; what a format cannot express comes back different when it is read.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from janus_jax.errors import UserError
from janus_jax.models.janus import JanusConfig
from janus_jax.models.llama import LlamaConfig
from janus_jax.models.siglip import SiglipConfig
from janus_jax.models.vq import VQConfig
from janus_jax.sequences import tokens
from janus_jax.sequences.tokens import Tokenizer

# The original's towers by the names that its configurations use.
SIGLIPS = {"siglip_large_patch16_384": SiglipConfig()}
VQS = {"VQ-16": VQConfig()}

# What else a configuration may say, and the only value of it that this model computes: it is also the default.
_ORIGINAL_FIXED = {
    "vision_config.cls": "CLIPVisionTower",
    "vision_config.params.select_feature": "same",
    "aligner_config.cls": "MlpProjector",
    "aligner_config.params.depth": 2,
    "aligner_config.params.projector_type": "mlp_gelu",
    "gen_aligner_config.cls": "MlpProjector",
    "gen_aligner_config.params.depth": 2,
    "gen_aligner_config.params.projector_type": "mlp_gelu",
    "gen_head_config.cls": "vision_head",
    "language_config.model_type": "llama",
    "language_config.hidden_act": "silu",
    "language_config.attention_bias": False,
    "language_config.mlp_bias": False,
    "language_config.tie_word_embeddings": False,
}
_HF_FIXED = {
    "text_config.model_type": "llama",
    "text_config.hidden_act": "silu",
    "text_config.attention_bias": False,
    "text_config.mlp_bias": False,
    "vision_config.attention_bias": True,
    "vision_config.depth": 2,
    "vision_config.hidden_act": "gelu",
    "vision_config.layer_norm_eps": 1e-6,
    "vision_config.num_channels": 3,
    "vision_config.use_qk_norm": False,
    "vq_config.double_latent": False,
    "vq_config.hidden_act": "gelu",
    "vq_config.in_channels": 3,
    "vq_config.num_hidden_layers": 2,
    "vq_config.out_channels": 3,
}


# Of a configuration's rotation: how it may be described.
_PLAIN_ROPE = {"rope_type": "default", "type": "default", "factor": 1, "partial_rotary_factor": 1}


def _get(config: Mapping, key: str, otherwise=None):
    """The value at a dotted key; `otherwise` where it is absent or null."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return otherwise if config is None else config


# What published configurations call the fields of ours, where they call them otherwise.
_KEYS = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "mlp": "intermediate_size",
    "norm_eps": "rms_norm_eps",
    "max_positions": "max_position_embeddings",
    "channels": "base_channels",
    "channel_multipliers": "channel_multiplier",
    "res_blocks": "num_res_blocks",
    "z_channels": "latent_channels",
    "codebook_size": "num_embeddings",
    "code_dim": "embed_dim",
}


def _made(cls, part: str, **fields):
    """cls(**fields); its error names the key of config.json, too."""
    try:
        return cls(**fields)
    except UserError as error:
        field = re.match(r"\w+\.(\w+) is ", str(error))
        key = f" (in config.json: {part}.{_KEYS.get(field[1], field[1])})" if field else f" (in config.json: {part})"
        raise UserError(f"{error}{key}") from error


def _check(config: Mapping, expected: Mapping[str, Any]) -> None:
    for key, value in expected.items():
        if (found := _get(config, key, value)) != value:
            raise UserError(f"config.json says {key} = {found!r}, this model computes {value!r} alone")


def _tower(config, key, towers):
    name = _get(config, key)
    if name not in towers:
        raise UserError(f"config.json says {key} = {name!r}; known: {', '.join(towers)}: use such a model")
    return towers[name]


def _rope_theta(config: Mapping, part: str) -> float:
    """The base of the rotary positions. Raises UserError for rotations that this model does not compute: scaled ones,
    of a part of each head, or of several kinds."""
    for key in ("rope_scaling", "rope_parameters"):
        rope = _get(config, key, {})
        if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
            raise UserError(f"config.json says {part}.{key} = {str(rope)[:80]}, this model computes one plain rotation")
        _check({part: {key: rope}}, {f"{part}.{key}.{name}": value for name, value in _PLAIN_ROPE.items()})
    _check({part: config}, {f"{part}.partial_rotary_factor": 1})
    scaling, parameters = (_get(config, f"{key}.rope_theta") for key in ("rope_scaling", "rope_parameters"))
    return next(theta for theta in (parameters, scaling, _get(config, "rope_theta"), 1e4) if theta is not None)


def _llama(config: Mapping, part: str) -> LlamaConfig:
    """Defaults are those of transformers' LlamaConfig: published files leave them out. part: the configuration's name
    in messages."""
    if not isinstance(config, Mapping):
        raise UserError(f"config.json does not describe a model: {part} is {str(config)[:40]!r}, not an object")
    heads, width = _get(config, "num_attention_heads", 32), _get(config, "hidden_size", 4096)
    return _made(
        LlamaConfig,
        part,
        vocab_size=_get(config, "vocab_size", 32000),
        width=width,
        layers=_get(config, "num_hidden_layers", 32),
        heads=heads,
        kv_heads=_get(config, "num_key_value_heads", heads),
        head_dim=_get(config, "head_dim", width // heads),
        mlp=_get(config, "intermediate_size", 11008),
        rope_theta=_rope_theta(config, part),
        norm_eps=_get(config, "rms_norm_eps", 1e-6),
        max_positions=_get(config, "max_position_embeddings", 2048),
    )


def _llama_json(cfg: LlamaConfig, dtype: str) -> dict:
    return {
        "hidden_size": cfg.width,
        "intermediate_size": cfg.mlp,
        "max_position_embeddings": cfg.max_positions,
        "model_type": "llama",
        "num_attention_heads": cfg.heads,
        "num_hidden_layers": cfg.layers,
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.head_dim,
        "rms_norm_eps": cfg.norm_eps,
        "rope_theta": cfg.rope_theta,
        "torch_dtype": dtype,
        "vocab_size": cfg.vocab_size,
    }


def read_original(config: Mapping) -> JanusConfig:
    _check(config, _ORIGINAL_FIXED)
    siglip = _tower(config, "vision_config.params.model_name", SIGLIPS)
    vq = _tower(config, "gen_vision_config.cls", VQS)
    llama = _llama(config["language_config"], "language_config")
    chosen = _get(config, "vision_config.params.select_layer", -1)  # > 0: the first so many; else counted from the end
    if isinstance(chosen, bool) or not isinstance(chosen, int):
        raise UserError(f"config.json says select_layer = {str(chosen)[:40]!r}: it must be a whole number")
    layers = min(siglip.layers, chosen if chosen > 0 else siglip.layers + chosen + 1)
    widths = {
        "vision_config.params.image_size": siglip.image_size,
        "aligner_config.params.input_dim": siglip.width,
        "aligner_config.params.n_embed": llama.width,
        "gen_vision_config.params.image_token_size": vq.codebook_size,
        "gen_vision_config.params.n_embed": vq.code_dim,
        "gen_aligner_config.params.input_dim": vq.code_dim,
        "gen_aligner_config.params.n_embed": llama.width,
        "gen_head_config.params.image_token_size": vq.codebook_size,
        "gen_head_config.params.n_embed": llama.width,
        "gen_head_config.params.image_token_embed": llama.width,
    }
    _check(config, widths)
    return JanusConfig(llama, dataclasses.replace(siglip, layers=layers), vq)


def write_original(cfg: JanusConfig, dtype: str, tokenizer: Tokenizer, tied: bool) -> dict:
    D, C, E = cfg.llama.width, cfg.vq.codebook_size, cfg.vq.code_dim
    # The nearest tower each; where it is not this model's, reading this back gives another model.
    same = (n for n, full in SIGLIPS.items() if cfg.siglip == dataclasses.replace(full, layers=cfg.siglip.layers))
    tower = next(same, next(iter(SIGLIPS)))
    vq = next((name for name, vq in VQS.items() if vq == cfg.vq), next(iter(VQS)))
    vision = {
        "image_size": cfg.siglip.image_size,
        "model_name": tower,
        "select_feature": "same",
        "select_layer": -1 if cfg.siglip.layers == SIGLIPS[tower].layers else cfg.siglip.layers,
    }
    projector = {"depth": 2, "n_embed": D, "projector_type": "mlp_gelu"}
    parts = {
        "aligner": ("MlpProjector", {**projector, "input_dim": cfg.siglip.width}),
        "gen_aligner": ("MlpProjector", {**projector, "input_dim": E}),
        "gen_head": ("vision_head", {"image_token_embed": D, "image_token_size": C, "n_embed": D}),
        "gen_vision": (vq, {"image_token_size": C, "n_embed": E}),
        "vision": ("CLIPVisionTower", vision),
    }
    return {
        "architectures": ["MultiModalityCausalLM"],
        "model_type": "multi_modality",
        "torch_dtype": dtype,
        "language_config": _llama_json(cfg.llama, dtype),
        **{f"{name}_config": {"cls": c, "model_type": name, "params": params} for name, (c, params) in parts.items()},
    }


def read_hf(config: Mapping) -> JanusConfig:
    _check(config, _HF_FIXED)
    vision, vq = config["vision_config"], config["vq_config"]
    llama = _llama(config["text_config"], "text_config")
    width = vision.get("hidden_size", 1024)
    siglip = _made(
        SiglipConfig,
        "vision_config",
        image_size=vision.get("image_size", 384),
        patch_size=vision.get("patch_size", 16),
        width=width,
        layers=vision.get("num_hidden_layers", 24),
        heads=vision.get("num_attention_heads", 16),
        mlp=int(width * vision.get("mlp_ratio", 4.0)),
    )
    multipliers = vq.get("channel_multiplier", (1, 1, 2, 2, 4))
    side = siglip.image_size // siglip.patch_size
    widths = {
        "vision_config.projection_dim": llama.width,
        "vision_config.num_image_tokens": siglip.tokens,
        "vq_config.projection_dim": llama.width,
        "vq_config.image_token_embed_dim": llama.width,
    }
    defaults = {"vision_config": {"projection_dim": 2048, "num_image_tokens": 576}}
    defaults["vq_config"] = {"projection_dim": 2048, "image_token_embed_dim": 2048}
    _check({part: {**values, **config[part]} for part, values in defaults.items()}, widths)
    return JanusConfig(
        llama,
        siglip,
        _made(
            VQConfig,
            "vq_config",
            image_size=side * 2 ** max(len(multipliers) - 1, 0),  # both towers see the same grid there
            channels=vq.get("base_channels", 128),
            channel_multipliers=multipliers,
            res_blocks=vq.get("num_res_blocks", 2),
            z_channels=vq.get("latent_channels", 256),
            codebook_size=vq.get("num_embeddings", 16384),
            code_dim=vq.get("embed_dim", 8),
        ),
    )


def write_hf(cfg: JanusConfig, dtype: str, tokenizer: Tokenizer, tied: bool) -> dict:
    D, special = cfg.llama.width, tokenizer.special
    theta = {"rope_theta": cfg.llama.rope_theta, "rope_type": "default"}
    ids = {"bos_token_id": special.bos, "eos_token_id": special.eos, "pad_token_id": special.pad}
    return {
        "architectures": ["JanusForConditionalGeneration"],
        "model_type": "janus",
        "torch_dtype": dtype,
        "image_token_id": tokenizer.id(tokens.PLACEHOLDER),
        "tie_word_embeddings": tied,
        "text_config": {**_llama_json(cfg.llama, dtype), **ids, "rope_parameters": theta},
        "vision_config": {
            "depth": 2,
            "hidden_act": "gelu",
            "hidden_size": cfg.siglip.width,
            "image_size": cfg.siglip.image_size,
            "layer_norm_eps": 1e-6,
            "mlp_ratio": cfg.siglip.mlp / cfg.siglip.width,
            "model_type": "janus_vision_model",
            "num_attention_heads": cfg.siglip.heads,
            "num_hidden_layers": cfg.siglip.layers,
            "num_image_tokens": cfg.siglip.tokens,
            "patch_size": cfg.siglip.patch_size,
            "projection_dim": D,
        },
        "vq_config": {
            "base_channels": cfg.vq.channels,
            "channel_multiplier": list(cfg.vq.channel_multipliers),
            "embed_dim": cfg.vq.code_dim,
            "image_token_embed_dim": D,
            "latent_channels": cfg.vq.z_channels,
            "model_type": "janus_vqgan",
            "num_embeddings": cfg.vq.codebook_size,
            "num_hidden_layers": 2,
            "num_patches": cfg.vq.grid,
            "num_res_blocks": cfg.vq.res_blocks,
            "projection_dim": D,
        },
    }
