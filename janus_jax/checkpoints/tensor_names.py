"""Published weights: which tensor is which part of which leaf. One table of names per format, followed both ways.

A rule is (regex, template, transform). A tensor's name that matches the regex whole belongs at the address that the
template gives: `path`, `path[n]` for layer n of a stacked leaf, `path[n,q]` for the q third of its last axis; None
for a tensor that no computation reads. Every group of the regex stands once in the template, so the rule also gives
the name of an address. PyTorch keeps linear weights as (out, in) and convolutions as (out, in, height, width); here
the input comes first and the channels last. A transform is that step and the way back; between them the leaf's own
shape is imposed, which splits heads, and drops the leading 1 of the positions.
"""

import functools
import itertools
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from janus_jax.checkpoints.tensorfiles import Tensor, first_few
from janus_jax.errors import UserError


class Transform(NamedTuple):
    """to_leaf: tensor -> leaf, before its shape is imposed; to_tensor: leaf, in its shape -> tensor. Both are views."""

    to_leaf: Callable[[np.ndarray], np.ndarray]
    to_tensor: Callable[[np.ndarray], np.ndarray]


Rule = tuple[str, str | None, Transform]
Rules = tuple[Rule, ...]

SAME = Transform(lambda x: x, lambda x: x)
ROW = Transform(lambda x: x, lambda x: x[None])
LINEAR = Transform(lambda x: x.T, lambda x: x.reshape(x.shape[0], -1).T)  # the output may be split into heads
MERGE = Transform(lambda x: x.T, lambda x: x.reshape(-1, x.shape[-1]).T)  # the input is
CONV = Transform(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))


def _pair(name: str, path: str, weight: str, transform: Transform, at: str = "") -> Rules:
    return (name + r"\.weight", f"{path}/{weight}{at}", transform), (name + r"\.bias", f"{path}/bias{at}", SAME)


def _linear(name, path, at=""):
    return _pair(name, path, "kernel", LINEAR, at)


def _conv(name, path):
    return _pair(name, path, "kernel", CONV)


def _norm(name, path, at=""):
    return _pair(name, path, "scale", SAME, at)


def _llama(decoder: str, head: str) -> Rules:
    layer = decoder + r"layers\.(\d+)\."
    return (
        (decoder + r"embed_tokens\.weight", r"llama/embed_tokens", SAME),
        (layer + r"self_attn\.([qkv])_proj\.weight", r"llama/layers/attn/\2[\1]", LINEAR),
        (layer + r"self_attn\.(o)_proj\.weight", r"llama/layers/attn/\2[\1]", MERGE),
        (layer + r"mlp\.(gate|up|down)_proj\.weight", r"llama/layers/mlp/\2[\1]", LINEAR),
        (layer + r"input_layernorm\.weight", r"llama/layers/attn_norm/scale[\1]", SAME),
        (layer + r"post_attention_layernorm\.weight", r"llama/layers/mlp_norm/scale[\1]", SAME),
        (decoder + r"norm\.weight", r"llama/norm/scale", SAME),
        (head + r"lm_head\.weight", r"llama/lm_head", LINEAR),
    )


def _vq(tower: str, blocks: tuple[str, str], res: str, middle: tuple[str, str, str]) -> Rules:
    """blocks: what the levels of (encoder, decoder) are called; res: a residual block; middle: its three blocks."""
    rules = (
        (tower + r"quantize\.embedding\.weight", r"vq/codebook", SAME),
        *_conv(tower + r"(quant_conv|post_quant_conv)", r"vq/\1"),
    )
    for half, level, change in (("encoder", blocks[0], "down"), ("decoder", blocks[1], "up")):
        name, path = rf"{tower}{half}\.", f"vq/{half}"
        level = rf"{name}{level}\.(\d+)\."
        rules += (
            *_conv(name + r"(conv_in|conv_out)", path + r"/\1"),
            *_norm(name + r"norm_out", path + "/norm_out"),
            *_conv(rf"{level}{change}sample\.conv", rf"{path}/level\1/{change}"),
            *_norm(rf"{level}{res}\.(\d+)\.(norm[12])", path + r"/level\1/res\2/\3"),
            *_conv(rf"{level}{res}\.(\d+)\.(conv[12])", path + r"/level\1/res\2/\3"),
            *_conv(rf"{level}{res}\.(\d+)\.nin_shortcut", path + r"/level\1/res\2/shortcut"),
            *_attention(level + r"attn\.(\d+)\.", path + r"/level\1/attn\2", r"\3"),
            *_attention(rf"{name}{middle[1]}\.", path + "/mid/attn", r"\1"),
        )
        for i, block in enumerate((middle[0], middle[2])):
            rules += _norm(rf"{name}{block}\.(norm[12])", rf"{path}/mid/res{i}/\1")
            rules += _conv(rf"{name}{block}\.(conv[12])", rf"{path}/mid/res{i}/\1")
    return rules


def _attention(name, path, which):
    return (
        *_norm(name + "norm", path + "/norm"),
        *_conv(name + "(q|k|v)", f"{path}/{which}"),
        *_conv(name + "proj_out", path + "/out"),
    )


_SIGLIP = r"vision_model\.vision_tower\."
_BLOCK = _SIGLIP + r"blocks\.(\d+)\."
ORIGINAL: Rules = (
    *_llama(r"language_model\.model\.", r"language_model\."),
    # The pooling head is in the files and in no computation.
    (_SIGLIP + r"attn_pool\..*", None, SAME),
    (_SIGLIP + r"pos_embed", r"siglip/positions", ROW),
    *_conv(_SIGLIP + r"patch_embed\.proj", r"siglip/patch"),
    *_norm(_BLOCK + r"(norm[12])", r"siglip/layers/\2", r"[\1]"),
    *_linear(_BLOCK + r"attn\.qkv", r"siglip/layers/qkv", r"[\1]"),
    *_linear(_BLOCK + r"attn\.proj", r"siglip/layers/out", r"[\1]"),
    *_linear(_BLOCK + r"mlp\.(fc[12])", r"siglip/layers/\2", r"[\1]"),
    *_norm(_SIGLIP + r"norm", r"siglip/norm"),
    *_linear(r"(aligner|gen_aligner)\.layers\.0", r"\1/fc1"),
    *_linear(r"(aligner|gen_aligner)\.layers\.2", r"\1/fc2"),
    *_linear(r"gen_head\.output_mlp_projector", r"gen_head/fc1"),
    *_linear(r"gen_head\.vision_head", r"gen_head/fc2"),
    (r"gen_embed\.weight", r"gen_embed", SAME),
    # Counts how often codes were used while the tokenizer was trained.
    (r"gen_vision_model\.quantize\.codebook_used", None, SAME),
    *_vq(r"gen_vision_model\.", ("conv_blocks", "conv_blocks"), "res", (r"mid\.0", r"mid\.1", r"mid\.2")),
)

_HF_SIGLIP = r"model\.vision_model\."
_HF_BLOCK = _HF_SIGLIP + r"encoder\.layers\.(\d+)\."
HF: Rules = (
    *_llama(r"model\.language_model\.", ""),
    (_HF_SIGLIP + r"embeddings\.position_embedding\.weight", r"siglip/positions", SAME),
    *_conv(_HF_SIGLIP + r"embeddings\.patch_embedding", r"siglip/patch"),
    *_norm(_HF_BLOCK + r"layer_norm(1|2)", r"siglip/layers/norm\2", r"[\1]"),
    # Three projections there, one here.
    *_linear(_HF_BLOCK + r"self_attn\.([qkv])_proj", r"siglip/layers/qkv", r"[\1,\2]"),
    *_linear(_HF_BLOCK + r"self_attn\.projection_layer", r"siglip/layers/out", r"[\1]"),
    *_linear(_HF_BLOCK + r"mlp\.(fc[12])", r"siglip/layers/\2", r"[\1]"),
    *_norm(_HF_SIGLIP + r"post_layernorm", r"siglip/norm"),
    *_linear(r"model\.aligner\.fc1", r"aligner/fc1"),
    *_linear(r"model\.aligner\.hidden_layers\.0", r"aligner/fc2"),
    *_linear(r"model\.generation_aligner\.fc1", r"gen_aligner/fc1"),
    *_linear(r"model\.generation_aligner\.hidden_layers\.0", r"gen_aligner/fc2"),
    *_linear(r"model\.generation_head\.proj_out", r"gen_head/fc1"),
    *_linear(r"model\.generation_head\.vision_head", r"gen_head/fc2"),
    (r"model\.generation_embeddings\.weight", r"gen_embed", SAME),
    *_vq(r"model\.vqmodel\.", ("down", "up"), "block", (r"mid\.block_1", r"mid\.attn_1", r"mid\.block_2")),
)


def place(name: str, rules: Rules = ORIGINAL) -> str | None:
    """The address of a tensor, None for one that nothing reads. Raises ValueError for a name without a rule."""
    for regex, template, _ in rules:
        if found := re.fullmatch(regex, name):
            return template and found.expand(template)
    raise ValueError(f"unknown tensor {name!r}: no rule of the name table matches it")


def _reversed(regex: str, template: str) -> tuple[re.Pattern, str]:
    """(regex over the address, template of the name) of a rule: its groups stand in the template instead."""
    groups = re.findall(r"\([^()]*\)", regex)
    address = template.replace("[", r"\[").replace("]", r"\]")
    address = re.sub(r"\\(\d)", lambda n: f"(?P<g{n[1]}>{groups[int(n[1]) - 1][1:]}", address)
    count = itertools.count(1)
    name = re.sub(r"\([^()]*\)", lambda _: rf"\g<g{next(count)}>", regex).replace(r"\.", ".")
    return re.compile(address), name


@functools.cache
def _inverse(rules: Rules) -> tuple[tuple[re.Pattern, str, Transform], ...]:
    return tuple((*_reversed(regex, template), transform) for regex, template, transform in rules if template)


class Slot(NamedTuple):
    """A tensor's place: a layer of a stacked leaf or all of it, and which third of the last axis, if one."""

    path: str
    layer: int | None
    part: int | None
    shape: tuple[int, ...]  # of this part of the leaf
    transform: Transform

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        # Shapes without memory: an array of strides 0.
        return self.transform.to_tensor(np.broadcast_to(np.zeros((), bool), self.shape)).shape


def slots(shapes: Mapping[str, tuple[int, ...]], rules: Rules) -> dict[str, Slot]:
    """The names and places of all tensors of a tree whose leaves have these shapes. Raises ValueError for a leaf that
    no rule matches."""
    result = {}
    for path, shape in shapes.items():
        before = len(result)
        for address, *place_and_shape in _addresses(path, shape):
            for regex, name, transform in _inverse(rules):
                if match := regex.fullmatch(address):
                    result[match.expand(name)] = Slot(path, *place_and_shape, transform)
                    break
        if len(result) == before:
            raise ValueError(f"no rule matches the leaf {path}")
    return result


def _addresses(path, shape):
    """(address, layer, part, shape) of all that one tensor may hold of a leaf."""
    if not stacked(path):
        yield path, None, None, shape
        return
    for layer in range(shape[0]):
        yield f"{path}[{layer}]", layer, None, shape[1:]
        for part, name in enumerate("qkv"):
            yield f"{path}[{layer},{name}]", layer, part, (*shape[1:-1], shape[-1] // 3)


def stacked(path: str) -> bool:
    """Whether a leaf's first axis is the layers."""
    return "/layers/" in path


class Leaf(NamedTuple):
    """A parameter that is not read yet. `row(n)`: layer n of a stacked leaf, `row(None)`: all of another, as a view of
    mapped files where possible, in the stored dtype; `dtype` is what it shall become."""

    shape: tuple[int, ...]
    dtype: np.dtype
    row: Callable[[int | None], np.ndarray]
    stacked: bool


def read(leaf: Leaf, index: tuple = ()) -> np.ndarray:
    """leaf[index] (slices) in memory of its own, in the leaf's dtype; nothing else is held."""
    if not leaf.stacked:
        return np.array(leaf.row(None)[index], leaf.dtype, order="C")
    index = (*index, *(slice(None),) * (len(leaf.shape) - len(index)))
    lengths = [len(range(size)[part]) for size, part in zip(leaf.shape, index, strict=True)]
    result = np.empty(lengths, leaf.dtype)
    for i, layer in enumerate(range(leaf.shape[0])[index[0]]):
        result[i] = leaf.row(layer)[index[1:]]
    return result


def cast(stored: np.dtype, dtype) -> np.dtype:
    """The dtype that something stored becomes: `dtype` if there is one and it is a floating one, else its own."""
    return np.dtype(dtype) if dtype is not None and is_floating(stored) else stored


def is_floating(dtype) -> bool:
    """Whether a dtype is one of floating-point numbers, bfloat16 among them."""
    return jax.numpy.issubdtype(dtype, np.floating)


def gather(tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], rules: Rules, dtype=None):
    """Published tensors as the leaves of a tree: ({path: Leaf}, {name: tensor that no computation reads}).

    shapes: of the tree's leaves by path. dtype: what floating leaves become, None = as stored. Raises UserError that
    lists the tensors that are missing, unexpected, mis-shaped or integers, and where one leaf's layers differ in dtype.
    """
    wanted = slots(shapes, rules)
    views: dict[str, dict] = {path: {} for path in shapes}
    problems = [f"{name} is missing" for name in wanted.keys() - tensors.keys()]
    extra = {}
    for name, tensor in tensors.items():
        if slot := wanted.get(name):
            if not is_floating(tensor.dtype):
                problems.append(f"{name} is stored as {tensor.dtype.name}, not as floating-point numbers")
            elif tensor.shape == slot.tensor_shape:
                view = slot.transform.to_leaf(tensor).reshape(slot.shape)
                views[slot.path].setdefault(slot.layer, {})[slot.part] = view
            else:
                problems.append(f"{name} is {list(tensor.shape)}, not {list(slot.tensor_shape)}")
        elif _unread(name, rules):
            extra[name] = tensor
        else:
            problems.append(f"{name} is unexpected")
    if problems:
        raise UserError(f"the weights do not fit the configuration: {first_few(sorted(problems))}")
    leaves = {}
    for path, rows in views.items():
        stored = {view.dtype for parts in rows.values() for view in parts.values()}
        if len({cast(each, dtype) for each in stored}) > 1:
            names = ", ".join(sorted(each.name for each in stored))
            raise UserError(f"the layers of {path} are stored as {names}: choose one dtype for all (--dtype)")
        leaves[path] = Leaf(shapes[path], cast(stored.pop(), dtype), functools.partial(_row, rows), stacked(path))
    return leaves, extra


def _row(rows, layer):
    parts = rows[layer]
    return parts[None] if None in parts else np.concatenate([parts[i] for i in range(3)], axis=-1)


def _unread(name, rules):
    """Whether the file may hold it beside the model: what no rule gives a place, and blocks that are not run."""
    try:
        address = place(name, rules)
    except ValueError:
        return False
    return address is None or address.startswith("siglip/layers/")


def scatter(leaves: Mapping[str, Leaf], rules: Rules) -> dict[str, Tensor]:
    """The leaves as published tensors, ready to be written: the inverse of `gather`."""

    def tensor(slot):
        def value():
            row = leaves[slot.path].row(slot.layer)
            row = row if slot.part is None else np.split(row, 3, axis=-1)[slot.part]
            return slot.transform.to_tensor(row)

        return Tensor(slot.tensor_shape, leaves[slot.path].dtype, value)

    return {name: tensor(slot) for name, slot in slots({p: leaf.shape for p, leaf in leaves.items()}, rules).items()}
