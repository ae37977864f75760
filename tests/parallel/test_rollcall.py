"""The roll call on loopback: who is missing is named, wrong numbers are refused, strangers have no effect."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest

from janus_jax.errors import UserError
from janus_jax.parallel import rollcall


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(rollcall, "STEP", 0.05)
    monkeypatch.setattr(rollcall, "FORGOTTEN", 0.8)


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Call:
    """Processes that wait for each other, as threads; `ends[name]` is "" or the refusal that a process got."""

    def __init__(self, port, count=3, patience=20.0):
        self.port, self.count, self.patience = port, count, patience
        self.ends, self.threads, self.all_in = {}, [], threading.Event()

    def come(self, index, count=None, name=None):
        def run():
            try:
                if index:
                    rollcall.call("127.0.0.1", self.port, count or self.count, index, 0.2, self.patience)
                else:
                    with rollcall.open_roll("127.0.0.1", self.port, self.count) as roll:
                        rollcall.wait_for_all(roll, 0.2, self.patience)
                        self.all_in.wait(20)  # in place of jax, in which all join
                self.ends[name or index] = ""
            except UserError as error:
                self.ends[name or index] = str(error)

        self.threads.append((index, threading.Thread(target=run, daemon=True)))
        self.threads[-1][1].start()

    def end(self):
        for index, thread in sorted(self.threads, key=lambda one: -one[0]):
            if index == 0:
                self.all_in.set()
            thread.join(30)
            assert not thread.is_alive()
        return self.ends


def lines_of(capsys, needed, seconds=20.0):
    """What was printed to stderr until a line holds `needed`."""
    text, deadline = "", time.time() + seconds
    while needed not in (text := text + capsys.readouterr().err):
        assert time.time() < deadline, text
        time.sleep(0.01)
    return text


def test_who_is_missing_is_said(port, capsys):
    call = Call(port)
    call.come(1)
    lines_of(capsys, f"process 1 of 3: waiting for process 0 at 127.0.0.1:{port}\n")
    call.come(0)
    text = lines_of(capsys, "process 1 of 3: waiting for process 2\n")
    text += lines_of(capsys, "process 0 of 3: waiting for process 2\n")
    assert not call.ends
    call.come(2)
    assert call.end() == {0: "", 1: "", 2: ""}


@pytest.mark.parametrize("wrong", [{"index": 1}, {"index": 2, "count": 4}, {"index": 3, "count": 4}])
def test_wrong_numbers_are_refused(port, wrong, capsys):
    """In a line of the one who has them; the others go on waiting, and all is well once it comes with its own."""
    call = Call(port)
    call.come(0)
    call.come(1)
    lines_of(capsys, "process 1 of 3: waiting for process 2\n")
    call.come(**wrong, name="wrong")
    deadline = time.time() + 20
    while "wrong" not in call.ends:
        assert time.time() < deadline
        time.sleep(0.01)
    assert "set JAX_PROCESS_ID and JAX_NUM_PROCESSES" in call.ends["wrong"] and set(call.ends) == {"wrong"}
    words = "calls itself {index} of {count}, process 0 is one of 3" if "count" in wrong else "1 of 3 is there already"
    assert words.format(**wrong) in call.ends["wrong"]
    call.come(2)
    assert call.end() == {0: "", 1: "", 2: "", "wrong": call.ends["wrong"]}


def test_one_that_does_not_come(port):
    call = Call(port, patience=1.0)
    call.come(0)
    call.come(2)
    ends = call.end()
    assert "process 1 of 3 did not come" in ends[0] and ends[2] == ends[0]
    alone = Call(port, patience=0.3)
    alone.come(1)
    assert "process 0 at 127.0.0.1" in alone.end()[1] and "did not come" in alone.ends[1]


def status(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, None


def test_strangers_and_those_who_leave_do_not_count(port, capsys, monkeypatch):
    monkeypatch.setenv(rollcall.TOKEN, "secret")
    call = Call(port)
    call.come(0)
    lines_of(capsys, "waiting for processes 1, 2\n")
    for words in (b"GET / HTTP/1.0\r\n\r\n", b"[" * 100000, b'{"index": Infinity}\n', b"\x16\x03\x01\x00", b""):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as door:
            door.sendall(words)
    for path in ("/", "/secret", "/secret/3/one/me", "/secret/3/-Infinity/me", "/guessed/3/1/me", "/-/3/1/me"):
        assert status(port, path) == (404, None)
    assert status(port, "/secret/3/0/me") == status(port, "/secret/3/-1/me") == (409, None)
    lines_of(capsys, "waiting for processes 1, 2\n")
    assert status(port, "/secret/3/1/me") == (200, [2])  # a process 1 that dies while it waits
    lines_of(capsys, "process 0 of 3: waiting for process 2\n")
    lines_of(capsys, "process 0 of 3: waiting for processes 1, 2\n")
    call.come(2)
    call.come(1)  # started again
    assert call.end() == {0: "", 1: "", 2: ""}


def test_one_that_is_started_again_is_not_refused(port):
    call = Call(port)
    call.come(0)
    deadline = time.time() + 20
    while True:
        try:
            assert status(port, "/-/3/1/gone") == (200, [2])
            break
        except OSError:
            assert time.time() < deadline
    call.come(1)  # while the one that is gone still counts
    call.come(2)
    assert call.end() == {0: "", 1: "", 2: ""}


def test_a_port_that_is_taken(port):
    with socket.create_server(("", port)), pytest.raises(UserError, match=f"cannot listen on port {port}"):
        with rollcall.open_roll("127.0.0.1", port, 2):
            pass
