"""Maps in maps of maps: what becomes of those that are put there, and of those that are taken out."""

import errno
import mmap
import os
import struct
from dataclasses import replace

import pytest

from tests.bound_bundles import bound_case
from uxdp_bundle.errors import UnsupportedFeatureError
from uxdp_bundle.manifest import MapDefinition
from uxdp_runtime.bpf.inner_maps import inner_name
from uxdp_runtime.inner_stores import OuterStore, Pool, as_made
from uxdp_runtime.stores import POOL, MapOperationError, StoreMemory, Stores, control_library

HASH = MapDefinition("", "hash", 4, 8, 100, 0, False, None)
FLOWS = MapDefinition("flows", "hash", 4, 8, 5, 0, False, None)
OTHER = MapDefinition("other", "hash", 8, 8, 100, 0, False, None)
OUTER = MapDefinition("outer", "array_of_maps", 4, 4, 4, 0, False, HASH)
ARRAYS = MapDefinition("arrays", "hash_of_maps", 4, 4, 4, 0, False, replace(HASH, type="array", max_entries=10))
CPUS = 2


def stores_of(*definitions: MapDefinition, kept: dict[str, StoreMemory] | None = None) -> Stores:
    with bound_case("minimal") as bound:
        obj = bytes(bound.authentic.bundle.object)
    return Stores(obj, definitions, CPUS, control_library(), kept=kept or {}, shared=True)


def key(number: int) -> bytes:
    return struct.pack("=I", number)


def outer_of(stores: Stores, name: str = "outer") -> OuterStore:
    found = stores[name]
    assert isinstance(found, OuterStore)
    return found


def refusal(stores: Stores, index: int, value: bytes, flags: int = 0, name: str = "outer") -> int:
    with pytest.raises(MapOperationError) as refused:
        stores[name].update(key(index), value, flags)
    return refused.value.errno


def test_a_map_that_is_made_has_its_own_size_and_elements() -> None:
    stores = stores_of(OUTER)
    stores["outer"].update(key(0), as_made(0))
    stores["outer"].update(key(2), as_made(1))
    assert stores["outer"].lookup(key(0)) == as_made(100)
    assert stores["outer"].lookup(key(1)) is None
    assert list(stores["outer"].items()) == [(key(0), as_made(100)), (key(2), as_made(1))]
    large, small = stores[inner_name("outer", key(0))], stores[inner_name("outer", key(2))]
    for number in range(100):
        large.update(key(number), struct.pack("=Q", number))
    small.update(key(7), bytes(8))
    with pytest.raises(MapOperationError) as full:
        small.update(key(8), bytes(8))
    assert full.value.errno == errno.E2BIG
    assert len(dict(large.items())) == 100
    assert [store.definition.name for store in stores.made()] == ["outer[00000000]", "outer[02000000]"]


def test_a_declared_map_is_the_same_in_every_outer_map() -> None:
    stores = stores_of(FLOWS, OUTER)
    stores["outer"].update(key(1), key(1))
    stores["flows"].update(key(9), bytes(8))
    assert stores[inner_name("outer", key(1))].lookup(key(9)) == bytes(8)
    assert list(stores.made()) == []


@pytest.mark.parametrize(
    ("value", "flags", "number"),
    [
        (key(0), 0, errno.EINVAL),
        (key(9), 0, errno.EINVAL),
        (key(2), 0, errno.EINVAL),
        (as_made(1 << 30), 0, errno.EINVAL),
        (as_made(1), 1, errno.EINVAL),
    ],
    ids=["no-map", "unknown-map", "other-sizes", "too-many-elements", "flags"],
)
def test_what_the_kernel_refuses_is_refused(value: bytes, flags: int, number: int) -> None:
    stores = stores_of(FLOWS, OTHER, OUTER)
    assert refusal(stores, 0, value, flags) == number
    assert refusal(stores, 4, as_made(1)) == errno.E2BIG
    assert stores["outer"].lookup(key(0)) is None
    with pytest.raises(MapOperationError) as missing:
        stores["outer"].delete(key(0))
    assert missing.value.errno == errno.ENOENT


def test_arrays_have_the_size_of_their_template() -> None:
    stores = stores_of(ARRAYS)
    assert refusal(stores, 0, as_made(11), name="arrays") == errno.EINVAL
    stores["arrays"].update(key(0), as_made(10))
    assert refusal(stores, 0, as_made(10), 1, name="arrays") == errno.EEXIST


@pytest.mark.parametrize(
    "inner", [None, MapDefinition("", "ringbuf", 0, 0, 4096, 0, False, None)], ids=["no-template", "ringbuf"]
)
def test_inner_maps_without_native_implementation_are_refused(inner: MapDefinition | None) -> None:
    with pytest.raises(UnsupportedFeatureError, match="array_of_maps"):
        stores_of(MapDefinition("outer", "array_of_maps", 4, 4, 4, 0, False, inner))


def test_other_processes_go_on_with_the_maps() -> None:
    stores = stores_of(OUTER)
    stores["outer"].update(key(0), as_made(3))
    stores["outer[00000000]"].update(key(5), struct.pack("=Q", 55))
    memory = stores.inner_memory
    assert memory is not None
    again = stores_of(OUTER, kept={"outer": stores["outer"].shared_memory, POOL: memory})
    assert again["outer[00000000]"].lookup(key(5)) == struct.pack("=Q", 55)
    again["outer"].update(key(1), as_made(3))
    assert again["outer[01000000]"].lookup(key(5)) is None
    again.close()
    stores.close()


def test_a_map_of_33_million_elements_costs_what_is_touched() -> None:
    lru = MapDefinition("", "lru_hash", 16, 16, 33_500_000, 0, False, None)
    stores = stores_of(MapDefinition("outer", "array_of_maps", 4, 4, 16, 0, False, lru))
    for slot in range(16):
        stores["outer"].update(key(slot), as_made(0))
        stores[inner_name("outer", key(slot))].update(bytes([slot]) * 16, bytes(16))
    memory = stores.inner_memory
    assert memory is not None
    assert resident_bytes(memory.fd) < 16 << 20
    stores.close()


def resident_bytes(fd: int) -> int:

    return os.fstat(fd).st_blocks * 512


class FakeTime:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_memory_is_used_again_when_no_worker_can_hold_a_pointer_to_it() -> None:
    memory = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    clock = FakeTime()
    pool = Pool(memory, CPUS, lambda _table: 4096, clock=clock)
    first = pool.make(HASH, 0)
    start = pool.definition(first).store - pool.address
    memory[start] = 1
    struct.pack_into("=Q", memory, 4096 + 64, 7)  # worker 1 is in a burst
    pool.retire(first)
    clock.now = 100
    second = pool.make(HASH, 0)
    assert (second, memory[start]) != (first, 0)
    struct.pack_into("=Q", memory, 4096 + 64, 9)  # in another
    third = pool.make(HASH, 0)
    assert (third, memory[start]) == (first, 0)
    assert pool.definition(third).store == pool.address + start
    pool.retire(second)
    clock.now = 100.5
    assert pool.make(HASH, 0) != second  # workers rest, but that was just now


def test_a_full_pool_says_so() -> None:
    memory = mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pool = Pool(memory, CPUS, lambda _table: 8 << 20)
    pool.make(HASH, 0)
    with pytest.raises(OSError) as full:
        pool.make(HASH, 0)
    assert full.value.errno == errno.ENOSPC
