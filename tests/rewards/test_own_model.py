"""The model as judge: what it looks at once, each process asks about for its own pictures."""

import numpy as np
import pytest
from PIL import Image

from janus_jax.rewards import own_model
from janus_jax.sequences.request import Request, as_requests


@pytest.fixture
def asked(monkeypatch):
    """What the model was asked: (prompts, batch); its P(yes) is the red of a picture."""
    said = []

    def yes_probabilities(model, params, processor, images, prompts, batch):
        said.append((list(prompts), batch))
        return np.array([image.getpixel((0, 0))[0] / 255 for image in images], np.float32)

    monkeypatch.setattr(own_model, "yes_probabilities", yes_probabilities)
    return said


PICTURES = [Image.new("RGB", (2, 2), (level, 0, 0)) for level in (0, 51, 51, 255)]


def test_says_what_it_saw_last(asked):
    judge = own_model.SelfJudge("model", "params", "processor", batch=7)
    judge.look(as_requests(["a", "b", "b"]), PICTURES[:3])
    assert asked == [(as_requests(["a", "b", "b"]), 7)]
    judged = judge(as_requests(["b", "a"]), [PICTURES[2], PICTURES[0]])
    np.testing.assert_allclose(judged["match"], [0.2, 0.0])
    assert judged.missing == 0 and judged.errors == ("", "") and len(asked) == 1
    judge.look(as_requests(["c"]), PICTURES[3:])
    np.testing.assert_allclose(judge(as_requests(["c"]), PICTURES[3:])["match"], [1.0])
    with pytest.raises(KeyError):  # it is another picture, though of the same colours
        judge(as_requests(["b"]), [PICTURES[1]])


def test_edits_are_judged_as_a_whole(asked):
    """Beside pictures of prompts, which it sees in the same look."""
    judge = own_model.SelfJudge("model", "params", "processor", batch=7)
    requests = [Request("a"), Request("make it red", PICTURES[0])]
    judge.look(requests, PICTURES[1:3])
    assert asked == [(requests, 7)]
    drawn, edited = judge(requests[:1], PICTURES[1:2]), judge(requests[1:], PICTURES[2:3])
    assert list(drawn) == ["match"] and list(edited) == ["whole"]
    np.testing.assert_allclose([drawn["match"][0], edited["whole"][0]], [0.2, 0.2])


def test_another_checkpoint_may_judge(asked, monkeypatch):
    monkeypatch.setattr(own_model.loading, "load", lambda path, mesh: (f"model of {path} on {mesh}", "params", "words"))
    judge = own_model.SelfJudge.of_checkpoint("runs/judge", "mesh", batch=3)
    assert judge._given == ("model of runs/judge on mesh", "params", "words") and judge._batch == 3
