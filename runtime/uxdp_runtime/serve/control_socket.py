"""The control socket: one JSON request a line, one JSON answer a line, over a Unix socket that only its owner may use.

    {"command": "status"}  →  {"ok": {…}}   or   {"error": {"type", "message", "context", "remedy", "exit_code"}}

The server is part of the control process's one event loop, so nothing here may block: a client that sends slowly, does
not read or talks nonsense is cut off, and costs at most its buffers. Where all places are taken, a new
client gets the idlest one's.
"""

import errno
import fcntl
import json
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from uxdp_bundle.errors import UxdpError

from ..errors import PortError

_MAX_CLIENTS: Final = 32
_MAX_REQUEST_BYTES: Final = 4 << 20  # a bulk load is one request
_MAX_ANSWER_BYTES: Final = 64 << 20
_CHUNK_BYTES: Final = 1 << 16
_CLIENT_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 0.01
RUN_FOLDER: Final = "UXDP_RUN_DIR"

Handler = Callable[[Mapping[str, Any]], Any]


def run_folder() -> Path:
    """Return where control sockets are: $UXDP_RUN_DIR, or /run/uxdp."""
    return Path(os.environ.get(RUN_FOLDER, "/run/uxdp"))


def socket_path(name: str) -> Path:
    """Return the control socket of a service."""
    return run_folder() / f"{name}.sock"


class RemoteError(UxdpError):
    """The service refused a request; exit code and remedy are its own."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message", "")), context=str(error.get("context", "")))
        self.remedy = str(error.get("remedy", ""))
        self.exit_code = int(error.get("exit_code", 1))  # type: ignore[misc]  # the service's, for this instance


def ask(name: str, request: Mapping[str, Any]) -> Any:
    """Send a request to a service and return its answer.

    :raises PortError: ENOENT if no service of that name runs here
    :raises RemoteError: the service refused
    """
    path = socket_path(name)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(_CLIENT_SECONDS)
            _connect(client, path)
            client.sendall(json.dumps(request).encode() + b"\n")
            with client.makefile("rb") as stream:
                line = stream.readline(_MAX_ANSWER_BYTES)
    except OSError as cause:
        raise PortError(
            cause.errno or 2,
            f"no service answers: {cause.strerror or cause}",
            context=str(path),
            remedy="it answers only whom it runs as, root as a rule"
            if isinstance(cause, PermissionError)
            else "uxdp status lists what runs here",
        ) from cause
    try:
        answer = json.loads(line)
    except ValueError as cause:
        raise PortError(71, "the service broke the connection off", context=str(path)) from cause
    if "error" in answer:
        raise RemoteError(answer["error"])
    return answer["ok"]


def _connect(client: socket.socket, path: Path) -> None:
    """Connect, however many wait to be accepted: with a timeout, connect(2) does not wait for a full backlog."""
    deadline = time.monotonic() + _CLIENT_SECONDS
    while True:
        try:
            client.connect(str(path))
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return


def services() -> list[str]:
    """Return the names of the services whose sockets are here, whether or not they still run."""
    try:
        return sorted(path.stem for path in run_folder().iterdir() if path.suffix == ".sock")
    except FileNotFoundError:
        return []


class ControlSocket:
    """The server's side. Close it, or use it as a context manager."""

    def __init__(self, name: str, selector: selectors.BaseSelector, handlers: Mapping[str, Handler]) -> None:
        """Listen; requests are answered when the selector's events are dispatched.

        :raises PortError: EADDRINUSE if a service of that name runs
        """
        self._selector = selector
        self._handlers = dict(handlers)
        self._path = socket_path(name)
        self._clients: dict[socket.socket, _Client] = {}
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._listener = _listen(self._path)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def __enter__(self) -> "ControlSocket":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and remove the socket."""
        for client in list(self._clients):
            self._drop(client)
        self._selector.unregister(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self, _mask: int) -> None:
        try:
            client, _address = self._listener.accept()
        except OSError:
            return
        client.setblocking(False)
        if len(self._clients) >= _MAX_CLIENTS:
            self._drop(min(self._clients, key=lambda other: self._clients[other].active))
        self._clients[client] = _Client()
        self._selector.register(client, selectors.EVENT_READ, lambda mask: self._serve(client, mask))

    def _serve(self, client: socket.socket, mask: int) -> None:
        state = self._clients.get(client)
        if state is None:
            return  # dropped for another one, after the event was told
        state.active = time.monotonic()
        try:
            if mask & selectors.EVENT_READ:
                data = client.recv(_CHUNK_BYTES)
                if not data or len(state.received) + len(data) > _MAX_REQUEST_BYTES:
                    self._drop(client)
                    return
                state.received += data
            self._answer_next(state)
            if self._clients.get(client) is not state:
                return  # it went away while it was answered
            if state.answer:
                sent = client.send(state.answer[:_CHUNK_BYTES])
                del state.answer[:sent]
                self._answer_next(state)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if state.answer else 0)
            self._selector.modify(client, events, lambda mask: self._serve(client, mask))
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)

    def _answer_next(self, state: "_Client") -> None:
        """Answer the client's next request, when it has taken the last answer."""
        end = state.received.find(b"\n")
        if end >= 0 and not state.answer and not state.is_being_answered:
            line = bytes(state.received[:end])
            del state.received[: end + 1]
            state.is_being_answered = True
            try:
                state.answer += self._answer(line)
            finally:
                state.is_being_answered = False

    def _drop(self, client: socket.socket) -> None:
        del self._clients[client]
        self._selector.unregister(client)
        client.close()

    def _answer(self, line: bytes) -> bytes:
        try:
            request = json.loads(line)
            command = request["command"]
            handler = self._handlers[command]
        except (ValueError, TypeError, KeyError, RecursionError):
            known = ", ".join(self._handlers)
            return _error("RequestError", f"expected a JSON object with a command: {known}", 2)
        try:
            answer = json.dumps({"ok": handler(request)}).encode() + b"\n"
        except UxdpError as error:
            return _error(
                type(error).__name__, error.message, error.exit_code, context=error.context, remedy=error.remedy
            )
        except (KeyError, TypeError, ValueError) as error:
            return _error("RequestError", f"{command}: {error!r}", 2)
        return answer


class _Client:
    def __init__(self) -> None:
        self.received = bytearray()
        self.answer = bytearray()
        self.is_being_answered = False  # by a handler that takes turns of the event loop
        self.active = time.monotonic()  # when it last sent or took something


def _error(kind: str, message: str, exit_code: int, *, context: str = "", remedy: str = "") -> bytes:
    fields = {"type": kind, "message": message, "context": context, "remedy": remedy, "exit_code": exit_code}
    return json.dumps({"error": fields}).encode() + b"\n"


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        with _locked(path.parent):
            if path.exists() and _is_listened_to(path):
                raise PortError(
                    errno.EADDRINUSE,
                    "a service of this name is running",
                    context=str(path),
                    remedy="stop it, or give this one another --name",
                )
            path.unlink(missing_ok=True)  # its process has ended without removing it
            listener.bind(str(path))
            listener.listen(16)
    except PortError:
        listener.close()
        raise
    except OSError as cause:
        listener.close()
        raise PortError(
            cause.errno or errno.EIO,
            f"the control socket cannot be made: {cause.strerror or cause}",
            context=str(path),
            remedy=f"see whether the folder can be written to, or name another: {RUN_FOLDER}",
        ) from cause
    finally:
        os.umask(mask)
    return listener


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other services out meanwhile, which would take a socket that nobody listens to yet for a dead one."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_listened_to(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except OSError as refused:
            # Whoever has no time for us (EAGAIN) is there.
            return refused.errno not in (errno.ECONNREFUSED, errno.ENOENT, errno.ENOTSOCK)
    return True
