"""What happens to a program while it is tested: frames come, and a control plane changes its maps in between."""

from dataclasses import dataclass
from typing import Protocol

from .frames.generate import Frame


class Changeable(Protocol):
    """A map, of the kernel's or a store; errors are OSErrors, as bpf(2) has them."""

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set the value of a key."""

    def delete(self, key: bytes) -> None:
        """Delete a key."""


@dataclass(frozen=True, slots=True)
class MapChange:
    """A control plane updates an element of a map, or deletes it; key and value as bpf(2) takes them.

    Global data is the one element of a map of its section's name, such as ``.bss``.

    ``value`` is None if the element is deleted; ``flags`` as of BPF_MAP_UPDATE_ELEM.
    """

    map: str
    key: bytes
    value: bytes | None
    flags: int = 0

    def apply(self, target: Changeable) -> int:
        """Change a map; return the errno of a refusal, or 0."""
        try:
            if self.value is None:
                target.delete(self.key)
            else:
                target.update(self.key, self.value, self.flags)
        except OSError as refused:
            return refused.errno or -1
        return 0

    def __str__(self) -> str:
        if self.value is None:
            return f"delete {self.map}[{self.key.hex()}]"
        return f"update {self.map}[{self.key.hex()}] = {self.value.hex()}" + (
            f", flags {self.flags}" * bool(self.flags)
        )


Step = Frame | MapChange
