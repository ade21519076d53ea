"""Memory that a command frees is kept for what it allocates next, instead of being returned to the system each time.

By default glibc maps each large block anew and unmaps it when it is freed. The system then clears every page again: a fifth of the
processor time of an export, whose activations and weights are large and short-lived. The documentation of ``mallopt(3)`` describes
the parameters.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # parameters of mallopt, from <malloc.h>
_KEPT = 2**31 - 1  # bytes at the top of the heap that are not returned; the largest int
_STEP = 128 << 20  # bytes by which the heap grows


def keep_freed_memory() -> bool:
    """Tell the C library's allocator to keep what is freed; return whether it could be told. For commands, not for libraries.

    Other systems and C libraries have no such call, and nothing happens there.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no such function
        return False
    taken = [mallopt(*each) for each in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _KEPT), (_TOP_PAD, _STEP))]
    return all(each == 1 for each in taken)
