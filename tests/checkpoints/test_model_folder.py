"""Model folders and training checkpoints: round trips, and damage that is refused in one line."""

import json
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import MODEL, OTHER, params, processor

from janus_jax import convert
from janus_jax.checkpoints import loading, model_folder
from janus_jax.checkpoints.model_folder import load_params, save_model
from janus_jax.errors import UserError
from janus_jax.models.janus import JanusConfig
from janus_jax.sequences import tokens
from janus_jax.shapes.world import SHIPPED

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


def test_a_part_is_read_alone(tmp_path):
    """What does not belong to it is not looked at: a ruined weight there is not found."""
    folder, ruined = tmp_path / "model", jax.tree.map(np.array, params())
    ruined["llama"]["norm"]["scale"][0] = np.nan
    loading.save(folder, MODEL, ruined, processor())
    _, read, _ = loading.load(folder, part="vq")
    assert set(read) == {"vq"}
    jax.tree.map(np.testing.assert_array_equal, read["vq"], params()["vq"])
    with refused("the weights are ruined: llama/norm/scale"):
        loading.load(folder)


def test_what_is_no_checkpoint(tmp_path):
    with refused("no checkpoint at .*nowhere: give a model folder, a finished workdir"):
        loading.load(tmp_path / "nowhere")
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    with refused("a training that has not finished"):
        loading.load(tmp_path / "unfinished")
    with refused("not a janus_jax model .*'test'"):
        loading.load(save(tmp_path / "other"))
    with refused("not a picture tokenizer, nor a model"):
        loading.load_vq(tmp_path / "other")
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


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("model.llama.layers", -1, "llama.layers is '-1': it must be a whole number from 1"),
        ("model.llama.layers", "4", "llama.layers is '4'"),
        ("model.llama.layers", True, "llama.layers is 'True'"),
        ("model.llama.heads", -4, "llama.heads is '-4'"),
        ("model.llama.vocab_size", 10**12, "llama.vocab_size is '1000000000000'"),
        ("model.llama.norm_eps", float("nan"), "llama.norm_eps is 'nan': it must be a number above 0"),
        ("model.llama.rope_theta", float("inf"), "llama.rope_theta is 'inf'"),
        ("model.llama.depth", 2, "unknown key 'llama.depth'"),
        ("model.llama", [], "llama is .*: it must be an object"),
        ("model.siglip.patch_size", 0.5, "siglip.patch_size is '0.5'"),
        ("model.vq.channel_multipliers", [], "vq.channel_multipliers is .*: it must be 1 to 12 whole numbers"),
        ("model.vq.channel_multipliers", [1, True], "vq.channel_multipliers"),
        ("model.vq.attention", 1, "vq.attention is '1': it must be true or false"),
        ("model.dtype", "int32", "dtype is 'int32': it must be one of float32, bfloat16"),
        ("model.dtype", None, "dtype is 'None'"),
        ("model.remat", ["full"], "remat is .*: it must be one of none, full, dots"),
        ("model.scan", "yes", "scan is 'yes'"),
        ("model", None, "the model is 'None': it must be an object"),
        ("temperature", "hot", "temperature = 'hot': it must be a number"),
        ("temperature", True, "temperature = 'True'"),
        ("cfg_weight", float("nan"), "cfg_weight = 'nan'"),
        ("cfg_weight", 10**400, "cfg_weight = '10000"),
    ],
)
def test_a_configuration_that_makes_no_sense(tmp_path, key, value, words):
    """One line that names the key, from all that read it."""
    folder = saved(tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    *parents, last = key.split(".")
    inside = content
    for parent in parents:
        inside = inside[parent]
    inside[last] = value
    (folder / "config.json").write_text(json.dumps(content))
    model_folder.seal(folder)
    with refused(f"config.json .*{words}"):
        loading.load(folder)
    with refused(f"config.json .*{words}"):
        loading.same_sizes(folder, MODEL.cfg) if key.startswith("model") else loading.drawn_with(folder)


@pytest.mark.parametrize("name", ["local_norm", "patch"])
def test_every_size_is_said(tmp_path, name):
    folder = saved(tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    del content["model"]["vq"][name]
    (folder / "config.json").write_text(json.dumps(content))
    model_folder.seal(folder)
    with refused(f"config.json does not describe a model: vq.{name} is missing"):
        loading.load(folder)


def test_the_tokenizer_of_a_model(tmp_path):
    folder = tmp_path / "model"
    loading.save(folder, MODEL, params(), processor())
    vq, read = loading.load_vq(folder)
    assert vq.cfg == MODEL.cfg.vq
    jax.tree.map(np.testing.assert_array_equal, read, params()["vq"])


def test_a_tokenizer_that_makes_no_sense(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"kind": "vq", "vq": {"channels": "8"}}))
    model_folder.seal(tmp_path)
    with refused("config.json does not describe a tokenizer: vq.channels is '8'"):
        loading.load_vq(tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "nan", b"\xff\xfe{}".decode("latin-1")]
)
def test_json_without_end(tmp_path, text):
    folder = saved(tmp_path / "model")
    for name, words in (("config.json", "config.json"), ("manifest.json", "no readable manifest.json")):
        good = (folder / name).read_bytes()
        (folder / name).write_text(text, encoding="latin-1")
        with refused(words):
            loading.load(folder)
        with refused(""):
            load_params(folder, abstract(TREE))
        (folder / name).write_bytes(good)


def test_a_byte_order_mark_does_no_harm(tmp_path):
    folder = saved(tmp_path / "model")
    for name in ("config.json", "manifest.json"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
        if name == "config.json":
            model_folder.seal(folder)
    loading.load(folder)


def test_a_manifest_that_lists_too_little(tmp_path):
    folder = saved(tmp_path / "model")
    whole = json.loads((folder / "manifest.json").read_text())
    for listed, words in (
        ({}, "config.json"),
        ({name: whole[name] for name in whole if "params" not in name}, "params.safetensors"),
        ({name: whole[name] for name in whole if "tokenizer" not in name}, "tokenizer.model"),
        (whole | {"params.safetensors": None}, "params.safetensors"),
    ):
        (folder / "manifest.json").write_text(json.dumps(listed))
        with refused(f"manifest.json does not list {words}"):
            loading.load(folder)
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / "manifest.json").write_text("{}")
    with refused("does not list any file"):
        model_folder.verify(tmp_path / "5")


def test_ruined_weights_are_refused(tmp_path):
    ruined = jax.tree.map(np.array, params())
    ruined["llama"]["norm"]["scale"][3] = np.nan
    loading.save(tmp_path / "model", MODEL, ruined, processor(), jnp.float32)
    with refused("the weights are ruined: llama/norm/scale holds NaN"):
        loading.load(tmp_path / "model")


def test_integers_are_no_weights(tmp_path):
    folder = save(tmp_path / "model", {"a": np.arange(3)})
    with refused("a is stored as int64, not as floating-point numbers"):
        load_params(folder, abstract({"a": np.zeros(3, np.float32)}))


def test_all_is_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    """Each file before the manifest has its name, the manifest before the folder has its name, and that at the end."""
    done = []
    sync, rename = model_folder._sync, model_folder.Path.rename
    monkeypatch.setattr(model_folder, "_sync", lambda path: (done.append(("sync", path.name)), sync(path))[1])
    monkeypatch.setattr(
        model_folder.Path, "rename", lambda self, to: (done.append(("rename", to.name)), rename(self, to))[1]
    )
    save(tmp_path / "model")
    for name in ("params.safetensors", "config.json", "tokenizer.model", "manifest.json.tmp"):
        assert done.index(("sync", name)) < done.index(("rename", "manifest.json"))
    assert done.index(("rename", "manifest.json")) < done.index(("sync", "manifest.json"))
    assert done.index(("sync", "manifest.json")) < done.index(("rename", "model"))
    assert done[-1] == ("sync", tmp_path.name)


def test_a_checkpoint_knows_its_world(tmp_path, monkeypatch):
    """What is said is kept, by `convert` too; where nothing is said it is the shipped models'."""
    assert loading.world_of("shapes-sft") is SHIPPED
    monkeypatch.setitem(loading.WORLDS, "other", OTHER)
    loading.save(tmp_path / "none", MODEL, params(), processor())
    assert loading.world_of(tmp_path / "none") is SHIPPED and loading.named_world(tmp_path / "none") is None
    loading.save(tmp_path / "one", MODEL, params(), processor(), world=OTHER)
    assert loading.world_of(tmp_path / "one") is OTHER
    convert.main(["--src", str(tmp_path / "one"), "--dst", str(tmp_path / "two"), "--to", "own"])
    assert loading.world_of(tmp_path / "two") is OTHER
    path = tmp_path / "two" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "world": "third"}))
    with pytest.raises(UserError, match="names the world 'third': it must be one of second, other"):
        loading.world_of(tmp_path / "two")
