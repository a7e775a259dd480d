"""The comparison can fail: what differs on purpose is found."""

from pathlib import Path

import pytest

from tests.bound_bundles import bound_image
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.bpf.network_namespace import NetworkNamespace
from uxdp_runtime.bpf.test_run import TestRunner
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.compile.program import compile_program
from uxdp_runtime.differential import Differential, native_cpus
from uxdp_runtime.errors import MissingCapabilityError
from uxdp_runtime.frames.generate import Frame, generate
from uxdp_runtime.native_module import NativeModule
from uxdp_runtime.redirects import RedirectTwin
from uxdp_runtime.stores import ControlLibrary
from uxdp_runtime.verify import verify

pytestmark = pytest.mark.kernel

CASES = Path(__file__).parents[1] / "cases" / "native"


def _image(name: str) -> bytes:
    return build(BuildRequest(sources=(f"{name}.c",), cwd=CASES)).bundle


def test_differential_another_program_in_the_kernel_is_noticed(
    kernel: None, target: Target, control: ControlLibrary, cache: Path
) -> None:
    with bound_image(_image("tail_calls")) as bound, verify(bound) as verified:
        compiled = compile_program(verified, "first", target, num_cpus=native_cpus(), cache_directory=cache)
        with Differential(compiled, control) as sides:
            sides._kernel._runner = TestRunner(verified.programs["second"].fd)
            _frame, _outcome, difference = next(iter(sides.run(generate(1, 1))))
            assert difference is not None
            assert (difference.what, difference.kernel.verdict, difference.native.verdict) == ("verdict", 3, 1)
            assert {item.map for item in sides.map_differences()} == {"results"}


def test_differential_another_element_in_the_kernel_is_noticed(
    kernel: None, target: Target, control: ControlLibrary, cache: Path
) -> None:
    with bound_image(_image("map_hash")) as bound, verify(bound) as verified:
        compiled = compile_program(verified, "map_hash", target, num_cpus=native_cpus(), cache_directory=cache)
        with Differential(compiled, control) as sides:
            assert list(sides.map_differences()) == []
            verified.maps["table"].update(b"abcd", bytes(8))
            (found,) = sides.map_differences()
            assert (found.map, found.key, found.kernel, found.native) == ("table", b"abcd", bytes(8), None)


def test_differential_another_redirect_target_is_noticed(
    kernel: None, target: Target, control: ControlLibrary, cache: Path
) -> None:
    with bound_image(_image("redirect_targets")) as bound, verify(bound) as verified:
        compiled = compile_program(verified, "targets", target, num_cpus=native_cpus(), cache_directory=cache)
        with Differential(compiled, control) as sides, RedirectTwin(verified, "shifted") as twin:
            sides._kernel._runner, sides._kernel.twin = TestRunner(verified.programs["shifted"].fd), twin
            found = [difference for _frame, _outcome, difference in sides.run(generate(300, 3)) if difference]
            assert {difference.what for difference in found} == {"redirect target"}
            moves = [(difference.kernel.redirect, difference.native.redirect) for difference in found]
            assert all(here and there and there.index == here.index + 1 for there, here in moves)
            assert {(here.map, here.is_broadcast) for _there, here in moves if here} == {
                (None, False),
                ("ports", True),
                ("links", True),
            }


def test_differential_redirect_targets_that_cannot_be_told_are_counted(
    kernel: None, target: Target, control: ControlLibrary, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_namespace: NetworkNamespace) -> None:
        raise MissingCapabilityError(("CAP_SYS_ADMIN",), "missing, a network namespace needs it")

    monkeypatch.setattr(NetworkNamespace, "__init__", refuse)
    with bound_image(_image("redirect_targets")) as bound, verify(bound) as verified:
        compiled = compile_program(verified, "targets", target, num_cpus=native_cpus(), cache_directory=cache)
        with Differential(compiled, control) as sides:
            outcomes = [outcome for _frame, outcome, difference in sides.run(generate(100, 3)) if not difference]
            assert len(outcomes) == 100
            ((reason, count),) = sides.targets_not_compared.items()
            assert reason == "CAP_SYS_ADMIN: missing, a network namespace needs it"
            assert count == sum(outcome.verdict == 4 for outcome in outcomes) > 10


def test_differential_frame_too_long_to_be_redirected_ends_the_comparison_of_targets(
    kernel: None, target: Target, control: ControlLibrary, cache: Path
) -> None:
    with bound_image(_image("redirect_targets")) as bound, verify(bound) as verified:
        compiled = compile_program(verified, "targets", target, num_cpus=native_cpus(), cache_directory=cache)
        with Differential(compiled, control) as sides:
            frames = [Frame(bytes(60)), Frame(bytes(3500)), Frame(bytes(60))]
            redirects = [outcome.redirect for _frame, outcome, _difference in sides.run(frames)]
            assert redirects[0] is not None
            assert redirects[1:] == [None, None]
            ((reason, count),) = sides.targets_not_compared.items()
            assert count == 2
            assert "does not redirect a frame of 3500 bytes" in reason


def test_differential_another_byte_in_a_record_is_noticed(
    kernel: None, target: Target, control: ControlLibrary, cache: Path
) -> None:
    with bound_image(_image("ring_records")) as bound, verify(bound) as verified:
        compiled = compile_program(verified, "records", target, num_cpus=native_cpus(), cache_directory=cache)
        with Differential(compiled, control) as sides:
            sides._kernel._runner = TestRunner(verified.programs["other"].fd)
            found = next(difference for _frame, _outcome, difference in sides.run(generate(100, 1)) if difference)
            assert found.what == "ring-buffer records"
            kernel_record, native_record = (side.records[1].submitted[0] for side in (found.kernel, found.native))
            assert (kernel_record[47], native_record[47]) == (2, 1)


def test_differential_a_record_that_is_not_submitted_is_noticed(
    kernel: None, target: Target, control: ControlLibrary, cache: Path
) -> None:
    with bound_image(_image("ring_records")) as bound, verify(bound) as verified:
        compiled = compile_program(verified, "records", target, num_cpus=native_cpus(), cache_directory=cache)
        with Differential(compiled, control) as sides:
            ring = sides._kernel._rings[0]
            frames = sides.run(generate(100, 1))
            assert next(frames)[2] is None
            ring._position += 16  # as if the kernel had reserved less
            _frame, _outcome, difference = next(frames)
            assert difference is not None
            assert difference.what == "ring-buffer records"


def test_differential_another_burst_is_noticed(
    kernel: None, target: Target, control: ControlLibrary, cache: Path
) -> None:
    with bound_image(_image("tail_calls")) as bound, verify(bound) as verified:
        compiled, other = (
            compile_program(verified, name, target, num_cpus=native_cpus(), cache_directory=cache)
            for name in ("first", "second")
        )
        with Differential(compiled, control) as sides:
            sides._burst._module = NativeModule(other.native.data, sides._burst.stores, sides._cpu)
            found = [(at, one) for at, (_, _, one) in enumerate(sides.run(generate(70, 1))) if one]
            assert [at for at, _one in found] == [31, 63, 69]
            assert all(one.in_bursts and one.what == "verdict" for _at, one in found)
            assert [one.number for _at, one in found] == [0, 32, 64]
            maps = list(sides.map_differences())
            assert {item.map for item in maps} == {"results"}
            assert all(item.in_bursts for item in maps)


def test_differential_another_record_in_a_burst_is_noticed(
    kernel: None, target: Target, control: ControlLibrary, cache: Path
) -> None:
    with bound_image(_image("ring_records")) as bound, verify(bound) as verified:
        compiled, other = (
            compile_program(verified, name, target, num_cpus=native_cpus(), cache_directory=cache)
            for name in ("records", "other")
        )
        with Differential(compiled, control) as sides:
            sides._burst._module = NativeModule(other.native.data, sides._burst.stores, sides._cpu)
            found = next(one for _frame, _outcome, one in sides.run(generate(100, 1)) if one)
            assert (found.what, found.in_bursts, found.number) == ("ring-buffer records", True, 31)


def test_differential_ring_buffers_get_full_and_are_emptied(
    kernel: None, target: Target, control: ControlLibrary, cache: Path
) -> None:
    with bound_image(_image("ring_records")) as bound, verify(bound) as verified:
        compiled = compile_program(verified, "records", target, num_cpus=native_cpus(), cache_directory=cache)
        with Differential(compiled, control) as sides:
            refused = []
            for _frame, outcome, difference in sides.run(generate(1500, 1)):
                assert difference is None
                refused.append(outcome.records[0].reserved_bytes == 0)
            first = refused.index(True)
            assert first < 200
            assert False in refused[first:]
