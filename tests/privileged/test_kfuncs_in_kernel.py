"""Which kfuncs XDP programs may call, asked of the running kernel: one program of two instructions per kfunc."""

import ctypes
import os
import platform
import re
import struct
from pathlib import Path

import pytest

from uxdp_bundle.btf import Btf, Kind

pytestmark = pytest.mark.kernel

SUPPORT = (Path(__file__).parents[2] / "SUPPORT.md").read_text().partition("## Kfuncs\n")[2].partition("\n## ")[0]
LISTED = frozenset(re.findall(r"^\| `(\w+)` \|", SUPPORT, re.MULTILINE))
VMLINUX = Path("/sys/kernel/btf/vmlinux")
SYS_BPF = {"x86_64": 321, "aarch64": 280}
BPF_PROG_LOAD = 5
BPF_PROG_TYPE_XDP = 6
PSEUDO_KFUNC_CALL = 2 << 4
LOG_BYTES = 1 << 14
# kernel/bpf/verifier.c, check_kfunc_call; arguments are looked at later, and are all wrong here.
REFUSED = ("is not allowed", "must be sleepable", "is only allowed in bpf_lsm", "unexpected __bpf_trap")


def verifier_log(type_id: int) -> str:
    """Load ``call kfunc; exit`` as a GPL XDP program and return what the verifier says."""
    program = struct.pack("<BBhi", 0x85, PSEUDO_KFUNC_CALL, 0, type_id) + struct.pack("<BBhi", 0x95, 0, 0, 0)
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


def test_support_lists_exactly_the_kfuncs_that_this_kernel_lets_xdp_programs_call(kernel):
    btf = Btf(VMLINUX.read_bytes())
    tagged = {tag.size_or_type for tag in btf.types if tag.kind is Kind.DECL_TAG and tag.name == "bpf_kfunc"}
    if not tagged:
        pytest.skip("the BTF of this kernel does not tell kfuncs: build it with pahole 1.26 or later")
    logs = {btf.type(number).name: verifier_log(number) for number in tagged}
    assert all(f"call {name}#" in log or REFUSED[3] in log or "device-bound" in log for name, log in logs.items())
    callable_kfuncs = {name for name, log in logs.items() if not any(reason in log for reason in REFUSED)}
    # A kernel may be built without what some are for, and an older one has fewer.
    assert callable_kfuncs - LISTED == set()
    assert (LISTED & logs.keys()) - callable_kfuncs == set()
    assert len(callable_kfuncs) > 60
