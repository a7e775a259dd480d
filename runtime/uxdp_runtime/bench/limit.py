"""The limit: the same C, compiled for this CPU by clang as any other program would be, with the same maps and helpers.

What the IR of a bundle loses against it is what BPF's instruction set, its 32-bit context and its optimiser cost. The
source must be one file that reaches xdp_md and the helpers as libbpf's headers declare them, and have no CO-RE.
"""

import importlib.util
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from uxdp_bundle.errors import UnsupportedFeatureError

from ..errors import ParameterError

# struct xdp_md as native code has it (uxdp_bundle/shim.py), in the place of the kernel's.
_NATIVE_XDP_MD: Final = """\
#define xdp_md xdp_md_of_the_kernel
#include <linux/bpf.h>
#undef xdp_md
struct xdp_md {
	__u64 data, data_end, data_meta;
	__u32 ingress_ifindex, rx_queue_index, egress_ifindex;
};
"""
_FLAGS: Final = ("-O3", "-march=native", "-emit-llvm", "-c", "-fno-stack-protector", "-Wno-everything")
_TIMEOUT_SECONDS: Final = 120


def compile_source(source: Path, *, clang: str = "", arguments: Sequence[str] = ()) -> bytes:
    """Return the optimised LLVM bitcode of a source for this CPU.

    :param clang: the command; none: ziglang's, or clang on PATH
    :raises UnsupportedFeatureError: there is no clang
    :raises ParameterError: clang refuses the source; the message is clang's
    """
    command = _clang(clang)
    with tempfile.TemporaryDirectory(prefix="uxdp-limit-") as folder:
        header = Path(folder) / "native_xdp_md.h"
        header.write_text(_NATIVE_XDP_MD)
        output = Path(folder) / "limit.bc"
        system = f"/usr/include/{platform.machine()}-linux-gnu"
        run = subprocess.run(
            [
                *(*command, *_FLAGS, "-target", f"{platform.machine()}-linux-gnu", "-include", str(header)),
                *("-idirafter", "/usr/include", "-idirafter", system, *arguments, str(source), "-o", str(output)),
            ],
            capture_output=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
        if run.returncode:
            message = run.stderr.decode(errors="replace").strip()
            raise ParameterError(f"clang cannot compile it for this machine:\n{message}", context=str(source))
        return output.read_bytes()


def _clang(chosen: str) -> list[str]:
    if chosen:
        return shlex.split(chosen)
    found = importlib.util.find_spec("ziglang")
    if found is not None and found.origin is not None:
        folder = Path(found.origin).parent
        return [str(folder / "zig"), "clang", "-resource-dir", str(folder / "lib")]
    path = shutil.which("clang")
    if path is None:
        raise UnsupportedFeatureError(
            "the limit", "no clang, neither ziglang's nor on PATH", remedy="pip install 'uxdp[clang]'"
        )
    return [path]
