"""A workdir goes on with the settings that it was begun with, and from the newest checkpoint that is whole."""

import errno
import gc
import json
import os
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from orbax.checkpoint import CheckpointManager, args

from janus_jax.checkpoints import model_folder
from janus_jax.errors import UserError
from janus_jax.training.workdir import FILE, Checkpoints, keep_settings, let_settings_change, same_settings

FREE = ("steps", "reward.url")
MARK = "commit_success.txt"


def refused(match):
    """A UserError in one line."""
    return pytest.raises(UserError, match=f"^[^\n]*{match}[^\n]*$")


# Settings


def settings(**changed):
    return ConfigDict(
        {"steps": 4, "credit": "trajectory", "mesh": (1, 2), "reward": {"kind": "chat", "url": "a"}, **changed}
    )


def test_what_may_change_and_what_not(tmp_path):
    workdir = tmp_path / "w"
    same_settings(workdir, settings(), FREE)
    assert not workdir.exists()  # nothing is kept of a run before it saves
    keep_settings(workdir, settings())
    before = (workdir / FILE).read_text()
    assert json.loads(before)["reward.kind"] == "chat"
    same_settings(workdir, settings(), FREE)
    same_settings(workdir, settings(steps=9, reward={"kind": "chat", "url": "b"}), FREE)
    with refused("config.credit was 'trajectory', is 'improvement'; config.reward.kind was 'chat', is 'shapes'"):
        same_settings(workdir, settings(credit="improvement", reward={"kind": "shapes", "url": "a"}), FREE)
    with refused("config.mesh was"):
        same_settings(workdir, settings(mesh=(2, 1)), FREE)
    keep_settings(workdir, settings(steps=9))
    assert (workdir / FILE).read_text() == before


def test_settings_that_are_let_go(tmp_path):
    keep_settings(tmp_path, settings())
    let_settings_change(tmp_path, ("credit",))
    same_settings(tmp_path, settings(credit="improvement"), FREE)
    keep_settings(tmp_path, settings(credit="improvement", mesh=(9, 9)))
    with refused("credit was 'improvement', is 'trajectory'"):
        same_settings(tmp_path, settings(), FREE)
    let_settings_change(tmp_path / "absent", ("credit",))


def test_a_setting_of_another_version(tmp_path):
    keep_settings(tmp_path, settings())
    same_settings(tmp_path, settings(ahead=False), FREE)
    with refused("config.credit was"):
        same_settings(tmp_path, settings(ahead=False, credit="improvement"), FREE)


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_damaged_file(content, tmp_path):
    (tmp_path / FILE).write_text(content)
    with refused("remove it"):
        same_settings(tmp_path, settings(), FREE)


# Checkpoints


def state(step):
    rng = np.random.default_rng(step)
    arrays = {"w": rng.normal(size=(40, 50)).astype(np.float32), "half": rng.normal(size=9).astype(jnp.bfloat16)}
    return jax.tree.map(jnp.asarray, {**arrays, "step": np.int32(step), "seen": np.arange(5) > step})


def shapes():
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state(0))


def save(workdir, *steps):
    with Checkpoints(workdir, "sft") as checkpoints:
        for step in steps:
            checkpoints.save(step, {"state": state(step)}, {"data": {"position": 10 * step}})


def restore(workdir, step):
    with Checkpoints(workdir, "sft") as checkpoints:
        return checkpoints.restore(step, {"state": shapes()}, ["data"])


def steps(workdir):
    with Checkpoints(workdir, "sft") as checkpoints:
        return checkpoints.steps()


def equal(got, expected):
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_checkpoints_come_back(tmp_path):
    assert steps(tmp_path) == []
    save(tmp_path, 1, 2, 3)
    assert steps(tmp_path) == [3, 2]
    got = restore(tmp_path, 3)
    assert set(got) == {"state", "data"}
    equal(got["state"], state(3))
    assert got["data"] == {"position": 30}
    equal(restore(tmp_path, 2)["state"], state(2))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"2", "3"}


def test_what_a_kill_left_does_not_count(tmp_path):
    """Without orbax's mark nothing counts; the same step can be saved again."""
    save(tmp_path, 1, 2)
    (tmp_path / "checkpoints" / "2" / MARK).unlink()
    (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp-1").mkdir()
    assert steps(tmp_path) == [1]
    save(tmp_path, 2)
    assert steps(tmp_path) == [2, 1]
    equal(restore(tmp_path, 2)["state"], state(2))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1", "2"}


def test_the_mark_comes_last_and_after_all_is_on_the_disk(tmp_path, monkeypatch):
    folder, synced, fsync = tmp_path / "checkpoints" / "1", set(), os.fsync

    def watched(place):
        assert not (folder / MARK).exists()
        synced.add(os.readlink(f"/proc/self/fd/{place}"))
        fsync(place)

    monkeypatch.setattr(os, "fsync", watched)
    save(tmp_path, 1)
    assert synced >= {str(path) for path in folder.rglob("*") if path != folder / MARK}


def damage(path, how, good):
    if how == "flipped":
        bad = bytearray(good)
        bad[len(bad) // 2] ^= 1
        path.write_bytes(bad)
    elif how == "cut":
        path.write_bytes(good[: len(good) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


def test_damage_is_found(tmp_path):
    """Every file, in every way: what was written comes back, or nothing does."""
    save(tmp_path, 5)
    files = [path for path in (tmp_path / "checkpoints" / "5").rglob("*") if path.is_file() and path.name != MARK]
    refusals = 0
    for path in files:
        good = path.read_bytes()
        for how in ("flipped", "cut", "gone"):
            damage(path, how, good)
            try:
                equal(restore(tmp_path, 5)["state"], state(5))
            except UserError as error:
                refusals += 1
                assert "checkpoints/5 is damaged" in str(error) and "\n" not in str(error)
            path.write_bytes(good)
    assert refusals >= 12
    equal(restore(tmp_path, 5)["state"], state(5))


def test_a_checkpoint_of_other_sizes(tmp_path):
    save(tmp_path, 1)
    other = {**shapes(), "w": jax.ShapeDtypeStruct((41, 50), np.float32, sharding=shapes()["w"].sharding)}
    with Checkpoints(tmp_path, "sft") as checkpoints, refused("of other sizes"):
        checkpoints.restore(1, {"state": other})
    gc.collect()  # the reads that were left unfinished say nothing: pytest would raise it


def test_set_aside(tmp_path):
    save(tmp_path, 1, 2)
    with Checkpoints(tmp_path, "sft") as checkpoints:
        checkpoints.set_aside(2)
        assert checkpoints.steps() == [1]
        checkpoints.save(2, {"state": state(2)}, {"data": 2})
    assert steps(tmp_path) == [2, 1]
    (aside,) = tmp_path.glob("damaged_2_*")
    assert (aside / MARK).is_file()


def test_checkpoints_of_the_code_that_sealed_them(tmp_path):
    """They had a manifest of digests, were renamed into place, and had no sums."""
    workdir = tmp_path / "w"
    manager = CheckpointManager(workdir / "checkpoints")
    items = {"state": args.StandardSave(state(3)), "data": args.JsonSave({"position": 30})}
    manager.save(3, args=args.Composite(**items))
    manager.close()
    (workdir / "stage").write_text("sft")
    model_folder.seal(workdir / "checkpoints" / "3")
    assert steps(workdir) == [3]
    got = restore(workdir, 3)
    equal(got["state"], state(3))
    assert got["data"] == {"position": 30}
    (workdir / "checkpoints" / "3" / "manifest.json").write_text("")
    with refused("manifest"):
        restore(workdir, 3)


FULL = OSError(errno.ENOSPC, "No space left on device")
AS_THE_STORE_SAYS_IT = ValueError("RESOURCE_EXHAUSTED: [OS error 28: ENOSPC No space left on device]")


@pytest.mark.parametrize("kind", [FULL, AS_THE_STORE_SAYS_IT])
def test_a_save_that_fails(kind, tmp_path, monkeypatch, capfd):
    """Is said in a line, whatever the store calls it; what ended the training before is not buried by it; and with room
    the same step can be saved again."""
    real = Checkpoints._to_disk

    def full(self):
        raise kind

    monkeypatch.setattr(Checkpoints, "_to_disk", full)
    with refused("cannot write to .*checkpoints: No space left on device; make room"):
        save(tmp_path, 1)
    with pytest.raises(UserError, match="the density"):
        with Checkpoints(tmp_path, "sft") as checkpoints:
            checkpoints.save(1, {"state": state(1)})
            raise UserError("the density trained is another one")
    assert "the last checkpoint is lost: cannot write to" in capfd.readouterr().err
    monkeypatch.setattr(Checkpoints, "_to_disk", real)
    assert steps(tmp_path) == []
    save(tmp_path, 1)
    assert steps(tmp_path) == [1]


def test_a_save_that_fails_is_noticed_at_the_next_step(tmp_path, monkeypatch):
    def full(self):
        raise FULL

    monkeypatch.setattr(Checkpoints, "_to_disk", full)
    with refused("No space left"), Checkpoints(tmp_path, "sft") as checkpoints:
        checkpoints.save(1, {"state": state(1)})
        for _ in range(1000):
            checkpoints.check()
            time.sleep(0.01)


def test_a_workdir_of_another_stage(tmp_path):
    save(tmp_path, 1)
    with refused("'sft', not 'rl'"):
        Checkpoints(tmp_path, "rl")


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with refused("cannot write to .*choose another --workdir"):
        Checkpoints(tmp_path / "file", "sft")
    shutil.rmtree(tmp_path, ignore_errors=True)
