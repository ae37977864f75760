"""The verifier as judge."""

import numpy as np
import pytest
from stub_endpoint import picture

from janus_jax.errors import UserError
from janus_jax.rewards import probes, shapes
from janus_jax.sequences.request import Request
from janus_jax.shapes import text, verify


def test_shapes_judge_scores_as_the_verifier():
    requests, pictures = probes.drawings()
    judged = shapes.judge(requests[:12], pictures[:12])
    readings = [verify.read(np.asarray(image)) for image in pictures[:12]]
    asked = [text.parse(request.prompt) for request in requests[:12]]
    expected = [verify.score(ask, one) for ask, one in zip(asked, readings, strict=True)]
    np.testing.assert_allclose(judged["match"], expected, rtol=1e-6)
    assert (judged["match"][::2] == 1).all() and (judged["match"][1::2] < 0.5).all() and judged.missing == 0
    with pytest.raises(UserError, match="shapes"):
        shapes.judge([Request("a cat")], [picture()])


def test_edits_by_the_exact_scores():
    requests, pictures = probes.edits()
    half = len(requests) // 2
    judged = shapes.judge(requests, pictures)
    assert judged.missing == 0 and list(judged) == ["following", "preserving", "whole"]
    assert (judged["following"][::2] == 1).all() and (judged["preserving"][::2] == 1).all()
    # a copy of the source follows nothing, and what lost a bystander has not preserved it
    assert (judged["following"][1:half:2] == 0).all() and (judged["preserving"][1:half:2] == 1).all()
    assert (judged["following"][half + 1 :: 2] == 1).all() and (judged["preserving"][half + 1 :: 2] < 1).all()
    with pytest.raises(UserError, match="not an instruction .*embedded world alone"):
        shapes.judge([Request("make it nicer", pictures[0])], pictures[:1])
    with pytest.raises(UserError, match="judged in one call"):
        shapes.judge([requests[0], Request("a circle")], pictures[:2])
