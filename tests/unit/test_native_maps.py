"""Native maps against a model of them in Python, and what the kernel's maps cannot show."""

import ctypes
import errno
import random
import struct
from collections import OrderedDict
from collections.abc import Callable

import pytest

from tests.native_frames import NativeFrame
from tests.native_library import (
    ANY,
    EXIST,
    NO_PREALLOC,
    NOEXIST,
    Definition,
    NativeMap,
    OperationError,
    native_library,
    worker,
)


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


def u64(number: int) -> bytes:
    return struct.pack("<Q", number)


def refused(number: int) -> "pytest.RaisesExc[OperationError]":
    return pytest.raises(OperationError, match=f"^{errno.errorcode.get(number, str(number))}$")


class Model:
    """A map with a limit: what bpf(2) would answer."""

    def __init__(self, max_entries: int, full: int) -> None:
        self.values: dict[bytes, bytes] = {}
        self.max_entries = max_entries
        self.full = full

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """Return 0 or the errno."""
        if flags > EXIST:
            return errno.EINVAL
        if flags == NOEXIST and key in self.values:
            return errno.EEXIST
        if flags == EXIST and key not in self.values:
            return errno.ENOENT
        if key not in self.values and len(self.values) == self.max_entries:
            return self.full
        self.values[key] = value
        return 0

    def delete(self, key: bytes) -> int:
        """Return 0 or the errno."""
        return 0 if self.values.pop(key, None) is not None else errno.ENOENT


def number_of(operation: Callable[..., None], *arguments: object) -> int:
    """Run an operation; return 0 or its errno."""
    try:
        operation(*arguments)
    except OperationError as error:
        return error.number
    return 0


@pytest.mark.parametrize("by_program", [False, True], ids=["control", "program"])
@pytest.mark.parametrize(
    "definition",
    [
        Definition("hash", 16, 8, 50),
        Definition("hash", 1, 1, 200),
        Definition("hash", 70, 300, 20, NO_PREALLOC),
        Definition("percpu_hash", 4, 8, 50),
        Definition("hash", 8, 8, 1),
    ],
    ids=lambda definition: f"{definition.kind}-{definition.key_size}",
)
def test_hash_random_sequence_equals_model(definition: Definition, by_program: bool) -> None:
    draw = random.Random(1)
    model = Model(definition.max_entries, errno.E2BIG)
    native = NativeMap(definition)
    keys = [
        random.Random(number).randbytes(definition.key_size) for number in range(definition.max_entries * 3 // 2 + 2)
    ]
    size = definition.value_bytes(native.cpus)
    for _ in range(6000):
        key = draw.choice(keys)
        what = draw.randrange(4)
        if what < 2 and by_program:
            value, flags = draw.randbytes(definition.value_size), draw.choice([ANY, ANY, NOEXIST, EXIST, 3])
            assert number_of(native.program_update, key, value, flags) == model.update(key, value, flags)
        elif what < 2:
            value, flags = draw.randbytes(size), draw.choice([ANY, ANY, NOEXIST, EXIST, 3])
            expected = model.update(key, value[: definition.value_size], flags)
            assert number_of(native.update, key, value, flags) == expected
        elif what == 2:
            delete = native.program_delete if by_program else native.delete
            assert number_of(delete, key) == model.delete(key)
        else:
            assert native.program_value(key) == model.values.get(key)
            found = native.lookup(key)
            assert (found[: definition.value_size] if found is not None else None) == model.values.get(key)
    assert sorted(native.keys()) == sorted(model.values)


def test_hash_update_keeps_pointer_to_old_element() -> None:
    """As in the kernel: the key has another element, and who looked it up earlier keeps the old one."""
    native = NativeMap(Definition("hash", 4, 8, 4))
    native.program_update(u32(1), u64(10))
    old = native.program_lookup(u32(1))
    native.program_update(u32(1), u64(20))
    new = native.program_lookup(u32(1))
    assert old != new
    assert (ctypes.string_at(old, 8), ctypes.string_at(new, 8)) == (u64(10), u64(20))


def test_percpu_hash_update_changes_own_slot_in_place() -> None:
    native = NativeMap(Definition("percpu_hash", 4, 8, 4), cpus=3, cpu=1)
    native.program_update(u32(1), u64(10))
    place = native.program_lookup(u32(1))
    assert native.lookup(u32(1)) == u64(0) + u64(10) + u64(0)
    native.update(u32(1), u64(1) + u64(2) + u64(3))
    native.program_update(u32(1), u64(20))
    assert native.program_lookup(u32(1)) == place
    assert native.lookup(u32(1)) == u64(1) + u64(20) + u64(3)


def test_hash_deleted_value_stays_readable_memory() -> None:
    native = NativeMap(Definition("hash", 4, 8, 4))
    native.program_update(u32(1), u64(10))
    place = native.program_lookup(u32(1))
    native.program_delete(u32(1))
    assert ctypes.string_at(place, 8) == u64(10)


def test_hash_next_key_of_missing_key_starts_again() -> None:
    native = NativeMap(Definition("hash", 4, 4, 8))
    for number in range(5):
        native.update(u32(number), u32(0))
    assert native.next_key(u32(99)) == native.next_key(None) == native.keys()[0]


@pytest.mark.parametrize("kind", ["hash", "lru_hash", "percpu_hash", "lru_percpu_hash"])
def test_hash_of_tens_of_millions_touches_what_is_used(kind: str) -> None:
    """Katran declares 33.5 million entries."""
    native = NativeMap(Definition(kind, 40, 64, 33_500_000))
    assert len(native.memory) > 1 << 30
    for number in range(100):
        native.program_update(random.Random(number).randbytes(40), bytes(64))
    assert native.resident_bytes() < 1 << 20


@pytest.mark.parametrize("kind", ["hash", "percpu_hash"])
def test_hash_full_of_colliding_and_other_keys_holds_all(kind: str) -> None:
    """As many keys as the map can take, and nothing else; then all of them are found and go."""
    native = NativeMap(Definition(kind, 8, 8, 10_000), cpus=1)
    for number in range(10_000):
        native.update(u64(number << 40), u64(number), NOEXIST)
    with refused(errno.E2BIG):
        native.update(u64(1), u64(0))
    native.update(u64(5 << 40), u64(55), EXIST)
    assert native.lookup(u64(5 << 40)) == u64(55)
    assert len(set(native.keys())) == 10_000
    for number in range(10_000):
        native.delete(u64(number << 40))
    assert native.keys() == []


@pytest.mark.parametrize("kind", ["lru_hash", "lru_percpu_hash"])
def test_lru_full_evicts_what_was_not_looked_up(kind: str) -> None:
    native = NativeMap(Definition(kind, 4, 8, 1000), cpus=1)
    hot = [u32(number) for number in range(20)]
    for number in range(20_000):
        native.program_update(u32(number), u64(number))
        if number >= 20:
            assert all(native.program_lookup(key) for key in hot), number
    kept = native.keys()
    assert set(hot) <= set(kept)
    assert 500 < len(kept) <= 1000


def test_lru_recency_approximates_order() -> None:
    """A cache of 256 under a skewed load hits nearly as often as exact LRU does."""
    draw = random.Random(3)
    native = NativeMap(Definition("lru_hash", 4, 8, 256), cpus=1)
    exact: OrderedDict[bytes, None] = OrderedDict()
    hits = exact_hits = 0
    for _ in range(20_000):
        key = u32(min(int(draw.expovariate(1 / 150)), 5000))
        if native.program_lookup(key):
            hits += 1
        else:
            native.program_update(key, u64(1))
        if key in exact:
            exact_hits += 1
            exact.move_to_end(key)
        else:
            exact[key] = None
            if len(exact) > 256:
                exact.popitem(last=False)
    assert hits > exact_hits * 0.9


def test_lru_of_several_cpus_takes_elements_from_each_other() -> None:
    """CPU 0 has fetched all free elements; CPU 1 still gets some."""
    first = NativeMap(Definition("lru_hash", 4, 8, 4), cpus=2, cpu=0)
    for number in range(4):
        first.program_update(u32(number), u64(0))
    first.cpu = 1
    for number in range(4, 8):
        first.program_update(u32(number), u64(0))
    assert 1 <= len(first.keys()) <= 4
    assert first.lookup(u32(7)) is not None


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["array", "percpu_array"])
def test_array_update_flags(kind: str, flags: int) -> None:
    native = NativeMap(Definition(kind, 4, 8, 2))
    expected = {0: 0, 1: errno.EEXIST, 2: 0, 3: errno.EINVAL, 4: errno.EINVAL, 5: errno.EEXIST}[flags]
    assert number_of(native.program_update, u32(1), u64(3), flags) == expected
    assert native.program_value(u32(1)) == u64(3 if expected == 0 else 0)


def test_array_bounds() -> None:
    native = NativeMap(Definition("array", 4, 8, 2))
    assert native.program_lookup(u32(2)) == 0
    assert native.lookup(u32(2)) is None
    with refused(errno.E2BIG):
        native.update(u32(2), u64(0))
    with refused(errno.EINVAL):
        native.delete(u32(0))
    assert native.keys() == [u32(0), u32(1)]
    assert native.next_key(u32(7)) == u32(0)


def test_array_is_laid_out_as_the_kernels_pages() -> None:
    native = NativeMap(Definition("array", 4, 5, 3))
    native.update(u32(2), b"abcde")
    assert native.memory[16:21] == b"abcde"


@pytest.mark.parametrize(("flag", "what"), [(8, "update"), (16, "lookup")], ids=["read-only", "write-only"])
def test_access_flags_bind_control_planes(flag: int, what: str) -> None:
    native = NativeMap(Definition("array", 4, 4, 1, flag))
    with refused(errno.EPERM):
        native.update(u32(0), u32(1)) if what == "update" else native.lookup(u32(0))
    native.program_update(u32(0), u32(1))
    assert native.program_value(u32(0)) == u32(1)


def test_prog_array_entries_and_tail_targets() -> None:
    native = NativeMap(Definition("prog_array", 4, 4, 4))
    library = native_library()
    frame = NativeFrame(bytes(64))
    frame.frame.tail_calls = 2
    pointer = ctypes.byref(native.map)
    native.update(u32(1), u32(3))
    assert library.uxdp_tail_target(frame.pointer, pointer, 1) == 2
    assert library.uxdp_tail_target(frame.pointer, pointer, 0) == -errno.ENOENT  # an empty entry costs no call
    assert library.uxdp_tail_target(frame.pointer, pointer, 9) == -errno.ENOENT
    assert library.uxdp_tail_target(frame.pointer, pointer, (1 << 32) + 1) == 2
    assert library.uxdp_tail_target(frame.pointer, pointer, 1) == -errno.ENOENT  # no call is left
    assert native.lookup(u32(1)) == u32(3)
    with refused(errno.EINVAL):
        native.update(u32(1), u32(3), EXIST)
    with refused(errno.E2BIG):
        native.update(u32(4), u32(3))
    native.delete(u32(1))
    with refused(errno.ENOENT):
        native.delete(u32(1))
    assert native.lookup(u32(1)) is None


def test_cpumap_values() -> None:
    native = NativeMap(Definition("cpumap", 4, 8, 2))
    native.update(u32(1), struct.pack("<II", 192, 0))
    assert native.program_value(u32(1)) == struct.pack("<II", 192, 0)
    with refused(errno.EOVERFLOW):
        native.update(u32(1), struct.pack("<II", 16385, 0))
    with refused(errno.EEXIST):
        native.update(u32(0), struct.pack("<II", 1, 0), NOEXIST)
    native.update(u32(1), struct.pack("<II", 0, 0))
    assert native.lookup(u32(1)) is None
    with refused(errno.EINVAL):
        native.delete(u32(2))


def test_xskmap_program_sees_the_queue() -> None:
    native = NativeMap(Definition("xskmap", 4, 4, 2))
    assert native.program_lookup(u32(0)) == 0
    native.update(u32(0), u32(0), NOEXIST)
    assert native.program_value(u32(0)) == u32(0)
    native.update(u32(0), u32(0), NOEXIST)  # the same socket again
    with refused(errno.EEXIST):
        native.update(u32(0), u32(5), NOEXIST)
    with refused(errno.ENOENT):
        native.update(u32(1), u32(5), EXIST)
    with refused(errno.EOPNOTSUPP):
        native.lookup(u32(0))


def ring_of(size: int) -> NativeMap:
    return NativeMap(Definition("ringbuf", 0, 0, size))


def test_ringbuf_records_come_in_order_without_the_discarded() -> None:
    ring, library = ring_of(4096), native_library()
    pointer = ctypes.byref(ring.map)
    samples = [library.uxdp_helper_ringbuf_reserve(pointer, size, 0) for size in (5, 8, 16)]
    for sample, content in zip(
        samples,
        (
            b"first",
            b"discarde",
            b"third...........",
        ),
        strict=True,
    ):
        ctypes.memmove(sample, content, len(content))
    library.uxdp_helper_ringbuf_submit(samples[2], 0)
    assert ring.consume() == []  # the first is not submitted yet
    library.uxdp_helper_ringbuf_discard(samples[1], 0)
    library.uxdp_helper_ringbuf_submit(samples[0], 0)
    assert ring.consume() == [b"first", b"third..........."]
    assert ring.consume() == []
    assert library.uxdp_helper_ringbuf_query(pointer, 0) == 0


def test_ringbuf_full_and_wrapping() -> None:
    ring, library = ring_of(4096), native_library()
    pointer = ctypes.byref(ring.map)
    for round_number in range(50):
        sent = []
        while True:
            content = random.Random(round_number * 100 + len(sent)).randbytes(300 + len(sent))
            result = library.uxdp_helper_ringbuf_output(pointer, content, len(content), 0)
            if result:
                break
            sent.append(content)
        assert result == -errno.EAGAIN
        assert len(sent) >= 12
        assert ring.consume() == sent


@pytest.mark.parametrize(
    ("size", "flags"),
    [(4089, 0), (1 << 31, 0), ((1 << 64) - 1, 0), (8, 1)],
    ids=["with-header-too-long", "beyond-record", "huge", "flags"],
)
def test_ringbuf_reserve_refused(size: int, flags: int) -> None:
    pointer = ctypes.byref(ring_of(4096).map)
    assert native_library().uxdp_helper_ringbuf_reserve(pointer, size, flags) is None


def test_ringbuf_output_unknown_flag_is_einval() -> None:
    pointer = ctypes.byref(ring_of(4096).map)
    assert native_library().uxdp_helper_ringbuf_output(pointer, b"x", 1, 4) == -errno.EINVAL


def test_ringbuf_wakeups_are_the_kernels() -> None:
    """Only the record that a waiting reader is at wakes it, unless a flag says otherwise."""
    ring, library = ring_of(4096), native_library()
    pointer = ctypes.byref(ring.map)

    def wakeups() -> int:
        return int.from_bytes(ring.memory[24:32], "little")

    for flags, expected in ((0, 1), (0, 1), (2, 2), (1, 2)):
        library.uxdp_helper_ringbuf_output(pointer, b"x", 1, flags)
        assert wakeups() == expected
    ring.consume()
    library.uxdp_helper_ringbuf_output(pointer, b"x", 1, 1)
    assert wakeups() == 2


def test_ringbuf_consume_too_small_buffer_keeps_records() -> None:
    ring, library = ring_of(4096), native_library()
    library.uxdp_helper_ringbuf_output(ctypes.byref(ring.map), b"0123456789", 10, 0)
    with refused(errno.ENOSPC):
        ring.consume(16)
    assert ring.consume(24) == [b"0123456789"]


@pytest.mark.parametrize("what", ["lookup", "update", "delete", "next_key"])
def test_ringbuf_has_no_elements(what: str) -> None:
    ring = ring_of(4096)
    arguments = [b"", b""] if what == "update" else [b""]
    with refused(524):  # ENOTSUPP
        getattr(ring, what)(*arguments)


def test_kind_without_implementation_has_no_store() -> None:
    for kind in (0, 7, 15, 18, 99):
        definition = Definition("array", 4, 4, 1)
        native = NativeMap(definition)
        native.map.kind = kind
        assert native_library().uxdp_store_bytes(ctypes.byref(native.map)) == 0


def test_worker_of_helpers_is_the_one_that_was_set() -> None:
    worker().cpu = 5
    assert native_library().uxdp_helper_get_smp_processor_id() == 5
    worker().cpu = 0
