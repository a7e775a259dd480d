"""Our own BPF programs (native/bpf/), which are compiled when the wheel is built."""

from pathlib import Path
from typing import Final

from uxdp_bundle.errors import UnsupportedFeatureError

_FOLDER: Final = Path(__file__).parent.parent / "native"


def own_program(name: str) -> bytes:
    """Return the object of native/bpf/NAME.bpf.c.

    :raises UnsupportedFeatureError: this installation has not got it
    """
    path = _FOLDER / f"{name}.bpf.o"
    try:
        return path.read_bytes()
    except FileNotFoundError as cause:
        raise UnsupportedFeatureError(
            f"BPF program {name}", "missing in this installation", context=str(path), remedy="reinstall uxdp"
        ) from cause
