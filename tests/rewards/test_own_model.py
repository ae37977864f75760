"""The model as judge: what it looks at once, each process asks about for its own pictures."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from janus_jax.rewards import own_model


def test_says_what_it_saw_last(monkeypatch):
    asked = []

    def yes_probabilities(model, params, processor, images, prompts, batch):
        asked.append((list(prompts), batch))
        return np.array([image.getpixel((0, 0))[0] / 255 for image in images], np.float32)

    monkeypatch.setattr(own_model, "yes_probabilities", yes_probabilities)
    pictures = [Image.new("RGB", (2, 2), (level, 0, 0)) for level in (0, 51, 51, 255)]
    shots = [SimpleNamespace(image=picture) for picture in pictures]
    judge = own_model.SelfJudge("model", "params", "processor", batch=7)
    judge.look([SimpleNamespace(prompt="a", rounds=shots[:1]), SimpleNamespace(prompt="b", rounds=shots[1:3])])
    assert asked == [(["a", "b", "b"], 7)]
    judged = judge(["b", "a"], [pictures[2], pictures[0]])
    np.testing.assert_allclose(judged.scores, [0.2, 0.0])
    assert judged.missing == 0 and judged.errors == ("", "") and len(asked) == 1
    judge.look([SimpleNamespace(prompt="c", rounds=shots[3:])])
    np.testing.assert_allclose(judge(["c"], pictures[3:]).scores, [1.0])
    with pytest.raises(KeyError):  # it is another picture, though of the same colours
        judge(["b"], [pictures[1]])
