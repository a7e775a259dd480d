"""Code that counts: every way that a condition goes, what is compared; and otherwise it does what it did."""

import ctypes
from collections import Counter

import pytest

from tests.bound_bundles import bound_case
from uxdp_runtime.compile.cache import cache_key
from uxdp_runtime.compile.compiler import ProgramSource, compile_object
from uxdp_runtime.compile.coverage import COMPARED, EDGES, NUM_COMPARED, NUM_EDGES
from uxdp_runtime.compile.program import TO_EXPLORE, program_source
from uxdp_runtime.compile.targets import host_target
from uxdp_runtime.frames.generate import Frame, generate
from uxdp_runtime.native_module import FrameBatch, NativeModule
from uxdp_runtime.stores import Stores, control_library

CLOCK_NS = 1_234_567_890_123_456


def source_of(case: str) -> ProgramSource:
    with bound_case(case) as bound:
        return program_source(bound, bound.facts.programs[0].name, num_cpus=1, values=None, constants={})


def loaded(source: ProgramSource, *, counting: bool) -> tuple[NativeModule, Stores]:
    native = compile_object(source, host_target(), TO_EXPLORE if counting else None)
    stores = Stores(source.object, source.maps, 1, control_library())
    stores.link_programs(source.object, source.programs)
    return NativeModule(native.data, stores, 0, now_ns=CLOCK_NS), stores


class Counting:
    """A module that counts, frame by frame."""

    def __init__(self, case: str) -> None:
        self.module, self.stores = loaded(source_of(case), counting=True)
        self.batch = FrameBatch(1)
        number = ctypes.c_uint32.from_address(self.module.address(NUM_EDGES)).value
        self.edges = (ctypes.c_uint8 * number).from_address(self.module.address(EDGES))
        number = ctypes.c_uint32.from_address(self.module.address(NUM_COMPARED)).value
        self.compared = (ctypes.c_uint64 * (2 * number)).from_address(self.module.address(COMPARED))

    def run(self, data: bytes) -> tuple[int, bytes]:
        """Run a frame; return the verdict and the counters."""
        ctypes.memset(self.edges, 0, len(self.edges))
        self.batch.put(0, data)
        self.module.run(self.batch, 1)
        return self.batch.result(0).verdict, bytes(self.edges)


def frame(first: int, second: int, ethertype: bytes = b"\x08\0") -> bytes:
    return bytes(12) + ethertype + first.to_bytes(4, "little") + second.to_bytes(4, "little")


def test_coverage_every_way_through_a_program_has_counters_of_its_own() -> None:
    target = Counting("fuzz_target")
    short = target.run(bytes(14))
    unequal = target.run(frame(1, 2))
    missing = target.run(frame(5, 5 * 3 + 0x1234567))
    target.stores["policies"].update(b"\x08\0", bytes(8))
    closed = target.run(frame(5, 5 * 3 + 0x1234567))
    target.stores["policies"].update(b"\x08\0", bytes(4) + b"\4\0\0\0")
    opened = target.run(frame(5, 5 * 3 + 0x1234567))
    again = target.run(frame(5, 5 * 3 + 0x1234567))
    ways = [short, unequal, missing, closed, opened, again]
    assert [verdict for verdict, _edges in ways] == [2, 2, 1, 1, 0, 3]
    assert len({edges for _verdict, edges in ways}) == 6
    assert target.run(frame(5, 5 * 3 + 0x1234567)) == again
    reached = bytes(map(max, *(edges for _verdict, edges in ways)))
    # One counter for the function, and both ways of six conditions, of which one cannot fail: an array has its element.
    assert reached.count(0) <= 1
    assert 10 <= len(reached) <= 16
    assert set(reached) <= {0, 1}


def test_coverage_what_is_compared_is_noted() -> None:
    target = Counting("fuzz_target")
    target.run(frame(5, 0x77777777))
    values = list(target.compared)
    assert {0x77777777, 5 * 3 + 0x1234567} in map(set, zip(values[::2], values[1::2], strict=True))


def test_coverage_counters_of_loops_stay_at_their_greatest() -> None:
    target = Counting("native/bounded_loops")
    greatest: Counter[int] = Counter()
    for one in generate(300, 3):
        _verdict, edges = target.run(one.data)
        greatest[max(edges)] += 1
    assert max(greatest) > 8
    assert len(greatest) > 2


@pytest.mark.parametrize(
    "case",
    ["native/tail_calls", "native/loops", "native/options", "native/division"],
)
def test_coverage_changes_nothing_else(case: str) -> None:
    source = source_of(case)
    sides = [loaded(source, counting=counting) for counting in (False, True)]
    batches = [FrameBatch(1) for _ in sides]
    frames: list[Frame] = list(generate(200, 9))
    for one in frames:
        results = []
        for (module, _stores), batch in zip(sides, batches, strict=True):
            batch.put(0, one.data, metadata=one.metadata)
            module.run(batch, 1)
            results.append(batch.result(0))
        assert results[0] == results[1]
    for store in sides[0][1]:
        assert dict(store.items()) == dict(sides[1][1][store.definition.name].items())


def test_coverage_has_a_cache_key_of_its_own() -> None:
    source, target = source_of("minimal"), host_target()
    keys = {cache_key("00", source, target, "22", variant) for variant in (None, TO_EXPLORE)}
    assert len(keys) == 2
