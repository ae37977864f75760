"""Eight CPU devices, strict promotion, and parameters for tests."""

import os

# Before jax is imported: the number of devices cannot be changed afterwards.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def quick_compiles():
    """For files whose time is nearly all compilation, of programs that run once on a few numbers:
    pytestmark = pytest.mark.usefixtures("quick_compiles")"""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
