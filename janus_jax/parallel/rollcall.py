"""Who is there yet: the others tell process 0 by HTTP, and get the numbers of those who are missing.

jax's own coordinator waits for all processes without a word, and a number that stands twice or is too large ends them
in C++. So the numbers are checked here, before jax is told anything. Nothing else is believed of what is said here:
code and settings are compared through jax (`alike.refusal`). Whoever does not know JANUS_POD_TOKEN (the launcher's, if
it gives one) gets a 404, and has no effect.
"""

import contextlib
import http.server
import json
import os
import socket
import socketserver
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid

from janus_jax.errors import UserError
from janus_jax.parallel.alike import processes

TOKEN = "JANUS_POD_TOKEN"  # in the environment of all processes: what their launcher drew
STEP = 0.5  # seconds between two calls of a process that waits
FORGOTTEN = 10 * STEP  # seconds after the last call of a process until it counts as missing again


class Roll:
    """Process 0's list of who has called. count: how many processes there are."""

    def __init__(self, count: int):
        self.count, self.gave_up, self._complete, self._lock = count, "", False, threading.Lock()
        self._calls: dict[int, tuple[str, float]] = {}  # index: (which process says so, when it last did)
        self._gone_on: set[int] = set()  # those who have heard that all are there

    def missing(self) -> list[int]:
        """The processes that are not there; from the moment on at which all are there together, none."""
        with self._lock:
            late = time.monotonic() - FORGOTTEN
            absent = [i for i in range(1, self.count) if self._calls.get(i, ("", late - 1))[1] < late]
            self._complete |= not absent
            return [] if self._complete else absent

    def answer(self, count: int, index: int, who: str) -> tuple[int, str]:
        """(HTTP status, text) for a process that calls itself `index` of `count`; who: the same at all of its calls."""
        if count != self.count or not 0 < index < count:
            return 409, f"this process calls itself {index} of {count}, process 0 is one of {self.count}"
        with self._lock:
            known, when = self._calls.get(index, (who, 0.0))
            if known != who and (index in self._gone_on or time.monotonic() - when < FORGOTTEN):
                return 409, f"process {index} of {count} is there already"
            self._calls[index] = who, time.monotonic()
        if self.gave_up:
            return 410, self.gave_up
        if not (missing := self.missing()):
            self._gone_on.add(index)
        return 200, json.dumps(missing)


def _server(host, port, roll):
    class Answer(http.server.BaseHTTPRequestHandler):
        timeout = 5  # seconds, for whoever connects and says nothing

        def do_GET(self):
            try:
                _, token, count, index, who = self.path.split("/")
                status, text = roll.answer(int(count), int(index), who) if token == _token() else (404, "")
            except ValueError:
                status, text = 404, ""
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    class Server(socketserver.ThreadingTCPServer):  # not HTTPServer: it asks the DNS for its own name
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        allow_reuse_address, daemon_threads, request_queue_size = True, True, 1024

        def handle_error(self, *_):
            pass  # it went away while we spoke

    return Server((host, port), Answer)


def _token():
    return os.environ.get(TOKEN, "") or "-"


@contextlib.contextmanager
def open_roll(host: str, port: int, count: int):
    """Answers calls at host:port, or at that port of all addresses where this is none of this machine's, until the
    block ends. Gives the Roll. Raises UserError where the port is taken."""
    roll, server = Roll(count), None
    for address in (host, ""):
        try:
            server = _server(address, port, roll)
            break
        except OSError as error:
            reason = error.strerror or error
    if server is None:
        raise UserError(f"cannot listen on port {port} ({reason}): choose another JAX_COORDINATOR_ADDRESS")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    try:
        yield roll
    finally:
        server.shutdown()
        server.server_close()


class Waiting:
    """Says every `interval` seconds who is missing, and when `patience` seconds are over."""

    def __init__(self, index, count, interval, patience):
        self._name, self._interval = f"process {index} of {count}", interval
        self._told, self._deadline = time.monotonic(), time.monotonic() + patience

    def over(self, whom: str) -> bool:
        """Waits a step for `whom`; True where that was the last."""
        time.sleep(min(STEP, self._interval))
        if time.monotonic() - self._told > self._interval:
            self._told = time.monotonic()
            print(f"{self._name}: waiting for {whom}", file=sys.stderr, flush=True)
        return time.monotonic() > self._deadline


def wait_for_all(roll: Roll, interval: float, patience: float) -> None:
    """Process 0's side: returns once all have called. Raises UserError naming those who did not within `patience`."""
    waiting = Waiting(0, roll.count, interval, patience)
    while missing := roll.missing():
        if waiting.over(processes(missing)):
            roll.gave_up = f"{processes(missing)} of {roll.count} did not come: look at their hosts, start all again"
            time.sleep(4 * STEP)  # those who wait hear it, too
            raise UserError(roll.gave_up)


def call(host: str, port: int, count: int, index: int, interval: float, patience: float) -> None:
    """The other processes' side: returns once all are there. Calls again where process 0 goes away, which may be
    started anew. Raises UserError where process 0 refuses this process, or one does not come within `patience`."""
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{port}/{_token()}/{count}/{index}/{uuid.uuid4().hex}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # hosts of a pod are not behind a proxy
    waiting, refused = Waiting(index, count, interval, patience + interval), 0.0  # process 0 gives up first
    while True:
        whom = f"process 0 at {host}:{port}"
        try:
            with opener.open(url, timeout=10) as answer:
                missing = [int(one) for one in json.loads(answer.read(1 << 20))]
            if not missing:
                return
            whom, refused = processes(missing), 0.0
        except urllib.error.HTTPError as error:
            words = error.read(1000).decode(errors="replace")
            if error.code == 410:
                raise UserError(words) from error
            if error.code == 409:  # one that was started anew is taken for another until the first is forgotten
                refused = refused or time.monotonic()
                if time.monotonic() - refused > 2 * FORGOTTEN:
                    raise UserError(f"{words}: set JAX_PROCESS_ID and JAX_NUM_PROCESSES") from error
        except (OSError, ValueError, TypeError):
            pass  # nobody there, or something else than process 0
        if waiting.over(whom):
            raise UserError(f"{whom} did not come: look at the host, and start all again")
