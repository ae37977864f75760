"""Published checkpoints: which tensor goes where. A table of names, and the function that follows it.

A tensor's original name matches one regex (the first that matches it whole), which gives the leaf's path and
how the tensor becomes that leaf. A path ending in `[n]` is layer n of a stacked leaf. PyTorch keeps linear
weights as (out, in) and convolutions as (out, in, height, width); here the input comes first and the channels
last.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from janus_jax import sharding


def _linear(x: np.ndarray) -> np.ndarray:
    return x.T


def _conv(x: np.ndarray) -> np.ndarray:
    return x.transpose(2, 3, 1, 0)


def _same(x: np.ndarray) -> np.ndarray:
    return x


# After the transform the leaf's own shape is imposed: that splits heads, and drops the leading 1 of the
# positions.
Rule = tuple[str, str | None, Callable[[np.ndarray], np.ndarray]]
_LM = r"language_model\.model\."
_SIGLIP = r"vision_model\.vision_tower\."
_VQ = r"gen_vision_model\.(encoder|decoder)\."
_VQ_RES = _VQ + r"conv_blocks\.(\d+)\.res\.(\d+)\."
_VQ_ATTN = _VQ + r"conv_blocks\.(\d+)\.attn\.(\d+)\."

ORIGINAL: tuple[Rule, ...] = (
    # The decoder.
    (_LM + r"embed_tokens\.weight", r"llama/embed_tokens", _same),
    (_LM + r"layers\.(\d+)\.self_attn\.([qkvo])_proj\.weight", r"llama/layers/attn/\2[\1]", _linear),
    (_LM + r"layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight", r"llama/layers/mlp/\2[\1]", _linear),
    (_LM + r"layers\.(\d+)\.input_layernorm\.weight", r"llama/layers/attn_norm/scale[\1]", _same),
    (_LM + r"layers\.(\d+)\.post_attention_layernorm\.weight", r"llama/layers/mlp_norm/scale[\1]", _same),
    (_LM + r"norm\.weight", r"llama/norm/scale", _same),
    (r"language_model\.lm_head\.weight", r"llama/lm_head", _linear),
    # The understanding encoder. Its pooling head is in the files and in no computation.
    (_SIGLIP + r"attn_pool\..*", None, _same),
    (_SIGLIP + r"pos_embed", r"siglip/positions", _same),
    (_SIGLIP + r"patch_embed\.proj\.weight", r"siglip/patch/kernel", _conv),
    (_SIGLIP + r"patch_embed\.proj\.bias", r"siglip/patch/bias", _same),
    (_SIGLIP + r"blocks\.(\d+)\.(norm[12])\.weight", r"siglip/layers/\2/scale[\1]", _same),
    (_SIGLIP + r"blocks\.(\d+)\.(norm[12])\.bias", r"siglip/layers/\2/bias[\1]", _same),
    (_SIGLIP + r"blocks\.(\d+)\.attn\.qkv\.weight", r"siglip/layers/qkv/kernel[\1]", _linear),
    (_SIGLIP + r"blocks\.(\d+)\.attn\.qkv\.bias", r"siglip/layers/qkv/bias[\1]", _same),
    (_SIGLIP + r"blocks\.(\d+)\.attn\.proj\.weight", r"siglip/layers/out/kernel[\1]", _linear),
    (_SIGLIP + r"blocks\.(\d+)\.attn\.proj\.bias", r"siglip/layers/out/bias[\1]", _same),
    (_SIGLIP + r"blocks\.(\d+)\.mlp\.(fc[12])\.weight", r"siglip/layers/\2/kernel[\1]", _linear),
    (_SIGLIP + r"blocks\.(\d+)\.mlp\.(fc[12])\.bias", r"siglip/layers/\2/bias[\1]", _same),
    (_SIGLIP + r"norm\.weight", r"siglip/norm/scale", _same),
    (_SIGLIP + r"norm\.bias", r"siglip/norm/bias", _same),
    # What stands between the towers and the decoder.
    (r"(gen_)?aligner\.layers\.0\.weight", r"\1aligner/fc1/kernel", _linear),
    (r"(gen_)?aligner\.layers\.0\.bias", r"\1aligner/fc1/bias", _same),
    (r"(gen_)?aligner\.layers\.2\.weight", r"\1aligner/fc2/kernel", _linear),
    (r"(gen_)?aligner\.layers\.2\.bias", r"\1aligner/fc2/bias", _same),
    (r"gen_head\.output_mlp_projector\.weight", r"gen_head/fc1/kernel", _linear),
    (r"gen_head\.output_mlp_projector\.bias", r"gen_head/fc1/bias", _same),
    (r"gen_head\.vision_head\.weight", r"gen_head/fc2/kernel", _linear),
    (r"gen_head\.vision_head\.bias", r"gen_head/fc2/bias", _same),
    (r"gen_embed\.weight", r"gen_embed", _same),
    # The tokenizer. `codebook_used` counts code usage during its training and is no parameter.
    (r"gen_vision_model\.quantize\.codebook_used", None, _same),
    (r"gen_vision_model\.quantize\.embedding\.weight", r"vq/codebook", _same),
    (r"gen_vision_model\.((?:post_)?quant_conv)\.weight", r"vq/\1/kernel", _conv),
    (r"gen_vision_model\.((?:post_)?quant_conv)\.bias", r"vq/\1/bias", _same),
    (_VQ + r"(conv_in|conv_out)\.weight", r"vq/\1/\2/kernel", _conv),
    (_VQ + r"(conv_in|conv_out)\.bias", r"vq/\1/\2/bias", _same),
    (_VQ + r"norm_out\.weight", r"vq/\1/norm_out/scale", _same),
    (_VQ + r"norm_out\.bias", r"vq/\1/norm_out/bias", _same),
    (_VQ + r"conv_blocks\.(\d+)\.(down|up)sample\.conv\.weight", r"vq/\1/level\2/\3/kernel", _conv),
    (_VQ + r"conv_blocks\.(\d+)\.(down|up)sample\.conv\.bias", r"vq/\1/level\2/\3/bias", _same),
    (_VQ_RES + r"(norm[12])\.weight", r"vq/\1/level\2/res\3/\4/scale", _same),
    (_VQ_RES + r"(norm[12])\.bias", r"vq/\1/level\2/res\3/\4/bias", _same),
    (_VQ_RES + r"(conv[12])\.weight", r"vq/\1/level\2/res\3/\4/kernel", _conv),
    (_VQ_RES + r"(conv[12])\.bias", r"vq/\1/level\2/res\3/\4/bias", _same),
    (_VQ_RES + r"nin_(shortcut)\.weight", r"vq/\1/level\2/res\3/\4/kernel", _conv),
    (_VQ_RES + r"nin_(shortcut)\.bias", r"vq/\1/level\2/res\3/\4/bias", _same),
    (_VQ_ATTN + r"norm\.weight", r"vq/\1/level\2/attn\3/norm/scale", _same),
    (_VQ_ATTN + r"norm\.bias", r"vq/\1/level\2/attn\3/norm/bias", _same),
    (_VQ_ATTN + r"(?:proj_)?(q|k|v|out)\.weight", r"vq/\1/level\2/attn\3/\4/kernel", _conv),
    (_VQ_ATTN + r"(?:proj_)?(q|k|v|out)\.bias", r"vq/\1/level\2/attn\3/\4/bias", _same),
    # In the middle the residual blocks are number 0 and 2.
    (_VQ + r"mid\.0\.(norm[12])\.weight", r"vq/\1/mid/res0/\2/scale", _same),
    (_VQ + r"mid\.2\.(norm[12])\.weight", r"vq/\1/mid/res1/\2/scale", _same),
    (_VQ + r"mid\.0\.(conv[12])\.weight", r"vq/\1/mid/res0/\2/kernel", _conv),
    (_VQ + r"mid\.2\.(conv[12])\.weight", r"vq/\1/mid/res1/\2/kernel", _conv),
    (_VQ + r"mid\.0\.(norm[12]|conv[12])\.bias", r"vq/\1/mid/res0/\2/bias", _same),
    (_VQ + r"mid\.2\.(norm[12]|conv[12])\.bias", r"vq/\1/mid/res1/\2/bias", _same),
    (_VQ + r"mid\.1\.norm\.weight", r"vq/\1/mid/attn/norm/scale", _same),
    (_VQ + r"mid\.1\.norm\.bias", r"vq/\1/mid/attn/norm/bias", _same),
    (_VQ + r"mid\.1\.(?:proj_)?(q|k|v|out)\.weight", r"vq/\1/mid/attn/\2/kernel", _conv),
    (_VQ + r"mid\.1\.(?:proj_)?(q|k|v|out)\.bias", r"vq/\1/mid/attn/\2/bias", _same),
)


def place(name: str, rules: tuple[Rule, ...] = ORIGINAL) -> tuple[str | None, int | None, Callable]:
    """(path, layer or None, transform) of an original tensor name; path None: present in the files, used by
    nothing.
    """
    for regex, template, transform in rules:
        found = re.fullmatch(regex, name)
        if found and template is None:
            return None, None, transform
        if found:
            path, _, layer = found.expand(template).partition("[")
            return path, int(layer[:-1]) if layer else None, transform
    raise ValueError(f"unknown tensor {name!r}: no rule of the name table matches it")


def from_original(tensors: Mapping[str, np.ndarray], abstract: Any) -> Any:
    """The parameter tree, as numpy arrays, of a published checkpoint's tensors.

    `abstract` (from abstract_params) gives the leaves' shapes and dtypes. Layers beyond those of `abstract`
    are left out. Raises ValueError for an unknown name, a size that does not fit, and a leaf that stays
    unfilled.
    """
    targets = dict(sharding.paths(abstract))
    leaves: dict[str, np.ndarray] = {}
    missing = {path: leaf.shape[0] if "/layers/" in path else 1 for path, leaf in targets.items()}
    for name, tensor in tensors.items():
        path, layer, transform = place(name)
        if path is None:
            continue
        if path not in targets:
            raise ValueError(f"{name}: this model has no parameter {path}")
        target = targets[path]
        if layer is not None and layer >= target.shape[0]:
            continue
        shape = target.shape if layer is None else target.shape[1:]
        value = transform(np.asarray(tensor))
        if value.size != np.prod(shape):
            raise ValueError(f"{name}: shape {tensor.shape} does not fit {path}, which holds {shape}")
        if path not in leaves:
            # Filled in place: stacking a list of layers would hold everything twice.
            leaves[path] = np.empty(target.shape, target.dtype)
        leaves[path][... if layer is None else layer] = value.reshape(shape)
        missing[path] -= 1
    if unfilled := [path for path, count in missing.items() if count]:
        raise ValueError(f"no tensor for {', '.join(unfilled)}")
    return jax.tree.unflatten(jax.tree.structure(abstract), [leaves[path] for path in targets])
