"""Programs that ask for what hardware knows of a frame: loaded for a device, answered by the port, run in no test."""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.bound_bundles import bound_case
from tests.bundle_factory import build_case
from tests.isolated_user import isolate
from tests.serving import packet_socket, run_folder, send_all, serving, wait_until
from tests.veth import HOST_ADDRESS, HOST_MAC, PEER_ADDRESS, PEER_MAC, VethPair, veth_pair
from uxdp_bundle.container import bundle_from_bytes
from uxdp_bundle.errors import UnsupportedFeatureError
from uxdp_runtime import abi
from uxdp_runtime.bpf.libbpf import LibbpfObject
from uxdp_runtime.bpf.maps import Map
from uxdp_runtime.compile.program import CompiledProgram, compile_program
from uxdp_runtime.compile.targets import host_target
from uxdp_runtime.differential import Differential
from uxdp_runtime.frames import headers as h
from uxdp_runtime.native_module import FrameBatch, NativeModule
from uxdp_runtime.ports.attachment import attach_by_link
from uxdp_runtime.ports.interface import interface
from uxdp_runtime.serve.control_socket import RUN_FOLDER
from uxdp_runtime.serve.kernel_service import KernelService
from uxdp_runtime.serve.options import ServeOptions
from uxdp_runtime.stores import Stores, control_library
from uxdp_runtime.verify import verify

pytestmark = pytest.mark.kernel

CASE = "serve/rx_metadata"
FRAME = bytes(range(12)) + b"\x08\x00" + bytes(6)
U64 = (1 << 64) - 1


def word_of(frame: bytes) -> int:
    """Return frame_word() of the cases, for a frame of less than 46 bytes."""
    word = len(frame) ^ (frame[5] | frame[11] << 8 | frame[12] << 16 | frame[13] << 24)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        word = (word ^ word >> shift) * factor & 0xFFFFFFFF
    return word ^ word >> 16


@pytest.fixture(scope="module")
def compiled(kernel: None) -> Iterator[CompiledProgram]:
    with bound_case(CASE) as bound, verify(bound) as verified:
        yield compile_program(verified, "rx_metadata", host_target(), num_cpus=1, cache_directory=None)


def results(compiled: CompiledProgram, metadata: list[abi.RxMetadata]) -> list[int]:
    """Run as many equal frames as there is metadata, or one; return the first results."""
    source = compiled.source
    stores = Stores(source.object, source.maps, 1, control_library())
    module = NativeModule(compiled.native.data, stores, 0)
    kept = (abi.RxMetadata * len(metadata))(*metadata)
    module.worker.rx_metadata = ctypes.addressof(kept) if metadata else 0
    batch = FrameBatch(4)
    count = len(metadata) or 1
    for index in range(count):
        batch.put(index, FRAME)
    module.run(batch, count)
    return [struct.unpack("<Q", stores["results"].lookup(struct.pack("<I", index)) or b"")[0] for index in range(4)]


def test_metadata_of_a_port_that_knows_none_is_eopnotsupp(compiled: CompiledProgram) -> None:
    word = word_of(FRAME)
    untouched = word + word + 1 + (word >> 16)
    assert results(compiled, []) == [-errno.EOPNOTSUPP & U64] * 3 + [untouched]


def test_metadata_is_each_frames_own_with_the_drivers_errors(compiled: CompiledProgram) -> None:
    known = abi.RxMetadata(timestamp_ns=1 << 40, hash=0xABCDEF01, hash_type=9, vlan_proto=0x0081, vlan_tci=77)
    partly = abi.RxMetadata(
        timestamp_error=-errno.ENODATA, hash=3, hash_type=1, vlan_error=-errno.EOPNOTSUPP, timestamp_ns=5, vlan_tci=6
    )
    word = word_of(FRAME)
    sums = [(1 << 40) + 0xABCDEF01 + 9 + 0x0081 + 77, word + 3 + 1 + (word >> 16)]
    expected = [-errno.ENODATA & U64, 0, -errno.EOPNOTSUPP & U64, (sums[0] * 31 + sums[1]) & U64]
    assert results(compiled, [known, partly]) == expected


def test_metadata_cannot_be_compared_for_the_kernel_runs_it_in_no_test(compiled: CompiledProgram) -> None:
    with pytest.raises(UnsupportedFeatureError, match="on one device alone, not in a test"):
        Differential(compiled, control_library())


def test_metadata_in_kernel_mode_is_refused_by_name(
    kernel: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(RUN_FOLDER, run_folder(tmp_path / "run")[RUN_FOLDER])
    with bound_case(CASE) as bound, pytest.raises(UnsupportedFeatureError, match="on one device alone, not with"):
        KernelService(bound, ServeOptions(bundle="nf.uxdp", interfaces=("lo",), mode="kernel"))


@pytest.fixture
def pair(afxdp: None) -> Iterator[VethPair]:
    with veth_pair() as made:
        yield made


def udp_frame(number: int) -> bytes:
    macs = [bytes.fromhex(text.replace(":", "")) for text in (HOST_MAC, PEER_MAC)]
    addresses = (bytes(map(int, PEER_ADDRESS.split("."))), bytes(map(int, HOST_ADDRESS.split("."))))
    segment = h.udp(addresses, (1000 + number, 9), bytes(30))
    return h.ethernet(*macs, h.ETH_P_IP) + h.ipv4(*addresses, h.IPPROTO_UDP, len(segment)) + segment


def numbers(items: Iterable[tuple[bytes, bytes]]) -> list[int]:
    return [int.from_bytes(value, "little") for _key, value in items]


def test_metadata_of_a_driver_is_what_the_kernels_own_program_is_told(
    pair: VethPair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A veth computes the hash of what a stack sent, has no time of hardware, and a tag if there was one."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv(RUN_FOLDER, run_folder(tmp_path / "run")[RUN_FOLDER])
    image = build_case(CASE)
    frames = [udp_frame(number) for number in range(20)]
    with packet_socket(pair, pair.peer) as raw:
        with bundle_from_bytes(image) as bundle, LibbpfObject(bytes(bundle.object), "case") as loaded:
            with pair.entered(pair.host):
                target = interface(pair.interface)
                (program,) = loaded.programs
                program.bind_to_device(target.index)
                loaded.load()
                link, _generic = attach_by_link(program.fd, target, False)
            with Map(next(item.fd for item in loaded.maps if item.name == "results"), name="results") as table:
                send_all(raw, frames)
                wait_until(lambda: numbers(table.items())[63] == len(frames), "all received")
                theirs = numbers(table.items())
            os.close(link)
        path = tmp_path / "nf.uxdp"
        path.write_bytes(image)
        with serving(pair, path, name="metadata") as service:

            def ours() -> list[int]:
                return [item["value"] for item in service.ask("map-dump", map="results", zeros=True)["elements"]]

            send_all(raw, frames)
            wait_until(lambda: ours()[63] == len(frames), "all received")
            assert ours() == theirs
            assert "knows of frames" not in service.log
    assert theirs[:2] == [0, 0]  # there are a time and a hash
    assert theirs[2] != 0  # and no tag


def test_metadata_under_generic_xdp_is_eopnotsupp(
    pair: VethPair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv(RUN_FOLDER, run_folder(tmp_path / "run")[RUN_FOLDER])
    path = tmp_path / "nf.uxdp"
    path.write_bytes(build_case(CASE))
    with packet_socket(pair, pair.peer) as raw, serving(pair, path, "--generic", name="metadata") as service:
        assert "generic XDP knows nothing of hardware" in service.log
        send_all(raw, [udp_frame(0)])
        wait_until(lambda: service.totals()["pass"] >= 1, "received")
        elements = service.ask("map-dump", map="results", zeros=True)["elements"]
    assert [item["value"] for item in elements[:3]] == [-errno.EOPNOTSUPP & U64] * 3
