"""Run one of our confined child processes: LLVM never touches a bundle's bytes in the process that asks.

A child is a script of ours. It gets, on standard input, a length-prefixed JSON request followed by bytes, and answers
on standard output in the same form. It calls ``sandbox.confine`` before it reads anything. The parent believes nothing
but the shape of the answer.
"""

import importlib.util
import json
import os
import selectors
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from .errors import LoweringError, UnsupportedFeatureError
from .sealed import seal_bytes

LLVMLITE_REMEDY: Final = "pip install 'llvmlite>=0.50,<0.51'"
# An object of at most 16 MiB and IR of at most 64 MiB (see container), or native code of 64 MiB; no child has cause for
# more, and what a parent reads it must hold.
MAX_ANSWER_BYTES: Final = 128 << 20
_PIECE_BYTES: Final = 1 << 16
# How a child ends whose llvmlite is there and does not work; LLVM itself ends with 1, or by a signal.
NO_LLVM: Final = 77
_MAX_REASON_CHARACTERS: Final = 300
_MAX_LOG_CHARACTERS: Final = 16 << 10
_MEANWHILE_SECONDS: Final = 0.01
_meanwhile: ContextVar[Callable[[], None] | None] = ContextVar("meanwhile", default=None)
# Passed on because an interpreter may not start without them; nothing else of the environment is.
_ENVIRONMENT: Final = ("LD_LIBRARY_PATH",)


@contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Have something done again and again, every few milliseconds, while a child of ours works.

    For those who must not stand still that long. What ``action`` raises ends the child, and comes out of ``run_child``.
    """
    token = _meanwhile.set(action)
    try:
        yield
    finally:
        _meanwhile.reset(token)


def run_child(
    script: Path, request: dict[str, Any], blobs: Sequence[bytes], *, folders: Sequence[Path], timeout_seconds: int
) -> tuple[dict[str, Any], bytes, str]:
    """Run ``script`` on a request.

    :param folders: appended to the child's sys.path: what it imports besides the standard library
    :param timeout_seconds: wall-clock limit; CPU time is limited by the child itself
    :return: the reply, the bytes behind it, and what LLVM wrote to standard error
    :raises LoweringError: the child died, did not finish, or gave no usable answer
    :raises UnsupportedFeatureError: llvmlite cannot be loaded
    """
    encoded = json.dumps(request).encode()
    memory = seal_bytes(b"".join((struct.pack("<I", len(encoded)), encoded, *blobs)), "uxdp-request")
    try:
        # -I -S: no PYTHON* variables, no user or site packages, no .pth files.
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), *map(str, folders)],
            stdin=memory.fd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
    finally:
        memory.close()
    with child:
        try:
            output, errors = _output(child, timeout_seconds)
        finally:
            child.kill()  # which is nothing to one that has ended
    log = errors.decode(errors="replace")[-_MAX_LOG_CHARACTERS:]
    if child.returncode == NO_LLVM:
        reason = " ".join(log.split())[-_MAX_REASON_CHARACTERS:]
        raise UnsupportedFeatureError("llvmlite", f"it cannot be loaded: {reason}", remedy=LLVMLITE_REMEDY)
    if child.returncode != 0:
        raise LoweringError(_died(child.returncode, log), log=log, context="IR")
    try:
        (length,) = struct.unpack_from("<I", output)
        reply = json.loads(output[4 : 4 + length])
        if not isinstance(reply, dict):
            raise TypeError("no JSON object")
    except (struct.error, ValueError, TypeError, RecursionError) as cause:
        raise LoweringError("the LLVM process gave no usable answer", log=log, context="IR") from cause
    return reply, output[4 + length :], log


def _output(child: subprocess.Popen[bytes], timeout_seconds: int) -> tuple[bytes, bytes]:
    """Read what a child writes until it ends: all of its answer, and the end of its messages.

    :raises LoweringError: it takes too long, or writes more than an answer can have
    """
    assert child.stdout is not None  # noqa: S101  # both are pipes
    assert child.stderr is not None  # noqa: S101
    output, errors = bytearray(), bytearray()
    deadline = time.monotonic() + timeout_seconds
    with selectors.DefaultSelector() as selector:
        for pipe, buffer in ((child.stdout, output), (child.stderr, errors)):
            selector.register(pipe, selectors.EVENT_READ, buffer)
        action = _meanwhile.get()
        while selector.get_map():
            if action is not None:
                action()
            left = deadline - time.monotonic()
            ready = selector.select(left if action is None else min(left, _MEANWHILE_SECONDS))
            if not ready and time.monotonic() >= deadline:
                raise LoweringError(f"LLVM did not finish in {timeout_seconds} s", context="IR")
            for key, _events in ready:
                piece = os.read(key.fd, _PIECE_BYTES)
                if not piece:
                    selector.unregister(key.fileobj)
                key.data.extend(piece)
            del errors[: -4 * _MAX_LOG_CHARACTERS]  # a character has at most 4 bytes
            if len(output) > MAX_ANSWER_BYTES:
                raise LoweringError(
                    f"the LLVM process answers with more than {MAX_ANSWER_BYTES >> 20} MiB", context="IR"
                )
    try:
        child.wait(max(deadline - time.monotonic(), 1))
    except subprocess.TimeoutExpired as cause:
        raise LoweringError(f"LLVM did not finish in {timeout_seconds} s", context="IR") from cause
    return bytes(output), bytes(errors)


def llvmlite_folder() -> Path:
    """Return the folder that a child needs on its path to import llvmlite.

    :raises UnsupportedFeatureError: llvmlite is not installed
    """
    found = importlib.util.find_spec("llvmlite")
    if found is None or found.origin is None:
        raise UnsupportedFeatureError("llvmlite", "not installed, so IR cannot be compiled", remedy=LLVMLITE_REMEDY)
    return Path(found.origin).parent.parent


def _died(status: int, log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    reasons = [line for line in lines if "LLVM ERROR" in line or line.startswith("error:")]
    reason = (reasons or lines[-1:] or ["no message"])[0][:300]
    how = f"ended by signal {-status}" if status < 0 else f"exit status {status}"
    return f"LLVM could not handle it: {reason} ({how})"
