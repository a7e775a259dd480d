"""Programs that ask for what hardware knows of a frame: loaded for a device, answered by the port, run in no test."""

import ctypes
import errno
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bound_bundles import bound_case
from tests.serving import run_folder
from uxdp_bundle.errors import UnsupportedFeatureError
from uxdp_runtime import abi
from uxdp_runtime.compile.program import CompiledProgram, compile_program
from uxdp_runtime.compile.targets import host_target
from uxdp_runtime.differential import Differential
from uxdp_runtime.native_module import FrameBatch, NativeModule
from uxdp_runtime.serve.control_socket import RUN_FOLDER
from uxdp_runtime.serve.kernel_service import KernelService
from uxdp_runtime.serve.options import ServeOptions
from uxdp_runtime.stores import Stores, control_library
from uxdp_runtime.verify import verify

pytestmark = pytest.mark.kernel

CASE = "serve/rx_metadata"
FRAME = bytes(range(20))
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
    untouched = word + word + 1 + (word >> 16) + (word & 0xFFFF)
    assert results(compiled, []) == [-errno.EOPNOTSUPP & U64] * 3 + [untouched]


def test_metadata_is_each_frames_own_with_the_drivers_errors(compiled: CompiledProgram) -> None:
    known = abi.RxMetadata(timestamp_ns=1 << 40, hash=0xABCDEF01, hash_type=9, vlan_proto=0x0081, vlan_tci=77)
    partly = abi.RxMetadata(
        timestamp_error=-errno.ENODATA, hash=3, hash_type=1, vlan_error=-errno.EOPNOTSUPP, timestamp_ns=5, vlan_tci=6
    )
    word = word_of(FRAME)
    sums = [(1 << 40) + 0xABCDEF01 + 9 + 0x0081 + 77, word + 3 + 1 + (word >> 16) + (word & 0xFFFF)]
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
