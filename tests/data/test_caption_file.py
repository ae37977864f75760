"""Captioned pictures: what a line is, and that they become drawings to learn from."""

import json

import numpy as np
import pytest
from commands import refused
from PIL import Image

from janus_jax import cache_labels
from janus_jax.checkpoints import loading
from janus_jax.data import cache, caption_file, records
from janus_jax.errors import UserError
from janus_jax.sequences import images


def write(folder, lines):
    for n in range(3):
        Image.new("RGB", (20, 30), (80 * n, 0, 0)).save(folder / f"{n}.png")
    path = folder / "captions.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def caption(n, prompt="a circle"):
    return {"image": f"{n}.png", "prompt": prompt}


def test_pictures_of_one_prompt_come_together(tmp_path):
    path = write(tmp_path, [caption(0), caption(1, " a cross "), caption(2)])
    first, second = caption_file.read(path, tmp_path)
    assert (first.prompt, first.line, second.prompt, second.line) == ("a circle", 1, "a cross", 2)
    assert [picture.path.name for picture in first.pictures] == ["0.png", "2.png"]
    assert all(picture.score == 1 for picture in first.pictures)


@pytest.mark.parametrize(
    "line, words",
    [
        ("{", "JSON"),
        ({"image": "0.png"}, "'prompt' is missing"),
        ({"prompt": "a"}, "'image' is missing"),
        ({"image": "../0.png", "prompt": "a"}, "outside"),
    ],
)
def test_bad_lines_are_named(line, words, tmp_path):
    path = write(tmp_path, [caption(0), line if isinstance(line, dict) else line + "\n"])
    with pytest.raises(UserError, match=f"line 2.*{words}"):
        caption_file.read(path, tmp_path, records.Tally(path, most_bad=0))
    (one,) = caption_file.read(path, tmp_path, records.Tally(path, most_bad=0.9))
    assert len(one.pictures) == 1


def test_cached_beside_the_file(tmp_path, capsys):
    path = write(tmp_path, [caption(0), caption(1, "a cross"), caption(2)])
    flags = ["--checkpoint", "shapes-sft", "--out", str(tmp_path / "out.npz")]
    cache_labels.main([*flags, "--captions", str(path)])
    assert "2 prompts, 3 captioned pictures" in capsys.readouterr().out
    groups = cache.load(tmp_path / "out.npz")
    assert list(groups.prompts) == ["a circle", "a cross"] and groups.start.tolist() == [0, 2, 3]
    assert groups.codes.shape == (3, 36) and np.all(groups.score == 1)
    sheet = np.asarray(Image.open(tmp_path / "out.npz.png"), int)
    assert sheet.shape == (2 * 96, 3 * 96, 3)
    _, _, processor = loading.load("shapes-sft", part="vq")
    first = images.to_uint8(processor.for_generation(Image.open(tmp_path / "0.png")))
    np.testing.assert_array_equal(sheet[:96, :96], first)
    model, params, _ = loading.load("shapes-sft", part="vq")
    decoded = cache_labels.decode(cache_labels.VQ(model.cfg.vq, model.cfg.dtype), params["vq"], groups.codes)
    np.testing.assert_array_equal(sheet[96:, :96], images.to_uint8(decoded)[0])
    path.write_text("\n")
    assert "no captioned picture" in refused(cache_labels.main, *flags, "--captions", path)
