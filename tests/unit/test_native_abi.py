"""The structs of abi.h, declared once in C and once in Python, and the memory layouts that other programs rely on."""

import ctypes
import subprocess
from pathlib import Path

import pytest

from tests.native_library import clang
from uxdp_bundle.shim import NATIVE_XDP_MD, NATIVE_XDP_MD_BYTES
from uxdp_runtime import abi, kernel_state
from uxdp_runtime.ports import af_xdp_abi as xsk
from uxdp_runtime.ports import dpdk_abi as dpdk
from uxdp_runtime.ports import port_abi as port

NATIVE = Path(abi.__file__).parent / "native"
STRUCTS = {
    "uxdp_frame": abi.Frame,
    "uxdp_map": abi.Map,
    "uxdp_worker": abi.Worker,
    "uxdp_rx_metadata": abi.RxMetadata,
    "uxdp_ring": xsk.Ring,
    "uxdp_range": abi.Range,
    "uxdp_kernel": kernel_state.Kernel,
    "uxdp_routes": kernel_state.Routes,
    "uxdp_device": kernel_state.Device,
    "uxdp_socket": kernel_state.Socket,
    "uxdp_socket_name": kernel_state.SocketName,
    "uxdp_queue_state": port.QueueState,
    "uxdp_sample": port.Sample,
    "uxdp_samples": port.Samples,
    "uxdp_queue": xsk.Queue,
    "uxdp_dpdk_xstat": dpdk.Xstat,
    "uxdp_dpdk_state": dpdk.PortState,
    "uxdp_dpdk_port": dpdk.DpdkPort,
    "uxdp_dpdk_queue": dpdk.DpdkQueue,
}


def assertions() -> str:
    """Return C that compiles only if both languages agree."""
    lines = ['#include "abi.h"', '#include "ask.h"', '#include "ports/af_xdp.h"', '#include "ports/dpdk.h"']
    for name, mirror in STRUCTS.items():
        lines.append(f'_Static_assert(sizeof(struct {name}) == {ctypes.sizeof(mirror)}, "sizeof {name}");')
        for field, *_ in mirror._fields_:
            place = getattr(mirror, field)
            member = f"((struct {name} *)0)->{field}"
            lines.append(f'_Static_assert(offsetof(struct {name}, {field}) == {place.offset}, "{name}.{field}");')
            lines.append(f'_Static_assert(sizeof({member}) == {place.size}, "{name}.{field} size");')
    for constant, value in (
        ("UXDP_HEADROOM", abi.HEADROOM),
        ("UXDP_TAIL_CALL_LIMIT", abi.TAIL_CALL_LIMIT),
        ("UXDP_REDIRECT_IFINDEX", abi.REDIRECT_IFINDEX),
        ("UXDP_REDIRECT_MAP", abi.REDIRECT_MAP),
        ("UXDP_RX_BURST", xsk.RX_BURST),
        ("UXDP_INJECTED_BYTES", xsk.INJECTED_BYTES),
        ("UXDP_WHOLE_BYTES", xsk.WHOLE_BYTES),
        ("UXDP_DPDK_PORTS", dpdk.PORTS),
        ("UXDP_DPDK_WHOLE_BYTES", dpdk.WHOLE_BYTES),
        ("UXDP_DPDK_BURST", dpdk.BURST),
        ("UXDP_POWER_INTERRUPT", dpdk.POWERS.index("interrupt")),
        ("UXDP_LATENCY_BUCKETS", port.LATENCY_BUCKETS),
        ("UXDP_SAMPLES", port.SAMPLES),
        ("UXDP_SAMPLE_BYTES", port.SAMPLE_BYTES),
        ("UXDP_LOSSES", len(port.LOSSES)),
        ("UXDP_STOP_NOW", port.STOP_NOW),
        ("UXDP_STOP_DRAINED", port.STOP_DRAINED),
        ("UXDP_TX_LIVE", xsk.TX_METHODS.index("live")),
    ):
        lines.append(f'_Static_assert({constant} == {value}, "{constant}");')
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_structs_sizes_and_offsets_equal_python(machine: str) -> None:
    command = [*clang(), "-target", f"{machine}-linux-gnu", "-std=c11", "-fsyntax-only"]
    command += ["-I", str(NATIVE), "-x", "c", "-"]
    run = subprocess.run(command, input=assertions(), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_frame_begins_with_the_native_xdp_md() -> None:
    for name, (offset, size) in NATIVE_XDP_MD.items():
        field = getattr(abi.Frame, name)
        assert (field.offset, field.size) == (offset, size)
    assert abi.Frame.hard_start.offset >= NATIVE_XDP_MD_BYTES
