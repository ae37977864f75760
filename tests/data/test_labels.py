"""The released label files: what is read of them, their codes, and the rows of stage 1 that come out."""

import dataclasses
import json
import os
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from commands import CONFIGS, command, refused
from PIL import Image
from tiny import MODEL, SEES, grammar, params, processor, run

from janus_jax import cache_labels, cli
from janus_jax.checkpoints import loading
from janus_jax.data import cache, label_file, mixture
from janus_jax.errors import UserError
from janus_jax.sequences.batch import CODE, DRAW, REDRAW, SEEN, TEXT, VERDICT
from janus_jax.training import sft

pytestmark = pytest.mark.usefixtures("quick_compiles")


def item(number, state, prob, reason, name=None):
    return {"id": number, "img_path": name or f"p/{number}.png", "reason": reason, "prob": prob, "state": state}


LINES = [
    {
        "promptid": 1,
        "prompt": " two red circles ",
        "data": [
            item(0, 4, 0.95, "Yes, two red circles."),
            item(1, 1, 0.1, "yes and no"),  # the judge's word says Yes, the state No
            item(2, 2, 0.6, "whatever"),  # not used
            item(3, 4, 0.75, "No, but it is right."),  # right enough to be judged, not to be drawn
            item(4, 0, 0.45, "No. One circle is blue."),
            item(5, 4, 0.6, "Yes."),  # contradicted
            item(6, 0, 0.5, "No."),  # contradicted
        ],
    },
    {"promptid": 2, "prompt": "a cross", "data": [item(7, 3, 0.5, "")]},  # nothing to use
    {"promptid": 3, "prompt": "a blue square", "data": [item(8, 4, 1, "Yes."), item(9, 0, 0, "No, it is red.")]},
]


def picture(number):
    size = (16 + number, 20, 3)  # wide and high ones
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8))


def write(folder, lines):
    path = folder / "labels.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with labels.jsonl, pictures under images/ and a tiny model."""
    folder = tmp_path_factory.mktemp("labels")
    (folder / "images" / "p").mkdir(parents=True)
    for number in range(10):
        picture(number).save(folder / "images" / "p" / f"{number}.png")
    write(folder, LINES)
    loading.save(folder / "model", MODEL, params(), processor())
    return folder


@pytest.fixture(scope="module")
def groups(world):
    flags = ("--checkpoint", world / "model", "--labels", world / "labels.jsonl", "--images", world / "images")
    cache_labels.main([str(flag) for flag in (*flags, "--out", world / "out" / "cache.npz", "--batch", 4)])
    return cache.load(world / "out" / "cache.npz")


def test_what_is_read(world):
    prompts = label_file.read(world / "labels.jsonl", world / "images")
    assert [(p.line, p.prompt) for p in prompts] == [(1, "two red circles"), (3, "a blue square")]
    assert [(p.path.name, p.score, p.reason) for p in prompts[0].pictures] == [
        ("0.png", 0.95, "Yes, two red circles."),
        ("1.png", 0.1, "No and no"),
        ("3.png", 0.75, "Yes, but it is right."),
        ("4.png", 0.45, "No. One circle is blue."),
    ]
    assert prompts[1].pictures[1].path == world / "images" / "p" / "9.png"


def test_groups(groups):
    assert groups.prompts.tolist() == ["two red circles", "a blue square"] and groups.start.tolist() == [0, 4, 6]
    numbers = [0, 1, 3, 4, 8, 9]
    np.testing.assert_allclose(groups.score, [0.95, 0.1, 0.75, 0.45, 1, 0])
    pixels = jnp.asarray(np.stack([processor().for_generation(picture(n)) for n in numbers]))
    np.testing.assert_array_equal(groups.codes, run("encode_codes", params(), pixels))
    for n, number in enumerate(numbers):
        seen = groups.pixels[n].astype(np.float32) / 127.5 - 1
        np.testing.assert_allclose(seen, processor().for_understanding(picture(number)), atol=1e-6)


def test_the_three_tasks(groups):
    maker = mixture.RowMaker(groups, grammar(), drop=0.0, judged_right=0.7)
    rng, shown = np.random.default_rng(0), {}
    for task in ("draw", "judge", "redraw"):
        rows = [maker.make(rng, task, 1 if task == "redraw" else 0) for _ in range(60)]
        shown[task] = {tuple(row.targets(CODE).get("ids", np.array([])).tolist()) for row in rows}
    of = [tuple(codes) for codes in groups.codes.tolist()]
    assert shown["draw"] == shown["redraw"] == {of[0], of[4]}  # from 0.8 on
    judged = [maker.make(rng, "judge", 0) for _ in range(60)]
    looks = [next(n for n in range(6) if np.array_equal(row.pictures[0], groups.pixels[n])) for row in judged]
    assert set(looks) == set(range(6))  # from 0.7 on
    special = processor().special
    for row, n in zip(judged, looks, strict=True):
        words = row.targets(TEXT)
        assert words["ids"][words["group"] == VERDICT][0] == (special.yes if groups.score[n] >= 0.7 else special.no)
    buckets = [
        mixture.Bucket(200, (mixture.Kind("draw", 0, 2), mixture.Kind("judge", 0, 2), mixture.Kind("redraw", 1, 2)))
    ]
    (batch,) = mixture.Steps(maker, buckets, 0, 1)[0]
    assert set(batch.codes.group[batch.codes.weight > 0].tolist()) == {DRAW, REDRAW}
    assert (batch.kind == SEEN).sum() == 2 * SEES


BAD = [
    ("{", "line 4: it is not JSON"),
    ('{"data": []}', "line 4: 'prompt' is missing"),
    ('{"prompt": "a cross"}', "line 4: 'data' is missing"),
    ('{"prompt": 3, "data": []}', "line 4: 'prompt' is no text"),
    ('{"prompt": "a", "data": 3}', "line 4: 'data' is no list"),
    ('["a"]', "line 4: it is no JSON object"),
    ("[" * 100_000, "line 4: it is not JSON .too deep"),
    ('{"prompt": "a\\ud800", "data": []}', "line 4: 'prompt' has half a character"),
    ({"prompt": "a", "data": [3]}, "line 4: a labelled picture has img_path, reason"),
    ({"prompt": "a", "data": [item(0, True, 0.9, "Yes")]}, "line 4: state True is none of 0 to 4"),
    ({"prompt": "a", "data": [item(0, 4, 0.9, "Yes", "../../x.png")]}, "line 4: the path '../../x.png' leads out of"),
    ({"prompt": "a", "data": [item(0, 4, 0.9, "Yes", "x\0.png")]}, "line 4: the path .* has a NUL"),
    ({"prompt": "a", "data": [item(0, 4, 0.9, "Yes", "/etc/x.png")]}, "line 4: the path '/etc/x.png' leads out of"),
    ({"prompt": "a", "data": [item(0, 4, 0.9, "Yes", "pipe.png")]}, "line 4: .*pipe.png cannot be read: it is no reg"),
    ({"prompt": "a", "data": [item(0, 5, 0.5, "Yes")]}, "line 4: state 5 is none of 0 to 4"),
    ({"prompt": "a", "data": [item(0, 4, 1.5, "Yes")]}, "line 4: prob 1.5"),
    ({"prompt": "a", "data": [item(0, 4, 0.9, "Yesterday")]}, "line 4: the reason 'Yesterday' begins"),
    ({"prompt": " ", "data": [item(0, 4, 0.9, "Yes")]}, "line 4: the prompt is empty"),
    ({"prompt": "red " * 300, "data": [item(0, 4, 0.9, "Yes")]}, "line 4: the prompt has"),
    ({"prompt": "a", "data": [item(0, 4, 0.9, "Yes", "absent.png")]}, "line 4: the picture .*absent.png"),
    ({"prompt": "a", "data": [item(0, 4, 0.9, "Yes", "cut.png")]}, "line 4: the picture .*cut.png"),
]


@pytest.mark.parametrize("line, words", BAD, ids=[words[8:30] for _, words in BAD])
def test_bad_lines(world, tmp_path, line, words):
    whole = world / "images" / "p" / "0.png"
    (world / "images" / "cut.png").write_bytes(whole.read_bytes()[:200])
    if not (world / "images" / "pipe.png").exists():
        os.mkfifo(world / "images" / "pipe.png")
    path = write(tmp_path, [*LINES, line])
    flags = ("--checkpoint", world / "model", "--images", world / "images", "--out", tmp_path / "out.npz", "--strict")
    said = refused(cache_labels.main, "--labels", path, *flags)
    with pytest.raises(UserError, match=words):
        raise UserError(said)
    assert str(path) in said
    assert [p.name for p in tmp_path.glob("[!.]*")] == ["labels.jsonl"]  # nothing half-written


def cached(world, tmp_path, lines, *flags, images=None):
    """cache_labels of these lines: the cache. images: another folder of pictures."""
    where = ("--checkpoint", world / "model", "--images", images or world / "images", "--out", tmp_path / "out.npz")
    cache_labels.main([str(flag) for flag in ("--labels", write(tmp_path, lines), *where, "--batch", 4, *flags)])
    return cache.load(tmp_path / "out.npz")


def test_bad_records_are_left_out_and_counted(world, tmp_path, capsys):
    """Up to a share of all; the good ones are what they are without them."""
    (world / "images" / "cut.png").write_bytes((world / "images" / "p" / "0.png").read_bytes()[:200])
    bad = [
        "{",
        {"prompt": "red " * 300, "data": [item(0, 4, 0.9, "Yes"), item(1, 0, 0, "No")]},
        {"prompt": "a cross", "data": [item(0, 4, 0.9, "Yes", "cut.png"), item(1, 4, 0.9, "Yes", "gone.png")]},
        {"prompt": "a cup", "data": [item(0, 5, 0.9, "Yes"), item(3, 4, 0.9, "Yes")]},
    ]
    good = cached(world, tmp_path, [*LINES, bad[3]], "--most-bad", "0.1")
    assert (
        "left out 1 of 12 records: 1 x a state that is none of 0 to 4 (first: line 4: state 5"
        in capsys.readouterr().err
    )
    groups = cached(world, tmp_path, [*bad[:3], *LINES, bad[3]], "--most-bad", "0.4")
    assert groups.prompts.tolist() == good.prompts.tolist() == ["two red circles", "a blue square", "a cup"]
    for name in ("codes", "score", "start", "reasons"):
        np.testing.assert_array_equal(getattr(groups, name), getattr(good, name))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert "labels.jsonl: left out 6 of 17 records: 2 x a prompt is too long (first: line 2: the prompt has" in line
    assert "2 x a picture cannot be read (first: line 3: the picture" in line and "cut.png" in line
    assert line.endswith("; 1 more reasons")
    with pytest.raises(UserError) as caught:
        cached(world, tmp_path, [*bad[:3], *LINES, bad[3]], "--most-bad", "0.3")
    said = str(caught.value)
    assert "line 1: it is not JSON" in said and "of 17 records are bad, more than the share 0.3" in said
    with pytest.raises(UserError, match="--most-bad is 2.0"):
        cached(world, tmp_path, LINES, "--most-bad", "2")


def test_pictures_outside_are_taken_where_that_is_allowed(world, tmp_path):
    # a path from the root that leads into the folder is inside
    outside = {"prompt": "a cup", "data": [item(0, 4, 0.9, "Yes", str(world / "images" / "p" / "3.png"))]}
    assert cached(world, tmp_path, [*LINES, outside], "--strict").prompts[-1] == "a cup"
    picture(3).save(tmp_path / "other.png")
    outside = {"prompt": "a cup", "data": [item(0, 4, 0.9, "Yes", str(tmp_path / "other.png"))]}
    groups = cached(world, tmp_path, [*LINES, outside], "--strict", "--allow-outside")
    np.testing.assert_array_equal(groups.codes[-1], groups.codes[2])


def test_what_was_encoded_is_kept(world, tmp_path, groups, monkeypatch):
    """A run that ends in the middle is gone on with, and a picture that has changed is encoded anew."""
    encoded, encode = [], cache_labels.encode

    def counting(model, params, pixels):
        encoded.append(len(pixels))
        if len(encoded) == 2:
            raise KeyboardInterrupt
        return encode(model, params, pixels)

    monkeypatch.setattr(cache_labels, "encode", counting)
    (tmp_path / "images").mkdir()
    shutil.copytree(world / "images" / "p", tmp_path / "images" / "p")
    moved = tmp_path / "images"
    with pytest.raises(KeyboardInterrupt):
        cached(world, tmp_path, LINES, images=moved)
    (kept,) = tmp_path.glob(".out.npz.*.codes")
    assert not (tmp_path / "out.npz").exists()
    picture(0).save(tmp_path / "images" / "p" / "1.png")
    again = cached(world, tmp_path, LINES, images=moved)
    assert len(encoded) == 3  # four were kept, of which one has changed: one more batch for that and the last two
    np.testing.assert_array_equal(again.codes, groups.codes[[0, 0, 2, 3, 4, 5]])
    assert not kept.exists()


def test_files_that_teach_nothing(world, tmp_path):
    flags = ("--checkpoint", world / "model", "--images", world / "images", "--out", tmp_path / "out.npz")
    assert "nothing to learn" in refused(cache_labels.main, "--labels", write(tmp_path, LINES[1:2]), *flags)
    assert "nothing to learn" in refused(cache_labels.main, "--labels", write(tmp_path, []), *flags)
    assert "absent" in refused(cache_labels.main, "--labels", tmp_path / "absent.jsonl", *flags)
    assert "batch" in refused(cache_labels.main, "--labels", world / "labels.jsonl", *flags, "--batch", 0)


def test_pictures_that_have_gone(groups, tmp_path):
    gone = dataclasses.replace(groups, pixels=cache.PictureFiles(np.array([str(tmp_path / "x.png")]), 16))
    cache.save(tmp_path / "cache.npz", gone)
    with pytest.raises(UserError, match="x.png cannot be read"):
        cache.load(tmp_path / "cache.npz").pixels[0]


@pytest.mark.parametrize("size, width", [("7b", 4096), ("1b", 2048)])
def test_the_configurations_for_real_weights(size, width):
    config, _ = cli.parse_config(["--config", str(CONFIGS / f"janus_pro_{size}_sft.py"), "--workdir", "w"], "")
    cfg = sft.configured_model(config)
    assert cfg.llama.width == width and cfg.dtype == jnp.bfloat16 and cfg.remat == "full"
    assert sum(rows for _, kinds in config.buckets for *_, rows in kinds) == 128


@pytest.mark.slow
def test_stage_1_trains_on_them(world, groups, tmp_path):
    sizes = {part: dict(MODEL.cfg.to_dict()[part]) for part in ("llama", "siglip", "vq")}
    base = (CONFIGS.parent / "tests" / "configs" / "micro_sft.py").read_text()
    (tmp_path / "config.py").write_text(
        base.replace("    return config", f"    config.model = ConfigDict({sizes!r})\n    return config")
    )
    flags = {"init": world / "model", "cache": world / "out" / "cache.npz", "steps": 4, "mesh": "(-1,1,1)"}
    settings = [f"--config.{name}={value}" for name, value in flags.items()]
    command(tmp_path, "train_sft", "--config", tmp_path / "config.py", "--workdir", tmp_path / "w", *settings)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "w" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 4 and np.isfinite(losses).all()
    loading.load(tmp_path / "w")
