"""``uxdp serve`` as a process of its own, in a namespace, for tests."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.veth import VethPair
from uxdp_runtime.serve.control_socket import RUN_FOLDER, ask

START_SECONDS = 20.0
ETH_P_ALL = 3


class RunningService:
    """A service that answers on its control socket."""

    def __init__(self, process: subprocess.Popen[str], name: str, log: Path) -> None:
        self.process = process
        self.name = name
        self._log = log

    def ask(self, command: str, **fields: Any) -> Any:
        return ask(self.name, {"command": command, **fields})

    @property
    def log(self) -> str:
        return self._log.read_text()

    def totals(self) -> dict[str, int]:
        """Return frames received, by verdict and lost, over all queues."""
        queues = self.ask("stats")["queues"]
        totals = {"rx": sum(queue["rx_frames"] for queue in queues)}
        for verdict in ("aborted", "drop", "pass", "tx", "redirect"):
            totals[verdict] = sum(queue["verdicts"][verdict] for queue in queues)
        return totals | {"lost": sum(sum(queue["lost"].values()) for queue in queues)}

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


@contextmanager
def serving(
    pair: VethPair,
    bundle: Path,
    *arguments: str,
    name: str,
    interfaces: str = "",
    environment: dict[str, str] | None = None,
) -> Iterator[RunningService]:
    """Serve a bundle on the host's end of a veth pair; it is ended afterwards, whatever happens."""
    log = bundle.with_suffix(".log")
    command = ["ip", "netns", "exec", pair.host, str(Path(sys.executable).parent / "uxdp"), "serve", str(bundle)]
    command += ["--af-xdp", interfaces or pair.interface, "--insecure-unsigned", "--name", name, *arguments]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    service = RunningService(process, name, log)
    try:
        wait_until(lambda: answers(service), f"{name} serves: {log}", START_SECONDS, process)
        yield service
    finally:
        end_service(process)


def end_service(process: subprocess.Popen[Any]) -> None:
    """End a service that was started in a session of its own, and its data process, which would serve on without it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=20)


def answers(service: RunningService) -> bool:
    """Whether a service serves."""
    try:
        return bool(service.ask("status")["serving"])
    except Exception:  # not yet
        return False


def wait_until(
    condition: Callable[[], bool], what: str, seconds: float = 5.0, process: subprocess.Popen[str] | None = None
) -> float:
    """Wait for a condition; return how long that took."""
    start = time.monotonic()
    while not condition():
        assert process is None or process.poll() is None, f"ended with {process.returncode if process else 0}: {what}"
        assert time.monotonic() - start < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.002)
    return time.monotonic() - start


@contextmanager
def packet_socket(pair: VethPair, namespace: str, interface: str = "") -> Iterator[socket.socket]:
    """A raw socket on an interface of a namespace; it receives what arrives there, and some patience."""
    with pair.entered(namespace):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        raw.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        raw.bind((interface or pair.interface, ETH_P_ALL))
    try:
        raw.settimeout(2.0)
        yield raw
    finally:
        raw.close()


def received(raw: socket.socket, count: int, wanted: Callable[[bytes], bool]) -> list[bytes]:
    """Return up to ``count`` frames that came in and are wanted."""
    frames: list[bytes] = []
    while len(frames) < count:
        try:
            data, address = raw.recvfrom(65536)
        except TimeoutError:
            break
        if address[2] != socket.PACKET_OUTGOING and wanted(data):
            frames.append(data)
    return frames


def send_all(raw: socket.socket, frames: Sequence[bytes]) -> None:
    """Send frames, waiting where the queue is full."""
    for frame in frames:
        while True:
            try:
                raw.send(frame)
            except (BlockingIOError, OSError) as full:
                if getattr(full, "errno", 0) not in (11, 105):
                    raise
                time.sleep(0.001)
                continue
            break


def run_folder(folder: Path) -> dict[str, str]:
    """Return the environment that keeps control sockets in a folder."""
    return {RUN_FOLDER: str(folder)}
