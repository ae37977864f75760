"""Published formats in and out: names, round trips bit by bit, what is refused, and the memory that loading takes.

The model is tiny: a tower small enough stands in the tables of the original's towers under a name of its own.
"""

import dataclasses
import json
import re
import resource
import shutil
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from published_folders import (
    BF16,
    CFG,
    GOLDEN,
    POOL,
    TOKENIZER,
    USED,
    folder_of,
    identical,
    refused,
    run,
    shapes,
    tensors_of,
    weights_of,
)
from safetensors.numpy import load_file, save_file

from janus_jax import convert
from janus_jax.checkpoints import loading, model_folder, published, published_config, tensorfiles
from janus_jax.checkpoints.tensor_names import HF, ORIGINAL, gather, place, read, scatter, slots
from janus_jax.models.janus import JanusConfig, abstract_params
from janus_jax.models.llama import LlamaConfig
from janus_jax.models.siglip import SiglipConfig
from janus_jax.models.vq import VQConfig
from janus_jax.parallel import sharding
from janus_jax.sampling.defaults import sampling_of
from janus_jax.sampling.density import Sampling

FULL = dataclasses.replace(CFG, vq=VQConfig(), siglip=SiglipConfig(layers=2))  # every kind of block


@pytest.fixture(autouse=True)
def tiny_towers(monkeypatch):
    monkeypatch.setitem(published_config.SIGLIPS, "siglip_tiny", CFG.siglip)
    monkeypatch.setitem(published_config.VQS, "VQ-tiny", CFG.vq)


def edit_json(path, key, value):
    """Sets a dotted key."""
    content = json.loads(path.read_text())
    *parents, last = key.split(".")
    inside = content
    for parent in parents:
        inside = inside[parent]
    inside[last] = value
    path.write_text(json.dumps(content))


# Names


@pytest.mark.parametrize("rules", [ORIGINAL, HF], ids=["original", "hf"])
def test_every_leaf_has_its_tensors_and_every_rule_is_used(rules):
    used = set()
    named = slots(shapes(FULL), rules)
    for name, slot in named.items():
        at = "" if slot.layer is None else f"[{slot.layer}{'' if slot.part is None else ',' + 'qkv'[slot.part]}]"
        assert place(name, rules) == slot.path + at  # the table, read in its two directions
        used.add(next(i for i, (regex, _, _) in enumerate(rules) if re.fullmatch(regex, name)))
    assert used == {i for i, (_, template, _) in enumerate(rules) if template is not None}
    assert {slot.path for slot in named.values()} == shapes(FULL).keys()
    with pytest.raises(ValueError, match="no rule matches the leaf llama/other"):
        slots({"llama/other": (2,)}, rules)


def test_original_names_and_shapes_are_the_reference():
    spec = {name: tuple(shape) for name, shape in json.loads((GOLDEN / "spec.json").read_text()).items()}
    cfg = JanusConfig(LlamaConfig(1024, 256, 3, 4, 4, 64, 688), SiglipConfig(layers=3))
    named = {name: slot.tensor_shape for name, slot in slots(shapes(cfg), ORIGINAL).items()}
    assert {n: s for n, s in spec.items() if place(n) is not None} == named


@pytest.mark.parametrize("rules", [ORIGINAL, HF], ids=["original", "hf"])
def test_scatter_is_the_inverse_of_gather(rules):
    tensors = tensors_of(rules)
    leaves, extra = gather(tensors, shapes(), rules)
    back = {name: np.ascontiguousarray(tensor.value()) for name, tensor in scatter(leaves, rules).items()}
    identical(back | extra, tensors)
    assert set(extra) == ({POOL, USED} if rules is ORIGINAL else set())
    # two formats, one tree: the same leaf from fused and from separate projections
    if rules is HF:
        original = {name: tensor.value() for name, tensor in scatter(leaves, ORIGINAL).items()}
        qkv = [tensors[f"model.vision_model.encoder.layers.1.self_attn.{p}_proj.weight"] for p in "qkv"]
        assert (original["vision_model.vision_tower.blocks.1.attn.qkv.weight"] == np.concatenate(qkv)).all()


def test_parts_of_a_leaf_are_read_alone():
    leaves, _ = gather(tensors_of(HF), shapes(), HF)
    for path in ("siglip/layers/qkv/kernel", "llama/layers/attn/o", "llama/lm_head", "vq/encoder/conv_in/kernel"):
        whole = read(leaves[path])
        for index in ((slice(1, 2),), (slice(None), slice(2, 7)), (slice(0, 2), slice(None, None))):
            np.testing.assert_array_equal(read(leaves[path], index), whole[index])


# Folders


def test_configurations_in_both_formats():
    for name in published.FORMATS:
        for cfg in (CFG, JanusConfig.preset("1b"), JanusConfig.preset("7b"), FULL):
            if name == "hf" or cfg is not CFG:
                config = json.loads(published.small_files(cfg, name, "bfloat16", TOKENIZER, False)["config.json"])
                assert published.format_of(config) == name
                assert published.read_config(config, name) == cfg
    local = dataclasses.replace(CFG, vq=dataclasses.replace(CFG.vq, local_norm=True))
    for cfg, reason in ((JanusConfig.preset("shapes"), "32 groups"), (local, "vq.local_norm would be lost")):
        with refused(f"the hf format has no such model .*{reason}.*--to own"):
            published.small_files(cfg, "hf", "float32", TOKENIZER, False)


def test_published_configurations_leave_out_what_is_default():
    # what the 7B's says of its decoder, and what HF's says of a 1B
    language = {"max_position_embeddings": 16384, "model_type": "llama", "num_hidden_layers": 30, "vocab_size": 102400}
    towers = {
        "vision_config": {"cls": "CLIPVisionTower", "params": {"model_name": "siglip_large_patch16_384"}},
        "gen_vision_config": {"cls": "VQ-16", "params": {"image_token_size": 16384, "n_embed": 8}},
    }
    config = {"model_type": "multi_modality", "language_config": language, **towers}
    assert published.read_config(config, "original") == JanusConfig.preset("7b")
    text = {"hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 16, "num_hidden_layers": 24}
    text |= {"max_position_embeddings": 16384, "vocab_size": 102400}
    config = {"model_type": "janus", "text_config": text, "vision_config": {}, "vq_config": {}}
    assert published.read_config(config, "hf") == JanusConfig.preset("1b")


def test_select_layer_keeps_the_first_blocks(tmp_path):
    tensors = tensors_of(ORIGINAL)
    folder = folder_of(tmp_path / "a", "original", tensors)
    whole = loading.load(folder)[1]
    for chosen, layers in ((2, 2), (-1, 3), (-2, 2), (9, 3)):
        edit_json(folder / "config.json", "vision_config.params.select_layer", chosen)
        model, params, _ = loading.load(folder)
        assert model.cfg.siglip.layers == layers
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[: len(a)]), params["siglip"], whole["siglip"])
    # blocks that are not run travel, too
    edit_json(folder / "config.json", "vision_config.params.select_layer", 1)
    run(src=folder, dst=tmp_path / "own", to="own")
    run(src=tmp_path / "own", dst=tmp_path / "back", to="original")
    identical(weights_of(tmp_path / "back"), tensors)
    assert json.loads((tmp_path / "back/config.json").read_text())["vision_config"]["params"]["select_layer"] == 1


def mixed(name):
    return {"scale": np.float32, "norm": np.float32, "embed": np.float16}.get(name.split(".")[-2][-5:], BF16)


@pytest.mark.parametrize("name, dtype", [("original", BF16), ("original", mixed), ("hf", BF16), ("hf", np.float32)])
def test_round_trips_are_exact(tmp_path, name, dtype):
    tensors = tensors_of(published.FORMATS[name].rules, dtype)
    if name == "original":
        tensors[USED] = np.arange(7)  # an integer, to its last bit
    source = folder_of(tmp_path / "source", name, tensors, dtype="bfloat16", shards=3)
    (source / "processor_config.json").write_text('{"of": "the source"}')
    run(src=source, dst=tmp_path / "own")
    run(src=tmp_path / "own", dst=tmp_path / "again")
    run(src=tmp_path / "again", dst=tmp_path / "back", to=name)
    identical(weights_of(tmp_path / "back"), tensors)
    assert (tmp_path / "back" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert (tmp_path / "back" / "processor_config.json").read_text() == '{"of": "the source"}'
    # and none of it is in the parameter tree
    a, b = (loading.load(tmp_path / folder)[1] for folder in ("source", "own"))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_across_the_formats(tmp_path):
    tensors = tensors_of(ORIGINAL, BF16)
    source = folder_of(tmp_path / "source", "original", tensors)
    run(src=source, dst=tmp_path / "hf", to="hf")
    assert len(weights_of(tmp_path / "hf")) == len(slots(shapes(), HF))
    run(src=tmp_path / "hf", dst=tmp_path / "back", to="original")
    identical(weights_of(tmp_path / "back"), {n: t for n, t in tensors.items() if n not in (POOL, USED)})
    # what HF does not have comes back from the source, where that is named
    run(src=tmp_path / "hf", dst=tmp_path / "lent", to="original", base=source)
    identical(weights_of(tmp_path / "lent"), tensors)
    run(src=source, dst=tmp_path / "f32", to="original", dtype="float32")
    identical(weights_of(tmp_path / "f32"), {n: t.astype(np.float32) for n, t in tensors.items()})


def test_load_gives_model_parameters_and_processor(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "hf", "hf", tensors_of(HF, BF16))
    model, params, processor = loading.load(folder, dtype=jnp.bfloat16)
    assert model.cfg == dataclasses.replace(CFG, dtype="bfloat16")
    abstract = abstract_params(model)
    assert jax.tree.structure(params) == jax.tree.structure(abstract)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {BF16}
    assert processor.encode("a red circle") == TOKENIZER.encode("a red circle")
    mesh = sharding.make_mesh(data=1, fsdp=2, tensor=2)
    asked = []
    monkeypatch.setattr(model_folder, "read", lambda leaf, index=(): asked.append(read(leaf, index)) or asked[-1])
    spread = loading.load(folder, dtype=jnp.bfloat16, mesh=mesh)[1]
    # each device's part alone is read: a quarter of this leaf
    assert {x.shape for x in asked if x.shape[0] == 2 and x.ndim == 4} == {(2, 16, 2, 8), (2, 16, 1, 8), (2, 2, 8, 16)}
    jax.tree.map(np.testing.assert_array_equal, params, spread)
    for leaf, where in zip(
        jax.tree.leaves(spread), jax.tree.leaves(sharding.param_shardings(abstract, mesh)), strict=True
    ):
        assert leaf.sharding == where
    assert sampling_of(folder) == Sampling(cfg_weight=5.0, temperature=1.0)
    loading.same_sizes(folder, CFG)


def test_a_tied_text_head(tmp_path):
    # transformers leaves it out of the file
    tensors = tensors_of(HF)
    del tensors["lm_head.weight"]
    folder = folder_of(tmp_path / "hf", "hf", tensors)
    with refused("lm_head.weight is missing"):
        loading.load(folder)
    edit_json(folder / "config.json", "tie_word_embeddings", True)
    params = loading.load(folder)[1]["llama"]
    np.testing.assert_array_equal(params["lm_head"], params["embed_tokens"].T)
    run(src=folder, dst=tmp_path / "own")
    run(src=tmp_path / "own", dst=tmp_path / "back", to="hf")
    identical(weights_of(tmp_path / "back"), tensors)
    assert json.loads((tmp_path / "back" / "config.json").read_text())["tie_word_embeddings"]


def test_from_the_hub(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "snapshot", "original", tensors_of(ORIGINAL))
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append(name)
        if name != "deepseek-ai/Janus-Pro-1B":
            raise OSError("404\nnot there")
        assert {"*.json", "*.safetensors", "*.bin"} <= set(allow_patterns)
        return str(folder)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    assert loading.load("deepseek-ai/Janus-Pro-1B")[0].cfg == CFG
    with refused("no checkpoint at deepseek-ai/Janus-Pro-0B, and the hub does not give it .404 not there"):
        loading.load("deepseek-ai/Janus-Pro-0B")
    monkeypatch.chdir(tmp_path)
    for path in ("snapshot/typo", "./nowhere", "nowhere", "a/b/c"):  # a path, not a name
        with refused("no checkpoint at"):
            loading.load(path)
    assert asked == ["deepseek-ai/Janus-Pro-1B", "deepseek-ai/Janus-Pro-0B"]


# Files


def test_shards_and_their_index(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"t{i}": rng.standard_normal((i, 10)).astype(np.float32) for i in range(1, 9)}
    tensors = {n: tensorfiles.Tensor(x.shape, x.dtype, lambda x=x: x) for n, x in arrays.items()}
    tensorfiles.write_shards(tmp_path, tensors, limit=600)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in arrays.values())
    sizes = {}
    for name, file in index["weight_map"].items():
        sizes[file] = sizes.get(file, 0) + arrays[name].nbytes
    assert set(sizes) == {f"model-{i + 1:05d}-of-{len(sizes):05d}.safetensors" for i in range(len(sizes))}
    assert len(sizes) == 3 and all(size <= 600 for size in sizes.values())
    identical(weights_of(tmp_path), arrays)  # by the library that everybody reads them with
    identical(tensorfiles.read_folder(tmp_path), arrays)


def test_all_dtypes_both_ways(tmp_path):
    arrays = {name: np.arange(-3, 4).astype(dtype).reshape(1, 7) for name, dtype in tensorfiles.DTYPES.items()}
    arrays["scalar"], arrays["empty"] = np.array(2.5, np.float32), np.zeros((0, 3), BF16)
    tensors = {n: tensorfiles.Tensor(x.shape, x.dtype, lambda x=x: x) for n, x in arrays.items()}
    tensorfiles.write_safetensors(tmp_path / "ours", tensors)
    identical(load_file(tmp_path / "ours"), arrays)
    save_file(arrays, tmp_path / "theirs.safetensors")
    identical(tensorfiles.read_safetensors(tmp_path / "theirs.safetensors"), arrays)


# What is refused


def test_tensors_that_do_not_fit_are_all_listed(tmp_path):
    tensors = tensors_of(ORIGINAL)
    gone = [name for name in tensors if "mlp.up_proj" in name or "gen_aligner" in name]
    assert len(gone) == 6
    for name in gone:
        del tensors[name]
    tensors["gen_embed.weight"] = tensors["gen_embed.weight"].T.copy()
    tensors["language_model.model.layers.2.input_layernorm.weight"] = np.ones(32, np.float32)
    tensors["stranger"] = np.ones(3, np.float32)
    folder = folder_of(tmp_path / "a", "original", tensors)
    with refused("do not fit the configuration") as error:
        loading.load(folder)
    for name in gone:
        assert f"{name} is missing" in str(error.value)
    assert "gen_embed.weight is [8, 64], not [64, 8]" in str(error.value)
    assert "layers.2.input_layernorm.weight is unexpected" in str(error.value)
    assert "stranger is unexpected" in str(error.value)


def test_a_configuration_of_other_weights(tmp_path):
    folder = folder_of(tmp_path / "a", "hf", tensors_of(HF))
    edit_json(folder / "config.json", "text_config.intermediate_size", 48)
    with refused(r"layers.0.mlp.down_proj.weight is \[32, 40\], not \[32, 48\]"):
        loading.load(folder)


@pytest.mark.parametrize(
    "name, key, value, words",
    [
        ("original", "vision_config.cls", "EVATower", "'EVATower', this model computes 'CLIPVisionTower' alone"),
        ("original", "vision_config.params.model_name", "siglip_so400m", "'siglip_so400m'; known: siglip_large"),
        ("original", "gen_vision_config.cls", "VQ-8", "'VQ-8'; known: VQ-16"),
        ("original", "aligner_config.params.projector_type", "linear", "projector_type = 'linear'"),
        ("original", "aligner_config.params.n_embed", 64, "n_embed = 64, this model computes 32"),
        ("original", "gen_head_config.params.image_token_size", 65, "image_token_size = 65"),
        ("original", "language_config", None, "does not describe a model"),
        ("original", "language_config.num_attention_heads", 0, "does not describe a model"),
        ("original", "model_type", "llava", "not a janus_jax model nor a published Janus .*'llava'"),
        ("hf", "vision_config.use_qk_norm", True, "use_qk_norm = True"),
        ("hf", "vision_config.projection_dim", 64, "projection_dim = 64"),
        ("hf", "vq_config.channel_multiplier", "x", "does not describe a model"),
        ("hf", "vision_config.hidden_size", "24", "does not describe a model"),
        ("hf", "vision_config.num_hidden_layers", -1, r"it must be .*in config.json: vision_config.num_hidden_layers"),
        ("hf", "text_config.num_hidden_layers", "4", r"it must be .*in config.json: text_config.num_hidden_layers"),
        ("hf", "vq_config.channel_multiplier", [], r"in config.json: vq_config.channel_multiplier"),
        ("hf", "vq_config.num_embeddings", True, r"in config.json: vq_config.num_embeddings"),
        ("original", "language_config.rms_norm_eps", float("nan"), r"in config.json: language_config.rms_norm_eps"),
        ("original", "language_config.vocab_size", 10**12, r"in config.json: language_config.vocab_size"),
        ("original", "language_config.num_key_value_heads", 3, "4 heads cannot share 3 kv_heads"),
        ("original", "vision_config.params.select_layer", True, "select_layer = 'True': it must be a whole number"),
    ],
)
def test_configurations_that_we_do_not_compute(tmp_path, name, key, value, words):
    folder = folder_of(tmp_path / "a", name, {"x": np.ones(1, np.float32)})
    edit_json(folder / "config.json", key, value)
    with refused(words):
        loading.load(folder)


def with_offsets(content, offsets):
    """A safetensors file whose header has other offsets at its first tensor."""
    length = int.from_bytes(content[:8], "little")
    text = re.sub(rb'"data_offsets":\[[^]]*\]', b'"data_offsets":' + offsets.encode(), content[8 : 8 + length], count=1)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def test_damaged_files(tmp_path):
    folder = folder_of(tmp_path / "a", "hf", tensors_of(HF), shards=2)
    shard = folder / "model-00002-of-00002.safetensors"
    good = shard.read_bytes()
    length = int.from_bytes(good[:8], "little")
    empty, deep = good.replace(b'"shape":[', b'"shape":[0,', 1), b"[" * 100_000
    for content in (good[:-5], good[: length // 2], good[:5], b"", good + b"12345678", empty):
        shard.write_bytes(content)
        with refused("00002-of-00002.safetensors is no whole safetensors file"):
            loading.load(folder)
    for content in (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        good.replace(b'"F32"', b'"F99"', 1),
        good.replace(b'"shape"', b'"shake"', 1),
        good.replace(b'"shape":[', b'"shape":[9', 1),
        len(deep).to_bytes(8, "little") + deep,
        b"\xff" * 8 + good[8:],
    ):
        shard.write_bytes(content)
        with refused("00002-of-00002.safetensors is no whole safetensors file"):
            loading.load(folder)
    for offsets in ("[0.0,8]", "[-8,8]", "[8,0]", "[0,99999999]", "[1e30,2e30]", "null"):
        shard.write_bytes(with_offsets(good, offsets))
        with refused("00002-of-00002.safetensors is no whole safetensors file"):
            loading.load(folder)
    shard.write_bytes(good)
    index = folder / "model.safetensors.index.json"
    edit_json(index, "weight_map", json.loads(index.read_text())["weight_map"] | {"w": shard.name})
    with refused("a: w not in the file that the index names"):
        loading.load(folder)
    shard.unlink()
    with refused("lacks model-00002-of-00002.safetensors, which its index names"):
        loading.load(folder)
    shutil.copy(folder / "model-00001-of-00002.safetensors", shard)
    with refused("not in the file that the index names"):
        loading.load(folder)
    for text, words in (("[]", "holds no JSON object"), ("{}", "not an index"), ("[" * 100_000, "not valid JSON")):
        index.write_text(text)
        with refused(f"index.json .*{words}"):
            loading.load(folder)
    for file in (3, "../a.safetensors", ""):
        index.write_text(json.dumps({"weight_map": {"w": file}}))
        with refused("index.json"):
            loading.load(folder)
    index.unlink()
    with refused("in two files"):
        loading.load(folder)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    with refused("holds no weights: expected"):
        loading.load(folder)


def same_parameters(folder, expected):
    jax.tree.map(np.testing.assert_array_equal, loading.load(folder)[1], expected)


def test_the_index_says_where_a_tensor_is(tmp_path):
    folder = folder_of(tmp_path / "a", "hf", tensors_of(HF), shards=2)
    expected = loading.load(folder)[1]
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    first, second = (load_file(folder / f"model-0000{i}-of-00002.safetensors") for i in (1, 2))
    # a stale copy in the other shard, and whole files of other weights beside them
    stale = {name: np.zeros_like(tensor) for name, tensor in list(first.items())[:3]}
    save_file(second | stale, folder / "model-00002-of-00002.safetensors")
    save_file(tensors_of(HF, seed=1), folder / "model.safetensors")
    save_file({"lora": np.ones(3, np.float32)}, folder / "adapter_model.safetensors")
    save_file(tensors_of(HF, seed=2), folder / "consolidated.safetensors")
    same_parameters(folder, expected)
    # what the index omits is named where something is missing
    gone = sorted(name for name, file in index.items() if file == "model-00002-of-00002.safetensors")[:2]
    edit_json(folder / "model.safetensors.index.json", "weight_map", {n: f for n, f in index.items() if n not in gone})
    with refused(f"{gone[0]} is missing; {gone[1]} is missing .not read: adapter_model.safetensors, consolidated.*"):
        loading.load(folder)
    # without an index the whole file is the model, whatever else lies there
    (folder / "model.safetensors.index.json").unlink()
    same_parameters(folder, jax.tree.map(np.asarray, loaded_alone(tmp_path, folder)))
    # and without that the numbered shards are
    (folder / "model.safetensors").unlink()
    save_file(second, folder / "model-00002-of-00002.safetensors")
    same_parameters(folder, expected)


def loaded_alone(tmp_path, folder):
    """What a folder's model.safetensors holds, read with nothing beside it."""
    shutil.copytree(folder, tmp_path / "alone")
    for file in (tmp_path / "alone").glob("*.safetensors"):
        if file.name != "model.safetensors":
            file.unlink()
    return loading.load(tmp_path / "alone")[1]


@pytest.mark.parametrize("index", [True, False])
def test_a_shard_that_is_absent_is_named(tmp_path, index):
    """As in a hub's cache, whose links point to what was not fetched."""
    folder = folder_of(tmp_path / "a", "original", tensors_of(ORIGINAL), shards=3)
    if not index:
        (folder / "model.safetensors.index.json").unlink()
    shard = folder / "model-00002-of-00003.safetensors"
    shard.unlink()
    for _ in range(2):
        with refused("a lacks model-00002-of-00003.safetensors, .*: copy the missing files") as error:
            loading.load(folder)
        assert "is missing" not in str(error.value) and len(str(error.value)) < 300
        shard.is_symlink() or shard.symlink_to(tmp_path / "blob")


PARTS = {"original": "language_config", "hf": "text_config"}


@pytest.mark.parametrize("name", published.FORMATS)
def test_rotations(tmp_path, name):
    folder = folder_of(tmp_path / "a", name, tensors_of(published.FORMATS[name].rules))
    part, good = PARTS[name], (folder / "config.json").read_text()
    for key, value in (
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("rope_scaling", "linear"),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}),
        ("rope_parameters", {"rope_type": "default", "partial_rotary_factor": 0.5}),
        ("rope_parameters", {"full_attention": {"rope_type": "default"}, "sliding_attention": {}}),
        ("rope_parameters", {"rope_type": "default", "factor": 8.0}),
        ("partial_rotary_factor", 0.25),
    ):
        (folder / "config.json").write_text(good)
        edit_json(folder / "config.json", f"{part}.{key}", value)
        with refused(f"config.json says {part}.{key}.*this model computes"):
            loading.load(folder)
    for key, value in (
        ("rope_scaling", None),
        ("rope_scaling", {"rope_type": "default"}),
        ("rope_scaling", {"type": "default", "factor": 1.0}),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": 1.0}),
        ("partial_rotary_factor", 1.0),
    ):
        (folder / "config.json").write_text(good)
        edit_json(folder / "config.json", f"{part}.{key}", value)
        theta = loading.open_model(folder).cfg.llama.rope_theta
        assert theta == (5e5 if value and "rope_theta" in str(value) else 1e4)


@pytest.mark.parametrize(
    "name, key, value",
    [
        ("original", "image_size", 24),
        ("original", "image_mean", [0.48145466, 0.4578275, 0.40821073]),
        ("original", "image_std", [0.5, 0.5, 0.4]),
        ("original", "background_color", [0, 0, 0]),
        ("original", "rescale_factor", 1.0),
        ("original", "do_normalize", False),
        ("hf", "size", {"height": 24, "width": 16}),
        ("hf", "size", 24),
        ("hf", "image_mean", 0.5),
        ("hf", "do_rescale", False),
        ("hf", "min_size", "14"),
    ],
)
def test_pictures_prepared_in_another_way(tmp_path, name, key, value):
    folder = folder_of(tmp_path / "a", name, tensors_of(published.FORMATS[name].rules))
    path = folder / "preprocessor_config.json"
    edit_json(path, key, value)
    with refused(f"preprocessor_config.json says {key} = .*this model sees"):
        loading.load(folder)


@pytest.mark.parametrize("name", published.FORMATS)
def test_pictures_prepared_alike(tmp_path, name):
    folder = folder_of(tmp_path / "a", name, tensors_of(published.FORMATS[name].rules))
    path = folder / "preprocessor_config.json"
    for said in (
        json.loads(path.read_text()) | {"rescale_factor": 0.00392156862745098, "do_resize": True, "resample": 3},
        {"image_size": None, "size": 16, "image_mean": [0.5, 0.5, 0.5]},
        {"size": {"longest_edge": 16}},
        {},
    ):
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(said).encode())  # a byte order mark does no harm
        loading.open_model(folder)
    path.write_text("[" * 100_000)
    with refused("preprocessor_config.json is not valid JSON"):
        loading.open_model(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, BF16, np.float16])
def test_weights_that_are_not_finite(tmp_path, value, dtype):
    tensors = tensors_of(ORIGINAL, dtype)
    tensors["language_model.model.layers.1.mlp.up_proj.weight"][3, 5] = value
    folder = folder_of(tmp_path / "a", "original", tensors)
    for mesh in (None, sharding.make_mesh(data=1, fsdp=2, tensor=2)):
        with refused("the weights are ruined: llama/layers/mlp/up holds NaN or infinity"):
            loading.load(folder, mesh=mesh)


@pytest.mark.parametrize("to", ["own", "original", "hf"])
def test_weights_that_are_not_finite_are_not_copied(tmp_path, to):
    tensors = tensors_of(ORIGINAL, np.float32)
    tensors["language_model.model.layers.1.mlp.up_proj.weight"][3, 5] = np.nan
    folder = folder_of(tmp_path / "a", "original", tensors)
    with refused("the weights are ruined: .*up.* holds NaN or infinity"):
        convert.main(["--src", str(folder), "--dst", str(tmp_path / "b"), "--to", to])
    assert not (tmp_path / "b").exists()


def test_finite_to_the_last_bit():
    for dtype in (np.float16, np.float32, np.float64, BF16):
        largest = np.finfo(dtype).max if dtype is not BF16 else ml_dtypes.finfo(BF16).max
        array = np.full(11, largest, dtype)
        array[4] = -largest
        assert model_folder.is_finite(array, step=3)
        for spot in (0, 2, 3, 10):
            spoilt = array.copy()
            spoilt[spot] = -np.inf
            assert not model_folder.is_finite(spoilt, step=3)
    assert model_folder.is_finite(np.arange(4)) and model_folder.is_finite(np.zeros((0, 3), np.float32))


def test_integers_are_no_weights(tmp_path):
    name = "language_model.model.norm.weight"
    folder = folder_of(tmp_path / "a", "original", tensors_of(ORIGINAL) | {name: np.ones(32, np.int32)})
    with refused(f"{name} is stored as int32, not as floating-point numbers"):
        loading.load(folder)


@pytest.mark.parity
@pytest.mark.parametrize("name", published.FORMATS)
def test_one_bos_through_transformers(tmp_path, name):
    import transformers

    folder = folder_of(tmp_path / "a", name, tensors_of(published.FORMATS[name].rules))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = "<|User|>: a red circle\n\n<|Assistant|>:<begin_of_image>"
    assert tokenizer(text)["input_ids"] == TOKENIZER.encode(text)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == TOKENIZER.encode(text, bos=False)
    assert tokenizer.decode(TOKENIZER.encode(text), skip_special_tokens=True) == TOKENIZER.decode(
        TOKENIZER.encode(text)
    )


def test_weights_alone_need_a_base(tmp_path):
    folder = folder_of(tmp_path / "a", "original", tensors_of(ORIGINAL))
    alone = tmp_path / "alone.safetensors"
    other = tensors_of(ORIGINAL, seed=1)
    save_file(other, alone)
    with refused("holds weights alone: name the folder .*--base"):
        loading.load(alone)
    params = loading.load(alone, base=folder)[1]
    np.testing.assert_array_equal(params["gen_embed"], other["gen_embed.weight"])
    with refused("shapes-sft is a folder of our own format: .* --base is a published one"):
        loading.load(alone, base="shapes-sft")
    run(src=alone, base=folder, dst=tmp_path / "b", to="original")
    identical(weights_of(tmp_path / "b"), other)


def test_layers_of_several_dtypes(tmp_path):
    kinds = {"language_model.model.layers.1.mlp.up_proj.weight": BF16}
    folder = folder_of(tmp_path / "a", "original", tensors_of(ORIGINAL, lambda name: kinds.get(name, np.float32)))
    loading.load(folder)
    with refused("layers of llama/layers/mlp/up are stored as bfloat16, float32: choose one .*--dtype"):
        run(src=folder, dst=tmp_path / "b", to="own")


def test_a_disk_that_is_full(tmp_path):
    folder = folder_of(tmp_path / "a", "original", tensors_of(ORIGINAL))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name in ("own", "original", "hf"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            with refused("cannot write .*; choose another place"):
                run(src=folder, dst=tmp_path / "b", to=name)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list(tmp_path.iterdir()) == [folder]


def test_places_that_are_not_written(tmp_path):
    folder = folder_of(tmp_path / "a", "original", tensors_of(ORIGINAL))
    with refused("the same folder"):
        run(src=folder, dst=folder)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("")
    with refused("something else than a model is there"):
        run(src=folder, dst=tmp_path / "home")
    assert (tmp_path / "home" / "thesis.tex").exists()
    with refused("wants a tokenizer.json, this model has tokenizer.model"):
        run(src="shapes-sft", dst=tmp_path / "b", to="original")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "home"}


# Memory

MEASURE = """
import sys, threading, time
import jax, jax.numpy as jnp
from janus_jax import convert
from janus_jax.checkpoints import loading
from janus_jax.models import siglip, vq

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024

def watch():
    while True:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)

src, dst, task = sys.argv[1:]
jax.block_until_ready(jnp.ones(3) + 1)
loading._abstract(loading.open_model(src).cfg)  # tracing takes room of its own
before = anonymous()
peak = [0]
threading.Thread(target=watch, daemon=True).start()
if task == "load":
    params = loading.load(src, dtype=jnp.bfloat16)[1]
    sizes = [leaf.nbytes / 2**20 for leaf in jax.tree.leaves(params)]
else:
    convert.main(["--src", src, "--dst", dst, "--to", task])
    sizes = [0]
print(peak[0] - before, sum(sizes), max(sizes))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A 200 MB model in f32 (HF, whose sizes are free): most of it in stacked leaves."""
    llama = LlamaConfig(vocab_size=1024, width=512, layers=12, heads=8, kv_heads=8, head_dim=64, mlp=2048)
    cfg = dataclasses.replace(CFG, llama=llama)
    folder = tmp_path_factory.mktemp("large") / "hf"
    return folder_of(folder, "hf", tensors_of(HF, cfg=cfg), cfg, shards=2)


def measure(*args):
    command = [sys.executable, "-c", MEASURE, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    return map(float, done.stdout.split())


def test_memory_of_a_load(large, tmp_path):
    peak, size, largest = measure(large, tmp_path, "load")
    assert 90 < size and largest > 20
    assert peak < size + 1.5 * largest
    convert.main(["--src", str(large), "--dst", str(tmp_path / "own")])  # and from our own format, cast on the way
    peak, size, largest = measure(tmp_path / "own", tmp_path, "load")
    assert peak < size + 1.5 * largest


@pytest.mark.parametrize("to, leaves", [("own", 1.5), ("hf", 0.3)])  # an export reads layer by layer
def test_memory_of_a_conversion(large, tmp_path, to, leaves):
    peak, _, _ = measure(large, tmp_path / "b", to)
    assert peak < leaves * 12 * 512 * 2048 * 4 / 2**20
