"""Judges: hand values, and endpoints that fail in every way there is. A failed reward is missing, never 0."""

import asyncio
import base64
import datetime
import io
import itertools
import json
import math
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from janus_jax import reward_check
from janus_jax.errors import UserError
from janus_jax.rewards import chat_endpoint, endpoint, released_http, settings, shapes, weighted
from janus_jax.rewards.endpoint import Endpoint
from janus_jax.rewards.judge import Judged
from janus_jax.sequences.request import Request, as_requests
from janus_jax.shapes import text, verify


def picture(shade=0):
    return Image.new("RGB", (8, 8), (shade, shade, shade))


def completion(*tops):
    """A chat completion whose first token has these (token, probability)."""
    entries = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in tops]
    return {"choices": [{"logprobs": {"content": [{**entries[0], "top_logprobs": entries}]}}]}


def said(p):
    return completion(("Yes", p), ("No", 1 - p))


def served(answer, **fields):
    """An endpoint in whose place stands answer(request) -> httpx.Response, awaited if need be."""

    async def handler(request):
        response = answer(request)
        return await response if asyncio.iscoroutine(response) else response

    fields = {"backoff_s": 0.001, "retries": 2, **fields}
    return Endpoint("http://judge.test/v1/chat/completions", transport=httpx.MockTransport(handler), **fields)


def question_of(request):
    return json.loads(request.content)["messages"][0]["content"][1]["text"]


def ask_chat(answer, prompts=("a",), questions=chat_endpoint.whole_prompt, **fields):
    judge = chat_endpoint.make_judge(served(answer, **fields), "m", questions)
    return judge(as_requests(prompts), [picture()] * len(prompts))


# P(yes)


@pytest.mark.parametrize(
    "tops, expected",
    [
        ([("Yes", 0.6), ("No", 0.2), ("Maybe", 0.2)], 0.75),
        ([("yes", 0.4), (" Yes", 0.1), ("YES", 0.1), ("▁yes", 0.1), ("ĠNo", 0.2), ("nO", 0.1)], 0.7),
        ([("Yes", 0.3), ("Yes", 0.3), ("no", 0.2)], 0.75),  # two ids of one spelling
        ([("yes", 0.06)], 1.0),
        ([("no", 0.9), ("not", 0.1)], 0.0),  # "not" is another word
        ([("No", 0.5), ("yesterday", 0.3), ("Yes", 0.1)], 1 / 6),
    ],
)
def test_p_yes_by_hand(tops, expected):
    assert chat_endpoint.p_yes(completion(*tops)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "answer, words",
    [
        ({"choices": [{"message": {"content": "Yes"}}]}, "no logprobs"),
        ({"choices": [{"logprobs": None}]}, "no logprobs"),
        ({"choices": [{"logprobs": {"content": []}}]}, "no logprobs"),
        (
            {"choices": [{"logprobs": {"content": [{"token": "Yes", "logprob": 0.0, "top_logprobs": []}]}}]},
            "no logprobs",
        ),
        (completion(("The", 0.9), ("A", 0.1)), "yes and no have 0 of"),
        (completion(("The", 0.9), ("No", 0.04)), "yes and no have 0.04 of"),
        (completion(("Yes", 2.0)), "logprob of 'Yes'"),
        (completion(("Yes", math.nan)), "logprob of 'Yes'"),
    ],
)
def test_without_p_yes(answer, words):
    with pytest.raises(ValueError, match=words):
        chat_endpoint.p_yes(answer)
    judged = ask_chat(lambda request: httpx.Response(200, text=json.dumps(answer)))
    assert np.isnan(judged["match"]).all() and judged.first_error.startswith(endpoint.UNUSABLE)
    assert words in judged.first_error


def test_what_the_chat_endpoint_is_asked():
    requests = []

    def answer(request):
        requests.append(request)
        return httpx.Response(200, json=said(0.25))

    judge = chat_endpoint.make_judge(served(answer, headers={"Authorization": "Bearer k"}), "judge-8b")
    judged = judge([Request("a red circle")], [picture(70)])
    np.testing.assert_allclose(judged["match"], [0.25])
    assert judged["match"].dtype == np.float32 and judged.missing == 0 and judged.errors == ("",)
    (request,) = requests
    asked = json.loads(request.content)
    assert (asked["model"], asked["max_tokens"], asked["logprobs"], asked["top_logprobs"]) == ("judge-8b", 1, True, 20)
    image, question = asked["messages"][0]["content"]
    sent = base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert np.asarray(Image.open(io.BytesIO(sent))).tolist() == np.asarray(picture(70)).tolist()
    assert '"a red circle"' in question["text"]
    assert request.headers["Authorization"] == "Bearer k"


def test_questions_are_averaged_and_stand_or_fall_together():
    odds = {"q1": 1.0, "q2": 0.5, "q3": 0.0}

    def answer(request):
        question = question_of(request).split("\n")[0]
        if question == "broken":
            return httpx.Response(200, json={})
        return httpx.Response(200, json=completion(("Yes", odds[question] + 1e-12), ("No", 1 - odds[question] + 1e-12)))

    def questions(prompt):
        return prompt.split()

    judged = ask_chat(answer, ["q1", "q1 q2 q3", "q1 broken q2", "q1 q2"], questions)
    np.testing.assert_allclose(judged["match"], [1, 0.5, np.nan, 0.75], atol=1e-6)
    assert [bool(error) for error in judged.errors] == [False, False, True, False]
    assert judged.valid.tolist() == [True, True, False, True] and judged.missing == 1
    assert ask_chat(answer, [])["match"].shape == (0,)


# what fails


def counting(*responses):
    """(answer, calls): the responses in turn, the last one for ever."""
    calls = []

    def answer(request):
        calls.append(request)
        response = responses[min(len(calls), len(responses)) - 1]
        if isinstance(response, Exception):
            raise response
        return response

    return answer, calls


def good():
    return httpx.Response(200, json=said(0.25))


@pytest.mark.parametrize(
    "first",
    [
        httpx.Response(429),
        httpx.Response(503),
        httpx.ConnectError("refused"),
        httpx.ReadError(""),
        httpx.ReadTimeout(""),
    ],
)
def test_what_passes_is_tried_again(first):
    answer, calls = counting(first, good())
    judged = ask_chat(answer)
    np.testing.assert_allclose(judged["match"], [0.25])
    assert len(calls) == 2


@pytest.mark.parametrize(
    "response, tries, words",
    [
        (httpx.Response(500, text="out of\nmemory"), 3, "HTTP 500: out of memory"),
        (httpx.Response(429), 3, "HTTP 429: Too Many Requests"),
        (httpx.RemoteProtocolError("server disconnected"), 3, "no answer: server disconnected"),
        (httpx.Response(400, text="no such model"), 1, "HTTP 400: no such model"),
        (httpx.Response(401), 1, "HTTP 401"),
        (httpx.Response(307, headers={"location": "/"}), 1, "HTTP 307"),
        (httpx.Response(200, text="<html>" + "x" * 10_000), 1, endpoint.UNUSABLE),
        (httpx.Response(200, content=b"\xff\xfe\xfd"), 1, endpoint.UNUSABLE),
        (httpx.Response(200, text="[" * 100_000), 1, endpoint.UNUSABLE),
    ],
)
def test_what_does_not_pass_is_missing(response, tries, words):
    answer, calls = counting(response)
    judged = ask_chat(answer)
    assert np.isnan(judged["match"]).all() and judged.missing == 1
    assert len(calls) == tries
    (error,) = judged.errors
    assert error.startswith(words) and "\n" not in error and len(error) <= endpoint.LINE


@pytest.mark.parametrize(
    "answer",
    ["[]", "null", '"yes"', "3", "{}", '{"choices": []}', '{"choices": [3]}', '{"choices": {"logprobs": 1}}']
    + [json.dumps({"choices": [{"logprobs": {"content": content}}]}) for content in ("Yes", [3], {"top_logprobs": 1})]
    + [
        json.dumps({"choices": [{"logprobs": {"content": [{"top_logprobs": tops}]}}]})
        for tops in ("Yes", [3], [{"token": "Yes"}], [{"token": 3, "logprob": 0}], [{"token": "yes", "logprob": "0"}])
    ],
)
def test_answers_of_another_form(answer):
    judged = ask_chat(lambda request: httpx.Response(200, text=answer))
    assert np.isnan(judged["match"]).all() and judged.first_error.startswith(endpoint.UNUSABLE)


def test_timeouts():
    calls = []

    async def answer(request):
        calls.append(request)
        await asyncio.sleep(30)

    begin = time.perf_counter()
    judged = ask_chat(answer, ["a", "b"], timeout_s=0.05, retries=1)
    assert time.perf_counter() - begin < 5
    assert judged.missing == 2 and judged.first_error == "no answer within 0.05 s"
    assert len(calls) == 4


@pytest.mark.parametrize(
    "header, seconds",
    [
        ("7", 7.0),
        ("Sat, 21 Nov 2026 12:00:05 GMT", 5.0),
        ("Sat, 21 Nov 2026 11:59:00 GMT", 0.0),
        ("", 0.0),
        ("soon", 0.0),
        ("nan", 0.0),
        ("-3", 0.0),
        ("86400", 120.0),
    ],
)
def test_retry_after_by_hand(header, seconds):
    noon = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC).timestamp()
    assert endpoint.retry_after(header, now=noon) == seconds


def test_a_server_that_asks_for_time_gets_it():
    times = []

    def answer(request):
        times.append(time.monotonic())
        return httpx.Response(429, headers={"retry-after": "0.3"}) if len(times) == 1 else httpx.Response(200, json={})

    assert served(answer, retries=1).ask(["a"], lambda job: job, lambda answer: 1.0) == [(1.0, "")]
    assert times[1] - times[0] >= 0.3  # the back-off alone is a millisecond here


def test_one_failure_is_no_failure_of_the_others():
    def answer(request):
        return httpx.Response(500) if '"c"' in question_of(request) else good()

    judged = ask_chat(answer, ["a", "b", "c", "d"])
    assert judged.valid.tolist() == [True, True, False, True]
    assert judged.first_error == judged.errors[2] != ""


def test_concurrency_is_bounded_and_order_kept():
    now, most = 0, 0

    async def answer(request):
        nonlocal now, most
        now += 1
        most = max(most, now)
        n = int(question_of(request).split('"')[1])
        await asyncio.sleep(0.002 * (n * 7 % 5))  # later ones overtake earlier ones
        now -= 1
        return httpx.Response(200, json=said((n + 1) / 32))

    judged = ask_chat(answer, [str(n) for n in range(30)], concurrency=3)
    np.testing.assert_allclose(judged["match"], (np.arange(30) + 1) / 32, rtol=1e-6)
    assert most == 3


def test_waiting_for_the_next_try_holds_the_place():
    answer, calls = counting(httpx.Response(500))
    asked = []

    def body(job):
        asked.append((job, len(calls)))
        return {}

    served(answer, concurrency=1, retries=1).ask(["a", "b"], body, lambda answer: 1.0)
    assert asked == [("a", 0), ("b", 2)]


def test_from_a_running_loop():
    async def notebook():
        return ask_chat(lambda request: good())

    np.testing.assert_allclose(asyncio.run(notebook())["match"], [0.25])


def test_from_a_thread():
    """As where rewards are fetched while the next pictures are drawn."""
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(ask_chat, lambda request: good()) for _ in range(2)]
        np.testing.assert_allclose([one.result()["match"] for one in both], [[0.25]] * 2)


def test_interrupt_abandons_the_questions(monkeypatch):
    async def answer(request):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    begin = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            ask_chat(answer, timeout_s=20, retries=0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.perf_counter() - begin < 5


# the released protocol


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


# sums


def fixed(*scores):
    errors = tuple("lost" if math.isnan(score) else "" for score in scores)
    return lambda requests, pictures: Judged({"match": scores}, errors)


def test_weighted_by_hand():
    nan = math.nan
    judge = weighted.make_judge([(0.5, fixed(1, 0.5, nan, 0.2), {}), (2.0, fixed(0, 0.25, 1, nan), {})])
    judged = judge([Request("a")] * 4, [picture()] * 4)
    np.testing.assert_allclose(judged["match"], [0.5, 0.75, nan, nan])
    assert judged.errors == ("", "", "lost", "lost") and judged["match"].dtype == np.float32
    # what counts for nothing is not asked, and its failures are nobody's
    only = weighted.make_judge([(0.0, None, {}), (1.0, fixed(0.5), {})])
    np.testing.assert_allclose(only([Request("a")], [picture()])["match"], [0.5])
    with pytest.raises(ValueError, match="weight"):
        weighted.make_judge([(0.0, fixed(1), {})])


def test_shapes_judge_scores_as_the_verifier():
    requests, pictures = reward_check.pairs()
    judged = shapes.judge(requests[:12], pictures[:12])
    readings = [verify.read(np.asarray(image)) for image in pictures[:12]]
    asked = [text.parse(request.prompt) for request in requests[:12]]
    expected = [verify.score(ask, one) for ask, one in zip(asked, readings, strict=True)]
    np.testing.assert_allclose(judged["match"], expected, rtol=1e-6)
    assert (judged["match"][::2] == 1).all() and (judged["match"][1::2] < 0.5).all() and judged.missing == 0
    with pytest.raises(UserError, match="shapes"):
        shapes.judge([Request("a cat")], [picture()])


# settings


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
    requests, pictures = reward_check.pairs()
    np.testing.assert_allclose(both(requests[:1], pictures[:1])["match"], [0.75 * 0.5 + 1])


@pytest.mark.parametrize("content", ["{", "[]", '{"a": "b"}', '{"a": []}', '{"a": [3]}'])
def test_question_files_refused(content, tmp_path):
    file = tmp_path / "questions.json"
    file.write_text(content)
    with pytest.raises(UserError, match="config.reward.questions"):
        settings.make_judge({**CHAT, "questions": str(file)})


# a real server


@contextmanager
def server(handle):
    """(url, connections) of a server on loopback; handle(handler, asked JSON) answers a POST."""
    connections = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            super().setup()
            connections.append(self.client_address)

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            handle(self, asked)

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64  # more connections at once than the default of 5 may be reset by the kernel

    http = Server(("127.0.0.1", 0), Handler)
    http.handle_error = lambda *args: None  # a client that gave up is no news
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/v1", connections
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def reply(handler, answer, status=200):
    content = json.dumps(answer).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def test_connections_are_shared_and_closed():
    with server(lambda handler, asked: reply(handler, said(0.5))) as (url, connections):
        judge = settings.make_judge({**CHAT, "url": url, "concurrency": 4})
        for calls in (1, 2):
            np.testing.assert_allclose(judge([Request("a")] * 40, [picture()] * 40)["match"], 0.5)
            assert len(connections) <= 4 * calls
        # leaving the server does not wait for a connection that is still open


def test_a_trickle_and_a_reset():
    tries = []

    def handle(handler, asked):
        tries.append(asked)
        if "trickle" in asked["messages"][0]["content"][1]["text"]:
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            for _ in range(40):
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.05)
        elif len(tries) == 1:
            handler.connection.shutdown(socket.SHUT_RDWR)  # without an answer
            handler.close_connection = True
        else:
            reply(handler, said(0.5))

    with server(handle) as (url, _):
        judge = settings.make_judge({**CHAT, "url": url, "timeout_s": 60.0, "retries": 1})
        begin = time.perf_counter()
        np.testing.assert_allclose(judge([Request("reset")], [picture()])["match"], [0.5])
        assert len(tries) == 2 and time.perf_counter() - begin < 20  # not by the timeout
        hasty = settings.make_judge({**CHAT, "url": url, "timeout_s": 0.3, "retries": 0})
        begin = time.perf_counter()
        assert hasty([Request("trickle")], [picture()]).first_error == "no answer within 0.3 s"
        assert time.perf_counter() - begin < 1.5


def test_nobody_there():
    with server(reply) as (url, _):
        pass
    judged = settings.make_judge({**CHAT, "url": url, "retries": 0})([Request("a")], [picture()])
    assert judged.missing == 1 and judged.first_error.startswith("no answer: ")


# reward_check


def verifier(handler, asked):
    """The verifier behind the interface of a chat endpoint."""
    image, question = asked["messages"][0]["content"]
    sent = base64.b64decode(image["image_url"]["url"].partition(",")[2])
    prompt = question["text"].split('"')[1]
    reading = verify.read(np.asarray(Image.open(io.BytesIO(sent))))
    reply(handler, said(min(max(verify.score(text.parse(prompt), reading), 0.01), 0.99)))


def opposite(handler, asked):
    """A judge that prefers what is wrong."""

    image, question = asked["messages"][0]["content"]
    sent = base64.b64decode(image["image_url"]["url"].partition(",")[2])
    reading = verify.read(np.asarray(Image.open(io.BytesIO(sent))))
    reply(handler, said(0.1 if verify.matches(text.parse(question["text"].split('"')[1]), reading) else 0.9))


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(reward_check, "SIDE", 64)  # the verifier reads small pictures sooner
    monkeypatch.setattr(reward_check, "ONE_BY_ONE", 4)
    file = tmp_path / "experiment.py"
    file.write_text(
        "from ml_collections import ConfigDict\n"
        "from janus_jax.rewards import settings\n\n\n"
        "def get_config():\n"
        "    config = ConfigDict()\n"
        "    config.reward = ConfigDict({**settings.DEFAULTS, 'model': 'm', 'retries': 0})\n"
        "    return config\n"
    )
    return str(file)


def checked(capsys, config, *flags):
    """(exit status, lines) of reward_check."""
    try:
        reward_check.main(["--config", config, *flags])
        status = 0
    except SystemExit as error:
        status = error.code
    return status, capsys.readouterr().out.splitlines()


def test_check_usable(config, capsys):
    with server(verifier) as (url, _):
        status, lines = checked(capsys, config, "--config.reward.kind=chat", f"--config.reward.url={url}")
    assert status == 0 and lines[-1] == "usable"
    assert all(line.startswith("ok ") for line in lines[:-1])
    for name in (
        "answers: 48 of 48",
        "logprobs: 48 of 48",
        "latency: median",
        "p95",
        "at concurrency 16",
        "order: right",
    ):
        assert any(name in line for line in lines), name


def test_check_of_the_verifier_itself(config, capsys):
    assert checked(capsys, config)[0] == 0


@pytest.mark.parametrize(
    "handle, words",
    [
        (lambda handler, asked: reply(handler, {"choices": [{"message": {}}]}), "logprobs: no logprobs"),
        (lambda handler, asked: reply(handler, {"choices": "?"}), "logprobs: not of the expected form"),
        (lambda handler, asked: reply(handler, {"error": "who?"}, 404), "config.reward.url right"),
        (lambda handler, asked: reply(handler, {"error": "who?"}, 401), "config.reward.api_key_env"),
        (lambda handler, asked: reply(handler, {}, 500), "answers: HTTP 500"),
        (lambda handler, asked: reply(handler, said(0.5)), "order: right pictures score 0.500, wrong ones 0.500"),
        (opposite, "in 0% of 24 pairs"),
    ],
    ids=["no logprobs", "other form", "404", "401", "500", "constant", "opposite"],
)
def test_check_not_usable(handle, words, config, capsys):
    with server(handle) as (url, _):
        status, lines = checked(capsys, config, "--config.reward.kind=chat", f"--config.reward.url={url}")
    assert status == 1 and lines[-1] == "not usable"
    assert any(line.startswith("FAIL") and words in line for line in lines), lines


def test_check_of_an_endpoint_that_loses_answers(config, capsys):
    numbers = itertools.count(1)  # next() is one step for the interpreter: handlers run in threads

    def handle(handler, asked):
        if next(numbers) % 4 == 0:
            reply(handler, {}, 500)
        else:
            verifier(handler, asked)

    with server(handle) as (url, _):
        flags = ("--config.reward.kind=chat", f"--config.reward.url={url}")
        status, lines = checked(capsys, config, *flags)
        assert status == 1
        assert any("answers: 36 of 48" in line and line.startswith("FAIL") for line in lines), lines
        assert any(line.startswith("ok ") and "order" in line for line in lines)
        assert checked(capsys, config, *flags, "--config.reward.retries=4")[0] == 0


def test_check_of_a_sum_names_the_part_that_fails(config, tmp_path, capsys):
    file = tmp_path / "sum.py"
    with server(lambda handler, asked: reply(handler, {"success": False})) as (url, _):
        parts = {"world": {"kind": "shapes", "weight": 1.0}, "old": {"kind": "released", "url": url, "weight": 0.5}}
        file.write_text(
            "from ml_collections import ConfigDict\n\n\n"
            f"def get_config():\n    return ConfigDict({{'reward': {{'kind': 'weighted', 'parts': {parts!r}}}}})\n"
        )
        status, lines = checked(capsys, str(file))
        assert status == 1
        failed = [line for line in lines if line.startswith("FAIL")]
        assert len(failed) == 1 and "config.reward.parts.old: score: success is False" in failed[0]
        assert checked(capsys, str(file), "--config.reward.parts.old.weight=0.0")[0] == 0


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--config.reward.kind=magic"], "config.reward.kind"),
        (["--config.reward.kind=chat"], "config.reward.url is empty"),
        (["--config.reward.retries=many"], "retries"),
        (["--config.reward.nonsense=1"], "nonsense"),
        (["--workdir=x"], "workdir"),
        (["stray"], "stray"),
    ],
)
def test_check_refuses_bad_input(flags, words, config):
    with pytest.raises(UserError) as caught:
        reward_check.main(["--config", config, *flags])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_check_needs_a_reward(tmp_path):
    file = tmp_path / "none.py"
    file.write_text("from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict()\n")
    with pytest.raises(UserError, match="no config.reward"):
        reward_check.main(["--config", str(file)])
