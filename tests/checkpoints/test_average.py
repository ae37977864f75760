"""The mean of several checkpoints."""

import jax
import numpy as np
import pytest
from commands import refused
from published_folders import folder_of, tensors_of, weights_of
from safetensors.numpy import save_file
from tiny import MODEL, OTHER, params, processor

import janus_jax
from janus_jax import convert
from janus_jax.checkpoints import loading
from janus_jax.checkpoints.tensor_names import HF
from janus_jax.shapes.world import SHIPPED


def saved(folder, seed, dtype=None, world=SHIPPED):
    loading.save(folder, MODEL, params(seed), processor(), dtype, drawn_with={"cfg_weight": 1.0 + seed}, world=world)
    return folder


def test_the_mean_of_three(tmp_path):
    """Leaf by leaf, of stacked layers and single leaves; all else is the first's."""
    folders = [saved(tmp_path / str(seed), seed) for seed in range(3)]
    convert.main(["--src", str(folders[0]), "--average", *map(str, folders[1:]), "--dst", str(tmp_path / "mean")])
    _, found, _ = loading.load(tmp_path / "mean")
    expected = jax.tree.map(lambda *leaves: np.mean(np.asarray(leaves), 0), *map(params, range(3)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), found, expected)
    assert janus_jax.sampling_of(tmp_path / "mean").cfg_weight == 1.0


def test_bf16_is_summed_in_f32(tmp_path):
    """And rounded once."""
    folders = [saved(tmp_path / str(seed), seed, "bfloat16") for seed in range(3)]
    convert.main(["--src", str(folders[0]), "--average", *map(str, folders[1:]), "--dst", str(tmp_path / "mean")])
    *each, found = (loading.load(folder)[1]["llama"]["lm_head"] for folder in (*folders, tmp_path / "mean"))
    expected = (sum(each) / np.float32(3)).astype("bfloat16")
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    assert loading.open_model(tmp_path / "mean").leaves["llama/lm_head"].dtype == "bfloat16"


def test_what_differs_is_not_averaged(tmp_path):
    first, foreign = saved(tmp_path / "first", 0), saved(tmp_path / "foreign", 0, world=OTHER)
    for other, said in ((foreign, "differ in world"), ("shapes-sft", "differ in llama.vocab_size, tokenizer")):
        flags = ["--src", first, "--average", other, "--dst", tmp_path / "mean"]
        assert said in refused(convert.main, *flags)
    assert "choose another --dst" in refused(convert.main, "--src", first, "--average", foreign, "--dst", foreign)
    assert not (tmp_path / "mean").exists()
    np.testing.assert_array_equal(loading.load(foreign)[1]["llama"]["lm_head"], params(0)["llama"]["lm_head"])


def test_files_of_weights_alone(tmp_path):
    """Lent the configuration of --base, each of them; a folder beside them needs none."""
    *tensors, other = (tensors_of(HF, seed=seed) for seed in range(4))
    base = folder_of(tmp_path / "base", "hf", other)
    folder = folder_of(tmp_path / "folder", "hf", tensors[2])
    for n in (0, 1):
        save_file(tensors[n], tmp_path / f"{n}.safetensors", {"format": "pt"})
    first, second = tmp_path / "0.safetensors", tmp_path / "1.safetensors"
    flags = ["--src", first, "--average", second, folder, "--dst", tmp_path / "mean"]
    assert "--base" in refused(convert.main, *flags)
    convert.main([*map(str, flags), "--to", "hf", "--base", str(base)])
    found = weights_of(tmp_path / "mean")
    for name in tensors[0]:
        np.testing.assert_allclose(found[name], sum(each[name] for each in tensors) / 3, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("flags", [["--average"], ["--average", "nowhere"]])
def test_bad_names(tmp_path, flags):
    first = saved(tmp_path / "first", 0)
    refused(convert.main, "--src", first, *flags, "--dst", tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
