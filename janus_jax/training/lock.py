"""One training per workdir: the file `lock` in it says which process of which host is at work there.

Nothing but creating a file that is not there, and its time of change, is asked of the place: a mounted bucket has no
more. A lock whose process has ended is taken over: on its own host at once, on another one when its time has stood
still for SILENCE seconds.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

import jax

from janus_jax.errors import UserError
from janus_jax.parallel import agree

FILE = "lock"
BEAT = 20.0  # seconds between two changes of the file's time
SILENCE = 180.0  # seconds; a mounted bucket may show a change a minute late


@contextlib.contextmanager
def held(workdir):
    """Holds the workdir in the block, as process 0 of a pod does for all; yields a function that gives it up early, or
    None in a pod, where no process may end alone.

    Raises UserError, on all processes, where another process holds it, or where it cannot be written.
    """
    path, ended = Path(workdir) / FILE, threading.Event()

    def release():
        ended.set()
        if agree.is_first():
            _remove(path)

    made = agree.first(lambda: _take(path))
    if agree.is_first():
        threading.Thread(target=_beat, args=(path, ended), daemon=True).start()
    try:
        yield release if jax.process_count() == 1 else None
    finally:
        release()
        if made and agree.is_first():
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # where nothing came of it


def _me() -> dict:
    return {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid())}


def _born(pid: int) -> str:
    """What tells a process from a later one of the same number, "" where that is not to be known: its start in ticks
    since which boot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]} {boot}"
    except (OSError, IndexError):
        return ""


def _take(path) -> bool:
    """Makes the file; whether that made its folder."""
    made = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while not _create(path):
            holder = _holder(path)
            if not _gone(path, holder):
                raise UserError(
                    f"{path.parent} is in use by process {holder['pid']} on {holder['host']}: wait for its end or stop "
                    "it, or choose another --workdir"
                )
            if _holder(path) == holder:  # and nobody was quicker
                path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}; choose another --workdir") from error
    return made


def _create(path) -> bool:
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(json.dumps(_me()))
        return True
    except FileExistsError:
        return False


def _holder(path) -> dict:
    """Who holds it. A file that names nobody is being written, or its writer was killed at it."""
    for _ in range(5):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            return {"host": str(said["host"]), "pid": int(said["pid"]), "born": str(said["born"])}
        except (OSError, ValueError, TypeError, KeyError):
            time.sleep(0.1)
    return {"host": "an unknown host", "pid": 0, "born": ""}


def _gone(path, holder) -> bool:
    """Whether the holder has ended. Of another host's it takes up to SILENCE seconds to know."""
    if holder["host"] == socket.gethostname():
        return not _alive(holder)
    end, last = time.monotonic() + SILENCE, _changed(path)
    if last is None or time.time() - last > 10 * SILENCE:  # clocks of two hosts differ by less
        return True
    line = f"process {holder['pid']} on {holder['host']} was here last: looking for {SILENCE:g} s whether it still is"
    print(line, file=sys.stderr, flush=True)
    while time.monotonic() < end:
        time.sleep(min(BEAT, SILENCE) / 4)
        if _changed(path) != last:
            return not path.exists()
    return True


def _changed(path):
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _alive(holder) -> bool:
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return holder["born"] == _born(holder["pid"])


def _beat(path, ended):
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)


def _remove(path):
    with contextlib.suppress(OSError):
        if _holder(path) == _me():
            path.unlink()
