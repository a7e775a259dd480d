"""Which helpers XDP programs may call, asked of the running kernel: one program of two instructions per helper."""

import ctypes
import os
import platform
import struct

import pytest

from uxdp_bundle.helpers import HELPERS, NOT_FOR_XDP, helper_name

pytestmark = pytest.mark.kernel

SYS_BPF = {"x86_64": 321, "aarch64": 280}
BPF_PROG_LOAD = 5
BPF_PROG_TYPE_XDP = 6
LOG_BYTES = 1 << 14
# kernel/bpf/verifier.c, check_helper_call; older kernels say "unknown func" for the first. Arguments are looked at
# later, and are all wrong here.
REFUSED = ("program of this type cannot use helper", "unknown func", "might sleep in a non-sleepable prog")
UNKNOWN = "invalid func"


def verifier_log(helper: int) -> str:
    """Load ``call helper; exit`` as a GPL XDP program and return what the verifier says."""
    program = struct.pack("<BBhi", 0x85, 0, 0, helper) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    instructions = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(LOG_BYTES)
    attributes = struct.pack(
        "<IIQQIIQ",
        BPF_PROG_TYPE_XDP,
        len(program) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
        2,  # verbose: a program that loads leaves a log too
        LOG_BYTES,
        ctypes.addressof(log),
    )
    buffer = ctypes.create_string_buffer(attributes, 128)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SYS_BPF[platform.machine()], BPF_PROG_LOAD, buffer, 128)
    if fd >= 0:
        os.close(fd)
    return log.value.decode()


@pytest.mark.parametrize("number", range(1, len(HELPERS)), ids=helper_name)
def test_helper_is_refused_by_the_kernel_exactly_if_it_is_listed(number, kernel):
    log = verifier_log(number)
    if UNKNOWN in log:
        pytest.skip(f"this kernel has no {helper_name(number)}: run on Linux 6.2 or later")
    assert f"call {helper_name(number)}#{number}" in log
    assert any(reason in log for reason in REFUSED) == (helper_name(number) in NOT_FOR_XDP), log


def test_helpers_end_where_the_kernels_end(kernel):
    assert UNKNOWN in verifier_log(len(HELPERS))
