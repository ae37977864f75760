"""Against PyTorch and HF transformers, alive: the same numbers from the same folders, in both directions."""

import json
import pickle
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from published_folders import BF16, CFG, GOLDEN, TOKENIZER, folder_of, identical, refused, run, tensors_of, weights_of
from safetensors.numpy import load_file

from janus_jax.checkpoints import loading, published_config, torchfile
from janus_jax.checkpoints.tensor_names import HF, ORIGINAL
from janus_jax.sampling import decode
from janus_jax.sampling.density import Sampling
from janus_jax.sequences import tokens
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.request import Request
from janus_jax.sequences.row import Row, collate

pytestmark = pytest.mark.parity
ATOL = 1e-4


@pytest.fixture(autouse=True)
def tiny_towers(monkeypatch):
    monkeypatch.setitem(published_config.SIGLIPS, "siglip_tiny", CFG.siglip)
    monkeypatch.setitem(published_config.VQS, "VQ-tiny", CFG.vq)


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        yield torch


def hf_config(transformers):
    """CFG, in transformers' own words."""
    return transformers.JanusConfig(
        text_config=transformers.LlamaConfig(
            vocab_size=1024,
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            pad_token_id=TOKENIZER.special.pad,
        ).to_dict(),
        vision_config=transformers.JanusVisionConfig(
            image_size=16,
            patch_size=8,
            hidden_size=24,
            num_hidden_layers=3,
            num_attention_heads=2,
            mlp_ratio=2.0,
            projection_dim=32,
            num_image_tokens=4,
        ).to_dict(),
        vq_config=transformers.JanusVQVAEConfig(
            base_channels=32,
            channel_multiplier=[1, 2],
            num_res_blocks=1,
            latent_channels=16,
            num_embeddings=64,
            projection_dim=32,
            image_token_embed_dim=32,
        ).to_dict(),
        image_token_id=TOKENIZER.id(tokens.PLACEHOLDER),
        tie_word_embeddings=False,
    )


@pytest.fixture(scope="module")
def published_by_hf(torch, tmp_path_factory):
    """(transformers' model with random weights, the folder that it saved, with a tokenizer)."""
    transformers = pytest.importorskip("transformers")
    model = transformers.JanusForConditionalGeneration(hf_config(transformers)).eval()
    torch.manual_seed(0)
    for name, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape)
        if tensor.ndim == 1:
            tensor.copy_(0.1 * noise + ("norm" in name and name.endswith("weight")))
        else:  # what comes out is as large as what goes in, so that a digit means something
            tensor.copy_(noise if "embed" in name else 1.2 * noise / np.prod(tensor.shape[1:]) ** 0.5)
    folder = tmp_path_factory.mktemp("hf") / "model"
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(GOLDEN / name, folder / name)
    return model, folder


def close(ours, theirs, atol=ATOL):
    theirs = theirs.numpy()
    assert ours.shape == theirs.shape and np.std(theirs) > 0.05
    np.testing.assert_allclose(np.asarray(ours), theirs, atol=atol, rtol=0)


def same_numbers(torch, theirs, model, params):
    """Every tower, both heads, and a question about a picture."""
    rng = np.random.default_rng(0)

    def ours(method, *args):
        return jax.jit(lambda p, *a: model.apply({"params": p}, *a, method=method))(params, *args)

    def nchw(x):
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))

    seen = rng.uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    inner = theirs.model
    pictures = inner.aligner(inner.vision_model(nchw(seen)).last_hidden_state)
    close(ours("understand", seen), pictures)
    drawn = rng.uniform(-1, 1, (2, 4, 4, 3)).astype(np.float32)
    latents = inner.vqmodel.quant_conv(inner.vqmodel.encoder(nchw(drawn)))
    close(np.moveaxis(ours(lambda m, x: m.vq.encode(x), drawn), -1, 1), latents)
    codes = rng.integers(0, 64, (2, 4)).astype(np.int32)
    at = torch.from_numpy(codes).long()
    close(np.moveaxis(ours("decode_codes", codes), -1, 1), inner.vqmodel.decode(at))
    close(ours("embed_codes", codes), theirs.prepare_embeddings_for_image_generation(at))
    hidden = rng.standard_normal((2, 3, 32)).astype(np.float32)
    close(ours("code_logits", hidden), inner.generation_head(torch.from_numpy(hidden)))
    # [padding, text, 4 places of a picture, text]
    ids = rng.integers(20, 700, (2, 12)).astype(np.int32)
    ids[:, 5:9] = TOKENIZER.id(tokens.PLACEHOLDER)
    mask = np.ones((2, 12), bool)
    mask[0, :3] = False
    places = {"input_ids": torch.from_numpy(ids).long(), "attention_mask": torch.from_numpy(mask).long()}
    logits = theirs(**places, pixel_values=nchw(seen)).logits
    embeds = jnp.concatenate(
        (ours("embed_text", ids[:, :5]), ours("understand", seen), ours("embed_text", ids[:, 9:])), 1
    )
    close(ours("text_logits", ours("decode", embeds, mask))[mask], logits[torch.from_numpy(mask)])


def test_from_hf(torch, published_by_hf):
    theirs, folder = published_by_hf
    model, params, _ = loading.load(folder)
    assert model.cfg == CFG
    same_numbers(torch, theirs, model, params)


def test_from_hf_where_the_head_is_the_table(torch, published_by_hf, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = hf_config(transformers)
    config.tie_word_embeddings = True
    theirs = transformers.JanusForConditionalGeneration(config)
    theirs.save_pretrained(tmp_path / "hf")
    shutil.copy(GOLDEN / "tokenizer.json", tmp_path / "hf")
    saved = weights_of(tmp_path / "hf")
    assert "lm_head.weight" not in saved
    params = loading.load(tmp_path / "hf")[1]["llama"]
    np.testing.assert_array_equal(params["lm_head"].T, theirs.lm_head.weight.numpy())
    run(src=tmp_path / "hf", dst=tmp_path / "own")
    run(src=tmp_path / "own", dst=tmp_path / "back", to="hf")
    identical(weights_of(tmp_path / "back"), saved)
    _, info = transformers.JanusForConditionalGeneration.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(info.values())


def trained(model, params, steps=3):
    """A few steps of SGD on everything that is trained, towards arbitrary tokens."""
    rng = np.random.default_rng(1)
    ids, codes = rng.integers(0, 1024, (2, 8)).astype(np.int32), rng.integers(0, 64, (2, 4)).astype(np.int32)

    def loss(params):
        def ours(method, *args):
            return model.apply({"params": params}, *args, method=method)

        embeds = jnp.concatenate((ours("embed_text", ids), ours("embed_codes", codes)), axis=1)
        hidden = ours("decode", embeds, jnp.ones(embeds.shape[:2], bool))
        text = optax.softmax_cross_entropy_with_integer_labels(ours("text_logits", hidden[:, :7]), ids[:, 1:])
        code = optax.softmax_cross_entropy_with_integer_labels(ours("code_logits", hidden[:, 7:-1]), codes)
        return text.mean() + code.mean()

    step = jax.jit(lambda p: jax.tree.map(lambda w, g: w - 0.05 * g, p, jax.grad(loss)(p)))
    for _ in range(steps):
        params = step(params)
    return params


def test_trained_and_back_to_hf(torch, published_by_hf, tmp_path):
    transformers = pytest.importorskip("transformers")
    before, folder = published_by_hf
    model, params, processor = loading.load(folder)
    params = trained(model, params)
    loading.save(tmp_path / "own", model, params, processor)
    run(src=tmp_path / "own", dst=tmp_path / "hf", to="hf")
    theirs, info = transformers.JanusForConditionalGeneration.from_pretrained(
        tmp_path / "hf", output_loading_info=True, dtype=torch.float32
    )
    assert not any(info.values()), info
    assert not torch.equal(before.lm_head.weight, theirs.lm_head.weight)
    same_numbers(torch, theirs.eval(), model, params)

    # the same greedy picture, under guidance, from prompts as each side makes them
    reader = transformers.JanusProcessor.from_pretrained(tmp_path / "hf")
    texts = ("a red circle", "two blue squares and a vase")
    prompts = [processor.generation_prompt(text) for text in texts]
    grammar, rows = Grammar.of(model.cfg, processor.tokenizer), [Row(), Row()]
    for row, text in zip(rows, texts, strict=True):
        grammar.ask(row, Request(text))
    batch = reader.tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    ours = collate(rows, max(map(len, rows)), processor.special.pad, guided=True)
    np.testing.assert_array_equal(batch["input_ids"].numpy(), ours.ids)
    np.testing.assert_array_equal(batch["attention_mask"].numpy(), ours.mask)
    expected = theirs.generate(**batch, generation_mode="image", do_sample=False, use_cache=True)
    cache, hidden = decode.prefill(model, params, ours, ours.ids.shape[1] + 4, guided=True)
    keys = jnp.zeros((2, 2), jnp.uint32)
    drawn = decode.draw(model, params, cache, hidden, keys, Sampling(cfg_weight=5.0, image_top_k=1), guided=True)
    np.testing.assert_array_equal(drawn[1], expected.numpy())

    # a chat, as their processor writes it down
    content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    text = reader.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert text == tokens.chat_prompt("What is it?", system="")


def test_round_trip_of_what_transformers_saved(torch, published_by_hf, tmp_path):
    before, _ = published_by_hf
    before.to(torch.bfloat16).save_pretrained(tmp_path / "source", max_shard_size="60KB")
    before.to(torch.float32)
    shutil.copy(GOLDEN / "tokenizer.json", tmp_path / "source")
    assert len(list((tmp_path / "source").glob("*.safetensors"))) > 2
    run(src=tmp_path / "source", dst=tmp_path / "own")
    run(src=tmp_path / "own", dst=tmp_path / "back", to="hf")
    identical(weights_of(tmp_path / "back"), weights_of(tmp_path / "source"))


# PyTorch's files


def state_of(torch, tensors):
    def tensor(x):
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if x.dtype == BF16 else torch.from_numpy(x)

    return {name: tensor(x.copy()) for name, x in tensors.items()}


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.float16])
def test_bin_folders(torch, tmp_path, dtype):
    tensors = tensors_of(ORIGINAL, dtype)
    tensors["gen_vision_model.quantize.codebook_used"] = np.arange(7)
    folder = folder_of(tmp_path / "a", "original", tensors)
    (folder / "model.safetensors").unlink()
    state = state_of(torch, tensors)
    files = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    names = sorted(state)
    for i, file in enumerate(files):
        torch.save({name: state[name] for name in names[i::2]}, folder / file)
    index = {name: files[i % 2] for i, name in enumerate(names)}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    run(src=folder, dst=tmp_path / "back", to="original")
    identical(weights_of(tmp_path / "back"), tensors)
    (folder / files[1]).unlink()
    with refused("lacks pytorch_model-00002-of-00002.bin"):
        loading.load(folder)


def test_bare_state_dicts(torch, tmp_path):
    base = folder_of(tmp_path / "base", "original", {"x": np.ones(1, np.float32)})
    (base / "model.safetensors").unlink()  # configuration and tokenizer are all that it has to bring
    tensors = tensors_of(ORIGINAL, BF16)
    state = state_of(torch, tensors)
    expected = loading.load(folder_of(tmp_path / "whole", "original", tensors))[1]
    for i, content in enumerate((state, {"module": state}, {"ema": state, "step": 3})):
        path = tmp_path / f"{i}.pth"
        torch.save(content, path)
        jax.tree.map(np.testing.assert_array_equal, loading.load(path, base=base)[1], expected)
    run(src=path, base=base, dst=tmp_path / "own")
    run(src=tmp_path / "own", dst=tmp_path / "back", to="original")
    identical(weights_of(tmp_path / "back"), tensors)
    # what has been saved as parameters rather than as their values
    with torch.enable_grad():
        parameters = {name: torch.nn.Parameter(tensor) for name, tensor in state.items()}
    torch.save({"ema": parameters}, path)
    jax.tree.map(np.testing.assert_array_equal, loading.load(path, base=base)[1], expected)
    for odd in (torch.ones(3).to(torch.float8_e4m3fn), torch.eye(3).to_sparse()):
        torch.save({**state, "odd": odd}, path)
        with refused(r"odd is stored by torch\._utils\._rebuild_\w+: save it as plain"):
            loading.load(path, base=base)
    torch.save({"module": state, "ema": state}, path)
    with refused("holds module and ema: save the one"):
        loading.load(path, base=base)
    for other in ([1, 2], {"step": 3}):
        torch.save(other, path)
        with refused("is no state dict"):
            loading.load(path, base=base)


class Trap:
    """Runs code when it is unpickled."""

    ran = False

    def __reduce__(self):
        return setattr, (Trap, "ran", True)


def test_code_is_not_run(torch, tmp_path):
    path = tmp_path / "trap.pth"
    torch.save({"w": Trap()}, path)
    with refused("holds no plain tensors"):
        torchfile.read(path)
    assert not Trap.ran
    good = tmp_path / "good.pth"
    torch.save({"w": torch.ones(1000)}, good)
    np.testing.assert_array_equal(torchfile.read(good)["w"], np.ones(1000))
    for content in (good.read_bytes()[:2000], b"", b"nonsense", pickle.dumps({"w": 1})):
        path.write_bytes(content)
        with refused("holds no plain tensors|is no state dict"):
            torchfile.read(path)


def test_what_torch_reads_of_an_original_export(torch, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    tensors = tensors_of(ORIGINAL, BF16)
    folder = folder_of(tmp_path / "a", "original", tensors)
    run(src=folder, dst=tmp_path / "own")
    run(src=tmp_path / "own", dst=tmp_path / "b", to="original")
    state = safetensors.load_file(tmp_path / "b" / "model.safetensors")
    expected = state_of(torch, tensors)
    assert state.keys() == expected.keys() and all(torch.equal(state[n], expected[n]) for n in state)
    transformers = pytest.importorskip("transformers")
    reader = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "b")
    assert reader.encode("a red circle", add_special_tokens=False) == TOKENIZER.encode("a red circle", bos=False)
    assert (reader.bos_token, reader.pad_token) == (tokens.BOS, tokens.PAD)
    assert load_file(tmp_path / "b" / "model.safetensors").keys() == tensors.keys()


def test_names_are_those_of_transformers(torch, published_by_hf):
    theirs, _ = published_by_hf
    assert {n: tuple(t.shape) for n, t in theirs.state_dict().items()} == {
        n: x.shape for n, x in tensors_of(HF).items()
    }
