"""Maps by system call: sizes, errno values, batches, per-CPU values, mapped arrays."""

import errno
import os
import resource

import pytest

from uxdp_bundle.map_definitions import BPF_F_MMAPABLE
from uxdp_runtime.bpf import syscall
from uxdp_runtime.bpf.cpus import num_possible_cpus
from uxdp_runtime.bpf.maps import BPF_EXIST, BPF_NOEXIST, Map
from uxdp_runtime.errors import ENOTSUPP, BpfError, ParameterError

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("kernel")]

NO_PREALLOC = 1  # BPF_F_NO_PREALLOC


def key(number: int) -> bytes:
    return number.to_bytes(4, "little")


def failed(call, *arguments) -> int:
    with pytest.raises(BpfError) as caught:
        call(*arguments)
    assert caught.value.context.startswith("map ")
    assert caught.value.errno is not None
    return caught.value.errno


def test_map_operations_give_the_kernels_errno() -> None:
    with Map.create("hash", key_size=4, value_size=8, max_entries=2, name="small") as item:
        item.update(key(1), bytes(8), BPF_NOEXIST)
        assert failed(item.update, key(1), bytes(8), BPF_NOEXIST) == errno.EEXIST
        assert failed(item.update, key(2), bytes(8), BPF_EXIST) == errno.ENOENT
        item.update(key(2), b"12345678")
        assert failed(item.update, key(3), bytes(8)) == errno.E2BIG
        assert item.lookup(key(2)) == b"12345678"
        assert failed(item.lookup, key(3)) == errno.ENOENT
        assert item.get(key(3)) is None
        item.delete(key(2))
        assert failed(item.delete, key(2)) == errno.ENOENT
        assert list(item.keys()) == [key(1)]


@pytest.mark.parametrize("call", ["lookup", "get", "delete"])
def test_map_key_of_another_size_is_refused_before_the_kernel_reads_it(call: str) -> None:
    with Map.create("hash", key_size=4, value_size=8, max_entries=2, name="small") as item:
        with pytest.raises(ParameterError, match="key of 3 bytes, expected 4") as caught:
            getattr(item, call)(bytes(3))
        assert caught.value.context == "map small"
        with pytest.raises(ParameterError, match="value of 9 bytes, expected 8"):
            item.update(key(1), bytes(9))


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("hash", 0),
        ("array", 0),
        ("percpu_hash", 0),
        ("percpu_array", 0),
        ("lpm_trie", NO_PREALLOC),
        ("hash", NO_PREALLOC),
    ],
)
def test_map_many_elements_are_all_read(kind: str, flags: int) -> None:
    count = 20_000
    with Map.create(
        kind, key_size=8 if kind == "lpm_trie" else 4, value_size=12, max_entries=count, flags=flags
    ) as item:

        def place(number: int) -> bytes:
            return key(number) if kind != "lpm_trie" else key(32) + number.to_bytes(4, "big")

        def value(number: int) -> bytes:
            return item.join_slots([bytes([cpu]) + number.to_bytes(11, "little") for cpu in range(item.num_slots)])

        item.update_many((place(number), value(number)) for number in range(count))
        read = dict(item.items())
        assert len(read) == count
        assert all(read[place(number)] == value(number) for number in range(count))
        assert item.split_slots(read[place(7)])[-1][:2] == bytes([item.num_slots - 1, 7])


def test_map_all_keys_in_one_bucket_are_read_in_growing_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uxdp_runtime.bpf.maps._BATCH_BYTES", 16)
    with Map.create("hash", key_size=4, value_size=4, max_entries=512, flags=NO_PREALLOC) as item:
        item.update_many((key(number), key(number)) for number in range(512))
        assert len(dict(item.items())) == 512


@pytest.mark.parametrize("kind", ["devmap", "cpumap", "prog_array"])
def test_map_of_references_is_read_element_by_element(kind: str) -> None:
    with Map.create(kind, key_size=4, value_size=4, max_entries=1) as item:
        assert list(item.items()) == []
        assert item.get(key(0)) is None


def test_map_of_sockets_cannot_be_read_by_system_call() -> None:
    with Map.create("xskmap", key_size=4, value_size=4, max_entries=1) as item:
        assert failed(lambda: list(item.items())) == errno.EOPNOTSUPP


def test_map_per_cpu_value_has_a_slot_for_every_possible_cpu() -> None:
    with Map.create("percpu_array", key_size=4, value_size=5, max_entries=1) as item:
        assert item.num_slots == num_possible_cpus()
        assert item.value_bytes == 8 * num_possible_cpus()
        assert item.split_slots(item.lookup(key(0))) == [bytes(5)] * num_possible_cpus()
        with pytest.raises(ParameterError, match="expected"):
            item.join_slots([bytes(5)] * (num_possible_cpus() + 1))


def test_map_update_many_stops_at_the_element_that_fails() -> None:
    with Map.create("hash", key_size=4, value_size=4, max_entries=10) as item:
        assert failed(item.update_many, [(key(number), key(0)) for number in range(20)]) == errno.E2BIG
        assert len(list(item.keys())) == 10


def test_map_mapped_array_shares_the_kernels_memory() -> None:
    with Map.create("array", key_size=4, value_size=12, max_entries=1000, flags=BPF_F_MMAPABLE) as item:
        with item.mmap() as memory:
            memory[item.slot_bytes * 999 : item.slot_bytes * 999 + 4] = b"last"
            assert item.lookup(key(999)) == b"last" + bytes(8)
            item.update(key(0), b"first" + bytes(7))
            assert memory[:5] == b"first"
            assert failed(item.freeze) == errno.EBUSY
        item.freeze()
        assert failed(item.mmap) == errno.EPERM
        assert failed(item.update, key(0), bytes(12)) == errno.EPERM
        with item.mmap(writable=False) as memory:
            assert memory[:5] == b"first"


def test_map_that_cannot_be_mapped_says_so() -> None:
    with Map.create("hash", key_size=4, value_size=4, max_entries=1) as item:
        assert failed(item.mmap) == ENOTSUPP


def test_map_info_is_what_was_asked_for() -> None:
    with Map.create("lru_hash", key_size=6, value_size=10, max_entries=100, flags=2, name="lru") as item:
        assert (item.type, item.name, item.info.name) == ("lru_hash", "lru", "lru")
        assert (item.info.key_size, item.info.value_size, item.info.flags) == (6, 10, 2)
        again = Map(os.dup(item.fd), owned=True)
        again.close()
        again.close()
        assert failed(again.lookup, bytes(6)) in (errno.EBADF, errno.EBADFD)
        assert item.get(bytes(6)) is None


def test_delete_batch_deletes() -> None:
    with Map.create("hash", key_size=4, value_size=4, max_entries=10) as item:
        item.update_many((key(number), key(0)) for number in range(10))
        syscall.delete_batch(item.fd, b"".join(map(key, range(5))), 5)
        assert sorted(item.keys()) == sorted(map(key, range(5, 10)))


def test_map_invalid_definition_is_refused() -> None:
    with pytest.raises(BpfError) as caught:
        Map.create("array", key_size=5, value_size=4, max_entries=1)
    assert caught.value.errno == errno.EINVAL
    assert "BPF_MAP_CREATE" in caught.value.message


def test_map_create_at_the_memlock_limit_raises_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = syscall._bpf

    def like_an_older_kernel(command: syscall.Command, attributes: bytes) -> int:
        calls.append(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])
        if len(calls) == 1:
            raise BpfError(errno.EPERM, "as before Linux 5.11")
        return original(command, attributes)

    monkeypatch.setattr(syscall, "_bpf", like_an_older_kernel)
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    lowered = (4096, before[1])
    resource.setrlimit(resource.RLIMIT_MEMLOCK, lowered)
    try:
        os.close(syscall.create_map(2, 4, 4, 1))
        assert calls[0] == 4096
        assert calls[1] != 4096
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (before[0], resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]))
