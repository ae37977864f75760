"""A workdir goes on with the settings that it was begun with."""

import json

import pytest
from ml_collections import ConfigDict

from janus_jax.errors import UserError
from janus_jax.training.workdir import FILE, same_settings

FREE = ("steps", "reward.url")


def settings(**changed):
    return ConfigDict(
        {"steps": 4, "credit": "trajectory", "mesh": (1, 2), "reward": {"kind": "chat", "url": "a"}, **changed}
    )


def test_what_may_change_and_what_not(tmp_path):
    same_settings(tmp_path / "w", settings(), FREE)
    before = (tmp_path / "w" / FILE).read_text()
    assert json.loads(before)["reward.kind"] == "chat"
    same_settings(tmp_path / "w", settings(), FREE)
    same_settings(tmp_path / "w", settings(steps=9, reward={"kind": "chat", "url": "b"}), FREE)
    with pytest.raises(UserError) as error:
        same_settings(tmp_path / "w", settings(credit="improvement", reward={"kind": "shapes", "url": "a"}), FREE)
    assert "config.credit was 'trajectory', is 'improvement'; config.reward.kind was 'chat', is 'shapes'" in str(
        error.value
    )
    with pytest.raises(UserError, match="config.mesh was"):
        same_settings(tmp_path / "w", settings(mesh=(2, 1)), FREE)
    assert (tmp_path / "w" / FILE).read_text() == before


def test_a_setting_of_another_version(tmp_path):
    same_settings(tmp_path, settings(), FREE)
    same_settings(tmp_path, settings(ahead=False), FREE)
    with pytest.raises(UserError, match="config.credit was"):
        same_settings(tmp_path, settings(ahead=False, credit="improvement"), FREE)


def test_a_damaged_file(tmp_path):
    (tmp_path / FILE).write_text("{")
    with pytest.raises(UserError, match="remove it"):
        same_settings(tmp_path, settings(), FREE)
