"""Freed memory goes back to the system."""

import subprocess
import sys

import pytest

_MAPPED_AFTER_LARGE_ONES = """
import ctypes
from app.system.allocator import give_back_freed_memory
give_back_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.free(libc.malloc(30 << 20))  # from here on, glibc would keep blocks up to this size in its heap
block = libc.malloc(8 << 20)
heap = next(line for line in open("/proc/self/maps") if line.rstrip().endswith("[heap]")).split()[0].split("-")
print(int(heap[0], 16) <= block < int(heap[1], 16))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_large_block_is_taken_from_the_system_after_larger_ones_have_been_freed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MAPPED_AFTER_LARGE_ONES], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
