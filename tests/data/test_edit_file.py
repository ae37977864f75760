"""The released metadata of edits: what is read of it, what is left out, and the cache."""

import json

import numpy as np
import pytest
from commands import refused
from PIL import Image
from tiny import MODEL, params, processor, run

from janus_jax import cache_labels
from janus_jax.checkpoints import loading
from janus_jax.data import cache, edit_file, mixture, records
from janus_jax.sequences.batch import CODE
from janus_jax.sequences.grammar import Grammar

pytestmark = pytest.mark.usefixtures("quick_compiles")


def edit(number, text=" make the circle blue ", **other):
    return {"sample_id": number, "text": text, "input": f"{number}/in.png", "output": f"{number}/out.png", **other}


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (18, 20, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edits")
    for number in range(3):
        (folder / "images" / str(number)).mkdir(parents=True)
        picture(2 * number).save(folder / "images" / str(number) / "in.png")
        picture(2 * number + 1).save(folder / "images" / str(number) / "out.png")
    (folder / "images" / "2" / "out.png").write_bytes(b"no picture")
    loading.save(folder / "model", MODEL, params(), processor())
    return folder


def write(folder, lines):
    path = folder / "metadata.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def flags(world, tmp_path, lines, *more):
    where = ("--checkpoint", world / "model", "--images", world / "images", "--out", tmp_path / "out.npz")
    return [str(flag) for flag in ("--edits", write(tmp_path, lines), *where, "--batch", 4, *more)]


def test_what_is_read(world, tmp_path):
    edits = edit_file.read(write(tmp_path, [edit(0), edit(1, "remove it")]), world / "images")
    assert [(e.line, e.prompt) for e in edits] == [(1, "make the circle blue"), (2, "remove it")]
    source, target = edits[1].pictures
    assert source.path == world / "images" / "1" / "in.png" and target.path == world / "images" / "1" / "out.png"
    assert (source.score, target.score) == (0, 1)
    assert source.reason.startswith("No") and target.reason.startswith("Yes")


def test_the_cache(world, tmp_path, capsys):
    """Bad lines are counted once each; of an edit that has lost a picture neither is left."""
    bad = ["{", edit(7), edit(2), edit(0, text="red " * 300), edit(0, output="../x.png"), {"text": "a", "input": "b"}]
    assert "bad, more than the share 0.1" in refused(cache_labels.main, *flags(world, tmp_path, [edit(0), *bad]))
    capsys.readouterr()
    cache_labels.main(flags(world, tmp_path, [edit(0), *bad, edit(1, "remove it")], "--most-bad", "0.8"))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert "left out 6 of 8 records: 2 x a picture cannot be read (first: line 3: the picture" in line
    groups = cache.load(tmp_path / "out.npz")
    assert groups.prompts.tolist() == ["make the circle blue", "remove it"]
    assert groups.start.tolist() == [0, 2, 4] and groups.source.tolist() == [0, 2]
    assert groups.score.tolist() == [0, 1, 0, 1]
    pixels = np.stack([processor().for_generation(picture(n)) for n in range(4)])
    np.testing.assert_array_equal(groups.codes, run("encode_codes", params(), pixels))
    maker = mixture.RowMaker(groups, Grammar.of(MODEL.cfg, processor().tokenizer))
    for seed in range(10):
        row = maker.make(np.random.default_rng(seed), "edit", 0)
        source = int(np.flatnonzero((groups.codes == row.pieces[1].ids).all(1))[0])
        np.testing.assert_array_equal(row.targets(CODE)["ids"], groups.codes[source + 1])


@pytest.mark.parametrize(
    "line, words",
    [
        ({"text": "a", "input": "0/in.png"}, "line 2: 'output' is missing"),
        ({"text": "", "input": "0/in.png", "output": "0/out.png"}, "line 2: the text is empty"),
        ({"text": "a", "input": 3, "output": "0/out.png"}, "line 2: 'input' is no text"),
        (edit(0, output="/etc/x.png"), "line 2: the path '/etc/x.png' leads out of"),
        (edit(0, text="red " * 300), "line 2: the instruction has"),
        (edit(7), "line 2: the picture"),
    ],
)
def test_bad_lines(world, tmp_path, line, words):
    assert words in refused(cache_labels.main, *flags(world, tmp_path, [edit(0), line], "--strict"))
    assert [p.name for p in tmp_path.glob("[!.]*")] == ["metadata.jsonl"]


def test_a_file_of_nothing(world, tmp_path):
    assert "holds no edit" in refused(cache_labels.main, *flags(world, tmp_path, []))
    tally = records.Tally(tmp_path / "metadata.jsonl")
    edit_file.read(write(tmp_path, [edit(0)]), world / "images", tally)
    assert tally.good == 1
