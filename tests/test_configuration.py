"""Comments of configuration files, found in their sources and in those that they build on."""

from pathlib import Path

import pytest
from commands import CONFIGS

from janus_jax import cli, configuration

SOURCE = """
from inherited_config import {what}
from inherited_config import SIZES as sizes

MORE = {{"steps": 3}}
BUCKETS = (1, 2)  # their lengths
SHARED = {{
    "rate": 0.5,  # of learning
}}


def get_config():
    config = {call}
    # what
    # is drawn
    config.seed = 0
    config.text = "# no comment"  # a comment
    config.model = dict(  # its sizes
        width=4,  # of each
        inner={{"a": 1}},  # a dict
    )
    config.reward = ConfigDict(sizes)
    config.buckets = BUCKETS
    use(config, SHARED)
    return config
"""
BASE = """
SIZES = {
    # how large
    "size": 1,
    "url": "",  # where
}


def get_config():
    config = ConfigDict()
    config.seed = 1  # of the base
    config.steps = 2  # how many
    return config
"""


@pytest.mark.parametrize("what, call", [("get_config as base", "base()"), ("get_config", "get_config()")])
def test_comments(what, call, tmp_path, monkeypatch):
    (tmp_path / "inherited_config.py").write_text(BASE)
    (tmp_path / "config.py").write_text(SOURCE.format(what=what, call=call))
    monkeypatch.syspath_prepend(tmp_path)
    found = configuration.comments(tmp_path / "config.py")
    assert {key: tuple(said) for key, said in found.items()} == {
        "seed": ("what is drawn", ""),
        "steps": ("", "how many"),
        "text": ("", "a comment"),
        "model": ("", "its sizes"),
        "model.width": ("", "of each"),
        "model.inner": ("", "a dict"),
        "model.inner.a": ("", ""),
        "reward": ("", ""),
        "reward.size": ("how large", ""),
        "reward.url": ("", "where"),
        "buckets": ("", "their lengths"),
        "rate": ("", "of learning"),
    }
    assert list(found)[:2] == ["seed", "steps"]  # in the order of the source


def test_what_cannot_be_read_has_none(tmp_path):
    (tmp_path / "broken.py").write_text("def get_config(:")
    assert configuration.comments(tmp_path / "broken.py") == configuration.comments(tmp_path / "absent.py") == {}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_all_keys_are_there(path):
    """Each once, with its value, in a line of its own; and its comment, where it is said for real."""
    config, _ = cli.parse_config([f"--config={path}"], "", workdir=False)
    text = configuration.described(config, path)
    lines = text.splitlines()
    for key, value in config.items():
        of_it = [line for line in lines if line.startswith(f"  --config.{key}=")]
        inner = [line for line in lines if line.startswith(f"  --config.{key}.")]
        assert len(of_it) == 1 or (inner and not of_it), key
        if of_it:
            assert of_it[0].startswith(f"  --config.{key}={value!r}".rstrip()[:200])
    keys = [line.split("=")[0] for line in lines if line.startswith("  --config.")]
    assert len(keys) == len(set(keys))
    assert max(map(len, (line for line in lines if "=(" not in line))) <= configuration.WIDTH


def test_a_trained_models_settings_are_explained():
    path = CONFIGS / "janus_pro_7b_rl.py"
    config, _ = cli.parse_config([f"--config={path}:v5e-16"], "", workdir=False)
    lines = configuration.described(config, Path(path)).splitlines()
    assert "  --config.micro_batches=32             parts that a step's batch is cut into" in lines
    assert any(line.startswith("  --config.reward.url=''") and "/v1" in line for line in lines)
