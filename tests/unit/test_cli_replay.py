"""``uxdp replay --unverified``: arguments, what is printed and written; the kernel has no part in it."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.bundle_factory import PUBLISHER, signed_case
from tests.isolated_user import IsolatedUser
from uxdp_runtime.cli import main
from uxdp_runtime.frames.capture import CaptureReader
from uxdp_runtime.frames.capture_writer import CaptureWriter
from uxdp_runtime.frames.generate import generate

FRAMES = [frame.data for frame in generate(300, 6)]
START_NS = 1_700_000_000_123_456_789


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["replay", *map(str, arguments), "--unverified"], prog_name="uxdp")


def run_json(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


@pytest.fixture
def bundles(tmp_path: Path, isolated_user: IsolatedUser) -> dict[str, Path]:
    """Bundles whose publisher is trusted, by the case they are made of."""
    isolated_user.trust(f'[[keys]]\nkey = "{PUBLISHER.public.text}"\nnames = ["*"]\n')
    paths = {}
    for case in ("loading/settings", "native/redirect_targets", "native/ring_records", "native/fib_lookup"):
        path = tmp_path / f"{Path(case).name}.uxdp"
        path.write_bytes(signed_case(case))
        paths[path.stem] = path
    return paths


@pytest.fixture(params=["in.pcap", "in.pcapng", "in.pcapng.gz"])
def capture(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    with CaptureWriter(path) as writer:
        for number, data in enumerate(FRAMES):
            writer.write(data, START_NS + number)
    return path


@pytest.fixture
def pcap(tmp_path: Path) -> Path:
    path = tmp_path / "in.pcap"
    with CaptureWriter(path) as writer:
        for number, data in enumerate(FRAMES):
            writer.write(data, START_NS + number)
    return path


def test_replay_counts_verdicts_and_writes_what_is_sent(
    bundles: dict[str, Path], capture: Path, tmp_path: Path
) -> None:
    sent = tmp_path / "out.pcapng"
    result = run(bundles["redirect_targets"], capture, "-o", sent, "--set", "ports:2=7")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{capture}: 300 frames through targets"
    shown = {line.split()[0]: int(line.split()[1]) for line in lines if line.endswith(" %")}
    assert shown.keys() == {"ABORTED", "DROP", "PASS", "TX", "REDIRECT"}
    assert sum(shown.values()) == 300
    assert f"{sent}: {shown['TX'] + shown['REDIRECT']} frames transmitted or redirected" in lines
    with CaptureReader(sent) as reader:
        written = list(reader)
    assert len(written) == shown["TX"] + shown["REDIRECT"]
    assert all(packet.data == FRAMES[packet.timestamp_ns - START_NS] for packet in written)
    assert "the kernel's verifier has not seen this program" in result.stderr


def test_replay_as_json_is_one_document(bundles: dict[str, Path], pcap: Path) -> None:
    document = run_json(bundles["redirect_targets"], pcap, "--program", "shifted")
    assert document["program"] == "shifted"
    assert (document["frames"], sum(document["verdicts"].values())) == (300, 300)
    assert (document["written"], document["skipped"], document["maps"]) == (0, {}, {})


def test_replay_params_are_what_the_program_sees(bundles: dict[str, Path], pcap: Path) -> None:
    options = ("--param", "limit=77", "--param", "offset=-5", "--param", "range=03000400", "--param", "mode=1")
    maps = run_json(bundles["settings"], pcap, *options, "--dump")["maps"]
    (element,) = maps["copies"]
    value = element["value"]
    assert (value["limit"], value["offset"], value["range"]) == (77, -5, {"low": 3, "high": 4})
    assert (value["mode"], value["label"]) == (1, "abc")
    assert maps[".bss"] == [{"key": 0, "value": {"runs": 300}}]


def test_replay_maps_are_filled_from_file_and_command_line(
    bundles: dict[str, Path], pcap: Path, tmp_path: Path
) -> None:
    filled = tmp_path / "maps.json"
    filled.write_text('{"ports": {"0": 3, "1": 4, "2": 5}}')
    empty, half, full = (
        run_json(bundles["redirect_targets"], pcap, *options)["verdicts"]["REDIRECT"]
        for options in ((), ("--maps", filled), ("--maps", filled, "--set", "ports:3=6", "--set", "cpus:1=64"))
    )
    assert empty < half < full


def test_replay_dump_leaves_out_array_elements_that_are_zero(bundles: dict[str, Path], pcap: Path) -> None:
    stdout = run(bundles["ring_records"], pcap, "--dump").stdout
    shown = stdout.partition("results:\n")[2].splitlines()
    assert shown[0].startswith('  {"key": 0, "value": ')
    assert 1 <= len(shown) <= 3  # of 64


def test_replay_ring_buffers_are_emptied_and_counted(bundles: dict[str, Path], pcap: Path) -> None:
    records = run_json(bundles["ring_records"], pcap)["records"]
    # Two per frame, of which one has no bytes; the ring of 4 KiB is emptied after 256 frames.
    assert 150 < records["small"] < 600
    assert 150 < records["large"] < 300
    assert "large: " in run(bundles["ring_records"], pcap).stdout


def test_replay_frames_that_fit_no_buffer_are_counted(bundles: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "in.pcap"
    with CaptureWriter(path) as writer:
        for size in (1, 60, 3520, 3521, 65535):
            writer.write(bytes(size), size)
    result = run(bundles["settings"], path)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{path}: 3 frames through settings\n")
    assert "not run: 2 frames longer than 3520 bytes\n" in result.stdout
    assert run_json(bundles["settings"], path)["skipped"] == {"longer than 3520 bytes": 2}


def test_replay_empty_capture_has_no_verdicts(bundles: dict[str, Path], tmp_path: Path) -> None:
    with CaptureWriter(tmp_path / "empty.pcap"):
        pass
    result = run(bundles["settings"], tmp_path / "empty.pcap")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{tmp_path}/empty.pcap: 0 frames through settings\n")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--program", "other"), 2, "the bundle has no such program, but settings"),
        (("--param", "nothing=1"), 2, "the bundle's constants are: "),
        (("--param", "limit=4294967296"), 2, "constant limit: 4294967296, a __u32 holds 0..4294967295"),
        (("--set", "nothing:0=1"), 2, "there is no map 'nothing'"),
        (("--maps", "/nonexistent.json"), 2, "/nonexistent.json: cannot be read"),
        (("-o", "out.txt"), 1, "a capture file is called .pcap, .cap or .pcapng"),
    ],
    ids=["program", "param", "param-too-large", "map", "maps-file", "output"],
)
def test_replay_wrong_usage_is_one_sentence(
    bundles: dict[str, Path], pcap: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    result = run(bundles["settings"], pcap, *arguments)
    assert result.exit_code == code
    assert says in result.stderr


def test_replay_output_onto_its_input_is_refused(bundles: dict[str, Path], pcap: Path) -> None:
    before = pcap.read_bytes()
    result = run(bundles["settings"], pcap, "-o", pcap)
    assert result.exit_code == 1
    assert "is being read" in result.stderr
    assert pcap.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no capture", "expected a pcap or pcapng file"),
        (struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 113), "Linux cooked"),
    ],
    ids=["no-capture", "no-ethernet"],
)
def test_replay_what_is_no_capture_of_ethernet_exits_with_1(
    bundles: dict[str, Path], tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "in.pcap"
    path.write_bytes(content)
    result = run(bundles["settings"], path)
    assert result.exit_code == 1
    assert f"uxdp: error: {path}" in result.stderr
    assert says in result.stderr


def test_replay_untrusted_bundle_is_refused(bundles: dict[str, Path], pcap: Path, isolated_user: IsolatedUser) -> None:
    isolated_user.trust("")
    result = run(bundles["settings"], pcap)
    assert result.exit_code == 4
    assert result.stdout == ""


def test_replay_refuses_a_program_whose_answers_are_the_kernels(bundles: dict[str, Path], pcap: Path) -> None:
    result = run(bundles["fib_lookup"], pcap)
    assert result.exit_code == 8
    assert "bpf_fib_lookup: its answer is the running kernel's" in result.output
    assert "go without --unverified" in result.output
