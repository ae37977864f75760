"""Compiled programs: kept on the disk from one command to the next, and announced while one waits for them.

They lie in ~/.cache/janus_jax/programs ($XDG_CACHE_HOME instead of ~/.cache, where it is set), or where the user's own
JAX_COMPILATION_CACHE_DIR says; the folder may be deleted at any time. JAX_ENABLE_COMPILATION_CACHE=false keeps none.
"""

import logging
import os
import sys
import threading
from pathlib import Path

from tqdm import tqdm

SHORTEST = 0.3  # seconds: what compiles faster is not kept
PATIENCE = 1.5  # seconds of a compilation before it is announced
FIRST = " (the programs of a command take about a minute, the first time)"


def folder() -> Path:
    """Where programs are kept unless the user says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "janus_jax" / "programs"


def keep() -> None:
    """Keeps the programs that this process compiles. Does nothing where the user has said where, or that not; nor where
    the folder cannot be made."""
    jax = sys.modules.get("jax")  # not imported: some commands do without
    if jax is None or {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"} & set(os.environ):
        return
    try:
        folder().mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return
    if os.access(folder(), os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder()))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)


def announce() -> None:
    """A line on stderr for each program whose compilation takes a while: what the first minute of a command goes to."""
    jax = sys.modules.get("jax")
    if jax is None:
        return
    waiting: list[threading.Timer] = []
    told = False

    def say(name):
        nonlocal told
        tqdm.write(f"compiling {name}{'' if told else FIRST}", file=sys.stderr)
        told = True

    def hear(record):
        if record.levelno <= logging.DEBUG and str(record.msg).startswith("Compiling") and record.args:
            name = str(record.args[0]).removeprefix("jit_").removeprefix("jit(").removesuffix(")")
            waiting.append(threading.Timer(PATIENCE, say, [name]))
            waiting[-1].daemon = True
            waiting[-1].start()
        return record.levelno > logging.DEBUG

    def done(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            while waiting:
                waiting.pop().cancel()

    logger = logging.getLogger(
        "jax._src.interpreters.pxla"
    )  # which jax tells the name of each program that it compiles
    logger.setLevel(logging.DEBUG)
    logger.addFilter(hear)
    jax.monitoring.register_event_duration_secs_listener(done)
