"""Names in a bpffs for those of a service's maps that the kernel and the service share: /sys/fs/bpf/uxdp/NAME/MAP.

Only these are pinned, for what bpftool would read elsewhere is not what the program works on. A bpffs has no names with
dots, so the section ``.bss`` is called ``_bss``.

Pins outlive processes. A service removes its own when it ends; what one left that was killed goes when the next one of
the same name starts.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..bpf import syscall
from ..bpf.maps import Map
from ..errors import BpfError

PIN_FOLDER: Final = "UXDP_PIN_DIR"
_MODE: Final = 0o700


def pin_folder() -> Path:
    """Return where services' pins are: $UXDP_PIN_DIR, or /sys/fs/bpf/uxdp."""
    return Path(os.environ.get(PIN_FOLDER, "/sys/fs/bpf/uxdp"))


class Pins:
    """The pins of one service. ``reason`` says why there are none, if there are none."""

    def __init__(self, name: str) -> None:
        self.folder = pin_folder() / name
        self.reason = ""
        self._ids: dict[str, int] = {}
        self._remove_all()

    def __enter__(self) -> "Pins":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove all pins."""
        self._remove_all()

    def replace(self, maps: Mapping[str, Map]) -> None:
        """Pin these maps, and no others; those that are pinned already stay."""
        wanted = {name.replace(".", "_"): table for name, table in maps.items()}
        for name, number in list(self._ids.items()):
            if name not in wanted or wanted[name].info.id != number:
                (self.folder / name).unlink(missing_ok=True)
                del self._ids[name]
        try:
            if wanted:
                self.folder.mkdir(mode=_MODE, parents=True, exist_ok=True)
            for name, table in wanted.items():
                if name not in self._ids:
                    syscall.pin_object(table.fd, str(self.folder / name))
                    self._ids[name] = table.info.id
            self.reason = ""
        except (OSError, BpfError) as refused:
            self.reason = f"{self.folder}: {refused.strerror or refused}"
            self._remove_all()

    def _remove_all(self) -> None:
        self._ids.clear()
        with suppress(OSError):
            for path in self.folder.iterdir():
                path.unlink(missing_ok=True)
            self.folder.rmdir()
            self.folder.parent.rmdir()  # if no other service has pins
