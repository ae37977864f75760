"""The phases of a step of stage 2: how long each takes, for its metrics, and by name in a profile."""

import contextlib
import time

import jax


@contextlib.contextmanager
def timed(seconds, phase: str):
    """Adds the block's duration to seconds[phase], a Counter. The block waits for what it computes."""
    began = time.time()
    with jax.profiler.TraceAnnotation(phase):
        yield
    seconds[phase] += time.time() - began
