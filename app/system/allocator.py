"""Have the C library return freed memory to the system: one setting, made once for a process."""

import ctypes
import sys

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_MAPPED_BYTES = 1 << 20
_TRIMMED_BYTES = 4 << 20


def give_back_freed_memory() -> None:
    """Keep large pictures out of the heap permanently.

    glibc takes large blocks from the system and returns them, but every freed block raises the size from which it does
    so, up to 32 MB. After a few large pictures, the next ones are in the heap of the thread that decodes them, between
    small blocks that are not freed. After 20,000 bad uploads, two workers held a quarter more memory; with a fixed
    size, a twentieth more. Other C libraries have no such setting, and are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIMMED_BYTES)
