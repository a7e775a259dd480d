"""Confine the current process before it touches untrusted bytes: for child processes that run LLVM.

After ``confine`` the process has no capabilities and cannot gain any, has bounded memory and CPU time, may write no
file, and may make only the system calls that computing on memory and answering over open descriptors needs. It opens
nothing, connects to nothing, starts nothing. Everything it needs must be imported and opened before.

References: seccomp(2), capset(2), prctl(2), setrlimit(2); include/uapi/linux/{seccomp,filter,audit,capability}.h
"""

import ctypes
import os
import resource
import struct
from collections.abc import Mapping
from typing import Final

_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_TSYNC = 1
_SECCOMP_CALL: Final = {"x86_64": 317, "aarch64": 277}
_SECCOMP_RET_ALLOW = 0x7FFF0000
_SECCOMP_RET_ERRNO = 0x00050000
_SECCOMP_RET_KILL_PROCESS = 0x80000000
_EPERM = 1
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

# struct sock_filter codes (include/uapi/linux/bpf_common.h)
_LD_W_ABS = 0x20
_JEQ_K = 0x15
_RET_K = 0x06
_SECCOMP_DATA_NR = 0  # offsets in struct seccomp_data
_SECCOMP_DATA_ARCH = 4

# audit architecture, numbers of capset and of the allowed system calls
_MACHINES: Final = {
    "x86_64": (
        0xC000003E,
        126,
        {
            "read": 0,
            "write": 1,
            "close": 3,
            "fstat": 5,
            "lseek": 8,
            "mmap": 9,
            "mprotect": 10,
            "munmap": 11,
            "brk": 12,
            "rt_sigaction": 13,
            "rt_sigprocmask": 14,
            "rt_sigreturn": 15,
            "pread64": 17,
            "writev": 20,
            "sched_yield": 24,
            "mremap": 25,
            "madvise": 28,
            "getpid": 39,
            "exit": 60,
            "getrusage": 98,
            "sysinfo": 99,
            "sigaltstack": 131,
            "gettid": 186,
            "futex": 202,
            "clock_gettime": 228,
            "exit_group": 231,
            "tgkill": 234,
            "getrandom": 318,
        },
    ),
    "aarch64": (
        0xC00000B7,
        91,
        {
            "read": 63,
            "write": 64,
            "close": 57,
            "fstat": 80,
            "lseek": 62,
            "mmap": 222,
            "mprotect": 226,
            "munmap": 215,
            "brk": 214,
            "rt_sigaction": 134,
            "rt_sigprocmask": 135,
            "rt_sigreturn": 139,
            "pread64": 67,
            "writev": 66,
            "sched_yield": 124,
            "mremap": 216,
            "madvise": 233,
            "getpid": 172,
            "exit": 93,
            "getrusage": 165,
            "sysinfo": 179,
            "sigaltstack": 132,
            "gettid": 178,
            "futex": 98,
            "clock_gettime": 113,
            "exit_group": 94,
            "tgkill": 131,
            "getrandom": 278,
        },
    ),
}


def confine(*, memory_bytes: int, cpu_seconds: int) -> None:
    """Give up, for good, everything this process does not need to compute.

    :param memory_bytes: limit of the address space
    :param cpu_seconds: CPU time after which the kernel ends the process
    :raises OSError: a step failed; the process must then end, for it is only partly confined
    """
    machine = _machine()
    for limit, soft, hard in (
        (resource.RLIMIT_AS, memory_bytes, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1),  # SIGXCPU, which tells why, comes before SIGKILL
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_NPROC, 0, 0),
    ):
        most = resource.getrlimit(limit)[1]
        pair = (soft, hard) if most == resource.RLIM_INFINITY else (min(soft, most), min(hard, most))
        resource.setrlimit(limit, pair)
    give_up_privileges()
    allow_only({os.uname().machine: machine[2]})


def give_up_privileges() -> None:
    """Drop every capability, and the ways to gain one; other processes of the user may not look in.

    :raises OSError: a step failed
    """
    _architecture, capset, _calls = _machine()
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl(PR_SET_DUMPABLE)")
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    header = struct.pack("<Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    _check(libc.syscall(capset, header, bytes(24)), "capset")


def allow_only(calls: Mapping[str, Mapping[str, int]], *, all_threads: bool = False) -> None:
    """Let this thread, and those that it starts, make only these system calls; others fail with EPERM.

    :param calls: numbers by name, by machine
    :param all_threads: the threads of this process that run already, too
    :raises OSError: a step failed
    """
    architecture, _capset, _calls = _machine()
    libc = ctypes.CDLL(None, use_errno=True)
    program = _filter(architecture, sorted(calls[os.uname().machine].values()))
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: u16 count, padding, pointer
    prog = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    if all_threads:
        number = _SECCOMP_CALL[os.uname().machine]
        what = "seccomp(SECCOMP_SET_MODE_FILTER)"
        _check(libc.syscall(number, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, prog), what)
        return
    _check(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, prog, 0, 0), "prctl(PR_SET_SECCOMP)")


def _machine() -> tuple[int, int, dict[str, int]]:
    machine = _MACHINES.get(os.uname().machine)
    if machine is None:
        raise OSError(0, f"no system call table for {os.uname().machine}; known are {', '.join(_MACHINES)}")
    return machine


def _filter(architecture: int, numbers: list[int]) -> bytes:
    """Return the seccomp program: other architectures are killed, other calls fail with EPERM."""

    def instruction(code: int, if_true: int, if_false: int, k: int) -> bytes:
        return struct.pack("<HBBI", code, if_true, if_false, k)

    # The jump offset of entry i leads over the entries behind it and the EPERM return, to ALLOW.
    checks = b"".join(instruction(_JEQ_K, len(numbers) - i, 0, number) for i, number in enumerate(numbers))
    return (
        instruction(_LD_W_ABS, 0, 0, _SECCOMP_DATA_ARCH)
        + instruction(_JEQ_K, 1, 0, architecture)
        + instruction(_RET_K, 0, 0, _SECCOMP_RET_KILL_PROCESS)
        + instruction(_LD_W_ABS, 0, 0, _SECCOMP_DATA_NR)
        + checks
        + instruction(_RET_K, 0, 0, _SECCOMP_RET_ERRNO | _EPERM)
        + instruction(_RET_K, 0, 0, _SECCOMP_RET_ALLOW)
    )


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
