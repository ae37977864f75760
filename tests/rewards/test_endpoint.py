"""Endpoints that fail in every way there is: a failed reward is missing, never 0."""

import asyncio
import datetime
import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from stub_endpoint import ask_chat, counting, good, picture, question_of, reply, said, served, server

from janus_jax.rewards import endpoint, settings
from janus_jax.sequences.request import Request

CHAT = {"kind": "chat", "model": "m"}


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
        (httpx.Response(307, headers={"location": "/v2"}), 1, "HTTP 307: it redirects to http://judge.test/v2: if"),
        (httpx.Response(301, headers={"location": "https://b.test/"}), 1, "HTTP 301: it redirects to https://b.test/"),
        (httpx.Response(307, text="where?"), 1, "HTTP 307: where?"),
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


def test_nobody_there(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with server(reply) as (url, _):
        pass
    judged = settings.make_judge({**CHAT, "url": url, "retries": 0})([Request("a")], [picture()])
    assert judged.missing == 1 and judged.first_error.startswith("no answer: ")
