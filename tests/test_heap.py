"""Freed memory is used again."""

import subprocess
import sys

import pytest

PAGES = 2**26 // 4096
# in a thread, as XLA's are: a heap of its own could not hold such a block
COUNT = """
import resource, sys, threading
from janus_jax import heap
if sys.argv[1] == "keep" and not heap.keep():
    sys.exit(3)
def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(2**26)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
found = []
thread = threading.Thread(target=lambda: found.extend(touch() for _ in range(2)))
thread.start()
thread.join()
print(found[1])
"""


def faults(how):
    """Of the second of two large blocks: pages that the system had to give."""
    done = subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("no glibc")
    return int(done.stdout)


def test_the_second_block_is_the_first():
    assert faults("keep") < PAGES / 100


def test_else_the_system_clears_it_anew():
    """Which is what the module is for: where this fails it can go."""
    assert faults("leave") > PAGES / 2
