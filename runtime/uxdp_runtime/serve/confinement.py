"""Confine the data process: no capability, no new privilege, and only the system calls that serving needs.

References: seccomp(2), capabilities(7); uxdp_bundle.sandbox, which confines the compiler
"""

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


def confine() -> None:
    """Give up, for good, everything that serving does not need. Threads that are started later inherit it.

    :raises OSError: a step failed; the process must then end
    """
    sandbox.give_up_privileges()
    sandbox.allow_only(_CALLS)
