"""Commands on a mesh: the pictures and words of one device."""

import importlib
import json

import jax
import numpy as np
import pytest
from commands import refused
from PIL import Image
from tiny import MODEL, params, processor

from janus_jax import generate
from janus_jax.checkpoints import loading
from janus_jax.parallel import sharding

chat, edit, judge = (importlib.import_module(f"janus_jax.{name}") for name in ("chat", "edit", "judge"))

MESH = "data=2,fsdp=2,tensor=2"

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    loading.save(folder, MODEL, params(), processor())
    return str(folder)


def pictures(folder):
    return {path.name: np.asarray(Image.open(path)) for path in (folder / "images").iterdir()}


def same(got, expected):
    """Up to a pixel at the edge of a grey level: another split of the rows is another program."""
    assert got.keys() == expected.keys()
    for name in expected:
        levels = np.abs(got[name].astype(int) - expected[name].astype(int))
        assert levels.max() <= 1 and (levels > 0).mean() < 0.01


def test_the_same_pictures(checkpoint, tmp_path, monkeypatch):
    sampler, places = generate.rollouts, []

    def watched(model, params, *rest, **settings):
        places.append(params["llama"]["layers"][0]["qkv"].sharding)
        return sampler(model, params, *rest, **settings)

    monkeypatch.setattr(generate, "rollouts", watched)
    flags = ["--checkpoint", checkpoint, "--prompt", "a circle", "--prompt", "a cross", "--samples", "2"]
    flags += ["--rounds", "1", "--max-reason-tokens", "4"]
    generate.main([*flags, "--out", str(tmp_path / "one")])
    alone = pictures(tmp_path / "one")
    assert len(alone) == 4
    generate.main([*flags, "--out", str(tmp_path / "mesh"), "--mesh", MESH])
    same(pictures(tmp_path / "mesh"), alone)
    here, split = places
    assert len(here.device_set) == 1
    assert dict(split.mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert {axis for axis in split.spec if axis} == {"tensor"}  # a rollout's layout
    assert jax.sharding.get_mesh().empty


def test_the_same_words(checkpoint, tmp_path, capsys):
    for name in "ab":
        Image.new("RGB", (20, 20), {"a": "red", "b": "blue"}[name]).save(tmp_path / f"{name}.png")
    seen = [str(tmp_path / f"{name}.png") for name in "ab"]
    asked = ["--checkpoint", checkpoint, "--image", seen[0], "--image", seen[1], "--prompt", "a circle"]
    told = ["--checkpoint", checkpoint, "--image", *seen, "--question", "What?", "--question", "Where?"]
    found = []
    for mesh in ([], ["--mesh", MESH]):
        judge.main([*asked, "--max-tokens", "6", *mesh])
        verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["image"] for line in verdicts] == seen
        chat.main([*told, "--max-tokens", "6", *mesh])
        found.append(([(line["verdict"], line["reason"]) for line in verdicts], capsys.readouterr()))
    assert found[0] == found[1]
    assert found[0][1].out.count("\n") >= 2


@pytest.mark.slow
def test_edits_on_a_mesh(checkpoint, tmp_path):
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    flags = ["--checkpoint", checkpoint, "--image", str(tmp_path / "a.png"), "--instruction", "blue"]
    flags += ["--samples", "2", "--max-reason-tokens", "4"]
    edit.main([*flags, "--out", str(tmp_path / "one")])
    edit.main([*flags, "--out", str(tmp_path / "mesh"), "--mesh", MESH])
    same(pictures(tmp_path / "mesh"), pictures(tmp_path / "one"))


@pytest.mark.parametrize("mesh", ["data", "data=0", "data=x", "rows=2", "data=2,data=2", "", "data=16"])
def test_what_is_no_mesh(mesh, tmp_path):
    if not mesh:
        with pytest.raises(sharding.UserError, match="--mesh"):
            sharding.mesh_named(mesh)
        return
    flags = ("--checkpoint", "shapes-rl", "--prompt", "a circle", "--out", tmp_path / "out", "--mesh", mesh)
    assert "--mesh" in refused(generate.main, *flags)
    assert not (tmp_path / "out").exists()


def test_a_mesh_of_fewer_devices():
    mesh = sharding.mesh_named(" tensor=2, data=2")
    assert dict(mesh.shape) == {"data": 2, "fsdp": 1, "tensor": 2}
    assert {device.id for device in mesh.devices.flat} <= {device.id for device in jax.devices()}
