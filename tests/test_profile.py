"""Which steps --profile records."""

import jax
import pytest

from janus_jax import profile
from janus_jax.errors import UserError


@pytest.fixture
def recorded(monkeypatch):
    """What jax's profiler is told."""
    told = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder, **_: told.append(f"start {folder.name}"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: told.append("stop"))
    yield told
    profile.wanted(None)


def test_some_steps_are_recorded_and_none_twice(recorded, tmp_path):
    profile.wanted(tmp_path / "p" / "q")
    assert (tmp_path / "p" / "q").is_dir()
    for number in range(8):
        profile.step("training", first=2, count=3)
        recorded.append(number)
        profile.step("drawing", first=0, count=2)  # inside of it
    profile.end()
    assert recorded == [0, 1, "start q", 2, 3, 4, "stop", 5, 6, 7]


def test_the_end_of_the_command_ends_it(recorded, tmp_path):
    profile.wanted(tmp_path)
    profile.step("drawing", first=0, count=2)
    profile.end()
    profile.end()
    assert recorded == [f"start {tmp_path.name}", "stop"]


def test_where_none_is_wanted_nothing_happens(recorded):
    profile.wanted(None)
    profile.step("drawing", first=0, count=2)
    profile.end()
    assert not recorded


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose another --profile"):
        profile.wanted(tmp_path / "file")
    profile.wanted(None)


def test_what_is_written(tmp_path):
    profile.wanted(tmp_path)
    profile.step("drawing", first=0, count=1)
    jax.block_until_ready(jax.numpy.ones(3))
    profile.end()
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))
