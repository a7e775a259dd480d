"""The loop of the AF_XDP port (native/ports/af_xdp.c), which is compiled when the wheel is built."""

import ctypes
import platform
from collections.abc import Callable
from functools import cache
from typing import Final

from uxdp_bundle.errors import UnsupportedFeatureError

from ..compile.compiler import NATIVE_FOLDER
from ..compile.loader import LoadedObject

_LIBC: Final = ("memcpy", "memmove", "memset", "clock_gettime", "poll", "sendto", "syscall", "__errno_location")

Loop = Callable[[int], int]


@cache
def af_xdp_loop() -> tuple[Loop, Loop]:
    """Return uxdp_af_xdp_recover and uxdp_af_xdp_serve, which take the address of a struct uxdp_queue.

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
    loaded = LoadedObject(data, symbols)
    recover = loaded.function("uxdp_af_xdp_recover", None, ctypes.c_void_p)
    return recover, loaded.function("uxdp_af_xdp_serve", None, ctypes.c_void_p)
