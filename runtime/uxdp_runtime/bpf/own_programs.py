"""Our own BPF programs (native/bpf/), which are compiled when the wheel is built."""

from pathlib import Path
from typing import Final

from uxdp_bundle.errors import UnsupportedFeatureError

_FOLDER: Final = Path(__file__).parent.parent / "native"


def own_program(name: str) -> bytes:
    """Return the object of native/bpf/NAME.bpf.c.

    :raises UnsupportedFeatureError: this installation has not got it
    """
    return _read(name, "o")


def own_ir(name: str) -> bytes:
    """Return the LLVM bitcode that native/bpf/NAME.bpf.c is, for one that also runs natively.

    :raises UnsupportedFeatureError: this installation has not got it
    """
    return _read(name, "bc")


def _read(name: str, ending: str) -> bytes:
    path = _FOLDER / f"{name}.bpf.{ending}"
    try:
        return path.read_bytes()
    except FileNotFoundError as cause:
        raise UnsupportedFeatureError(
            f"BPF program {name}", "missing in this installation", context=str(path), remedy="reinstall uxdp"
        ) from cause
