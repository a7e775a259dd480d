"""Traffic for benchmarks: frames of many flows out of one end of a veth pair, and a count of those that come back.

    python tests/traffic.py INTERFACE SECONDS CPU

runs in the namespace of that end. Frames are made in the kernel (BPF_PROG_TEST_RUN with live frames), which is several
times faster than sending them from user space; the counting program is attached to the interface, so that what comes
back costs little, and the veth takes frames that XDP transmits at the other end. The first line of standard input is a
JSON object, the arguments of flow_frame. When all is warm it says so, waits for another line, sends, and prints a JSON
object.
"""

import json
import os
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.native_library import clang
from uxdp_runtime.bench.workload import HEAD_BYTES, FlowFrame, flow_frame
from uxdp_runtime.bpf import syscall
from uxdp_runtime.bpf.libbpf import LibbpfObject
from uxdp_runtime.bpf.maps import Map
from uxdp_runtime.frames import headers as h

SOURCE = Path(__file__).parent / "native" / "traffic.bpf.c"
FLOWS = 1 << 14
LIVE_FRAMES = 1 << 1
XDP_FLAGS_DRV_MODE = 1 << 2
FRAMES_PER_CALL = 1024
COUNTS = struct.Struct("=4Q")
SETTLE_SECONDS = 0.3


def build(folder: Path) -> bytes:
    """Compile the programs."""
    output = folder / "traffic.o"
    flags = ["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-nostdlibinc", "-c", str(SOURCE), "-o", str(output)]
    subprocess.run([*clang(), *flags], check=True)
    return output.read_bytes()


def flow_heads(frame: FlowFrame) -> bytes:
    """Return the first bytes of the frames of all flows: other source addresses and ports, right checksums."""
    heads = []
    for flow in range(FLOWS):
        head = bytearray(frame.data[:HEAD_BYTES])
        head[frame.address + 1 : frame.address + 4] = (flow * 0x9E3779B1 & 0xFFFFFF).to_bytes(3)
        if frame.port:
            head[frame.port : frame.port + 2] = (1024 + flow * 7919 % 64000).to_bytes(2)
        if frame.ip_check:
            head[frame.ip_check : frame.ip_check + 2] = bytes(2)
            head[frame.ip_check : frame.ip_check + 2] = h.checksum(bytes(head[14:34])).to_bytes(2)
        heads.append(bytes(head))
    return b"".join(heads)


class Traffic:
    """The programs, loaded and attached to one interface of this namespace."""

    def __init__(self, interface: str, frame: FlowFrame) -> None:
        self._frame = frame
        self._ifindex = socket.if_nametoindex(interface)
        with tempfile.TemporaryDirectory() as folder:
            self._loaded = LibbpfObject(build(Path(folder)), "traffic")
        self._loaded.load()
        fds = {program.name: program.fd for program in self._loaded.programs}
        maps = {table.name: Map(table.fd, name=table.name) for table in self._loaded.maps}
        self._generate = fds["generate"]
        self._counts = maps["counts"]
        maps["heads"].mmap()[: FLOWS * HEAD_BYTES] = flow_heads(frame)
        self._link = syscall.create_xdp_link(fds["count"], self._ifindex, XDP_FLAGS_DRV_MODE)
        # Attached nowhere, each call would wait for RCU; the loopback of this namespace sees no frame.
        self._keep = syscall.create_xdp_link(self._generate, 1, 1 << 1)

    def totals(self) -> tuple[int, int]:
        """Return frames sent and received."""
        return self._total(0), self._total(1)

    def _total(self, key: int) -> int:
        value = self._counts.lookup(struct.pack("=I", key))
        return sum(COUNTS.unpack(slot)[0] for slot in self._counts.split_slots(value))

    def run(self, seconds: float, rate_pps: float = 0.0) -> dict[str, Any]:
        """Send for a time, then wait for what is under way."""
        sent_before, received_before = self.totals()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used_before = usage.ru_utime + usage.ru_stime
        context = struct.pack("=6I", 0, len(self._frame.data), 0, self._ifindex, 0, 0)
        start = time.monotonic()
        calls = 0
        while (elapsed := time.monotonic() - start) < seconds:
            if rate_pps and calls * FRAMES_PER_CALL > rate_pps * elapsed:
                continue
            syscall.run_program(
                self._generate,
                self._frame.data,
                context=context,
                repeat=FRAMES_PER_CALL,
                flags=LIVE_FRAMES,
                batch_size=64,
            )
            calls += 1
        elapsed = time.monotonic() - start
        time.sleep(SETTLE_SECONDS)
        sent, received = self.totals()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "seconds": elapsed,
            "sent": sent - sent_before,
            "received": received - received_before,
            "cpu_seconds": usage.ru_utime + usage.ru_stime - used_before,
        }


def main() -> None:
    """Run once, as the command line says."""
    interface, seconds, cpu = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    os.sched_setaffinity(0, {cpu})
    options = json.loads(sys.stdin.readline())
    rate = options.pop("rate_pps", 0.0)
    traffic = Traffic(interface, flow_frame(**options))
    traffic.run(0.2)  # the first frames find cold caches, and empty tables
    print("warm", flush=True)
    sys.stdin.readline()
    print(json.dumps(traffic.run(min(seconds, 10.0), rate)))


if __name__ == "__main__":
    main()
