"""``make bench-serve``: how long uxdp serve takes to serve its first frame, and a frame to come back.

    python -m tests.bench_serve [--rounds N] [--frames N] [--json FILE]

- Start: from the command to the first frame that comes back, with load_balancer (the largest example) and nothing
  cached, and again from the cache; the interpreter's start, authenticating, binding and verifying are in it. A frame is
  sent every millisecond.
- Round trip: one frame at a time through l2_swap and back to a socket of the sender's, by uxdp (sleeping, and with
  --busy-poll) and by the kernel's XDP with the same bundle. The socket's own time is in it.
- Idle: CPU time of both processes of a service that receives nothing.

All variants alternate. Exit code 1 if a limit is exceeded. Run it on a quiet machine.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.bench_afxdp import BALANCER_MAPS, GENERATOR_CPU, SERVICE_CPU, attached, build_bundles, isolate
from tests.serving import packet_socket, serving
from tests.veth import HOST_MAC, PEER_ADDRESS, PEER_MAC, veth_pair
from uxdp_runtime.frames import headers as h

LIMITS: Final = {"cold start, s": 1.5, "warm start, s": 0.7, "idle CPU, %": 2.0}
ROUND_TRIPS: Final[dict[str, tuple[str, ...]]] = {
    "uxdp": (),
    "uxdp --busy-poll": ("--busy-poll",),
    "kernel": ("--mode", "kernel"),
}
SWAPPED, BALANCED = ("192.0.2.9", 9), ("192.0.2.1", 80)
WARM_UP: Final = 200
IDLE_SECONDS: Final = 3.0
TRY_SECONDS: Final = 0.001
START_SECONDS: Final = 20.0
TRIP_SECONDS: Final = 2.0
SO_TIMESTAMPNS: Final = 35  # include/uapi/asm-generic/socket.h


def main() -> int:
    """Measure, print, and say whether the limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of each variant (default: 5)")
    parser.add_argument(
        "--frames", type=int, default=2000, help="that go and come back, for each round (default: 2000)"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    starts: dict[str, list[float]] = {"cold": [], "warm": []}
    trips: dict[str, list[float]] = {name: [] for name in ROUND_TRIPS}
    idle: list[float] = []
    with tempfile.TemporaryDirectory(prefix="uxdp-bench-") as folder:
        isolate(Path(folder))
        bundles = build_bundles(Path(folder), {"l2_swap", "load_balancer", "pass_all"})
        for _ in range(arguments.rounds):
            shutil.rmtree(Path(folder) / "cache", ignore_errors=True)
            for kind, times in starts.items():
                times.append(start_seconds(bundles["load_balancer"], kind))
            for name, how in ROUND_TRIPS.items():
                trips[name] += round_trips(bundles["l2_swap"], bundles["pass_all"], how, arguments.frames)
            idle.append(idle_percent(bundles["l2_swap"]))
    figures = {f"{kind} start, s": statistics.median(times) for kind, times in starts.items()}
    figures["idle CPU, %"] = statistics.median(idle)
    for name, times in trips.items():
        ordered = sorted(times)
        for percent in (50, 99):
            figures[f"round trip, {name}, p{percent}, us"] = ordered[len(ordered) * percent // 100] * 1e6
    for name, value in figures.items():
        limit = LIMITS.get(name)
        said = "" if limit is None else f"   limit {limit}: {'kept' if value <= limit else 'MISSED'}"
        print(f"{name:40} {value:8.2f}{said}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(figures[name] <= limit for name, limit in LIMITS.items()) else 1


def frame(number: int, destination: tuple[str, int]) -> bytes:
    """Return a TCP frame from the peer, of a flow of its own."""
    addresses = tuple(bytes(map(int, text.split("."))) for text in (PEER_ADDRESS, destination[0]))
    ports = (1024 + number % 60000, destination[1])
    segment = h.tcp((addresses[0], addresses[1]), ports, bytes(10), flags=2, seq=number, ack=0)
    ip = h.ipv4(addresses[0], addresses[1], h.IPPROTO_TCP, len(segment))
    macs = [bytes.fromhex(text.replace(":", "")) for text in (HOST_MAC, PEER_MAC)]
    return h.ethernet(macs[0], macs[1], h.ETH_P_IP) + ip + segment


def start_seconds(bundle: Path, name: str) -> float:
    """Start a service; return how long it took until a frame came back."""
    settings = [word for setting in BALANCER_MAPS for word in ("--set", setting)]
    with veth_pair() as pair, packet_socket(pair, pair.peer) as raw:
        pair.set_gro(pair.peer, on=True)
        raw.settimeout(TRY_SECONDS)
        start = time.perf_counter()
        # serving() waits for the control socket; the first frame is waited for meanwhile, by a thread of the kernel's:
        # what has come back is in the socket, with the time when it came.
        raw.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        began = time.time()
        sender = os.fork()
        if sender == 0:
            _send_until_killed(raw)
        try:
            with serving(pair, bundle, *settings, "--cpus", str(SERVICE_CPU), name=f"start-{name}"):
                while time.perf_counter() - start < START_SECONDS:
                    came = _time_of_frame_that_came_back(raw)
                    if came is not None:
                        return came - began
        finally:
            os.kill(sender, 9)
            os.waitpid(sender, 0)
    raise TimeoutError(f"{name}: no frame came back")


def _send_until_killed(raw: socket.socket) -> None:
    try:
        for number in range(round(START_SECONDS / TRY_SECONDS)):
            raw.send(frame(number, BALANCED))
            time.sleep(TRY_SECONDS)
    finally:
        os._exit(0)


def _time_of_frame_that_came_back(raw: socket.socket) -> float | None:
    try:
        _data, ancillary, _flags, address = raw.recvmsg(2048, 256)
    except TimeoutError:
        return None
    if address[2] == socket.PACKET_OUTGOING:
        return None
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("=qq", data)
            return float(seconds) + nanoseconds / 1e9
    return None


def round_trips(bundle: Path, taker: Path, how: tuple[str, ...], count: int) -> list[float]:
    """Return how long frames took to come back, one at a time, in seconds.

    :param taker: what the sender's end runs: without a program there, a veth keeps what the kernel's XDP_TX sends it
    """
    arguments = how if "--mode" in how else (*how, "--cpus", str(SERVICE_CPU))
    with (
        veth_pair() as pair,
        attached(pair, taker, (), pair.peer),
        serving(pair, bundle, *arguments, name="trip"),
        packet_socket(pair, pair.peer) as raw,
    ):
        os.sched_setaffinity(0, {GENERATOR_CPU})
        try:
            return [_round_trip(raw, number) for number in range(count + WARM_UP)][WARM_UP:]
        finally:
            os.sched_setaffinity(0, range(os.cpu_count() or 1))


def _round_trip(raw: socket.socket, number: int) -> float:
    """Send a frame and look for it without sleeping: to be woken up would take longer than what is measured."""
    data = frame(number, SWAPPED)
    start = time.perf_counter()
    raw.send(data)
    while time.perf_counter() - start < TRIP_SECONDS:
        try:
            if raw.recvfrom(2048, socket.MSG_DONTWAIT)[1][2] != socket.PACKET_OUTGOING:
                return time.perf_counter() - start
        except BlockingIOError:
            continue
    raise TimeoutError(f"frame {number} did not come back within {TRIP_SECONDS} s")


def idle_percent(bundle: Path) -> float:
    """Return the CPU time of a service that has nothing to do, in percent of a CPU."""
    with veth_pair() as pair, serving(pair, bundle, name="idle") as service:
        pids = [service.ask("status")[key] for key in ("pid", "data_pid")]
        time.sleep(0.5)
        before = sum(map(_cpu_seconds, pids))
        time.sleep(IDLE_SECONDS)
        return 100 * (sum(map(_cpu_seconds, pids)) - before) / IDLE_SECONDS


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
