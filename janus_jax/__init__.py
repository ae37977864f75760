"""janus_jax: Janus-Pro-R1 in JAX and Flax. One model draws a picture, looks at it, says what is wrong, draws it
again."""

import importlib
import sys
import types

__version__ = "0.1.0"

# Public names by module; imported on first use, so that `import janus_jax` is quick and touches no device.
_PUBLIC = {
    "load": "checkpoints.loading",
    "sampling_of": "sampling.defaults",
    "JanusConfig": "models.janus",
    "Janus": "models.janus",
    "abstract_params": "models.janus",
    "Sampling": "sampling.density",
    "introspect": "sampling.introspect",
    "stream": "sampling.stream",
    "edit": "sampling.edit",
    "Request": "sequences.request",
    "Trajectory": "sampling.rollout",
    "Round": "sampling.rollout",
    "chat": "sampling.answer",
    "judge": "sampling.answer",
}


class _Package(types.ModuleType):
    """Importing a submodule sets it as an attribute of its package; a public function of the same name stays in place
    (`import janus_jax.chat` is the command, `janus_jax.chat(...)` the function)."""

    def __setattr__(self, name, value):
        if not (name in _PUBLIC and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *_PUBLIC])
