"""A disk that fills while a training saves and logs: one line, nothing that was saved is lost, and with room again the
same command goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_loop import STEPS, lines, saved

CODE = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {here!r}]
import conftest, test_loop
from janus_jax import cli

def fill(number):
    if number == 5 and sys.argv[1:]:
        try:
            with open({disk!r} + "/filling", "wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
        except OSError:
            pass

cli.run(lambda argv: test_loop.train(Path({disk!r}) / "w", test_loop.Stop(99), fill))
"""


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, of 8 MB."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    line = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)]
    if subprocess.run(line, capture_output=True).returncode:
        pytest.skip("this place lets nobody mount a file system")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.slow
def test_a_disk_that_fills(disk):
    here = Path(__file__).parent
    code = CODE.format(tests=str(here.parent), here=str(here), disk=str(disk))

    def run(*flags):
        return subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, timeout=120)

    full = run("fill")
    said = [line for line in full.stderr.replace("\r", "\n").splitlines() if line and not line.startswith("toy: ")]
    assert full.returncode == 2 and len(said) == 1, full.stderr
    assert said[0].startswith("error: cannot write ") and "No space left on device; make room" in said[0]
    assert "stopped" not in full.stderr and (disk / "w" / "checkpoints").is_dir()
    (disk / "filling").unlink()
    again = run()
    assert again.returncode == 0, again.stderr
    assert saved(disk / "w")[0] == STEPS
    assert [line["step"] for line in lines(disk / "w")] == list(range(1, STEPS + 1))
