"""One training per workdir."""

import json
import os
import subprocess
import sys
import time

import pytest

from janus_jax.errors import UserError
from janus_jax.training import lock


def refused(match):
    return pytest.raises(UserError, match=f"^[^\n]*{match}[^\n]*$")


def test_held_and_given_up(tmp_path):
    with lock.held(tmp_path / "w"):
        assert json.loads((tmp_path / "w" / lock.FILE).read_text())["pid"] == os.getpid()
        with refused(f"in use by process {os.getpid()} on "):
            with lock.held(tmp_path / "w"):
                pass
        (tmp_path / "w" / "work").touch()
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["work"]
    with lock.held(tmp_path / "w") as release:
        release()
        assert not (tmp_path / "w" / lock.FILE).exists()


def test_nothing_is_left_where_nothing_came_of_it(tmp_path):
    with pytest.raises(UserError, match="other settings"):
        with lock.held(tmp_path / "w"):
            raise UserError("other settings")
    assert not (tmp_path / "w").exists()
    (tmp_path / "there").mkdir()
    with lock.held(tmp_path / "there"):
        pass
    assert (tmp_path / "there").exists()  # it was there before


def test_another_process(tmp_path):
    """Refused while it lives, taken over once it was killed."""
    code = (
        f"from janus_jax.training import lock\nwith lock.held({str(tmp_path)!r}):\n  print('held', flush=True); input()"
    )
    line = [sys.executable, "-c", code]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with refused(f"in use by process {other.pid} on .*choose another --workdir"):
            with lock.held(tmp_path):
                pass
        other.kill()
    with lock.held(tmp_path):
        assert json.loads((tmp_path / lock.FILE).read_text())["pid"] == os.getpid()


def test_a_later_process_of_the_same_number(tmp_path):
    (tmp_path / lock.FILE).write_text(json.dumps({**lock._me(), "born": "0 an earlier boot"}))
    with lock.held(tmp_path):
        pass


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, "SILENCE", 0.8)
    monkeypatch.setattr(lock, "BEAT", 0.1)


ELSEWHERE = json.dumps({"host": "elsewhere", "pid": 7, "born": ""})


def test_a_process_of_another_host_that_is_silent(tmp_path, quick, capfd):
    (tmp_path / lock.FILE).write_text(ELSEWHERE)
    began = time.monotonic()
    with lock.held(tmp_path):
        assert time.monotonic() - began > 0.7
    assert "process 7 on elsewhere" in capfd.readouterr().err


def test_a_process_of_another_host_that_lives(tmp_path, quick):
    path = tmp_path / lock.FILE
    path.write_text(ELSEWHERE)
    ended = lock.threading.Event()
    beats = lock.threading.Thread(target=lock._beat, args=(path, ended))
    beats.start()
    with refused("in use by process 7 on elsewhere"):
        with lock.held(tmp_path):
            pass
    ended.set()
    beats.join()
    assert path.read_text() == ELSEWHERE


def test_a_process_of_another_host_that_has_long_been_silent(tmp_path):
    (tmp_path / lock.FILE).write_text(ELSEWHERE)
    os.utime(tmp_path / lock.FILE, times=(1e9, 1e9))
    began = time.monotonic()
    with lock.held(tmp_path):
        assert time.monotonic() - began < 10


def test_a_file_that_names_nobody(tmp_path, quick):
    (tmp_path / lock.FILE).write_text("")
    with lock.held(tmp_path):
        pass


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with refused("cannot write to .*choose another --workdir"):
        with lock.held(tmp_path / "file" / "w"):
            pass
