"""Programs that only need a frame and maps run on DPDK's mbufs in one loop: which, and that it is the same program."""

import ctypes
import struct
from pathlib import Path

import pytest

from tests.bound_bundles import bound_image
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.compile.compiler import compile_object
from uxdp_runtime.compile.program import program_source
from uxdp_runtime.compile.targets import host_target
from uxdp_runtime.native_module import FrameBatch, NativeModule
from uxdp_runtime.ports.dpdk_abi import BURST
from uxdp_runtime.stores import Stores, control_library

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); }
array SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1 << 20); __type(key, __u32); __type(value, __u64); }
hash SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4); __type(key, __u32); __type(value, __u32); }
progs SEC(".maps");
char _license[] SEC("license") = "Dual MIT/GPL";
SEC("xdp") int program(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0;
	__u64 *value;
	if (data + 20 > end)
		return XDP_ABORTED;
"""
# The rest of a program, whether it asks for room, and whether it takes mbufs.
PROGRAMS = {
    "swap": ("data[0] ^= data[6]; data[6] ^= data[0]; data[0] ^= data[6]; return data[14];", False, True),
    "array": ("if ((value = bpf_map_lookup_elem(&array, &zero))) *value += 1; return XDP_DROP;", False, True),
    "meta": ("return (void *)(long)ctx->data_meta == data ? XDP_TX : XDP_DROP;", False, True),
    "hash": ("zero = data[1]; return bpf_map_lookup_elem(&hash, &zero) ? XDP_TX : XDP_DROP;", False, False),
    "redirect": ("return bpf_redirect(3, 0);", False, False),
    "tail call": ("bpf_tail_call(ctx, &progs, 0); return XDP_DROP;", False, False),
    "head": ("return bpf_xdp_adjust_head(ctx, 4) ? XDP_DROP : XDP_TX;", True, False),
    "tail": ("return bpf_xdp_adjust_tail(ctx, -4) ? XDP_DROP : XDP_TX;", True, False),
    "set meta": ("return bpf_xdp_adjust_meta(ctx, -4) ? XDP_DROP : XDP_TX;", True, False),
    "probe": (
        "return bpf_probe_read_kernel(&zero, 4, data) ? XDP_DROP : zero & 1 ? XDP_TX : XDP_PASS;",
        True,
        False,
    ),
}
MBUF_BYTES, PRIVATE_BYTES, HEADROOM, ROOM = 128, 128, 128, 256  # native/mbufs.h
POOL = 0x1000
VLAN_STRIPPED = 1 << 6  # RTE_MBUF_F_RX_VLAN_STRIPPED
HASHED = 1 << 1  # RTE_MBUF_F_RX_RSS_HASH


class Burst(ctypes.Structure):
    """struct uxdp_burst, native/mbufs.h."""

    _fields_ = (
        ("rx_bytes", ctypes.c_uint64),
        ("ol_flags", ctypes.c_uint64),
        ("verdict", ctypes.c_uint32),
        ("verdicts", ctypes.c_uint32 * BURST),
        ("ingress_ifindex", ctypes.c_uint32),
        ("rx_queue_index", ctypes.c_uint32),
    )


def loaded(rest: str, folder: Path) -> NativeModule:
    (folder / "program.c").write_text(f"{HEAD}\t{rest}\n}}\n")
    image = build(BuildRequest(sources=("program.c",), cwd=folder)).bundle
    with bound_image(image) as bound:
        source = program_source(bound, "program", num_cpus=1, values=None, constants={})
    stores = Stores(source.object, source.maps, 1, control_library())
    stores.link_programs(source.object, source.programs)
    return NativeModule(compile_object(source, host_target()).data, stores, 0)


class Mbufs:
    """Simple mbufs with frames in them."""

    def __init__(self, frames: list[bytes]) -> None:
        size = MBUF_BYTES + PRIVATE_BYTES + HEADROOM + ROOM
        self.memory = [ctypes.create_string_buffer(size) for _ in frames]
        for memory, frame in zip(self.memory, frames, strict=True):
            fields = (HEADROOM, 1, 1, 0, 0, 0, len(frame), len(frame))
            struct.pack_into("=4HQIIH", memory, 16, *fields)
            struct.pack_into("=Q", memory, 56, POOL)
            start = MBUF_BYTES + PRIVATE_BYTES + HEADROOM
            memory[start : start + len(frame)] = frame  # type: ignore[assignment]
        self.pointers = (ctypes.c_void_p * len(frames))(*(ctypes.addressof(memory) for memory in self.memory))
        self.frames = frames

    def data(self) -> list[bytes]:
        start = MBUF_BYTES + PRIVATE_BYTES + HEADROOM
        return [memory.raw[start : start + len(frame)] for memory, frame in zip(self.memory, self.frames, strict=True)]

    def run(self, module: NativeModule) -> tuple[int, Burst]:
        burst = Burst(ingress_ifindex=3, rx_queue_index=1)
        arguments = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p)
        run = module.function("uxdp_run_mbufs", ctypes.c_uint32, *arguments)
        return run(self.pointers, len(self.frames), POOL, ctypes.addressof(burst)), burst


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_programs_ask_for_says_how_they_run(name: str, tmp_path: Path) -> None:
    rest, asks_for_room, takes_mbufs = PROGRAMS[name]
    module = loaded(rest, tmp_path)
    assert module.asks_for_room is asks_for_room
    assert (module.run_mbufs_address != 0) is takes_mbufs
    if not takes_mbufs:
        assert Mbufs([bytes(60)]).run(module)[0] == 0, "ran without what it asks for"


@pytest.mark.parametrize("verdicts", [(3,) * 40, (1,), (2, 3, 1, 0, 9, 3), (0xFF, 0xFF)])
def test_mbufs_get_what_descriptors_get(verdicts: tuple[int, ...], tmp_path: Path) -> None:
    module = loaded(PROGRAMS["swap"][0], tmp_path)
    frames = [
        bytes(index + 1 & 0xFF for index in range(14)) + bytes((verdict,)) + bytes(30 + number)
        for number, verdict in enumerate(verdicts)
    ]
    frames[-1] = frames[-1][:19]  # too short: XDP_ABORTED
    batch = FrameBatch(len(frames))
    for index, frame in enumerate(frames):
        batch.put(index, frame)
    module.run(batch, len(frames))
    mbufs = Mbufs(frames)
    done, burst = mbufs.run(module)
    assert done == len(frames)
    assert list(burst.verdicts[:done]) == [batch.result(index).verdict for index in range(done)] == [*verdicts[:-1], 0]
    assert mbufs.data() == [batch.result(index).data for index in range(done)]
    assert burst.rx_bytes == sum(map(len, frames))
    assert burst.verdict == (0 if len(frames) == 1 else 0xFFFFFFFF)


def test_a_burst_of_one_verdict_says_so(tmp_path: Path) -> None:
    module = loaded(PROGRAMS["swap"][0], tmp_path)
    mbufs = Mbufs([bytes(14) + b"\x03" + bytes(45)] * BURST)
    struct.pack_into("=Q", mbufs.memory[7], 24, HASHED)
    done, burst = mbufs.run(module)
    assert (done, burst.verdict, burst.ol_flags, burst.rx_bytes) == (BURST, 3, HASHED, BURST * 60)


@pytest.mark.parametrize(
    ("form", "offset", "value"),
    [
        ("H", 18, 2),
        ("H", 20, 2),
        ("Q", 56, POOL + 64),
        ("Q", 24, VLAN_STRIPPED),
        ("Q", 24, 1 << 61),
        ("Q", 24, 1 << 62),
    ],
    ids=["shared", "several", "other-pool", "vlan-stripped", "external", "indirect"],
)
def test_an_mbuf_that_is_not_simple_ends_the_burst(form: str, offset: int, value: int, tmp_path: Path) -> None:
    module = loaded(PROGRAMS["swap"][0], tmp_path)
    frame = bytes(range(14)) + b"\x03" + bytes(45)
    mbufs = Mbufs([frame] * 5)
    struct.pack_into(f"={form}", mbufs.memory[3], offset, value)
    done, burst = mbufs.run(module)
    assert (done, burst.rx_bytes, burst.verdict) == (3, 180, 3)
    assert mbufs.data()[3:] == [frame] * 2
    struct.pack_into(f"={form}", mbufs.memory[0], offset, value)
    done, burst = mbufs.run(module)
    assert (done, burst.rx_bytes, burst.verdict) == (0, 0, 0xFFFFFFFF)
