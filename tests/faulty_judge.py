"""The embedded world's verifier behind an OpenAI-compatible chat endpoint on loopback that fails on purpose:

    python tests/faulty_judge.py --port 8765 --faults 0.2 --outage-at 500 --outage-s 60

--faults: the share of requests that end badly, each in one of the ways of FAULTS. --outage-at, --outage-s: after so
many requests every one gets a 503 for so many seconds. Which request fails is a function of its number alone.
"""

import argparse
import base64
import io
import json
import math
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

from janus_jax.rewards import shapes
from janus_jax.rewards.judge import MATCH
from janus_jax.sequences.request import Request

FAULTS = ("slow", "500", "reset", "malformed", "no logprobs", "wrong type", "nan")
SLOW_S = 3.0  # more than the timeout of those who ask


def completion(score: float) -> dict:
    """A chat completion whose P(yes) is score."""
    tops = [(word, p) for word, p in (("Yes", score), ("No", 1 - score)) if p > 0]
    entries = [{"token": word, "logprob": math.log(p)} for word, p in tops]
    return {"choices": [{"logprobs": {"content": [{**entries[0], "top_logprobs": entries}]}}]}


def asked_about(request: dict):
    """(prompt, picture) of a request of rewards/chat_endpoint.py."""
    picture, question = request["messages"][0]["content"]
    data = base64.b64decode(picture["image_url"]["url"].split(",", 1)[1])
    text = question["text"]
    return text[text.index('"') + 1 : text.rindex('"')], Image.open(io.BytesIO(data))


class Judge:
    """The server; `url` is its base. Use as a context manager. counts: requests by what became of them."""

    def __init__(self, port: int = 0, faults: float = 0.0, outage_at: int | None = None, outage_s: float = 0.0):
        judge = self
        self.counts = dict.fromkeys(("good", "outage", *FAULTS), 0)
        self._number, self._back, self._lock = 0, None, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                judge._answer(self, asked, judge._fate(faults, outage_at, outage_s))

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 64  # more connections at once than the default of 5 may be reset by the kernel

        self._http = Server(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self._http.handle_error = lambda *args: None  # a client that gave up is no news
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def _fate(self, faults, outage_at, outage_s):
        with self._lock:
            self._number += 1
            if outage_at is not None and self._number > outage_at:
                self._back = self._back or time.monotonic() + outage_s
            out = self._back is not None and time.monotonic() < self._back
            rng = np.random.default_rng(self._number)
            fails = rng.random() < faults
            fate = "outage" if out else FAULTS[rng.integers(len(FAULTS))] if fails else "good"
            self.counts[fate] += 1
            return fate

    def _answer(self, handler, asked, fate):
        if fate in ("500", "outage"):
            return _send(handler, b"not now", 503 if fate == "outage" else 500)
        if fate == "reset":
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return None
        if fate == "slow":
            time.sleep(SLOW_S)
        prompt, image = asked_about(asked)
        answer = completion(float(shapes.judge([Request(prompt)], [image])[MATCH][0]))
        if fate == "no logprobs":
            answer["choices"][0]["logprobs"] = None
        first = answer["choices"][0]["logprobs"] and answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]
        if fate == "wrong type":
            first["logprob"] = "high"
        if fate == "nan":
            first["logprob"] = math.nan
        content = json.dumps(answer).encode()
        return _send(handler, content[: len(content) // 2] if fate == "malformed" else content)

    def __enter__(self):
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._http.shutdown()
        self._http.server_close()


def _send(handler, content, status=200):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--outage-at", type=int)
    parser.add_argument("--outage-s", type=float, default=60.0)
    args = parser.parse_args()
    with Judge(args.port, args.faults, args.outage_at, args.outage_s) as judge:
        print(judge.url, flush=True)
        try:
            while True:
                time.sleep(10)
                print(judge.counts, flush=True)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
