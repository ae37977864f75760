"""Where arrays live: the mesh, the activation table, the parameter rules, and the three operations that obey
them.

The mesh has three axes. `data` replicates parameters and splits the batch; `fsdp` splits both; `tensor`
splits heads, MLP width and vocabulary. `constrain`, `einsum` and `take` read the mesh of the context
(`jax.set_mesh`) and run unchanged without one, with Auto axes (they place sharding constraints) and with
Explicit ones (they state output shardings, and a mistake in the tables is a type error at tracing time).
"""

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from janus_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")

# Logical dimension of an activation -> the mesh axes it is split over. A dimension that is not divisible
# keeps the leading axes that divide it: one picture on eight chips is simply not split.
ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "length": (),
    "width": (),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "layers": (),
    "slots": (),
}


@dataclasses.dataclass(frozen=True)
class OrReplicated:
    """A parameter rule that gives way: a dimension the mesh does not divide is left whole instead of
    refused.
    """

    spec: P


# Regex over the whole '/'-joined path -> how the leaf is split. The first match wins. Layer stacks have a
# leading dimension L that is never split: the scan runs over it.
PARAM_RULES: tuple[tuple[str, Any], ...] = (
    # Tables over the vocabulary only: split on the width, Auto mode replicates the activations looked up from
    # them.
    (r"llama/embed_tokens|gen_embed", P(("fsdp", "tensor"), None)),
    (r"llama/layers/attn/(q|k|v)", P(None, "fsdp", "tensor", None)),
    (r"llama/layers/attn/o", P(None, "tensor", None, "fsdp")),
    (r"llama/layers/mlp/(gate|up)", P(None, "fsdp", "tensor")),
    (r"llama/layers/mlp/down", P(None, "tensor", "fsdp")),
    (r"llama/(layers/)?[a-z_]*norm/scale", P()),
    (r"llama/lm_head", P("fsdp", "tensor")),
    (r"gen_aligner/fc1/kernel", P(None, "tensor")),  # 8 rows: too few to split
    (r"aligner/fc1/kernel", P("fsdp", "tensor")),
    (r"(gen_)?aligner/fc2/kernel", P("tensor", "fsdp")),
    # Its output is the input of a projection split over the codebook, so it is not split itself.
    (r"gen_head/fc1/kernel", P("fsdp", None)),
    (r"gen_head/fc2/kernel", P("fsdp", "tensor")),
    (r"(aligner|gen_aligner|gen_head)/fc[12]/bias", P()),
    # The frozen towers. SigLIP is worth splitting at rest; the tokenizer is small and made of convolutions.
    (r"siglip/layers/[a-z0-9]+/kernel", OrReplicated(P(None, "fsdp", None))),
    (r"siglip/.*", P()),
    (r"vq/.*", P()),
)


def make_mesh(data: int = 1, fsdp: int = 1, tensor: int = 1, *, explicit: bool = False, devices=None) -> Mesh:
    """A (data, fsdp, tensor) mesh over the first data*fsdp*tensor devices. Auto axes unless `explicit`. Where these
    lie in several slices, `data` spans the slices: of a training step its reduction is all that crosses the slow
    network. Raises ValueError where that cannot be.
    """
    shape = (data, fsdp, tensor)
    devices = jax.devices() if devices is None else devices
    if math.prod(shape) > len(devices):
        raise ValueError(f"a mesh of {data}x{fsdp}x{tensor} needs {math.prod(shape)} devices, there are {len(devices)}")
    devices = devices[: math.prod(shape)]
    axis_type = AxisType.Explicit if explicit else AxisType.Auto
    slices = len({getattr(device, "slice_index", None) for device in devices})
    if slices == 1:
        # neighbours on the torus as far as can be
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(grid, AXES, axis_types=(axis_type,) * 3)
    if data % slices:
        raise ValueError(f"a mesh of {data}x{fsdp}x{tensor} does not lay its data axis over {slices} slices")
    grid = mesh_utils.create_hybrid_device_mesh(
        (data // slices, fsdp, tensor), (slices, 1, 1), devices, allow_split_physical_axes=True
    )
    return Mesh(grid, AXES, axis_types=(axis_type,) * 3)


# Activations


def activation_spec(names: tuple[str | None, ...], shape: tuple[int, ...], mesh) -> P:
    """The PartitionSpec on `mesh` of an activation whose dimensions carry these logical names (None: not
    split).
    """
    if len(names) != len(shape):
        raise ValueError(f"{len(names)} names {names} for an array of shape {shape}")
    owner: dict[str, str] = {}
    entries = []
    for name, size in zip(names, shape, strict=True):
        if name is not None and name not in ACTIVATIONS:
            raise ValueError(f"unknown logical dimension {name!r}; known: {', '.join(ACTIVATIONS)}")
        kept: list[str] = []
        for axis in ACTIVATIONS[name] if name else ():
            if axis in owner:
                raise ValueError(f"dimensions {owner[axis]!r} and {name!r} both map to mesh axis {axis!r}")
            owner[axis] = name
            if axis in mesh.shape and size % (math.prod(mesh.shape[a] for a in kept) * mesh.shape[axis]) == 0:
                kept.append(axis)
            else:
                break
        entries.append(tuple(kept) if len(kept) > 1 else kept[0] if kept else None)
    return P(*entries)


def _context(names, shape) -> tuple[P | None, bool]:
    """(spec, axes are Explicit) under the mesh of the context; spec None where there is nothing to state."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.are_all_axes_manual:
        return None, False
    return activation_spec(tuple(names), shape, mesh), mesh.are_all_axes_explicit


def row_parts() -> int:
    """How many devices of the mesh in the context have rows of their own; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else math.prod(mesh.shape.get(axis, 1) for axis in ACTIVATIONS["batch"])


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """x, split as its dimensions' logical names say; x itself without a mesh."""
    spec, explicit = _context(names, x.shape)
    if spec is None:
        return x
    return jax.sharding.reshard(x, spec) if explicit else jax.lax.with_sharding_constraint(x, spec)


def einsum(eqn: str, x: jax.Array, w: jax.Array, out: tuple[str | None, ...], dtype=None) -> jax.Array:
    """jnp.einsum of an activation and a parameter, the result split as `out` says. `dtype`: accumulate and
    return in it.
    """
    operands, result = eqn.split("->")
    left, right = operands.split(",")
    sizes = dict(zip(left + right, x.shape + w.shape, strict=True))
    spec, explicit = _context(out, tuple(sizes[letter] for letter in result))
    if on_one_device() and not explicit:
        y = _einsum_by_matrices(left, right, result, x, w, dtype)
    else:
        y = jnp.einsum(eqn, x, w, preferred_element_type=dtype, out_sharding=spec if explicit else None)
    return y if spec is None or explicit else jax.lax.with_sharding_constraint(y, spec)


def on_one_device() -> bool:
    """Whether nothing is split: there is no mesh in the context, or one of a single device."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or mesh.size == 1


def _einsum_by_matrices(left: str, right: str, result: str, x, w, dtype):
    """The einsum, as a product of two matrices where it is one: then XLA computes the gradient of w without copying an
    operand into another order first."""
    rows = "".join(letter for letter in left if letter not in right)
    inner, columns = left.removeprefix(rows), result.removeprefix(rows)
    if left != rows + inner or right != inner + columns or result != rows + columns:
        return jnp.einsum(f"{left},{right}->{result}", x, w, preferred_element_type=dtype)
    size = math.prod(x.shape[len(rows) :])
    y = jnp.matmul(x.reshape(-1, size), w.reshape(size, -1), preferred_element_type=dtype)
    return y.reshape(x.shape[: len(rows)] + w.shape[len(inner) :])


def dot_general(x: jax.Array, w: jax.Array, dimensions, **settings) -> jax.Array:
    """jax.lax.dot_general as nn.Dense calls it, on a single device as a product of two matrices."""
    if not on_one_device():
        return jax.lax.dot_general(x, w, dimensions, **settings)
    y = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), w, (((1,), (0,)), ((), ())), **settings)
    return y.reshape(*x.shape[:-1], w.shape[-1])


def take(table: jax.Array, ids: jax.Array, out: tuple[str | None, ...]) -> jax.Array:
    """Rows of table [V,D] at ids i32[...] -> [...,D], split as `out` says. An id beyond the table gives NaN,
    loudly.
    """
    spec, explicit = _context(out, ids.shape + table.shape[1:])
    rows = table.at[ids].get(mode="fill", out_sharding=spec if explicit else None)
    return rows if spec is None or explicit else jax.lax.with_sharding_constraint(rows, spec)


def mesh_of(shape, devices=None) -> Mesh:
    """The mesh of sizes (data, fsdp, tensor) over all devices (None: this job's), -1 = all that remain. Raises
    UserError where it does not fit."""
    shape = [int(size) for size in shape]
    devices = jax.devices() if devices is None else devices
    if len(shape) == 3 and shape.count(-1) <= 1 and all(size > 0 or size == -1 for size in shape):
        others = math.prod(size for size in shape if size != -1)
        sizes = [len(devices) // others if size == -1 else size for size in shape]
        if math.prod(sizes) == len(devices):
            try:
                return make_mesh(*sizes, devices=devices)
            except ValueError as error:
                raise UserError(f"{error}: set --config.mesh") from error
    raise UserError(f"the mesh {tuple(shape)} does not use the {len(devices)} devices: set --config.mesh=(-1,1,1)")


def mesh_named(text: str, devices=None) -> Mesh:
    """The mesh that a flag means, as "data=2,fsdp=4": sizes of some axes, the others 1, over the first devices (None:
    this job's). Raises UserError for what is no such thing, and where there are fewer devices."""
    sizes = {}
    for part in text.split(","):
        name, _, size = (word.strip() for word in part.partition("="))
        if name not in AXES or name in sizes or not size.isdecimal() or not int(size):
            raise UserError(f"--mesh {text!r} is no mesh: give sizes of {', '.join(AXES)}, as in data=2,fsdp=4")
        sizes[name] = int(size)
    try:
        return make_mesh(**sizes, devices=devices)
    except ValueError as error:
        raise UserError(f"{error}: give another --mesh") from error


# Parameters


def paths(tree) -> list[tuple[str, Any]]:
    """(path joined by '/', leaf) of every leaf, in the order of jax.tree.leaves."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in flat]


def match(rules: Iterable[tuple[str, Any]], tree) -> Any:
    """The tree of values that a table of (regex over the whole path, value) gives to a tree's leaves.

    The first match wins. Raises ValueError naming the leaves that no rule matches and the rules that match no
    leaf (or only leaves already taken): a table that has drifted from the tree must not pass silently.
    """
    rules = tuple(rules)
    used = [False] * len(rules)
    values, unmatched = [], []
    for path, _ in paths(tree):
        index = next((i for i, (regex, _) in enumerate(rules) if re.fullmatch(regex, path)), None)
        if index is None:
            unmatched.append(path)
        else:
            used[index] = True
            values.append(rules[index][1])
    if unmatched:
        raise ValueError(f"no rule matches the leaf {', '.join(unmatched)}")
    if not all(used):
        raise ValueError(
            f"no leaf uses the rule {', '.join(repr(r[0]) for r, u in zip(rules, used, strict=True) if not u)}"
        )
    return jax.tree.unflatten(jax.tree.structure(tree), values)


def param_shardings(abstract, mesh: Mesh, rules=PARAM_RULES, without: tuple[str, ...] = ()) -> Any:
    """The tree of NamedShardings of a parameter tree on a mesh.

    `without`: mesh axes to leave out; ("fsdp",) is the layout of a rollout. Raises UserError, one line that
    names leaf, dimension and axes, for a dimension that does not divide (unless its rule is OrReplicated:
    then it stays whole).
    """
    rule_of = jax.tree.leaves(match(rules, abstract), is_leaf=_is_spec)
    shardings = []
    for (path, leaf), rule in zip(paths(abstract), rule_of, strict=True):
        spec = rule.spec if isinstance(rule, OrReplicated) else rule
        if len(spec) > len(leaf.shape):
            raise ValueError(f"{path}: the rule {spec} has more entries than the shape {leaf.shape}")
        entries = []
        for i, entry in enumerate(spec):
            axes = (entry,) if isinstance(entry, str) else entry or ()
            axes = tuple(axis for axis in axes if axis not in without)
            parts = math.prod(mesh.shape[axis] for axis in axes)
            if leaf.shape[i] % parts:
                if not isinstance(rule, OrReplicated):
                    raise UserError(
                        f"{path}: dimension {i} of size {leaf.shape[i]} does not divide over mesh axis "
                        f"{' x '.join(axes)} of size {parts}: choose another mesh"
                    )
                axes = ()
            entries.append(axes if len(axes) > 1 else axes[0] if axes else None)
        shardings.append(NamedSharding(mesh, P(*entries)))
    return jax.tree.unflatten(jax.tree.structure(abstract), shardings)


def _is_spec(x) -> bool:
    return isinstance(x, (P, OrReplicated))
