"""janus_jax: Janus-Pro-R1 in JAX and Flax. One model draws a picture, looks at it, says what is wrong, draws it
again."""

import importlib

__version__ = "0.1.0"

# Public names by module; imported on first use, so that `import janus_jax` is quick and touches no device.
_PUBLIC = {
    "load": "loading",
    "JanusConfig": "models.janus",
    "Janus": "models.janus",
    "abstract_params": "models.janus",
    "Sampling": "density",
    "introspect": "introspect",
    "Trajectory": "introspect",
    "Round": "introspect",
}


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *_PUBLIC])
