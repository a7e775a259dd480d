"""Native maps against the kernel's: the same operations, the same results, errno values and contents."""

import os
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kernel_scripts import Step, run_in_kernel, run_natively
from tests.native_library import (
    NO_COMMON_LRU,
    NO_PREALLOC,
    Definition,
    KernelMap,
    NativeMap,
    OperationError,
    possible_cpus,
)

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("kernel")]

SYSTEM_CALL_STEPS = 3000
SCRIPTS = 60
STEPS_PER_SCRIPT = 12

INDEXED = [Definition("array", 4, 12, 5), Definition("percpu_array", 4, 5, 6)]
HASHES = [
    Definition("hash", 16, 16, 64),
    Definition("hash", 5, 3, 64, NO_PREALLOC),
    Definition("hash", 4, 8, 1),
    Definition("hash", 100, 200, 30),
    Definition("percpu_hash", 40, 20, 50),
    Definition("percpu_hash", 8, 8, 50, NO_PREALLOC),
]
LRUS = [
    Definition("lru_hash", 16, 16, 64),
    Definition("lru_hash", 16, 16, 1000),
    Definition("lru_hash", 4, 8, 1),
    Definition("lru_hash", 4, 8, 3),
    Definition("lru_hash", 16, 16, 101, NO_COMMON_LRU),
    Definition("lru_percpu_hash", 8, 12, 100),
    Definition("lru_percpu_hash", 16, 16, 64, NO_COMMON_LRU),
]
TRIES = [
    Definition("lpm_trie", 4 + 4, 8, 60, NO_PREALLOC),
    Definition("lpm_trie", 4 + 16, 9, 600, NO_PREALLOC),
    Definition("lpm_trie", 4 + 1, 8, 600, NO_PREALLOC),
    Definition("lpm_trie", 4 + 9, 8, 300, NO_PREALLOC),
    Definition("lpm_trie", 4 + 256, 8, 600, NO_PREALLOC),
]


def name_of(definition: Definition) -> str:
    return "-".join(
        str(part) for part in (definition.kind, definition.key_size, definition.max_entries, definition.flags)
    )


@pytest.fixture(autouse=True)
def on_cpu_0() -> Iterator[None]:
    """LRU lists are those of the CPU that works; the native library's control plane works as CPU 0."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    yield
    os.sched_setaffinity(0, before)


def key_source(definition: Definition, seed: int) -> Callable[[], bytes]:
    """Return a function that draws keys: more of them than fit into the map, and some that no map has."""
    draw = random.Random(seed)
    if definition.kind in ("array", "percpu_array"):
        return lambda: struct.pack("<I", draw.randrange(definition.max_entries + 3))
    if definition.kind == "lpm_trie":
        bits = (definition.key_size - 4) * 8

        def prefix() -> bytes:
            length = draw.choice([draw.randrange(bits + 2), draw.choice([0, 8, 16, 24, bits])])
            address = bytes(draw.choice([0, 1, 255, 128, 3]) for _ in range(bits // 8))
            return struct.pack("<I", length) + address

        return prefix
    number = definition.max_entries * 3 // 2 + 2
    keys = [random.Random(index).randbytes(definition.key_size) for index in range(number)]
    return lambda: draw.choice(keys)


def outcome(operation: Callable[..., Any], *arguments: Any) -> Any:
    """Return what an operation gives, or its errno."""
    try:
        return operation(*arguments)
    except OperationError as error:
        return str(error)


def contents(either: NativeMap | KernelMap) -> dict[bytes, bytes | None]:
    return {key: either.lookup(key) for key in either.keys()}  # noqa: SIM118  # no dict


@pytest.mark.parametrize("definition", [*INDEXED, *HASHES, *LRUS, *TRIES], ids=name_of)
@pytest.mark.parametrize("seed", range(2))
def test_system_calls_random_sequence_equals_kernel(definition: Definition, seed: int) -> None:
    draw = random.Random(seed)
    key = key_source(definition, seed)
    native = NativeMap(definition, cpus=possible_cpus())
    size = definition.value_bytes(possible_cpus())
    with KernelMap(definition) as kernel_map:
        for number in range(SYSTEM_CALL_STEPS):
            what = draw.choice(["update", "update", "update", "lookup", "lookup", "delete"])
            arguments = [key()]
            if what == "update":
                arguments += [draw.randbytes(size), draw.choice([0, 0, 0, 1, 2, 3, 4])]
            ours, theirs = outcome(getattr(native, what), *arguments), outcome(getattr(kernel_map, what), *arguments)
            assert ours == theirs, (number, what, arguments)
            if number % 500 == 0:
                assert contents(native) == contents(kernel_map)
        assert contents(native) == contents(kernel_map)


@pytest.mark.parametrize(
    "definition",
    [definition for definition in (*INDEXED, *HASHES, *LRUS, *TRIES) if definition.value_size >= 8],
    ids=name_of,
)
@pytest.mark.parametrize("seed", range(2))
def test_programs_random_scripts_equal_kernel(definition: Definition, seed: int) -> None:
    """Lookups mark LRU elements, and pointers that were found earlier see what the kernel's see."""
    draw = random.Random(seed)
    key = key_source(definition, seed)
    native = NativeMap(definition, cpus=possible_cpus())
    with KernelMap(definition) as kernel_map:
        for number in range(SCRIPTS):
            steps = []
            for _ in range(STEPS_PER_SCRIPT):
                what = draw.choice(["lookup", "lookup", "update", "update", "update", "delete", "read", "read"])
                if what == "delete" and definition in INDEXED:
                    what = "lookup"  # the verifier lets no program delete from an array
                value = draw.randbytes(definition.value_size) if what == "update" else b""
                steps.append(
                    Step(what) if what == "read" else Step(what, key(), value, draw.choice([0, 0, 0, 1, 2, 5]))
                )
            assert run_natively(native, steps) == run_in_kernel(kernel_map, steps), (number, steps)
        assert contents(native) == contents(kernel_map)


@pytest.mark.parametrize(
    "definition",
    [
        pytest.param(Definition("array", 8, 4, 1), id="array-key-size"),
        pytest.param(Definition("array", 4, 0, 1), id="array-no-value"),
        pytest.param(Definition("array", 4, 4, 0), id="array-no-entries"),
        pytest.param(Definition("array", 4, 4, 1, NO_PREALLOC), id="array-flags"),
        pytest.param(Definition("percpu_array", 4, 32768, 1), id="percpu-array-largest"),
        pytest.param(Definition("percpu_array", 4, 32769, 1), id="percpu-array-too-large"),
        pytest.param(Definition("hash", 0, 4, 1), id="hash-no-key"),
        pytest.param(Definition("hash", 4, 4, 1, NO_COMMON_LRU), id="hash-common-lru"),
        pytest.param(Definition("hash", 4, 4 << 20, 1), id="hash-too-large"),
        pytest.param(Definition("percpu_hash", 4, 32768, 1), id="percpu-hash-largest"),
        pytest.param(Definition("percpu_hash", 4, 32769, 1), id="percpu-hash-too-large"),
        pytest.param(Definition("lru_hash", 4, 4, 1, NO_PREALLOC), id="lru-no-prealloc"),
        pytest.param(Definition("lpm_trie", 8, 4, 1), id="lpm-prealloc"),
        pytest.param(Definition("lpm_trie", 4, 4, 1, NO_PREALLOC), id="lpm-no-data"),
        pytest.param(Definition("lpm_trie", 261, 4, 1, NO_PREALLOC), id="lpm-too-long"),
        pytest.param(Definition("devmap", 4, 8, 1), id="devmap"),
        pytest.param(Definition("devmap", 4, 6, 1), id="devmap-value-size"),
        pytest.param(Definition("devmap_hash", 4, 4, 3), id="devmap-hash"),
        pytest.param(Definition("cpumap", 4, 8, 1), id="cpumap"),
        pytest.param(Definition("cpumap", 4, 4, 1 << 20), id="cpumap-too-many"),
        pytest.param(Definition("xskmap", 4, 4, 1), id="xskmap"),
        pytest.param(Definition("xskmap", 4, 8, 1), id="xskmap-value-size"),
        pytest.param(Definition("prog_array", 4, 4, 1), id="prog-array"),
        pytest.param(Definition("prog_array", 4, 8, 1), id="prog-array-value-size"),
        pytest.param(Definition("ringbuf", 0, 0, 4096), id="ringbuf"),
        pytest.param(Definition("ringbuf", 0, 0, 4096 * 3), id="ringbuf-not-a-power"),
        pytest.param(Definition("ringbuf", 0, 0, 2048), id="ringbuf-less-than-a-page"),
        pytest.param(Definition("ringbuf", 4, 0, 4096), id="ringbuf-key"),
    ],
)
def test_create_definition_valid_where_kernel_takes_it(definition: Definition) -> None:
    try:
        KernelMap(definition).close()
        accepted = True
    except OperationError:
        accepted = False
    try:
        NativeMap(definition)
        taken = True
    except OperationError:
        taken = False
    assert taken == accepted


@pytest.mark.parametrize("definition", [Definition("devmap", 4, 8, 4), Definition("devmap_hash", 4, 8, 2)], ids=name_of)
def test_devmap_system_calls_equal_kernel(definition: Definition) -> None:
    """Interface 1 is lo in every network namespace."""
    draw = random.Random(1)
    native = NativeMap(definition)
    with KernelMap(definition) as kernel_map:
        for _ in range(500):
            key = struct.pack("<I", draw.randrange(6))
            what = draw.choice(["update", "update", "lookup", "delete", "next_key"])
            arguments: list[Any] = [key]
            if what == "update":
                arguments += [struct.pack("<II", draw.choice([0, 1, 1]), 0), draw.choice([0, 0, 1, 2, 3])]
            if what == "next_key" and definition.kind == "devmap_hash":
                continue  # in the order of buckets
            ours, theirs = outcome(getattr(native, what), *arguments), outcome(getattr(kernel_map, what), *arguments)
            assert ours == theirs, (what, arguments)
        assert contents(native) == contents(kernel_map)
