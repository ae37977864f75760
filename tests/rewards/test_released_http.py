"""The released code's protocol."""

import base64
import io
import json
import math

import httpx
import numpy as np
import pytest
from PIL import Image
from stub_endpoint import picture, served

from janus_jax.rewards import endpoint, released_http
from janus_jax.sequences.request import Request


def test_released_protocol():
    requests = []

    def answer(request):
        requests.append(json.loads(request.content))
        return httpx.Response(200, json={"success": True, "resultMap": {"scores": [0.125]}})

    judged = released_http.make_judge(served(answer))([Request("two circles")], [picture(9)])
    np.testing.assert_allclose(judged["match"], [0.125])
    (asked,) = requests
    tensors = asked.pop("tensorFeatures")
    assert asked == {"features": {}}
    assert tensors["captions"] == {"shapes": [1], "stringValues": ["two circles"]}
    assert tensors["images"].pop("shapes") == [1]
    sent = Image.open(io.BytesIO(base64.b64decode(tensors["images"].pop("byteValues"))))
    assert sent.format == "PNG" and np.asarray(sent).tolist() == np.asarray(picture(9)).tolist()


@pytest.mark.parametrize(
    "answer",
    [
        {"success": False, "resultMap": {"scores": 0.5}},
        {"success": "yes", "resultMap": {"scores": 0.5}},
        {"resultMap": {"scores": 0.5}},
        {"success": True},
        {"success": True, "resultMap": None},
        *(
            {"success": True, "resultMap": {"scores": s}}
            for s in (math.nan, True, "0.5", None, [], [0.5, 0.5], 1.5, -1)
        ),
        *({"success": True, "resultMap": {"scores": s}} for s in (10**400, math.inf, {"0": 1}, [[0.5]])),
    ],
)
def test_released_answers_without_a_score(answer):
    judge = released_http.make_judge(served(lambda request: httpx.Response(200, text=json.dumps(answer))))
    judged = judge([Request("a")], [picture()])
    assert np.isnan(judged["match"]).all() and judged.first_error.startswith(endpoint.UNUSABLE)


def test_edits_have_tensors_of_their_own():
    asked = []

    def answer(request):
        body = json.loads(request.content)
        asked.append(body["tensorFeatures"])
        follows = "follow" in body["tensorFeatures"]["prompts"]["stringValues"][0]
        return httpx.Response(200, json={"success": True, "resultMap": {"scores": 0.25 if follows else 0.75}})

    judge = released_http.make_judge(served(answer))
    judged = judge([Request("make it red", picture(9))], [picture(70)])
    assert {name: scores.tolist() for name, scores in judged.items()} == {"following": [0.25], "preserving": [0.75]}
    for tensors in asked:
        assert set(tensors) == {"images1", "images2", "prompts"}
        assert all(tensor["shapes"] == [1] for tensor in tensors.values())
        sent = [
            Image.open(io.BytesIO(base64.b64decode(tensors[name]["byteValues"]))) for name in ("images1", "images2")
        ]
        assert [image.getpixel((0, 0))[0] for image in sent] == [9, 70]
        (text,) = tensors["prompts"]["stringValues"]
        assert "make it red" in text and text.count("<image>") == 2
