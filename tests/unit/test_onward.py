"""Programs in the values of devmaps and cpumaps, without a kernel: what runs, what they see, and what becomes of it."""

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from tests.bound_bundles import bound_case
from uxdp_runtime import abi
from uxdp_runtime.compile.compiler import ProgramSource, compile_object
from uxdp_runtime.compile.program import program_source
from uxdp_runtime.compile.targets import host_target
from uxdp_runtime.native_module import FrameBatch, FrameResult, NativeModule
from uxdp_runtime.serve import reload
from uxdp_runtime.stores import Stores, control_library

DROP, REDIRECT = 1, 4
LEAVING, ARRIVING = 2, 3  # numbers of the programs, counted from 1


@pytest.fixture(scope="module")
def compiled() -> tuple[ProgramSource, bytes]:
    with bound_case("native/onward") as bound:
        source = program_source(bound, "onward", num_cpus=1, values=None, constants={})
        return source, compile_object(source, host_target()).data


def run(
    compiled: tuple[ProgramSource, bytes], ports: dict[int, tuple[int, int]], cpu: tuple[int, int], *, onward: bool
) -> tuple[list[FrameResult], list[int]]:
    """Run frames of many kinds; return what became of them, and the sums that the programs left."""
    source, data = compiled
    assert [source.programs[number - 1] for number in (LEAVING, ARRIVING)] == ["leaving", "arriving"]
    stores = Stores(source.object, source.maps, 1, control_library())
    for key, value in ports.items():
        stores["ports"].update(struct.pack("=I", key), struct.pack("=II", *value))
    stores["cpus"].update(bytes(4), struct.pack("=II", *cpu))
    module = NativeModule(data, stores, 0, runs_onward=onward)
    batch = FrameBatch(64)
    for index in range(64):
        batch.put(index, bytes([index * 7 % 256]) * 40 + bytes([index]) * 20, ifindex=9, queue=3)
    module.run(batch, 64)
    for descriptor in batch.descriptors:
        assert (descriptor.egress_ifindex, descriptor.rx_queue_index) == (0, 3)
    sums = [struct.unpack("=Q", stores["results"].lookup(struct.pack("=I", which)) or b"")[0] for which in (0, 1)]
    return [batch.result(index) for index in range(64)], sums


def test_programs_run_where_they_are_asked_to(compiled: tuple[ProgramSource, bytes]) -> None:
    ports, cpu = {1: (5, LEAVING), 2: (6, 0)}, (64, 0)
    before, sums = run(compiled, ports, cpu, onward=False)
    assert sums == [0, 0]
    after, sums = run(compiled, ports, cpu, onward=True)
    assert sums[0] != 0
    assert sums[1] == 0
    for one, two in zip(before, after, strict=True):
        assert one.verdict == two.verdict
        if one.verdict != REDIRECT:
            continue
        assert one.redirect is not None
        assert two.redirect is not None
        by_program = one.redirect[0] == abi.REDIRECT_MAP and one.redirect[2:] == (1, 5)
        assert two.redirect[0] == (abi.REDIRECT_IFINDEX if by_program else one.redirect[0])
        assert two.redirect[2:] == one.redirect[2:]
    assert any(item.redirect is not None and item.redirect[0] == abi.REDIRECT_IFINDEX for item in after)


def test_a_cpumaps_program_may_redirect_once_more(compiled: tuple[ProgramSource, bytes]) -> None:
    before, _sums = run(compiled, {1: (5, LEAVING)}, (64, 0), onward=True)
    after, sums = run(compiled, {1: (5, LEAVING)}, (64, ARRIVING), onward=True)
    assert sums[1] != 0
    moved = [two for one, two in zip(before, after, strict=True) if one.redirect != two.redirect]
    assert moved
    assert {(item.verdict, item.redirect[0], item.redirect[3]) for item in moved if item.redirect is not None} == {
        (REDIRECT, abi.REDIRECT_IFINDEX, 5)
    }


def test_a_number_of_no_such_program_aborts(compiled: tuple[ProgramSource, bytes]) -> None:
    results, _sums = run(compiled, {1: (5, 1), 2: (5, 77)}, (64, 0), onward=True)
    assert not any(item.redirect is not None and item.redirect[3] == 5 and item.verdict == REDIRECT for item in results)


@pytest.mark.parametrize(
    ("programs", "kept"),
    [
        ([("main", ()), ("leaving", ("devmap",))], True),
        ([("main", ()), ("other", ("devmap",))], False),
        ([("leaving", ("devmap",)), ("main", ())], False),
        ([("main", ()), ("leaving", ("cpumap",))], False),
        ([("main", ())], False),
    ],
    ids=["same", "other-name", "other-place", "other-kind", "gone"],
)
def test_reload_keeps_maps_whose_programs_are_where_they_were(programs: list[Any], kept: bool) -> None:
    def facts(items: list[Any]) -> Any:
        return SimpleNamespace(facts=SimpleNamespace(programs=[SimpleNamespace(name=n, flags=f) for n, f in items]))

    old = SimpleNamespace(
        verified=SimpleNamespace(bound=facts([("main", ()), ("leaving", ("devmap",))])),
        maps=SimpleNamespace(onward_in=lambda _name: {"leaving"}),
    )
    difference = reload._moved_programs(old, facts(programs), "ports")  # type: ignore[arg-type]
    assert (difference == "") == kept
