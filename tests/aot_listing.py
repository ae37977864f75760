"""Where every leaf of a program's state lies, as text for golden files."""

from janus_jax.parallel import sharding
from janus_jax.training.program import bytes_per_device


def listing(tree) -> str:
    """A tree of placed ShapeDtypeStructs as text, a line per leaf: bytes per device, its path, dtype, shape and how it
    is split."""
    lines = []
    for path, leaf in sharding.paths(tree):
        form = f"{leaf.dtype.name}[{','.join(map(str, leaf.shape))}]"
        split = ", ".join(
            "+".join((entry,) if isinstance(entry, str) else entry or "-") for entry in leaf.sharding.spec
        )
        lines.append(f"{bytes_per_device(leaf):>12}  {path}  {form}  ({split})")
    return "\n".join([*lines, f"{bytes_per_device(tree):>12}  in all"]) + "\n"
