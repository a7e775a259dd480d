"""A data process that was taken over: it can change its own code, and nobody else's."""

import ctypes
import os

from uxdp_runtime.serve.ports_library import ports_library

PAGE = 4096
READ_WRITE = 3


def test_code_that_a_forked_process_changes_stays_the_same_for_all_others() -> None:
    address = ports_library().address("uxdp_af_xdp_serve")
    before = ctypes.string_at(address, 16)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            libc = ctypes.CDLL(None)
            if libc.mprotect(ctypes.c_void_p(address & -PAGE), ctypes.c_size_t(2 * PAGE), READ_WRITE) == 0:
                ctypes.memset(address, 0xCC, 16)
                status = 0
        finally:
            os._exit(status)
    _pid, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0  # it did change its own
    assert ctypes.string_at(address, 16) == before != b"\xcc" * 16
