"""Stores, from Python: what is read at once, and ring buffers that are read without being emptied."""

import errno
import struct

import pytest

from tests.bound_bundles import bound_case
from uxdp_bundle.manifest import MapDefinition
from uxdp_runtime.compile.compiler import ProgramSource, compile_object
from uxdp_runtime.compile.program import program_source
from uxdp_runtime.compile.targets import host_target
from uxdp_runtime.errors import ParameterError
from uxdp_runtime.frames.generate import generate
from uxdp_runtime.native_module import FrameBatch, NativeModule
from uxdp_runtime.stores import MapOperationError, Store, Stores, control_library

LARGE = MapDefinition("large", "array", 4, 8, 100_000, 0, False, None)
TABLE = MapDefinition("table", "hash", 4, 8, 100_000, 0, False, None)
COUNTS = MapDefinition("counts", "percpu_array", 4, 12, 9, 0, False, None)


def stores_of(*definitions: MapDefinition) -> list[Store]:
    with bound_case("minimal") as bound:
        obj = bytes(bound.authentic.bundle.object)
    return list(Stores(obj, definitions, 3, control_library()))


@pytest.fixture(scope="module")
def compiled() -> tuple[ProgramSource, bytes]:
    """What ring_records is made of, and its native code."""
    with bound_case("native/ring_records") as bound:
        source = program_source(bound, "records", num_cpus=1, values=None, constants={})
        return source, compile_object(source, host_target()).data


def run_on(compiled: tuple[ProgramSource, bytes], *frames: bytes, garbage: int = 0) -> Stores:
    """Run ring_records on frames in one burst, with new stores."""
    source, data = compiled
    stores = Stores(source.object, source.maps, 1, control_library())
    stores["large"].fill_ring(garbage)
    batch = FrameBatch(len(frames))
    for index, frame in enumerate(frames):
        batch.put(index, frame)
    NativeModule(data, stores, 0).run(batch, len(frames))
    return stores


@pytest.fixture
def written(compiled: tuple[ProgramSource, bytes]) -> Stores:
    """The stores after 40 frames, which leave room in both rings."""
    return run_on(compiled, *(frame.data for frame in generate(40, 1)))


def test_update_global_data_changes_what_is_writable() -> None:
    with bound_case("native/global_data") as bound:
        source = program_source(bound, "global_data", num_cpus=1, values=None, constants={})
        stores = Stores(source.object, source.maps, 1, control_library())
    content = bytes(range(len(stores.section(".data"))))
    stores.update(".data", bytes(4), content)
    assert bytes(stores.section(".data")) == content
    with pytest.raises(ParameterError, match=r"map .rodata: holds constants"):
        stores.update(".rodata", bytes(4), bytes(4))


def test_items_of_a_large_array_come_in_order_and_whole() -> None:
    (store,) = stores_of(LARGE)
    for index in (0, 1, 21_844, 21_845, 99_999):
        store.update(struct.pack("=I", index), struct.pack("=Q", index + 7))
    items = list(store.items())
    assert [struct.unpack("=I", key)[0] for key, _value in items] == list(range(100_000))
    filled = {struct.unpack("=I", key)[0]: struct.unpack("=Q", value)[0] for key, value in items if any(value)}
    assert filled == {0: 7, 1: 8, 21_844: 21_851, 21_845: 21_852, 99_999: 100_006}


def test_items_of_a_large_hash_come_once_each() -> None:
    (store,) = stores_of(TABLE)
    expected = {struct.pack("=I", index): struct.pack("=Q", index * index) for index in range(50_000)}
    for key, value in expected.items():
        store.update(key, value)
    items = list(store.items())
    assert len(items) == 50_000
    assert dict(items) == expected


def test_items_of_an_empty_hash_are_none() -> None:
    (store,) = stores_of(TABLE)
    assert list(store.items()) == []


def test_items_of_a_per_cpu_map_have_a_value_of_each_cpu() -> None:
    (store,) = stores_of(COUNTS)
    value = b"".join(bytes([cpu]) * 12 + bytes(4) for cpu in (1, 2, 3))
    store.update(struct.pack("=I", 8), value)
    assert list(store.items())[-1] == (struct.pack("=I", 8), value)


def test_has_memory_of_tells_arrays_apart() -> None:
    (one,), (other,) = stores_of(LARGE), stores_of(LARGE)
    assert one.has_memory_of(other)
    one.update(struct.pack("=I", 99_999), bytes(7) + b"\1")
    assert not one.has_memory_of(other)
    other.update(struct.pack("=I", 99_999), bytes(7) + b"\1")
    assert one.has_memory_of(other)


def test_records_are_read_again_until_they_are_consumed(written: Stores) -> None:
    ring = written["small"]
    first, end = ring.read_records(0)
    assert len(first) == 80  # two per frame
    assert all(len(record) == 0 for record in first[1::2])
    assert ring.read_records(0) == (first, end)
    assert ring.read_records(end) == ([], end)
    assert ring.consume_records() == first
    assert ring.consume_records() == []


def test_records_that_were_discarded_are_skipped(written: Stores) -> None:
    records, end = written["large"].read_records(0)
    assert 20 < len(records) < 40
    assert {len(record) for record in records} == {48}
    assert end == 40 * 56  # with their headers, discarded ones, too
    assert len(written["large"].consume_records()) == len(records)


def test_records_longer_than_the_buffer_are_read_whole(
    compiled: tuple[ProgramSource, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uxdp_runtime.store._RECORDS_BYTES", 16)
    records, end = run_on(compiled, next(generate(1, 3)).data)["large"].read_records(0)
    assert [len(record) for record in records] == [48]
    assert end == 56


def test_fill_ring_is_what_records_hold_before_they_are_written(compiled: tuple[ProgramSource, bytes]) -> None:
    frame = bytes(5) + b"\1" + bytes(54)
    ((record,), _end) = run_on(compiled, frame, garbage=0xA5)["large"].read_records(0)
    # A time of 8 bytes, 4 of the frame, and 36 of which two are written.
    assert record[12:].count(0xA5) == 34


def test_user_ring_buffer_takes_records_until_it_is_full() -> None:
    (ring,) = stores_of(MapDefinition("ring", "user_ringbuf", 0, 0, 4096, 0, False, None))
    for length in (4089, 1 << 25):
        with pytest.raises(MapOperationError) as refused:
            ring.update(b"", bytes(length))
        assert refused.value.errno == errno.E2BIG
    for _ in range(256):
        ring.update(b"", b"12345678")
    with pytest.raises(MapOperationError) as full:
        ring.update(b"", b"")
    assert full.value.errno == errno.ENOSPC
