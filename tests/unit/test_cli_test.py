"""``uxdp test`` without a kernel: arguments, what a difference looks like, exit codes. See also tests/differential."""

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.bundle_factory import PUBLISHER, signed_case
from tests.isolated_user import IsolatedUser
from uxdp_runtime import stores as stores_module
from uxdp_runtime import verify as verify_module
from uxdp_runtime.cli import main, output
from uxdp_runtime.cli import test as test_module
from uxdp_runtime.compile import program as program_module
from uxdp_runtime.compile.program import Origin
from uxdp_runtime.differential import FrameDifference, MapsCompared
from uxdp_runtime.frames.capture import read_capture
from uxdp_runtime.frames.capture_writer import CaptureWriter
from uxdp_runtime.frames.generate import Frame
from uxdp_runtime.outcomes import MapDifference, Outcome, Records, Redirect

PASS, TX, REDIRECT = 2, 3, 4
# The value of settings.c's map: seed, limit, mode, offset, range, label, enabled, other.
COPY = struct.Struct("<QIIhHH4s2B4x")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["test", *map(str, arguments)], prog_name="uxdp")


def outcome(frame: Frame, **changes: Any) -> Outcome:
    return Outcome(**({"verdict": PASS, "data": frame.data, "metadata": frame.metadata} | changes))


@dataclass
class Sides:
    """A Differential that finds what it is told to."""

    judge: Callable[[int, Frame], tuple[Outcome, Outcome, str]]
    differing: tuple[MapDifference, ...] = ()
    left_out: int = 0
    maps: MapsCompared = field(default_factory=lambda: MapsCompared(2))
    targets_not_compared: Mapping[str, int] = field(default_factory=dict)
    verify_arguments: list[dict[str, Any]] = field(default_factory=list)
    filled: list[Mapping[str, list[tuple[bytes, bytes]]]] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)

    def __enter__(self) -> "Sides":
        return self

    def __exit__(self, *_exception: object) -> None:
        pass

    def fill(self, contents: Mapping[str, list[tuple[bytes, bytes]]]) -> None:
        self.filled.append(contents)

    def run(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Outcome, FrameDifference | None]]:
        for number, frame in enumerate(frames):
            self.frames.append(frame)
            kernel, native, what = self.judge(number, frame)
            yield frame, kernel, FrameDifference(number, frame, kernel, native, what) if what else None

    def map_differences(self) -> Iterator[MapDifference]:
        return iter(self.differing)


@pytest.fixture
def bundle(tmp_path: Path, isolated_user: IsolatedUser) -> Path:
    """A bundle whose publisher is trusted."""
    isolated_user.trust(f'[[keys]]\nkey = "{PUBLISHER.public.text}"\nnames = ["*"]\n')
    path = tmp_path / "settings.uxdp"
    path.write_bytes(signed_case("loading/settings"))
    return path


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> Sides:
    """Kernel and native code agree on everything, until a test says otherwise."""
    found = Sides(lambda _number, frame: (outcome(frame), outcome(frame), ""))

    @contextmanager
    def accept(_bound: object, **arguments: Any) -> Iterator[object]:
        found.verify_arguments.append(arguments)
        yield SimpleNamespace(maps={"copies": None, ".bss": None})

    monkeypatch.setattr(verify_module, "verify", accept)
    compiled = SimpleNamespace(rejections=(), origin=Origin.LLVM)
    monkeypatch.setattr(program_module, "compile_program", lambda *_arguments, **_options: compiled)
    monkeypatch.setattr(stores_module, "control_library", lambda: None)
    monkeypatch.setattr(test_module, "Differential", lambda _compiled, _control: found)
    monkeypatch.setattr(test_module, "in_child", lambda work: work())
    return found


def differ(sides: Sides, at: int, what: str, *, kernel: dict[str, Any], native: dict[str, Any]) -> None:
    """Let the frame of that number come out in two ways."""

    def judge(number: int, frame: Frame) -> tuple[Outcome, Outcome, str]:
        if number != at:
            return outcome(frame), outcome(frame), ""
        return outcome(frame, **kernel), outcome(frame, **native), what

    sides.judge = judge


def test_test_equal_sides_say_what_was_compared(bundle: Path, sides: Sides) -> None:
    result = run(bundle, "-n", 50, "--seed", 4)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:2] == [
        "settings: equal on 50 frames (PASS 50)",
        "  compared verdicts, bytes, metadata, 2 maps",
    ]
    assert lines[2].startswith("1 program, 50 frames, ")
    assert lines[2].endswith(" s: equal")
    assert "PASS for every frame" in result.stderr
    first = sides.frames.copy()
    assert run(bundle, "-n", 50, "--seed", 5).exit_code == 0
    assert sides.frames[50:] != first


def test_test_targets_and_records_are_counted(bundle: Path, sides: Sides) -> None:
    def judge(number: int, frame: Frame) -> tuple[Outcome, Outcome, str]:
        records = (Records("events", 24, (b"one", b"two")),)
        known = Redirect(None, 7) if number % 2 else None
        both = outcome(frame, verdict=REDIRECT, redirect=known, records=records)
        return both, both, ""

    sides.judge = judge
    sides.left_out, sides.targets_not_compared = 3, {"CAP_SYS_ADMIN: missing": 5}
    sides.maps = MapsCompared(2, {"programs cannot change it": ("devices",), "nobody may read it": ("one", "two")})
    result = run(bundle, "-n", 10)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:5] == [
        "settings: equal on 10 frames (REDIRECT 10)",
        "  compared verdicts, bytes, metadata, 5 redirect targets, 20 ring-buffer records, 2 maps",
        "  not compared: 3 frames, because what becomes of them depends on time or chance",
        "  not compared: 5 redirect targets: CAP_SYS_ADMIN: missing",
        "  not compared: one, two: nobody may read it",
    ]


def test_test_other_bytes_are_shown_side_by_side(bundle: Path, sides: Sides) -> None:
    differ(sides, 7, "bytes", kernel={"data": bytes(24)}, native={"data": bytes(9) + b"\xff" + bytes(14)})
    result = run(bundle, "-n", 50)
    assert result.exit_code == 1
    assert result.stdout.startswith("settings: DIFFERENT: bytes, after 8 frames (PASS 8)\n  frame 7: ")
    assert "they differ from offset 0x0009 on" in result.stdout
    assert "  > 0008  00 00 00 00 00 00 00 00  |  00 ff 00 00 00 00 00 00\n" in result.stdout
    assert result.stdout.endswith(" s: DIFFERENT: settings\n")
    assert "\x1b" not in result.stdout
    assert "--save-frames" in result.stderr


def test_test_bytes_that_differ_are_coloured_on_a_terminal(bundle: Path, sides: Sides) -> None:
    differ(sides, 0, "bytes", kernel={"data": b"\1\2"}, native={"data": b"\1\3"})
    result = CliRunner().invoke(main, ["test", str(bundle)], color=True)
    assert "01 \x1b[31m\x1b[1m02\x1b[0m" in result.stdout
    assert "01 \x1b[31m\x1b[1m03\x1b[0m" in result.stdout


def test_test_other_verdict_and_target_are_in_the_table(bundle: Path, sides: Sides) -> None:
    kernel = {"verdict": REDIRECT, "redirect": Redirect("ports", 3)}
    differ(sides, 0, "redirect target", kernel=kernel, native={"verdict": TX})
    lines = run(bundle).stdout.splitlines()
    assert "  verdict    REDIRECT                     TX" in lines
    assert "  redirect   map ports, key 3             —" in lines


def test_test_other_record_is_shown(bundle: Path, sides: Sides) -> None:
    kernel = {"records": (Records("events", 24, (b"same", b"abcd")),)}
    native = {"records": (Records("events", 24, (b"same", b"abxd")),)}
    differ(sides, 0, "ring-buffer records", kernel=kernel, native=native)
    result = run(bundle)
    assert result.exit_code == 1
    assert "  ring buffer events:\n    kernel reserved 24 bytes and submitted 2 records\n" in result.stdout
    assert "record 1, 4 and 4 bytes; they differ from offset 0x0002 on" in result.stdout


def test_test_element_that_differs_is_shown_by_its_fields(bundle: Path, sides: Sides) -> None:
    kernel, native = (COPY.pack(1, limit, 2, -3, 1, high, b"abc", 1, 9) for limit, high in ((64, 2), (65, 3)))
    sides.differing = (
        MapDifference("copies", bytes(4), kernel, native, native),
        MapDifference(".bss", bytes(4), bytes(8), b"\5" + bytes(7), b"\5" + bytes(7)),
    )
    result = run(bundle)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("settings: DIFFERENT: 2 elements of maps, after 1000 frames")
    assert lines[1:6] == [
        "  map copies, key 0",
        "    limit: kernel 64, native 65",
        "    range.high: kernel 2, native 3",
        "  map .bss, key 0",
        "    runs: kernel 0, native 5",
    ]


def test_test_differences_in_bursts_alone_say_so(bundle: Path, sides: Sides) -> None:
    kernel, native = (COPY.pack(1, limit, 2, -3, 1, 2, b"abc", 1, 9) for limit in (64, 65))
    sides.differing = (MapDifference("copies", bytes(4), kernel, native, native, in_bursts=True),)
    assert "1 element of maps, but only when frames are run in bursts, after 1000" in run(bundle).stdout
    document = json.loads(run(bundle, "--json").stdout)
    assert document["programs"][0]["maps"][0]["in_bursts"] is True


def test_test_word_of_time_is_no_field_that_differs(bundle: Path, sides: Sides) -> None:
    kernel, native, blamed = (
        COPY.pack(seed, limit, 2, -3, 1, 2, b"abc", 1, 9) for seed, limit in ((1, 64), (2, 65), (1, 65))
    )
    sides.differing = (MapDifference("copies", bytes(4), kernel, native, blamed),)
    stdout = run(bundle).stdout
    assert "limit: kernel 64, native 65" in stdout
    assert "seed" not in stdout


def test_test_element_that_one_side_lacks_is_shown_whole(bundle: Path, sides: Sides) -> None:
    value = COPY.pack(1, 64, 2, -3, 1, 2, b"abc", 1, 9)
    sides.differing = (MapDifference("copies", bytes(4), None, value, None),)
    stdout = run(bundle).stdout
    assert '    native  {"seed": 1, "limit": 64, ' in stdout
    assert "(not there in the kernel)" in stdout


def test_test_difference_as_json_is_decoded(bundle: Path, sides: Sides) -> None:
    kernel, native = (COPY.pack(1, limit, 2, -3, 1, 2, b"abc", 1, 9) for limit in (64, 65))
    sides.differing = (MapDifference("copies", bytes(4), kernel, native, native),)
    result = run(bundle, "--json", "-n", 5)
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["equal"] is False
    (program,) = document["programs"]
    assert (program["program"], program["frames"], program["verdicts"]) == ("settings", 5, {"PASS": 5})
    (element,) = program["maps"]
    assert (element["map"], element["key"], element["fields"]) == ("copies", 0, ["limit"])
    assert (element["kernel"]["limit"], element["native"]["limit"]) == (64, 65)
    assert element["bytes"] == {"key": "00000000", "kernel": kernel.hex(), "native": native.hex()}


def test_test_frame_that_differs_as_json(bundle: Path, sides: Sides) -> None:
    kernel = {"verdict": REDIRECT, "redirect": Redirect("ports", 3, is_broadcast=True)}
    native = {"verdict": REDIRECT, "redirect": Redirect(None, 3), "records": (Records("events", 16, (b"x",)),)}
    differ(sides, 2, "redirect target", kernel=kernel, native=native)
    (program,) = json.loads(run(bundle, "--json").stdout)["programs"]
    difference = program["difference"]
    assert (difference["frame"], difference["what"]) == (2, "redirect target")
    assert difference["given"] == sides.frames[2].data.hex()
    assert difference["kernel"]["redirect"] == {"map": "ports", "index": 3, "broadcast": True}
    assert difference["native"]["redirect"] == {"map": None, "index": 3, "broadcast": False}
    assert difference["native"]["records"] == {"events": {"reserved_bytes": 16, "submitted": ["78"]}}


def test_test_saved_frames_are_those_up_to_the_difference(bundle: Path, sides: Sides, tmp_path: Path) -> None:
    differ(sides, 20, "verdict", kernel={"verdict": TX}, native={})
    saved = tmp_path / "difference.pcap"
    result = run(bundle, "--save-frames", saved)
    assert result.exit_code == 1
    assert [frame.data for frame in read_capture(saved)] == [frame.data for frame in sides.frames] != []
    command = f"uxdp test {bundle} --program settings --pcap {saved}"
    assert f"  again: {command}\n" in result.stdout
    given, sides.frames = sides.frames, []
    assert run(bundle, "--pcap", saved).exit_code == 1
    assert [frame.data for frame in sides.frames] == [frame.data for frame in given]


def test_test_equal_sides_save_nothing(bundle: Path, sides: Sides, tmp_path: Path) -> None:
    assert run(bundle, "--save-frames", tmp_path / "difference.pcap").exit_code == 0
    assert not (tmp_path / "difference.pcap").exists()


def test_test_frames_of_a_capture_that_cannot_be_run_are_counted(bundle: Path, sides: Sides, tmp_path: Path) -> None:
    capture = tmp_path / "in.pcapng"
    with CaptureWriter(capture) as writer:
        for size in (13, 14, 1514, 3520, 3521, 60_000):
            writer.write(bytes(size), size)
    result = run(bundle, "--pcap", capture)
    assert [len(frame.data) for frame in sides.frames] == [14, 1514, 3520]
    assert "  not run: 1 frame shorter than 14 bytes\n" in result.stdout
    assert "  not run: 2 frames longer than 3520 bytes\n" in result.stdout


def test_test_capture_without_frames_is_an_error(bundle: Path, sides: Sides, tmp_path: Path) -> None:
    with CaptureWriter(tmp_path / "empty.pcap"):
        pass
    result = run(bundle, "--pcap", tmp_path / "empty.pcap")
    assert result.exit_code == 1
    assert "no frame to test with" in result.stderr


def test_test_params_are_set_and_steer_the_frames(bundle: Path, sides: Sides) -> None:
    assert run(bundle, "--param", "limit=51234", "-n", 400).exit_code == 0
    assert sides.verify_arguments == [{"programs": ["settings"], "params": {"limit": 51234}}]
    assert any(struct.pack("!H", 51234) in frame.data for frame in sides.frames)


def test_test_maps_are_filled(bundle: Path, sides: Sides) -> None:
    assert run(bundle, "--set", 'copies:0={"limit": 5}').exit_code == 0
    ((key, value),) = sides.filled[0]["copies"]
    assert (key, COPY.unpack(value)[1]) == (bytes(4), 5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--program", "other"), "program other: the bundle has no such program, but settings"),
        (("--param", "nothing=1"), "the bundle's constants are: "),
        (("--param", "limit"), "expected NAME=VALUE"),
        (("-n", "0"), "0 is not in the range x>=1"),
        (("--set", "nothing:0=1"), "there is no map 'nothing'"),
    ],
    ids=["program", "param", "param-without-value", "no-frames", "map"],
)
def test_test_wrong_usage_exits_with_2(bundle: Path, sides: Sides, arguments: tuple[str, ...], says: str) -> None:
    result = run(bundle, *arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert sides.frames == []


def test_with_progress_shows_nothing_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(output.with_progress(range(100), "test", total=100, done=int)) == list(range(100))
    assert capsys.readouterr() == ("", "")


def test_with_progress_shows_how_far_it_is_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal)
    shown = output.with_progress(range(1000), "test firewall", total=1000, done=int)
    assert next(shown) == 0
    shown.close()
    assert "test firewall" in terminal.getvalue()
    assert list(output.with_progress(range(3), "test", total=3, done=int, wanted=False)) == [0, 1, 2]
