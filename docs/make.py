"""Writes the pages that are made from the code, metrics.md and api.md: python docs/make.py

tests/test_docs.py fails where they are not what this makes.
"""

import inspect
import re
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import janus_jax
from janus_jax.results import glossary

# Beside what `janus_jax` itself offers: heading -> module -> names.
MORE = {
    "The processor, and saving a model": {
        "sequences.processor": ("Processor",),
        "checkpoints.loading": ("save",),
    },
    "To put your own in": {
        "train_rl": ("train",),
        "rewards.judge": ("as_judge",),
        "training.writers": ("Start", "Writer"),
        "rl.advantages": ("Estimator",),
        "rl.credit": ("Credit",),
        "parallel.sharding": ("mesh_of",),
        "results.storyboard": ("storyboard",),
    },
    "Parts of a training loop (may move)": {
        "sampling.introspect": ("rollouts",),
        "sequences.grammar": ("Grammar.of",),
        "rl.batches": ("make",),
        "rl.objective": ("make_forward", "make_loss"),
        "training.step": ("build",),
    },
}


def pages() -> dict[str, str]:
    """The pages' contents by file name."""
    return {"metrics.md": glossary.markdown(), "api.md": api()}


def api() -> str:
    """The reference of the public names, from their docstrings."""
    public = {f"janus_jax.{name}": getattr(janus_jax, name) for name in janus_jax._PUBLIC}
    parts = [
        "# Python reference\n",
        "Made by `python docs/make.py` from the docstrings. Arrays are written `f32[B,T,D]`; the letters are those of",
        "[CONTRIBUTING.md](../CONTRIBUTING.md#names). What is not here may move between versions, and so may the",
        "last section, of whose parts `notebooks/sft_to_rl.ipynb` makes a training loop.\n",
        "## `import janus_jax`\n",
        *map(_entry, public, public.values()),
    ]
    for heading, modules in MORE.items():
        parts.append(f"## {heading}\n")
        for module, names in modules.items():
            found = import_module(f"janus_jax.{module}")
            parts += [_entry(f"janus_jax.{module}.{name}", attrgetter(name)(found)) for name in names]
    return "\n".join(parts).rstrip() + "\n"


def _entry(name: str, value) -> str:
    """A heading, the signature, the docstring, and a class's documented methods."""
    parts = [f"### {name}\n", _code(_signature(name, value)), _text(inspect.getdoc(value) or "")]
    if inspect.isclass(value):
        for each, method in vars(value).items():
            called = method.__func__ if isinstance(method, (classmethod, staticmethod)) else method
            if not each.startswith("_") and inspect.isfunction(called) and called.__doc__:
                parts += [_code(_signature(f".{each}", called)), _text(inspect.getdoc(called))]
    return "\n".join(parts)


def _signature(name, value) -> str:
    """name(arguments) of a function, or of what makes an object of a class; the name alone where there is none."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    # a table of rules is no help in a signature
    plain = [one.replace(default=object()) if isinstance(one.default, tuple) and one.default else one for one in plain]
    shown = str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    shown = re.sub(r"<class '([\w.]+)'>", r"\1", shown)
    return name.rpartition(".")[2] + re.sub(r"<.*? at 0x\w+>|<factory>|<object.*?>", "...", shown)


def _code(text: str) -> str:
    """A block of code, in lines of at most 116 characters."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + len(word) > 110:
            lines.append(line)
            line = "   "
        line = f"{line} {word}" if line else word
    return "".join(f"    {each}\n" for each in [*lines, line])


def _text(doc: str) -> str:
    """A docstring as Markdown: outside of code its stars and angle brackets are no marks."""
    parts = re.split(r"(`[^`]*`)", doc)
    return "".join(part if part.startswith("`") else re.sub(r"([*<])", r"\\\1", part) for part in parts) + "\n"


if __name__ == "__main__":
    for name, content in pages().items():
        (Path(__file__).parent / name).write_text(content, encoding="utf-8")
