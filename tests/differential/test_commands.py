"""``uxdp test`` and ``uxdp replay`` with this kernel: from a file or an installed name to the exit code."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.bundle_factory import PUBLISHER, signed_case
from tests.isolated_user import isolate
from tests.site_factory import Site, entry_of
from uxdp_bundle.wheel_index import encode_index
from uxdp_runtime.cli import main
from uxdp_runtime.frames.capture import read_capture
from uxdp_runtime.frames.capture_writer import CaptureWriter
from uxdp_runtime.frames.generate import Frame, generate
from uxdp_runtime.native_side import NativeSide
from uxdp_runtime.outcomes import Outcome

pytestmark = pytest.mark.kernel

Run = Callable[..., Result]


@pytest.fixture
def run(kernel: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Run:
    """Run uxdp as a user who trusts the publisher, in a folder of their own."""
    user = isolate(monkeypatch, tmp_path)
    user.trust(f'[[keys]]\nkey = "{PUBLISHER.public.text}"\nnames = ["*"]\n')
    monkeypatch.setenv("UXDP_CACHE_DIR", str(cache))
    monkeypatch.chdir(user.home)
    return lambda *arguments: CliRunner().invoke(main, list(map(str, arguments)), prog_name="uxdp")


def bundle_of(case: str) -> Path:
    path = Path(f"{Path(case).name}.uxdp")
    path.write_bytes(signed_case(case))
    return path


def run_json(run: Run, *arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_command_test_compares_every_program_with_the_kernel(run: Run) -> None:
    result = run("test", bundle_of("native/redirect_targets"), "-n", 300, "--set", "ports:2=501")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("targets: equal on 300 frames (REDIRECT ")
    assert lines[2].startswith("shifted: equal on 300 frames (REDIRECT ")
    assert all(line.endswith(" redirect targets, 1 map") for line in (lines[1], lines[3]))  # others only refer
    assert lines[-1].startswith("2 programs, 600 frames, ")
    assert lines[-1].endswith(" s: equal")
    assert "not compared" not in result.stdout


@pytest.mark.parametrize(
    ("case", "reason", "compared"),
    [
        ("map_bloom", "nobody can list what is in it", 1),
        ("map_access_flags", "nobody but programs may read it", 6),
    ],
)
def test_command_test_says_which_maps_are_not_compared(case: str, reason: str, compared: int, run: Run) -> None:
    bundle = bundle_of(f"native/{case}")
    for program in run_json(run, "test", bundle, "-n", 20)["programs"]:
        assert program["maps_compared"] == compared
        assert program["maps_not_compared"][reason]
    lines = run("test", bundle, "-n", 20).stdout.splitlines()
    names = ", ".join(program["maps_not_compared"][reason])
    assert f"  not compared: {names}: {reason}" in lines


def test_command_test_device_that_cannot_be_is_one_sentence(run: Run) -> None:
    result = run("test", bundle_of("native/redirect_targets"), "--set", "ports:2=4294967295")
    assert result.exit_code == 1
    assert result.stderr.startswith("uxdp: error: map ports: ")
    assert "Invalid argument (EINVAL)" in result.stderr


def test_command_test_with_params_is_equal_because_both_sides_get_them(run: Run) -> None:
    bundle = bundle_of("loading/settings")
    options = ("--param", "limit=77", "--param", "offset=-5", "--param", "range=03000400", "--param", "enabled=false")
    (program,) = run_json(run, "test", bundle, "-n", 50, *options)["programs"]
    assert (program["program"], program["equal"], program["frames"]) == ("settings", True, 50)


def test_command_test_takes_the_name_of_an_installed_function(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path / "site")
    image = signed_case("native/adjust_head")
    site.write("nf/adjust_head.uxdp", image)
    index = encode_index([entry_of(image, "nf/adjust_head.uxdp")])
    site.write_info("nf", "1.0", index, ["nf/adjust_head.uxdp"])
    monkeypatch.syspath_prepend(str(site.directory))
    result = run("test", "adjust_head", "-n", 100)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("adjust_head: equal on 100 frames (")


def test_command_test_notices_native_code_that_changes_a_byte(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = NativeSide.run

    def sabotaged(side: NativeSide, frames: Sequence[Frame]) -> list[Outcome]:
        return [
            replace(outcome, data=outcome.data[:-1] + b"\x5e") if outcome.verdict == 3 else outcome
            for outcome in honest(side, frames)
        ]

    monkeypatch.setattr(NativeSide, "run", sabotaged)
    bundle = bundle_of("native/adjust_head")
    result = run("test", bundle, "--save-frames", "difference.pcap")
    assert result.exit_code == 1
    assert result.stdout.startswith("adjust_head: DIFFERENT: bytes, after ")
    saved = list(read_capture("difference.pcap"))
    again = run("test", bundle, "--pcap", "difference.pcap", "--json")
    assert again.exit_code == 1
    (program,) = json.loads(again.stdout)["programs"]
    assert program["difference"]["what"] == "bytes"
    assert program["difference"]["frame"] == len(saved) - 1
    kernel, native = (bytes.fromhex(program["difference"][side]["data"]) for side in ("kernel", "native"))
    assert kernel[:-1] == native[:-1]
    assert kernel != native


def test_command_replay_gives_the_kernels_verdicts(run: Run) -> None:
    bundle = bundle_of("native/adjust_head")
    with CaptureWriter("in.pcap") as writer:
        for number, frame in enumerate(generate(300, 5)):
            writer.write(frame.data, number)
    (tested,) = run_json(run, "test", bundle, "--pcap", "in.pcap")["programs"]
    verified, unverified = (
        run_json(run, "replay", bundle, "in.pcap", "-o", "out.pcap", "--dump", *extra)
        for extra in ((), ("--unverified",))
    )
    assert verified == unverified
    assert verified["verdicts"] == tested["verdicts"]
    assert verified["written"] == verified["verdicts"]["TX"] == len(list(read_capture("out.pcap"))) > 50
    assert verified["maps"].keys() == {"results"}


def test_command_test_leaves_out_programs_that_are_to_be_named(run: Run) -> None:
    bundle = bundle_of("loading/sections")
    result = run("test", bundle, "-n", 20)
    assert result.exit_code == 0, result.output
    tested = [line.split(":")[0] for line in result.stdout.splitlines() if ": equal on 20 frames" in line]
    assert tested == ["older", "newer"]
    assert "on_demand is not tested" in result.stderr
    named = run("test", bundle, "-n", 20, "--program", "on_demand")
    assert named.exit_code == 0, named.output
    assert named.stdout.startswith("on_demand: equal on 20 frames (TX 20)\n")


def test_command_test_program_for_entries_of_a_map_is_refused(run: Run) -> None:
    bundle = bundle_of("loading/entries")
    result = run("test", bundle, "--program", "on_device")
    assert result.exit_code == 2
    assert "runs for entries of a devmap or cpumap" in result.stderr
    result = run("test", bundle, "-n", 20)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("ordinary: equal on 20 frames (PASS 20)\n")
