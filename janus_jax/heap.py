"""What becomes of memory that the process frees.

XLA's programs for CPUs allocate their temporaries anew in every call. From glibc a large block comes fresh from the
system each time, which clears it page by page as it is touched: that takes several times as long as computing with it.
"""

import ctypes

# Options of glibc's mallopt(3): no block is mapped by itself; nothing is given back; all threads have one heap, since
# those beside the first are too small for large blocks, which would be mapped again.
OPTIONS = {"MMAP_MAX": (-4, 0), "TRIM_THRESHOLD": (-1, -1), "ARENA_MAX": (-8, 1)}


def keep() -> bool:
    """From now on what is freed stays with the process, to be used again: it goes on holding the most that it ever
    held. To be called before there are threads. Returns False where the C library has no such options."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all([mallopt(*option) for option in OPTIONS.values()])
