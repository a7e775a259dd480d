"""The comparison can fail: what differs on purpose is found, and ``uxdp test`` says so."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.bound_bundles import bound_image
from tests.isolated_user import isolate
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.bpf.test_run import TestRunner
from uxdp_runtime.cli import main
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.compile.program import compile_program
from uxdp_runtime.differential import Differential, native_cpus
from uxdp_runtime.frames.generate import generate
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
            sides._runner = TestRunner(verified.programs["second"].fd)
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


def test_command_test_and_replay_on_an_example(
    kernel: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv("UXDP_CACHE_DIR", str(cache))
    bundle = tmp_path / "adjust_head.uxdp"
    bundle.write_bytes(_image("adjust_head"))
    runner = CliRunner()
    result = runner.invoke(main, ["test", str(bundle), "-n", "200", "--insecure-unsigned"])
    assert result.exit_code == 0, result.output
    assert "adjust_head: equal on 200 frames" in result.output
    capture = tmp_path / "in.pcap"
    from uxdp_runtime.frames.capture import read_capture
    from uxdp_runtime.frames.capture_writer import CaptureWriter

    with CaptureWriter(capture) as writer:
        for number, frame in enumerate(generate(300, 5)):
            writer.write(frame.data, number)
    sent = tmp_path / "out.pcap"
    command = ["replay", str(bundle), str(capture), "-o", str(sent), "--insecure-unsigned", "--dump", "--json"]
    for extra in ([], ["--unverified"]):
        result = runner.invoke(main, [*command, *extra])
        assert result.exit_code == 0, result.output
        assert '"frames": 300' in result.stdout
        assert '"results"' in result.stdout
        assert len(list(read_capture(sent))) > 50
