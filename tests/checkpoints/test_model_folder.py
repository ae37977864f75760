"""Model folders and training checkpoints: round trips, and damage that is refused in one line."""

import json
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_batch import MODEL, params, processor

from janus_jax.checkpoints import loading, model_folder
from janus_jax.checkpoints.model_folder import load_params, save_model
from janus_jax.errors import UserError
from janus_jax.models.janus import JanusConfig
from janus_jax.sequences import tokens
from janus_jax.training.workdir import Checkpoints

TREE = {
    "a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.array([0.1, -2.5, 1e-8], np.float32)},
    "b": np.array([1, 2, 3], np.int32),
}


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def save(folder, tree=TREE, **settings):
    save_model(folder, {"kind": "test"}, tree, {"tokenizer.model": b"pieces"}, **settings)
    return folder


def equal(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a, np.float64), np.asarray(b, np.float64))


def refused(match):
    """A UserError in one line."""
    return pytest.raises(UserError, match=f"^[^\n]*{match}[^\n]*$")


# Model folders


def test_round_trip_f32(tmp_path):
    folder = save(tmp_path / "model")
    equal(load_params(folder, abstract(TREE)), TREE)
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "manifest.json",
        "params.safetensors",
        "tokenizer.model",
    }
    assert (folder / "tokenizer.model").read_bytes() == b"pieces"
    assert model_folder.read_config(folder) == {"kind": "test"}
    assert list(tmp_path.iterdir()) == [folder]  # no scratch is left


def test_round_trip_bf16(tmp_path):
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.dtype == np.float32 else x, TREE)
    folder = save(tmp_path / "model", dtype=jnp.bfloat16)
    # as stored; as f32; integers keep their type
    equal(load_params(folder, abstract(TREE)), rounded)
    back = load_params(folder, abstract(TREE), jnp.float32)
    equal(back, jax.tree.map(lambda x: x.astype(np.float32) if x.dtype != np.int32 else x, rounded))
    assert (np.asarray(back["a"]["bias"]) != TREE["a"]["bias"]).any()
    whole, half = (
        sum(f.stat().st_size for f in save(tmp_path / n, params(), dtype=d).iterdir())
        for n, d in (("whole", None), ("half", jnp.bfloat16))
    )
    assert half < 0.75 * whole


def test_a_new_model_replaces_the_old_one(tmp_path):
    save(tmp_path / "model")
    (tmp_path / "model" / "stray").write_text("of an older version")
    other = {"c": np.zeros(2, np.float32)}
    save(tmp_path / "model", other)
    equal(load_params(tmp_path / "model", abstract(other)), other)
    assert not (tmp_path / "model" / "stray").exists()


@pytest.mark.parametrize("name", ["params.safetensors", "config.json", "tokenizer.model", "manifest.json"])
def test_any_damaged_file_is_refused(tmp_path, name):
    folder = save(tmp_path / "model")
    path = folder / name
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in {0, len(good) - 2, *rng.integers(0, len(good), 20).tolist()}:
        for bit in (1, 128):
            bad = bytearray(good)
            bad[place] ^= bit
            path.write_bytes(bad)
            if name == "manifest.json" and same_json(bad, good):
                continue
            with refused(""):
                load_params(folder, abstract(TREE))
    for length in (0, 1, len(good) // 2, len(good) - 2):
        path.write_bytes(good[:length])
        with refused(""):
            load_params(folder, abstract(TREE))
    path.write_bytes(good)
    equal(load_params(folder, abstract(TREE)), TREE)
    path.unlink()
    with refused("missing" if name != "manifest.json" else "has no readable manifest.json"):
        load_params(folder, abstract(TREE))


def same_json(a, b):
    try:
        return json.loads(a) == json.loads(b)
    except ValueError:
        return False


@pytest.mark.parametrize(
    "other, message",
    [
        ({**TREE, "c": np.zeros(2, np.float32)}, "c is missing"),
        ({"a": TREE["a"]}, "b is unexpected"),
        ({**TREE, "b": np.zeros(4, np.int32)}, r"b is \[3\], not \[4\]"),
        (
            {"a": {"kernel": TREE["a"]["kernel"].T}, "b": TREE["b"]},
            r"a/bias is unexpected; a/kernel is \[2, 3\], not \[3, 2\]",
        ),
        ({str(i): np.zeros(2, np.float32) for i in range(9)}, "0 is missing; .*; 8 is missing; a/bias is unexpected"),
    ],
)
def test_another_model_is_refused(tmp_path, other, message):
    folder = save(tmp_path / "model")
    with refused(f"does not hold this model: .*{message}"):
        load_params(folder, abstract(other))


def test_nothing_half_written_when_writing_fails(tmp_path, monkeypatch):
    folder = save(tmp_path / "model")
    seal = model_folder.seal

    def full(*args):
        raise OSError(28, "No space left on device")

    for name in ("seal", "write_safetensors"):
        with monkeypatch.context() as patch:
            patch.setattr(model_folder, name, full)
            with refused("No space left on device; choose another place"):
                save(folder, {"c": np.zeros(2, np.float32)})
            with refused("No space left on device; choose another place"):
                save(tmp_path / "new")
        assert list(tmp_path.iterdir()) == [folder]  # neither the new one nor any scratch
        equal(load_params(folder, abstract(TREE)), TREE)
    assert model_folder.seal is seal
    # a kill leaves a scratch folder behind, never the name
    with monkeypatch.context() as patch:
        patch.setattr(model_folder, "write_safetensors", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_disk_that_is_really_full(tmp_path):
    # a limit on the size of files, so that the library's own writing fails
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with refused("cannot write"):
            save(tmp_path / "model", {"c": np.zeros(50_000, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with refused("cannot write to .*choose another place"):
        save(tmp_path / "file" / "model")


# Loading what was saved


def saved(folder):
    loading.save(folder, MODEL, params(), processor(), jnp.float32)
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "checkpoints").mkdir()
    saved(folder / "model")
    return folder


def test_load_from_a_folder_or_a_workdir(workdir):
    assert loading.find(workdir) == loading.find(workdir / "model") == workdir / "model"
    for path in (workdir, str(workdir / "model")):
        model, got, read = loading.load(path)
        assert model == MODEL and hash(model) == hash(MODEL)
        equal(got, params())
        assert read.special == processor().special and read.understanding_size == read.generation_size == 16
        assert read.encode("two red circles") == processor().encode("two red circles")
    model, got, _ = loading.load(workdir, dtype=jnp.bfloat16)
    assert model.cfg.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(jnp.bfloat16)}


def test_what_is_no_checkpoint(tmp_path, workdir):
    with refused("no checkpoint at .*nowhere: give a model folder, a finished workdir"):
        loading.load(tmp_path / "nowhere")
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    with refused("a training that has not finished"):
        loading.load(tmp_path / "unfinished")
    with refused("not a janus_jax model .*'test'"):
        loading.load(save(tmp_path / "other"))
    with refused("not a picture tokenizer"):
        loading.load_vq(workdir)
    (tmp_path / "text").mkdir()
    for text in ("{", "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), ""):
        (tmp_path / "text" / "config.json").write_text(text, encoding="latin-1")
        with refused("not valid JSON"):
            loading.load(tmp_path / "text")


def test_a_damaged_configuration_is_refused(tmp_path):
    folder = saved(tmp_path / "model")
    path = folder / "config.json"
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(good), 60).tolist():
        bad = bytearray(good)
        bad[place] ^= 1
        path.write_bytes(bad)
        with refused(""):
            loading.load(folder)
    for text in ("[]", "3", '{"kind": "janus"}', '{"kind": "janus", "model": {"llama": {"kv_heads": 0}}}'):
        path.write_text(text)
        with refused(""):
            loading.load(folder)
        model_folder.seal(folder)  # not damage, but what somebody wrote
        with refused("config.json"):
            loading.load(folder)


def test_another_size_is_refused(workdir, tmp_path):
    loading.same_sizes(workdir, MODEL.cfg)
    plain = MODEL.cfg.to_dict()
    sizes = ("llama", "layers", 3), ("vq", "channel_multipliers", [1, 2, 2]), ("siglip", "patch_size", 4)
    for part, name, value in sizes:
        other = JanusConfig.from_dict({**plain, part: {**plain[part], name: value}})
        with refused(f"has {part}.{name} = .*the configuration says .*use a checkpoint of this size"):
            loading.same_sizes(workdir, other)
    # how it computes is not a size
    loading.same_sizes(workdir, JanusConfig.from_dict({**plain, "dtype": "bfloat16", "remat": "full"}))
    # a tokenizer with more ids than the model has
    small = JanusConfig.from_dict({**plain, "llama": {**plain["llama"], "vocab_size": 400}})
    with refused("480 ids, the model only 400"):
        loading.processor_of(small, processor().tokenizer)


def test_a_model_without_its_tokenizer(tmp_path):
    folder = saved(tmp_path / "model")
    (folder / processor().tokenizer.file_name).unlink()
    with refused("tokenizer.model is missing|holds no tokenizer"):
        loading.load(folder)
    assert tokens.Tokenizer.FILES == ("tokenizer.model", "tokenizer.json")


# Trainings


def state(step):
    return {"w": jnp.arange(4.0) + step, "step": jnp.asarray(step, jnp.int32)}


def shapes():
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state(0))


def restore(checkpoints, step):
    return checkpoints.restore(step, {"state": shapes()}, ["data"])


def test_checkpoints_come_back(tmp_path):
    with Checkpoints(tmp_path, "sft") as checkpoints:
        assert checkpoints.latest() is None
        for step in (1, 2, 3):
            checkpoints.save(step, {"state": state(step)}, {"data": {"position": 10 * step}})
    with Checkpoints(tmp_path, "sft") as checkpoints:
        assert checkpoints.latest() == 3
        got = restore(checkpoints, 3)
        equal(got["state"], state(3))
        assert got["data"] == {"position": 30}
        equal(restore(checkpoints, 2)["state"], state(2))
    kept = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"2", "3"}


def test_what_a_kill_left_unsealed_does_not_count(tmp_path):
    with Checkpoints(tmp_path, "sft") as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"state": state(step)}, {"data": step})
    (tmp_path / "checkpoints" / "2" / "manifest.json").unlink()
    with Checkpoints(tmp_path, "sft") as checkpoints:
        assert checkpoints.latest() == 1
        with refused("no readable manifest.json"):
            restore(checkpoints, 2)
        checkpoints.discard_unsealed()
        assert not (tmp_path / "checkpoints" / "2").exists()
        checkpoints.save(2, {"state": state(7)}, {"data": 7})
        checkpoints.wait()
        assert checkpoints.latest() == 2
        equal(restore(checkpoints, 2)["state"], state(7))


def test_a_damaged_checkpoint_is_refused(tmp_path):
    with Checkpoints(tmp_path, "sft") as checkpoints:
        checkpoints.save(5, {"state": state(5)}, {"data": 5})
    files = [path for path in (tmp_path / "checkpoints" / "5").rglob("*") if path.is_file()]
    files = [path for path in files if path.name != "manifest.json" and path.stat().st_size]
    assert len(files) >= 3
    for path in files:
        good = path.read_bytes()
        bad = bytearray(good)
        bad[len(bad) // 2] ^= 1
        for content in (bytes(bad), good[: len(good) // 2]):
            path.write_bytes(content)
            with Checkpoints(tmp_path, "sft") as checkpoints, refused("is damaged"):
                restore(checkpoints, 5)
        path.write_bytes(good)
    with Checkpoints(tmp_path, "sft") as checkpoints:
        equal(restore(checkpoints, 5)["state"], state(5))


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with refused("cannot write to .*choose another --workdir"):
        Checkpoints(tmp_path / "file", "sft")
