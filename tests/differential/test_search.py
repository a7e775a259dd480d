"""``uxdp test --fuzz``, ``--shrink`` and ``--steps``: a difference that hides is found, shrunk, and seen again."""

import faulthandler
import json
import os
import shlex
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.differential.test_commands import Run, bundle_of, run, run_json
from uxdp_runtime.frames.capture import read_capture
from uxdp_runtime.frames.generate import Frame
from uxdp_runtime.native_side import NativeSide
from uxdp_runtime.outcomes import Outcome

__all__ = ["run"]

pytestmark = pytest.mark.kernel

TX = 3


@pytest.fixture
def sabotaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native code that sends what the kernel sends, but for its first byte."""
    honest = NativeSide.run

    def run_wrongly(side: NativeSide, frames: Sequence[Frame]) -> list[Outcome]:
        return [
            replace(outcome, data=b"\x5e" + outcome.data[1:]) if outcome.verdict == TX else outcome
            for outcome in honest(side, frames)
        ]

    monkeypatch.setattr(NativeSide, "run", run_wrongly)


def test_fuzz_finds_what_a_number_a_map_and_a_frame_before_hide(run: Run, sabotaged: None) -> None:
    bundle = bundle_of("fuzz_target")
    assert run("test", bundle, "-n", 1000).exit_code == 0  # frames alone do not get there
    result = run("test", bundle, "--fuzz", 30, "--save-steps", "steps.json", "--corpus", "corpus", "--json")
    assert result.exit_code == 1, result.output
    (program,) = json.loads(result.stdout)["programs"]
    assert program["difference"]["what"] == "bytes"
    fuzz = program["fuzz"]
    assert 8 <= fuzz["edges_reached"] <= fuzz["edges"]
    # Two frames that are looked at, and the change of a map that lets them in.
    assert program["shrunk"]["complete"]
    steps = program["shrunk"]["case"]["steps"]
    assert [("frame" in step, step.get("map")) for step in steps].count((True, None)) in (1, 2)
    assert {step["map"] for step in steps if "map" in step} == {"policies"}
    assert len(steps) <= 3
    assert all(len(step["frame"]) == 2 * 22 for step in steps if "frame" in step)
    # What was saved shows it again, whatever wrote the command.
    again = run(*shlex.split(program["again"][0].removeprefix("again: uxdp ")), "--json")
    assert again.exit_code == 1, again.output
    (seen,) = json.loads(again.stdout)["programs"]
    assert seen["difference"]["what"] == "bytes"
    # The next search begins where this one was.
    assert len(list(Path("corpus", "fuzz_target").glob("*.json"))) == fuzz["corpus"]
    text = run("test", bundle, "--steps", "steps.json")
    assert text.exit_code == 1
    assert text.stdout.startswith("fuzz_target: DIFFERENT: bytes, after ")


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native code that ends its process where it should send a frame."""
    honest = NativeSide.execute

    def execute_wrongly(side: NativeSide, frames: Sequence[Frame]) -> None:
        honest(side, frames)
        if any(side._batch.result(index).verdict == TX for index in range(len(frames))):
            faulthandler.disable()  # pytest has it print what is known here
            os.kill(os.getpid(), signal.SIGSEGV)

    monkeypatch.setattr(NativeSide, "execute", execute_wrongly)


def test_fuzz_native_code_that_crashes_is_a_difference_that_is_shrunk_and_saved(run: Run, crashing: None) -> None:
    bundle = bundle_of("fuzz_target")
    result = run("test", bundle, "--fuzz", 30, "--save-steps", "steps.json", "--shrink-seconds", 10, "--json")
    assert result.exit_code == 1, result.output
    (program,) = json.loads(result.stdout)["programs"]
    assert (program["equal"], program["crash"], program["difference"]) == (False, "SIGSEGV", None)
    steps = json.loads(Path("steps.json").read_text())["steps"]
    assert {step["map"] for step in steps if "map" in step} == {"policies"}
    assert len(steps) <= 8
    again = run("test", bundle, "--steps", "steps.json")
    assert again.exit_code == 1, again.output
    assert again.stdout.startswith("fuzz_target: DIFFERENT: native code ended its process by SIGSEGV, after ")


def test_frames_that_crash_native_code_are_shrunk_and_saved(run: Run, crashing: None) -> None:
    bundle = bundle_of("native/adjust_head")
    result = run("test", bundle, "--shrink", "--save-frames", "small.pcap", "--json")
    assert result.exit_code == 1, result.output
    (program,) = json.loads(result.stdout)["programs"]
    assert (program["crash"], program["shrunk"]["complete"]) == ("SIGSEGV", True)
    assert len(list(read_capture("small.pcap"))) == 1
    again = run("test", bundle, "--pcap", "small.pcap")
    assert again.exit_code == 1, again.output
    assert ": DIFFERENT: native code ended its process by SIGSEGV, after 1 frames" in again.stdout


def test_fuzz_without_a_difference_says_how_far_it_got(run: Run) -> None:
    bundle = bundle_of("fuzz_target")
    result = run("test", bundle, "--fuzz", 2)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("fuzz_target: equal on ")
    assert lines[1] == "  compared verdicts, bytes, metadata, 2 maps"
    assert " edges reached, by " in lines[2]
    assert " frames/s; " in lines[2]
    runs = [run_json(run, "test", bundle, "--fuzz", 1, "--seed", 3)["programs"][0]["fuzz"] for _ in range(2)]
    assert all(one["inputs"] > 100 and one["changes"] > 10 for one in runs)


def test_shrink_of_frames_and_maps_is_seen_again_from_the_files(run: Run, sabotaged: None) -> None:
    bundle = bundle_of("native/adjust_head")
    files = ("--save-frames", "small.pcap", "--save-maps", "small.json")
    result = run("test", bundle, "--shrink", "--set", "results:5=77", *files)
    assert result.exit_code == 1, result.output
    assert "  shrunk from " in result.stdout
    (frame,) = read_capture("small.pcap")
    assert len(frame.data) < 40
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("  again: "))
    assert "small.pcap" in line
    assert "--maps" not in line  # the element had nothing to do with it
    again = run(*shlex.split(line.removeprefix("  again: uxdp ")))
    assert again.exit_code == 1
    assert again.stdout.startswith("adjust_head: DIFFERENT: bytes, after 1 frames (TX 1)")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--corpus", "x"), "--corpus belongs to --fuzz"),
        (("--steps", "x", "--fuzz", "1"), "neither --fuzz nor --pcap goes with it"),
        (("--steps", "nothing.json"), "cannot be read"),
    ],
    ids=["corpus", "steps-and-fuzz", "no-file"],
)
def test_search_wrong_usage_is_one_sentence(run: Run, arguments: tuple[str, ...], says: str) -> None:
    result = run("test", bundle_of("fuzz_target"), *arguments)
    assert result.exit_code == 2
    assert says in result.stderr
