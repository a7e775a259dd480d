"""The data process: forked from the control process, it serves the queues and can do nothing else.

It begins as a copy of the control process, with everything made: sockets, memory, code. It keeps the descriptors that
its loops need, gives up every capability, and from then on a seccomp filter lets it wait, transmit, inject and end. A
thread per queue runs native code until it is told to stop; Python only waits.

Over a socket pair, one message a record, the control process says one byte: G (go), S (stop: another process goes on
with what is in the RX rings), D (drain: finish that as well, then end). The data process says R (ready) before, with
what it found out as JSON, or X and why it cannot begin; V (serving) once there is memory to receive into, E (ended)
when its threads touch no ring any more. If the control process ends without a word, service goes on: frames need no
control process; see handover for who comes next.
"""

import ctypes
import json
import logging
import os
import select
import signal
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..bpf.cpus import numa_node
from ..errors import PortError
from ..native_module import NativeModule
from ..ports.port_abi import STOP_DRAINED, STOP_NOW
from . import events
from .handover import Estate
from .port import Port, ServedQueue
from .ports_library import ports_library
from .route_watch import RouteWatch

READY, REFUSED, GO, SERVING, STOP, DRAIN, ENDED = b"R", b"X", b"G", b"V", b"S", b"D", b"E"
_MAX_MESSAGE_BYTES: Final = 1 << 16
_ATTEND_SECONDS: Final = 0.25
_EXIT_FAILED: Final = 70


@dataclass(frozen=True, slots=True)
class Worker:
    """A queue and the module that runs on its frames."""

    queue: ServedQueue
    module: NativeModule
    asks_hardware: bool


@dataclass(frozen=True, slots=True)
class DataProcess:
    """A forked data process, as the control process sees it. ``pidfd`` becomes readable when it ends."""

    pid: int
    pidfd: int
    channel: socket.socket

    def go(self, timeout_seconds: float) -> bool:
        """Let it serve; False if it ended or took too long."""
        try:
            self.channel.send(GO)
        except OSError:
            return False
        return self._hears(SERVING, timeout_seconds)

    def stop(self, *, drain: bool = False) -> None:
        """Let it finish what it has taken out of the RX rings, and end.

        :param drain: whether nobody goes on with what is in the rings, so that it must finish that as well
        """
        try:
            self.channel.send(DRAIN if drain else STOP)
        except OSError:
            return  # it has ended already; whoever waits for it sees that

    def wait_ended(self, timeout_seconds: float) -> bool:
        """Wait, after ``stop``, until another process may go on with the rings; False if it has ended or takes long."""
        return self._hears(ENDED, timeout_seconds)

    def wait_ready(self, timeout_seconds: float) -> dict[str, Any] | None:
        """Wait until it is confined and waits for ``go``; return what it found, None if it ended or took too long.

        :raises PortError: it cannot have what it needs, and ends
        """
        self.channel.settimeout(timeout_seconds)
        try:
            message = self.channel.recv(_MAX_MESSAGE_BYTES)
        except OSError:
            return None
        if message[:1] == REFUSED:
            raise PortError(**json.loads(message[1:]))
        if message[:1] != READY:
            return None
        found: dict[str, Any] = json.loads(message[1:])
        return found

    def _hears(self, word: bytes, timeout_seconds: float) -> bool:
        self.channel.settimeout(timeout_seconds)
        try:
            return self.channel.recv(1) == word
        except OSError:
            return False

    def reap(self) -> int:
        """Wait for its end; return its exit status, negative for a signal."""
        _pid, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.channel.close()
        return os.waitstatus_to_exitcode(status)


def fork_data_process(
    port: Port, workers: Sequence[Worker], estate: Estate, watch: RouteWatch | None = None
) -> DataProcess:
    """Fork a data process, which waits for ``go`` before it touches a ring.

    The calling process must have one thread only: a fork copies no other.
    """
    ports_library()  # here, so that it is loaded but once, and lies in all processes where it does in this one
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        status = _EXIT_FAILED
        try:
            ours.close()
            _serve(theirs, port, workers, estate, watch)
            status = 0
        except BaseException as error:  # nothing may return into the control process's code
            events.report("data_process_failed", f"data process: {type(error).__name__}: {error}", level=logging.ERROR)
        finally:
            os._exit(status)
    theirs.close()
    return DataProcess(pid, os.pidfd_open(pid), ours)


def _serve(
    channel: socket.socket, port: Port, workers: Sequence[Worker], estate: Estate, watch: RouteWatch | None
) -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the control process decides
    wake_fd = eventfd()
    kernels = [kernel for worker in workers if (kernel := worker.module.kernel) is not None]
    asking = {kernel.fd for kernel in kernels} | ({watch.fd} if watch is not None else set())
    _close_all_but({channel.fileno(), wake_fd, *port.descriptors(), *estate.descriptors(), *asking})
    try:
        found = port.enter()
    except PortError as error:
        refusal = {"errno": error.errno, "message": error.message, "context": error.context, "remedy": error.remedy}
        channel.send(REFUSED + json.dumps(refusal).encode())
        return
    loops = [_Loop(port, worker, wake_fd) for worker in workers]
    port.confine()
    for kernel in kernels:
        kernel.forget()  # what was answered to an earlier data process
        kernel.check()
    if watch is not None:
        watch.follow(kernels)
    channel.send(READY + json.dumps(found).encode())
    if channel.recv(1) != GO:
        return
    for loop in loops:
        loop.recover()
    channel.send(SERVING)
    for loop in loops:
        loop.start()
    word = _await_word(channel, port)
    if word == b"":
        # The control process is gone: serve on, until the next one takes over or the interfaces are gone, too.
        heir = estate.wait(lambda: any(loop.is_alive() for loop in loops))
        if heir is None:
            return
        channel = heir
    for loop in loops:
        loop.stop(STOP_DRAINED if word == DRAIN else STOP_NOW)
    os.eventfd_write(wake_fd, 1)
    for loop in loops:
        loop.join()
    port.leave()
    with suppress(OSError):
        channel.send(ENDED)


def _await_word(channel: socket.socket, port: Port) -> bytes:
    """Wait for what the control process says; attend to the port meanwhile."""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    while not poll.poll(1000 * _ATTEND_SECONDS):
        port.attend()
    return channel.recv(1)


class _Loop:
    """One thread on one queue."""

    def __init__(self, port: Port, worker: Worker, wake_fd: int) -> None:
        self._cpu = worker.queue.plan.cpu
        worker.module.worker.numa_node = numa_node(self._cpu)
        self._queue, self._kept = port.descriptor(
            worker.queue, worker.module, wake_fd, asks_hardware=worker.asks_hardware
        )
        self._recover, self._serve = port.loop()
        self._thread = threading.Thread(target=self._run, name=f"queue-{worker.queue.plan.worker}", daemon=True)

    def recover(self) -> None:
        self._recover(ctypes.addressof(self._queue))

    def start(self) -> None:
        self._thread.start()

    def stop(self, how: int) -> None:
        self._queue.stop = how

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        os.sched_setaffinity(0, {self._cpu})
        self._serve(ctypes.addressof(self._queue))


def eventfd() -> int:
    """Return a new eventfd, which forked processes share."""
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def _close_all_but(keep: set[int]) -> None:
    """Close every descriptor but those, and the standard ones."""
    for path in list(Path("/proc/self/fd").iterdir()):
        fd = int(path.name)
        if fd > 2 and fd not in keep:
            try:
                os.close(fd)
            except OSError:
                continue  # the one that the listing itself had open
