import ctypes
import pathlib

import pytest

from triplet_jax.devices import allocator

BLOCKS, SIZE = 20_000, 4_000


def resident_bytes():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_what_was_freed_below_a_block_in_use_goes_back_to_the_system():
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        pytest.skip("the C library is not glibc")
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(SIZE) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, SIZE)
    for block in blocks[:-1]:
        libc.free(block)
    before = resident_bytes()
    allocator.trim()
    assert before - resident_bytes() > BLOCKS * SIZE / 2
    libc.free(blocks[-1])
