"""Endpoints for tests: in place of the network, and on loopback."""

import asyncio
import json
import math
import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

import httpx
from PIL import Image

from janus_jax.rewards import chat_endpoint
from janus_jax.rewards.endpoint import Endpoint
from janus_jax.sequences.request import as_requests


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
        with mock.patch.dict(os.environ, NO_PROXY="*"):
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
