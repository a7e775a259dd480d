"""Helpers that ask the running kernel: about its routes, devices and sockets, and for its SYN cookies.

Native code has no answer of its own to them. It asks by a program of ours in the kernel (native/bpf/ask.bpf.c), which
whoever loads the code must give it; see ``uxdp_runtime.kernel_state``. So code that calls one of these refers to a
symbol that is defined only then.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# struct uxdp_kernel of the worker, native/ask.h
KERNEL: Final = "uxdp_kernel"

# enum uxdp_question_kind and enum uxdp_lookup, native/question.h
_FIB, _MTU, _SOCKET, _GEN, _CHECK, _RAW_GEN_IPV4, _RAW_GEN_IPV6, _RAW_CHECK_IPV4, _RAW_CHECK_IPV6 = range(1, 10)
_TCP, _UDP, _SKC = range(16, 19)

# What each may ask, as bits of the program's setting: UXDP_MAY_ASK, UXDP_MAY_LOOK_UP.
HELPERS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "bpf_fib_lookup": 1 << _FIB,
        "bpf_check_mtu": 1 << _MTU,
        "bpf_sk_lookup_tcp": 1 << _SOCKET | 1 << _TCP,
        "bpf_sk_lookup_udp": 1 << _SOCKET | 1 << _UDP,
        "bpf_skc_lookup_tcp": 1 << _SOCKET | 1 << _SKC,
        "bpf_sk_release": 0,
        "bpf_tcp_gen_syncookie": 1 << _GEN,
        "bpf_tcp_check_syncookie": 1 << _CHECK,
        "bpf_tcp_raw_gen_syncookie_ipv4": 1 << _RAW_GEN_IPV4,
        "bpf_tcp_raw_gen_syncookie_ipv6": 1 << _RAW_GEN_IPV6,
        "bpf_tcp_raw_check_syncookie_ipv4": 1 << _RAW_CHECK_IPV4,
        "bpf_tcp_raw_check_syncookie_ipv6": 1 << _RAW_CHECK_IPV6,
    }
)
