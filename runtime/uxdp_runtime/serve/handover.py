"""What a data process whose control process is gone hands to the next control process: its maps, and then the frames.

A data process serves on when its control process ends. It listens on a Unix socket, NAME.data, that was made
before it was confined and that nobody is heard on as long as the control process lives. The next `uxdp serve` of the
same name asks there for the maps: kernel maps and the memory of the stores, as descriptors. When it has verified and
compiled, and is ready to attach, it lets the orphan finish what it received, and end.

One message a record (SOCK_SEQPACKET). The new control process says H (hand over) and gets a JSON description, then one
message for each descriptor, in its order; or it says S (stop), and gets E when no ring is touched any more.
"""

import json
import logging
import mmap
import os
import select
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from uxdp_bundle.binding import BoundBundle
from uxdp_bundle.bpf_object import BpfObject

from ..bpf.constants import encode_constants
from ..stores import POOL, StoreMemory
from . import events
from .control_socket import run_folder
from .loaded import Inheritance, Loaded

_HAND_OVER, _STOP = b"H", b"S"
_DESCRIPTOR: Final = b"D"
_MAX_DESCRIPTION_BYTES: Final = 1 << 20
_SECONDS: Final = 5.0
_WAIT_MS: Final = 1000


def data_socket_path(name: str) -> Path:
    """Return where the data process of a service listens."""
    return run_folder() / f"{name}.data"


def listen(name: str) -> socket.socket:
    """Listen for whoever takes over; every data process of the service inherits the socket.

    The caller has the service's control socket, so that what is there already is nobody's any more.
    """
    path = data_socket_path(name)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    listener.listen(1)
    return listener


@dataclass(frozen=True, slots=True)
class Estate:
    """What a data process can hand over. ``kernel_maps`` and ``stores`` are descriptors, by map."""

    listener: socket.socket
    bundle_id: str
    params: Mapping[str, bytes]
    workers: int
    kernel_maps: Mapping[str, int]
    stores: Mapping[str, int]

    @classmethod
    def of(cls, loaded: Loaded, listener: socket.socket) -> Self:
        """Return what a version leaves."""
        stores = {store.definition.name: store.fd for store in loaded.stores if store.fd >= 0}
        if loaded.stores.inner_memory is not None:
            stores[POOL] = loaded.stores.inner_memory.fd
        return cls(
            listener,
            loaded.verified.bound.authentic.bundle.bundle_id,
            loaded.verified.params,
            loaded.stores.num_cpus,
            {name: table.fd for name, table in loaded.verified.maps.items() if _is_kept(name, table.type)},
            stores,
        )

    def descriptors(self) -> set[int]:
        """Return what the data process must keep open."""
        return {self.listener.fileno(), *self.kernel_maps.values(), *self.stores.values()}

    def wait(self, alive: Callable[[], bool]) -> socket.socket | None:
        """Hand over whenever somebody asks, until one says stop; return where to say that it is done.

        :param alive: whether there is still anything to stop; if not, None is returned
        """
        poll = select.poll()
        poll.register(self.listener.fileno(), select.POLLIN)
        while alive():
            if not poll.poll(_WAIT_MS):
                continue
            with suppress(OSError):
                client, _address = self.listener.accept()
                if self._serve(client):
                    return client
                client.close()
        return None

    def _serve(self, client: socket.socket) -> bool:
        """Answer one client; whether it said stop."""
        poll = select.poll()
        poll.register(client.fileno(), select.POLLIN)
        while poll.poll(int(1000 * _SECONDS)):
            word = client.recv(1)
            if word == _HAND_OVER:
                client.send(json.dumps(self._description()).encode())
                for fd in (*self.kernel_maps.values(), *self.stores.values()):
                    socket.send_fds(client, [_DESCRIPTOR], [fd])
            else:
                return word == _STOP
        return False

    def _description(self) -> dict[str, Any]:
        return {
            "bundle_id": self.bundle_id,
            "params": {name: value.hex() for name, value in self.params.items()},
            "workers": self.workers,
            "kernel_maps": list(self.kernel_maps),
            "stores": list(self.stores),
        }


class Orphan:
    """A data process without a control process. Close it, or use it as a context manager."""

    def __init__(self, client: socket.socket, description: Mapping[str, Any], fds: list[int]) -> None:
        self._client = client
        self._description = description
        self._fds = fds

    @classmethod
    def find(cls, name: str) -> "Orphan | None":
        """Return the orphan of a service, or None if there is none, or its control process is alive.

        The caller has the service's control socket, so that nobody else of that name starts.
        """
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.settimeout(_SECONDS)
        fds: list[int] = []
        try:
            client.connect(str(data_socket_path(name)))
            client.send(_HAND_OVER)
            description = json.loads(client.recv(_MAX_DESCRIPTION_BYTES))
            for _ in range(len(description["kernel_maps"]) + len(description["stores"])):
                _word, received, _flags, _address = socket.recv_fds(client, 1, 1)
                fds += received
            return cls(client, description, fds)
        except (OSError, ValueError, KeyError, TypeError):
            client.close()
            for fd in fds:
                os.close(fd)
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what was received; the orphan serves on unless it was stopped."""
        self._client.close()
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def why_not(self, bundle_id: str, params: Mapping[str, bytes], workers: int) -> str:
        """Return why its maps are of no use to a service that starts now, or an empty string."""
        if self._description["bundle_id"] != bundle_id:
            return f"it serves another bundle ({self._description['bundle_id'][:12]}…)"
        if self._description["params"] != {name: value.hex() for name, value in params.items()}:
            return "it serves with other constants"
        if self._description["workers"] != workers:
            return f"it serves {self._description['workers']} queues, and now there are {workers}"
        if len(self._fds) != len(self._description["kernel_maps"]) + len(self._description["stores"]):
            return "it did not hand over all of its maps"
        return ""

    def inheritance(self) -> Inheritance:
        """Return its maps; the kernel maps are borrowed until ``close``."""
        names = self._description["kernel_maps"]
        kernel_maps = dict(zip(names, self._fds, strict=False))
        stores = zip(self._description["stores"], self._fds[len(names) :], strict=True)
        return Inheritance(kernel_maps, {name: _mapped(fd) for name, fd in stores})

    def stop(self) -> None:
        """Let it finish what it has received, and end."""
        with suppress(OSError):
            self._client.send(_STOP)
            while self._client.recv(1):
                pass  # that no ring is touched any more; then the end


def take_over(
    name: str, bound: BoundBundle, params: Mapping[str, int | bytes], workers: int
) -> tuple[Orphan | None, Inheritance | None]:
    """Look for a service's orphan; return it, and its maps if they are of use.

    :param params: the constants that are to be set
    """
    orphan = Orphan.find(name)
    if orphan is None:
        return None, None
    bundle = bound.authentic.bundle
    constants = encode_constants(BpfObject(bytes(bundle.object)), bound.facts.params, params)
    reason = orphan.why_not(bundle.bundle_id, {item.name: item.data for item in constants}, workers)
    if reason:
        message = f"a data process of this name serves without a control process; its maps are lost: {reason}"
        events.report("orphan_replaced", message, level=logging.WARNING, reason=reason)
        return orphan, None
    events.report("orphan_found", "a data process of this name serves without a control process; its maps are kept")
    return orphan, orphan.inheritance()


def _mapped(fd: int) -> StoreMemory:
    return StoreMemory(mmap.mmap(fd, os.fstat(fd).st_size, flags=mmap.MAP_SHARED), os.dup(fd))


def _is_kept(name: str, kind: str) -> bool:
    return kind != "prog_array" and not name.startswith((".rodata", ".kconfig"))
