"""The requests of a step: of the world and of files, prompts and edits."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from tiny import OTHER, grammar

from janus_jax.data.edits import read_edits
from janus_jax.errors import UserError
from janus_jax.rewards import shapes
from janus_jax.rl import requests
from janus_jax.rl.requests import Files

WORLD = Files()


def config(**changed):
    given = {"seed": 3, "task": "both", "edit_share": 0.5, "prompts_per_step": 6, "prompt_tokens": 80}
    return ConfigDict({**given, "free_prompts": 0.5, "prompts": "p.txt", "edit_prompts": "e.jsonl", **changed})


def step(number=0, attempt=0, files=WORLD, side=16, **changed):
    return requests.of_step(config(**changed), grammar(), files, side, number, attempt)


def test_a_step_has_a_share_of_edits():
    asked, seed = step(2)
    assert [request.source is None for request in asked] == [True] * 3 + [False] * 3
    again, same = step(2)
    assert [request.digest for request in asked] == [request.digest for request in again] and seed == same
    others = [step(3)[0], step(2, attempt=1)[0], step(2, seed=4)[0]]
    for task in (slice(None, 3), slice(3, None)):
        assert len({tuple(r.digest for r in asked[task]) for asked in [again, *others]}) == 4
    shares = [requests.counts(config(edit_share=share)) for share in (0.0, 0.2, 1.0)]
    assert shares == [(6, 0), (5, 1), (0, 6)]
    assert requests.counts(config(task="draw")) == (6, 0) and requests.counts(config(task="edit")) == (0, 6)
    assert requests.sources(config()) == 1 and requests.sources(config(edit_share=0.0)) == 0


def test_edits_change_no_prompt():
    """A share of 0 is the task draw; the seed to draw with is the same."""
    whole, seed = step(5, task="draw", free_prompts=0.0)
    part, same = step(5, edit_share=0.0, free_prompts=0.0)
    assert whole == part and seed == same and all(request.source is None for request in whole)


def test_the_world_s_edits_are_clear_to_the_verifier():
    asked, _ = step(prompts_per_step=40, task="edit")
    judged = shapes.judge(asked, [request.source for request in asked])  # refuses what is not clear
    assert {request.source.size for request in asked} == {(96, 96)}  # of pictures of 16 pixels little can be read
    assert step(side=128, task="edit")[0][0].source.size == (128, 128)
    assert (judged["following"] == 0).all() and (judged["preserving"] == 1).all() and not judged["whole"].any()
    with pytest.raises(UserError, match="more than 9 tokens"):
        step(task="edit", prompt_tokens=9)


def test_edits_of_another_world():
    """As large as its pictures are, in its words; its verifier finds them clear."""
    how = {"prompts_per_step": 20, "task": "edit", "prompt_tokens": 200}
    asked, _ = requests.of_step(config(**how), grammar(), WORLD, 16, 0, world=OTHER)
    assert {request.source.size for request in asked} == {(72, 72)}
    judged = shapes.judge(asked, [request.source for request in asked], OTHER)
    assert (judged["preserving"] == 1).all() and not judged["whole"].any()
    with pytest.raises(UserError, match="embedded world"):
        shapes.judge(asked, [request.source for request in asked])


@pytest.fixture
def files(tmp_path):
    lines = []
    for n in range(5):
        pixels = np.random.default_rng(n).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
        lines.append(json.dumps({"image1": f"{n}.png", "text": f"make it {n}"}))
    (tmp_path / "e.jsonl").write_text("\n".join(lines))
    return Files([f"prompt {n}" for n in range(4)], read_edits(tmp_path / "e.jsonl", turns=False))


def test_files_of_both(files):
    """Each goes through its own file; a source is the picture's centre, which is what is edited."""
    asked = [request for number in range(5) for request in step(number, files=files, prompts_per_step=2)[0]]
    prompts, edits = asked[::2], asked[1::2]
    assert {request.prompt for request in prompts[:4]} == set(files.prompts)
    assert sorted(request.prompt for request in edits) == [f"make it {n}" for n in range(5)]
    for request in edits:
        with Image.open(files.edits[int(request.prompt[-1])].image) as whole:
            np.testing.assert_array_equal(request.source, np.asarray(whole)[:, 5:25])
    others = [step(0, attempt=n, files=files, prompts_per_step=8)[0] for n in range(3)]
    assert all({request.prompt for request in other[4:]} <= {f"make it {n}" for n in range(5)} for other in others)
    assert len({tuple(request.prompt for request in other[4:]) for other in others}) == 3


def test_what_is_too_long(files):
    requests.check_files(config(), files, grammar())
    length = sum(map(len, grammar().prompt(step(files=files, task="edit")[0][0])))
    with pytest.raises(
        UserError, match=rf"prompt 1 of e.jsonl has {length} tokens: set --config.prompt_tokens={length}"
    ):
        requests.check_files(config(prompt_tokens=length - 1), Files(None, files.edits), grammar())
    with pytest.raises(UserError, match="prompt 1 of p.txt has"):
        requests.check_files(config(prompt_tokens=3), files, grammar())


def test_a_picture_that_has_gone(files):
    for edit in files.edits:
        edit.image.unlink()
    with pytest.raises(UserError, match="the picture .*png cannot be read: No such file"):
        step(files=files)
