"""Where compiled programs are kept, and what is said while one waits for them."""

import logging

import jax
import jax.numpy as jnp
import pytest

from janus_jax import cli, compilation

OPTIONS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_enable_compilation_cache")


@pytest.fixture
def nothing_said(monkeypatch, tmp_path):
    """No word of the user's on where programs are kept."""
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_kept_in_a_named_place(nothing_said, tmp_path):
    compilation.keep()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "janus_jax" / "programs")
    assert (tmp_path / "janus_jax" / "programs").is_dir()


@pytest.mark.parametrize("name, value", [("JAX_COMPILATION_CACHE_DIR", "x"), ("JAX_ENABLE_COMPILATION_CACHE", "false")])
def test_the_users_word_wins(nothing_said, monkeypatch, tmp_path, name, value):
    monkeypatch.setenv(name, value)
    compilation.keep()
    assert jax.config.jax_compilation_cache_dir is None and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(nothing_said, tmp_path):
    (tmp_path / "janus_jax").write_text("a file")
    compilation.keep()
    assert jax.config.jax_compilation_cache_dir is None


def test_commands_keep_them(nothing_said, monkeypatch, tmp_path):
    monkeypatch.setattr(compilation, "announce", lambda: None)
    cli.run(lambda argv: None)
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "janus_jax" / "programs")


@pytest.fixture
def announced(monkeypatch):
    register, heard = jax.monitoring.register_event_duration_secs_listener, []
    monkeypatch.setattr(jax.monitoring, "register_event_duration_secs_listener", lambda hear: heard.append(hear))
    compilation.announce()
    register(*heard)
    yield monkeypatch
    jax.monitoring.unregister_event_duration_listener(*heard)
    logger = logging.getLogger("jax._src.interpreters.pxla")
    logger.filters.clear()
    logger.setLevel(logging.NOTSET)


def test_what_takes_long_is_said(announced, capsys):
    def a_large_program(x):
        for _ in range(100):
            x = jnp.sin(x) @ jnp.cos(x)
        return x

    def a_small_program(x):
        return x + 1

    announced.setattr(compilation, "PATIENCE", 0)
    jax.jit(a_large_program)(jnp.ones((3, 3)))
    announced.setattr(compilation, "PATIENCE", 600)
    jax.jit(a_small_program)(jnp.ones(7))
    said = capsys.readouterr()
    first, *rest = [line for line in said.err.splitlines() if line.startswith("compiling ")]
    assert first.startswith("compiling ") and first.endswith(compilation.FIRST)
    assert "compiling a_large_program" in [line.removesuffix(compilation.FIRST) for line in (first, *rest)]
    assert not any(line.endswith(compilation.FIRST) for line in rest)
    assert "a_small_program" not in said.err and not said.out
