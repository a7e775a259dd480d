"""Frames share a reading of the clock where no program can tell, and only as long as it is young."""

import itertools
import struct
import time
from pathlib import Path

import pytest

from tests.bound_bundles import bound_image
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.compile.compiler import Variant, compile_object, writable_variables
from uxdp_runtime.compile.program import program_source
from uxdp_runtime.compile.targets import host_target
from uxdp_runtime.native_module import FrameBatch, NativeModule
from uxdp_runtime.stores import Stores, control_library

CASE = Path(__file__).parents[1] / "cases" / "shared_time.c"
BURST = 64
SHARED_NS, MAX_SHARE = 279, 8  # native/clock.h
FRAME = bytes(60)


class Running:
    """A program of the case, compiled, with its variables."""

    def __init__(self, program: str, *defined: str) -> None:
        arguments = tuple(f"-D{name}" for name in defined)
        image = build(BuildRequest(sources=(CASE.name,), cwd=CASE.parent, clang_args=arguments)).bundle
        with bound_image(image) as bound:
            source = program_source(bound, program, num_cpus=1, values=None, constants={})
        native = compile_object(source, host_target(), Variant(("uxdp_run", "uxdp_shares_time")))
        self.stores = Stores(source.object, source.maps, 1, control_library())
        self.stores.link_programs(source.object, source.programs)
        self.module = NativeModule(native.data, self.stores, 0)
        self.variables = writable_variables(source.object)
        self.batch = FrameBatch(BURST)

    @property
    def shares(self) -> bool:
        return bool(self.module.function("uxdp_shares_time", int)() & 1)

    def set(self, name: str, value: int) -> None:
        section, offset = self.variables[name]
        struct.pack_into("=Q", self.stores.section(section), offset, value)

    def run(self, count: int = BURST) -> list[int]:
        """Run a burst; return what its frames noted."""
        self.set("num_times", 0)
        for index in range(count):
            self.batch.put(index, FRAME)
        self.module.run(self.batch, count)
        section, offset = self.variables["times"]
        return list(struct.unpack_from(f"={count}Q", self.stores.section(section), offset))


@pytest.mark.parametrize(
    ("program", "defined", "shares"),
    [
        ("once", (), True),
        ("either", (), True),
        ("twice", (), False),
        ("loops", (), False),
        ("calls", (), False),
        ("once", ("OTHER_CLOCK",), False),
        ("locks", ("LOCKS",), False),
        ("tail_calls", ("TAIL_CALLS",), False),
    ],
    ids=["once", "either", "twice", "loop", "subprogram", "other-clock", "lock", "tail-call"],
)
def test_only_a_run_that_asks_once_at_most_shares(program: str, defined: tuple[str, ...], shares: bool) -> None:
    assert Running(program, *defined).shares is shares


def test_short_runs_share_and_none_is_told_more_than_its_age() -> None:
    running = Running("once")
    running.set("spins", 10)  # some counters stand still for 10 ns, in which 8 frames could be done
    fewest = BURST
    last = 0
    for _ in range(200):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        times = running.run()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        assert times == sorted(times)
        assert last <= times[0]
        assert before - 1000 <= times[0]
        assert times[-1] <= after + 1000
        last = times[-1]
        fewest = min(fewest, len(set(times)))
        longest = max(times.count(one) for one in times)
        assert longest <= MAX_SHARE
    assert BURST // MAX_SHARE <= fewest <= BURST // 2  # a run takes some ns


def test_long_runs_each_read_the_clock() -> None:
    running = Running("once")
    running.run()  # short ones came before
    running.set("spins", 4000)
    running.run()
    times = running.run()
    assert len(set(times)) == BURST
    assert all(later - earlier > SHARED_NS for earlier, later in itertools.pairwise(times))


def test_long_runs_after_short_ones_are_noticed_within_a_share() -> None:
    running = Running("once")
    for _ in range(20):
        running.run()
    running.set("spins", 4000)
    times = running.run()
    assert len(set(times[MAX_SHARE:])) == BURST - MAX_SHARE


def test_long_runs_in_small_bursts_each_read_the_clock() -> None:
    running = Running("once")
    running.run()
    running.set("spins", 4000)
    running.run(4)
    for _ in range(20):
        assert len(set(running.run(4))) == 4


def test_program_that_measures_itself_sees_time_pass() -> None:
    durations = Running("twice").run()
    assert all(0 <= duration < 1_000_000_000 for duration in durations)
    assert max(durations) > 0


def test_fixed_clock_is_told_to_all() -> None:
    running = Running("once")
    running.module.worker.now_ns = 12345
    assert set(running.run()) == {12345}
