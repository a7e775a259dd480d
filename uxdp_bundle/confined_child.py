"""Run one of our confined child processes: LLVM never touches a bundle's bytes in the process that asks.

A child is a script of ours. It gets, on standard input, a length-prefixed JSON request followed by bytes, and answers
on standard output in the same form. It calls ``sandbox.confine`` before it reads anything. The parent believes nothing
but the shape of the answer.
"""

import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .errors import LoweringError, UnsupportedFeatureError
from .sealed import seal_bytes

_MAX_LOG_CHARACTERS: Final = 16 << 10
# Passed on because an interpreter may not start without them; nothing else of the environment is.
_ENVIRONMENT: Final = ("LD_LIBRARY_PATH",)


def run_child(
    script: Path, request: dict[str, Any], blobs: Sequence[bytes], *, folders: Sequence[Path], timeout_seconds: int
) -> tuple[dict[str, Any], bytes, str]:
    """Run ``script`` on a request.

    :param folders: appended to the child's sys.path: what it imports besides the standard library
    :param timeout_seconds: wall-clock limit; CPU time is limited by the child itself
    :return: the reply, the bytes behind it, and what LLVM wrote to standard error
    :raises LoweringError: the child died, did not finish, or gave no usable answer
    """
    encoded = json.dumps(request).encode()
    memory = seal_bytes(b"".join((struct.pack("<I", len(encoded)), encoded, *blobs)), "uxdp-request")
    try:
        # -I -S: no PYTHON* variables, no user or site packages, no .pth files.
        result = subprocess.run(
            [sys.executable, "-I", "-S", str(script), *map(str, folders)],
            stdin=memory.fd,
            capture_output=True,
            cwd="/",
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as cause:
        raise LoweringError(f"LLVM did not finish in {timeout_seconds} s", context="IR") from cause
    finally:
        memory.close()
    log = result.stderr.decode(errors="replace")[-_MAX_LOG_CHARACTERS:]
    if result.returncode != 0:
        raise LoweringError(_died(result.returncode, log), log=log, context="IR")
    try:
        (length,) = struct.unpack_from("<I", result.stdout)
        reply = json.loads(result.stdout[4 : 4 + length])
        if not isinstance(reply, dict):
            raise TypeError("no JSON object")
    except (struct.error, ValueError, TypeError) as cause:
        raise LoweringError("the LLVM process gave no usable answer", log=log, context="IR") from cause
    return reply, result.stdout[4 + length :], log


def llvmlite_folder() -> Path:
    """Return the folder that a child needs on its path to import llvmlite.

    :raises UnsupportedFeatureError: llvmlite is not installed
    """
    found = importlib.util.find_spec("llvmlite")
    if found is None or found.origin is None:
        raise UnsupportedFeatureError(
            "llvmlite", "not installed, so IR cannot be compiled", remedy="pip install 'llvmlite>=0.50,<0.51'"
        )
    return Path(found.origin).parent.parent


def _died(status: int, log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    reasons = [line for line in lines if "LLVM ERROR" in line or line.startswith("error:")]
    reason = (reasons or lines[-1:] or ["no message"])[0][:300]
    how = f"ended by signal {-status}" if status < 0 else f"exit status {status}"
    return f"LLVM could not handle it: {reason} ({how})"
