"""The CPU features that compiled code may need, by LLVM's names, and which of them this machine has.

Only features whose instructions LLVM's code generator writes by itself: others (protection keys, monitor, enclaves)
are in no code that does not ask for them by intrinsics, which ir_rules refuses. What a machine has is read from
/proc/cpuinfo, where the kernel leaves out what it has not enabled, such as AVX-512 without its register state; so LLVM
is not needed to use code that is compiled already.

References: LLVM's lib/TargetParser/Host.cpp (getHostCPUFeatures) and X86.td, AArch64Features.td for the left side;
arch/x86/include/asm/cpufeatures.h and arch/arm64/kernel/cpuinfo.c (hwcap_str) for the right side.
"""

import platform
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")
_FLAG_LINES: Final = ("flags", "Features")

# LLVM's name: the kernel's flag. What both call alike is listed by name alone.
_X86_64: Final = {
    **{name: name for name in ("adx", "aes", "avx", "avx2", "bmi2", "cx16", "f16c", "fma", "fma4", "gfni", "movbe")},
    **{name: name for name in ("popcnt", "sse4a", "ssse3", "tbm", "vaes", "vpclmulqdq", "xop", "xsave")},
    **{name: name for name in ("avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512ifma", "avx512vbmi", "avx512vl")},
    **{f"avx512{name}": f"avx512_{name}" for name in ("bf16", "bitalg", "fp16", "vbmi2", "vnni", "vp2intersect")},
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avxvnni": "avx_vnni",
    "bmi": "bmi1",
    "crc32": "sse4_2",
    "lzcnt": "abm",
    "pclmul": "pclmulqdq",
    "prfchw": "3dnowprefetch",
    "sahf": "lahf_lm",
    "sha": "sha_ni",
    "sse3": "pni",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
}
_AARCH64: Final = {
    **{name: name for name in ("bf16", "cssc", "flagm", "hbc", "i8mm", "lse128", "mops", "sb", "sha2", "sha3", "sm4")},
    **{name: name for name in ("sve", "sve2", "sve2p1")},
    **{f"sve-{name}": f"sve{name}" for name in ("aes", "bitperm", "sha3", "sm4")},
    "aes": "pmull",
    "altnzcv": "flagm2",
    "complxnum": "fcma",
    "crc": "crc32",
    "dotprod": "asimddp",
    "f32mm": "svef32mm",
    "f64mm": "svef64mm",
    "fp-armv8": "fp",
    "fp16fml": "asimdfhm",
    "fptoint": "frint",
    "fullfp16": "asimdhp",
    "jsconv": "jscvt",
    "lse": "atomics",
    "lse2": "uscat",
    "neon": "asimd",
    "rcpc": "lrcpc",
    "rcpc-immo": "ilrcpc",
    "rcpc3": "lrcpc3",
    "rdm": "asimdrdm",
}
KERNEL_FLAGS: Final = {"x86_64": _X86_64, "aarch64": _AARCH64}
# Instructions that LLVM may choose, of which the kernel does not tell: no code that is compiled ahead has them.
UNTOLD: Final = {
    "x86_64": (
        *("avxifma", "avxneconvert", "avxvnniint16", "avxvnniint8", "cmpccxadd", "movrs", "raoint"),
        *("sha512", "sm3", "sm4", "avx10.1", "avx10.2"),
        *("ccmp", "cf", "egpr", "ndd", "nf", "ppx", "push2pop2", "zu"),
    ),
    "aarch64": ("cmpbr", "faminmax", "fprcvt", "fp8", "lut", "sme", "sme2"),
}


def host_features(machine: str | None = None, cpuinfo: str | None = None) -> frozenset[str]:
    """Return the features that this machine has, by LLVM's names.

    :param machine: x86_64 or aarch64; others have none. Default: this machine's
    :param cpuinfo: the text of /proc/cpuinfo. Default: this machine's
    """
    known = KERNEL_FLAGS.get(machine or platform.machine(), {})
    text = _CPUINFO.read_text() if cpuinfo is None else cpuinfo
    flags: set[str] | None = None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in _FLAG_LINES:
            # A thread may run on any CPU, so what only some have does not count.
            flags = set(value.split()) if flags is None else flags & set(value.split())
    return frozenset(feature for feature, flag in known.items() if flags is not None and flag in flags)
