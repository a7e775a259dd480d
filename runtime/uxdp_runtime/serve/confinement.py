"""Confine the data process: no capability, no new privilege, and only the system calls that serving needs.

References: seccomp(2), capabilities(7); uxdp_bundle.sandbox, which confines the compiler
"""

import os
from collections.abc import Callable, Iterable
from typing import Final

from uxdp_bundle import sandbox

# Numbers by machine: what threads, waiting, transmitting and injecting need.
_CALLS: Final = {
    "x86_64": {
        "read": 0,
        "write": 1,
        "close": 3,
        "poll": 7,
        "mmap": 9,
        "mprotect": 10,
        "munmap": 11,
        "brk": 12,
        "rt_sigaction": 13,
        "rt_sigprocmask": 14,
        "rt_sigreturn": 15,
        "sched_yield": 24,
        "madvise": 28,
        "getpid": 39,
        "sendto": 44,
        "accept4": 288,
        "sendmsg": 46,
        "recvfrom": 45,
        "clone": 56,
        "exit": 60,
        "gettid": 186,
        "futex": 202,
        "sched_setaffinity": 203,
        "sched_getaffinity": 204,
        "clock_gettime": 228,
        "clock_nanosleep": 230,
        "exit_group": 231,
        "tgkill": 234,
        "set_robust_list": 273,
        "getrandom": 318,
        "bpf": 321,
        "rseq": 334,
        "clone3": 435,
        "sigaltstack": 131,
        "prctl": 157,
        "restart_syscall": 219,
    },
    "aarch64": {
        "read": 63,
        "write": 64,
        "close": 57,
        "ppoll": 73,
        "mmap": 222,
        "mprotect": 226,
        "munmap": 215,
        "brk": 214,
        "rt_sigaction": 134,
        "rt_sigprocmask": 135,
        "rt_sigreturn": 139,
        "sched_yield": 124,
        "madvise": 233,
        "getpid": 172,
        "sendto": 206,
        "accept4": 242,
        "sendmsg": 211,
        "recvfrom": 207,
        "clone": 220,
        "exit": 93,
        "gettid": 178,
        "futex": 98,
        "sched_setaffinity": 122,
        "sched_getaffinity": 123,
        "clock_gettime": 113,
        "clock_nanosleep": 115,
        "exit_group": 94,
        "tgkill": 131,
        "set_robust_list": 99,
        "getrandom": 278,
        "bpf": 280,
        "rseq": 293,
        "clone3": 435,
        "sigaltstack": 132,
        "prctl": 167,
        "restart_syscall": 128,
    },
}


# What drivers of DPDK and EAL's own threads do besides, while they serve and when they are given up.
_DPDK_CALLS: Final = {
    "x86_64": {
        "fstat": 5,
        "lseek": 8,
        "ioctl": 16,
        "pread64": 17,
        "pwrite64": 18,
        "readv": 19,
        "writev": 20,
        "select": 23,
        "nanosleep": 35,
        "recvmsg": 47,
        "fcntl": 72,
        "epoll_create": 213,
        "epoll_wait": 232,
        "epoll_ctl": 233,
        "epoll_pwait": 281,
        "timerfd_settime": 286,
        "eventfd2": 290,
        "epoll_create1": 291,
    },
    "aarch64": {
        "eventfd2": 19,
        "epoll_create1": 20,
        "epoll_ctl": 21,
        "epoll_pwait": 22,
        "fcntl": 25,
        "ioctl": 29,
        "lseek": 62,
        "readv": 65,
        "writev": 66,
        "pread64": 67,
        "pwrite64": 68,
        "pselect6": 72,
        "fstat": 80,
        "timerfd_settime": 86,
        "nanosleep": 101,
        "recvmsg": 212,
    },
}
# Whose other end comes and goes: they connect again.
_CONNECTING: Final = ("net_memif", "net_virtio_user", "net_vhost")
_CONNECTING_CALLS: Final = {
    "x86_64": {
        "socket": 41,
        "connect": 42,
        "accept": 43,
        "bind": 49,
        "listen": 50,
        "setsockopt": 54,
        "getsockopt": 55,
        "ftruncate": 77,
        "memfd_create": 319,
    },
    "aarch64": {
        "ftruncate": 46,
        "socket": 198,
        "bind": 200,
        "listen": 201,
        "accept": 202,
        "connect": 203,
        "setsockopt": 208,
        "getsockopt": 209,
        "memfd_create": 279,
    },
}


def confine() -> None:
    """Give up, for good, everything that serving does not need. Threads that are started later inherit it.

    :raises OSError: a step failed; the process must then end
    """
    sandbox.give_up_privileges()
    sandbox.allow_only(_CALLS)


def confine_dpdk(devices: Iterable[str], give_up_in_other_threads: Callable[[], int]) -> None:
    """The same, for a process in which EAL has started threads: for these as well.

    The process has the devices themselves; what it may ask the kernel for is but a part of what it can do.

    :param devices: their names, beginning with their drivers' if they are virtual
    :param give_up_in_other_threads: drops capabilities in all threads but this one; 0, or -errno
    :raises OSError: a step failed; the process must then end
    """
    machine = os.uname().machine
    calls = _CALLS[machine] | _DPDK_CALLS[machine]
    if any(name.startswith(_CONNECTING) for name in devices):
        calls = calls | _CONNECTING_CALLS[machine]
    sandbox.give_up_privileges()
    result = give_up_in_other_threads()
    if result != 0:
        raise OSError(-result, f"capabilities of EAL's threads: {os.strerror(-result)}")
    sandbox.allow_only({machine: calls}, all_threads=True)
