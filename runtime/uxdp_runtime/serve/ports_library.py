"""The ports' code that is compiled when the wheel is built: AF_XDP (native/ports/af_xdp.c), and samples."""

import ctypes
import platform
from collections.abc import Callable
from functools import cache
from typing import Final

from uxdp_bundle.errors import UnsupportedFeatureError

from ..compile.compiler import NATIVE_FOLDER
from ..compile.loader import LoadedObject

_LIBC: Final = (
    "memcpy",
    "memmove",
    "memset",
    "clock_gettime",
    "poll",
    "recvfrom",
    "sendto",
    "syscall",
    "__errno_location",
)

Loop = Callable[[int], int]


@cache
def ports_library() -> LoadedObject:
    """Return the ports' code, at the same place in every process that is forked afterwards.

    :raises UnsupportedFeatureError: there is none for this machine
    """
    path = NATIVE_FOLDER / f"ports-{platform.machine()}.o"
    try:
        data = path.read_bytes()
    except FileNotFoundError as cause:
        raise UnsupportedFeatureError(
            platform.machine(), "this installation has no ports for it", context=str(path), remedy="reinstall uxdp"
        ) from cause
    libc = ctypes.CDLL(None)
    symbols = {name: ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0 for name in _LIBC}
    return LoadedObject(data, symbols)


def af_xdp_loop() -> tuple[Loop, Loop]:
    """Return uxdp_af_xdp_recover and uxdp_af_xdp_serve, which take the address of a struct uxdp_queue.

    :raises UnsupportedFeatureError: there are none for this machine
    """
    library = ports_library()
    recover = library.function("uxdp_af_xdp_recover", None, ctypes.c_void_p)
    return recover, library.function("uxdp_af_xdp_serve", None, ctypes.c_void_p)
