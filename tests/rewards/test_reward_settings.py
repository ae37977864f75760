"""config.reward: what is refused, and the judge that it builds."""

import json
import math
import sys

import httpx
import numpy as np
import pytest
from ml_collections import ConfigDict
from stub_endpoint import picture, question_of, said

from janus_jax.errors import UserError
from janus_jax.rewards import probes, settings
from janus_jax.sequences.request import as_requests

CHAT = {"kind": "chat", "url": "http://judge.test/v1/", "model": "m"}


@pytest.mark.parametrize(
    "reward, words",
    [
        ({"kind": "magic"}, "config.reward.kind 'magic' is none of shapes, model"),
        ({"kind": "model"}, "train_rl alone"),
        ({"kind": "shapes", "ulr": "x"}, "unknown key config.reward.ulr"),
        ({"kind": 3}, "config.reward.kind is 3"),
        ("chat", "config.reward is 'chat'"),
        ({**CHAT, "url": ""}, "config.reward.url is empty"),
        ({**CHAT, "url": "localhost:8000"}, "config.reward.url 'localhost:8000' is no address"),
        ({**CHAT, "url": "http://[::1"}, "is no address"),
        ({**CHAT, "model": ""}, "config.reward.model is empty"),
        ({**CHAT, "concurrency": 0}, "config.reward.concurrency is 0"),
        ({**CHAT, "concurrency": True}, "config.reward.concurrency is True"),
        ({**CHAT, "retries": -1}, "config.reward.retries is -1"),
        ({**CHAT, "timeout_s": 0}, "config.reward.timeout_s"),
        ({**CHAT, "timeout_s": math.nan}, "config.reward.timeout_s"),
        ({**CHAT, "api_key_env": "JANUS_TEST_NO_KEY"}, "JANUS_TEST_NO_KEY, which is not set"),
        ({**CHAT, "questions": "/absent.json"}, "config.reward.questions: cannot read /absent.json"),
        ({**CHAT, "top_logprobs": 1}, "config.reward.top_logprobs is 1"),
        ({**CHAT, "limit_name": "max"}, "config.reward.limit_name 'max' is none of max_tokens, max_completion_tokens"),
        ({**CHAT, "extra_body": [1]}, "config.reward.extra_body is [1]"),
        ({**CHAT, "extra_body": {"a": math.nan}}, "config.reward.extra_body cannot be sent as JSON"),
        ({**CHAT, "extra_body": {"a": np.zeros(2)}}, "config.reward.extra_body cannot be sent as JSON"),
        ({"weights": {"match": "much"}}, "config.reward.weights.match is 'much'"),
        ({"weights": {"match": math.nan}}, "config.reward.weights.match is nan"),
        ({"weights": {"match": 0.0}}, "config.reward.weights are all 0"),
        ({"kind": "python"}, "config.reward.function is ''"),
        ({"kind": "python", "function": "json"}, "name a function as module:function"),
        ({"kind": "python", "function": ":score"}, "name a function as module:function"),
        ({"kind": "python", "function": "no_such_judge:score"}, "no module no_such_judge in the working directory"),
        ({"kind": "python", "function": "json.no_such:score"}, "no module json.no_such in"),
        ({"kind": "python", "function": "json:score"}, "json has no score: name a function that it defines"),
        ({"kind": "python", "function": "math:pi"}, "math:pi is float and no function"),
        ({"kind": "weighted"}, "config.reward.parts holds no part"),
        ({"kind": "weighted", "parts": {"a": {"kind": "shapes"}}}, "config.reward.parts.a has no weight"),
        ({"kind": "weighted", "parts": {"a": {"kind": "shapes", "weight": "x"}}}, "config.reward.parts.a.weight"),
        ({"kind": "weighted", "parts": {"a": {"kind": "shapes", "weight": 0}}}, "weight other than 0"),
        ({"kind": "weighted", "parts": {"a": {"kind": "chat", "weight": 1}}}, "config.reward.parts.a.url"),
        ({"kind": "weighted", "parts": {"a": {"kid": "chat", "weight": 0}}}, "config.reward.parts.a.kid"),
    ],
)
def test_settings_refused(reward, words, monkeypatch):
    monkeypatch.delenv("JANUS_TEST_NO_KEY", raising=False)
    with pytest.raises(UserError) as caught:
        settings.make_judge(ConfigDict(reward) if isinstance(reward, dict) else reward)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_settings_build_the_judge(monkeypatch, tmp_path):
    monkeypatch.setenv("JANUS_TEST_KEY", "secret\n")
    listed = tmp_path / "questions.json"
    listed.write_text(json.dumps({"long": ["is it?", "are they?"]}))
    seen = []

    def answer(request):
        seen.append(request)
        return httpx.Response(200, json=said(0.75))

    reward = ConfigDict({**CHAT, "api_key_env": "JANUS_TEST_KEY", "questions": str(listed)})
    judge = settings.make_judge(reward, transport=httpx.MockTransport(answer))
    judged = judge(as_requests(["long", "short"]), [picture()] * 2)
    np.testing.assert_allclose(judged["match"], [0.75, 0.75])
    assert {str(request.url) for request in seen} == {"http://judge.test/v1/chat/completions"}
    assert {request.headers["Authorization"] for request in seen} == {"Bearer secret"}
    asked = sorted(question_of(request).split("\n")[0] for request in seen)
    assert asked == ['Does this image match the description "short"?', "are they?", "is it?"]

    half = {"kind": "weighted", "parts": {"eye": {**CHAT, "weight": 0.5}, "world": {"kind": "shapes", "weight": 1.0}}}
    both = settings.make_judge(ConfigDict(half), transport=httpx.MockTransport(answer))
    requests, pictures = probes.drawings()
    np.testing.assert_allclose(both(requests[:1], pictures[:1])["match"], [0.75 * 0.5 + 1])


@pytest.mark.parametrize("content", ["{", "[]", '{"a": "b"}', '{"a": []}', '{"a": [3]}'])
def test_question_files_refused(content, tmp_path):
    file = tmp_path / "questions.json"
    file.write_text(content)
    with pytest.raises(UserError, match="config.reward.questions"):
        settings.make_judge({**CHAT, "questions": str(file)})


def test_a_plain_function_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "taste_of_mine.py").write_text(
        "class Eye:\n"
        "    @staticmethod\n"
        "    def score(requests, pictures):\n"
        "        return {'taste': [len(request.prompt) / 10 for request in requests]}\n"
    )
    (tmp_path / "broken_judge.py").write_text("raise SystemExit('out\\nof luck')\n")
    (tmp_path / "lacking_judge.py").write_text("import no_such_library\n")
    judge = settings.make_judge({"kind": "python", "function": "taste_of_mine:Eye.score"})
    judged = judge(as_requests(["abc", "abcde"]), [picture()] * 2)
    np.testing.assert_allclose(judged["taste"], [0.3, 0.5])
    for name, words in (
        ("broken_judge", "importing broken_judge raised SystemExit: out of luck"),
        ("lacking_judge", "importing lacking_judge raised ModuleNotFoundError: No module named 'no_such_library'"),
    ):
        with pytest.raises(UserError, match=words):
            settings.make_judge({"kind": "python", "function": f"{name}:score"})


def test_one_checkpoint_judges():
    model = {"kind": "model", "weight": 1.0}
    assert settings.checkpoint_of({"kind": "shapes"}) == settings.checkpoint_of({"kind": "model"}) == ""
    assert settings.checkpoint_of({"kind": "model", "checkpoint": "runs/a"}) == "runs/a"
    parts = {"a": {**model, "checkpoint": "runs/a"}, "b": {**model, "checkpoint": "runs/b"}}
    with pytest.raises(UserError, match="several checkpoints .runs/a, runs/b."):
        settings.checkpoint_of({"kind": "weighted", "parts": parts})


def test_settings_reach_the_request_and_the_sum():
    asked = []

    def answer(request):
        asked.append(json.loads(request.content))
        return httpx.Response(200, json=said(0.75))

    chat = {**CHAT, "top_logprobs": 7, "limit_name": "max_completion_tokens", "extra_body": {"seed": 3}}
    parts = {"eye": {**chat, "weight": 2.0, "weights": {"match": 0.5}}, "world": {"kind": "shapes", "weight": 1.0}}
    judge = settings.make_judge({"kind": "weighted", "parts": parts}, transport=httpx.MockTransport(answer))
    requests, pictures = probes.drawings()
    np.testing.assert_allclose(judge(requests[:1], pictures[:1])["match"], [2 * 0.5 * 0.75 + 1])
    assert (asked[0]["top_logprobs"], asked[0]["max_completion_tokens"], asked[0]["seed"]) == (7, 1, 3)
