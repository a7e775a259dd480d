"""Keys and values as bpftool prints them from real kernel maps, and contents that went into such maps and came back."""

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import bundle_factory
from tests.privileged.bpftool_run import Load, Program, u32
from uxdp_bundle.container import bundle_from_bytes
from uxdp_runtime.bpf.cpus import num_possible_cpus
from uxdp_runtime.map_file import dump, load_text, parse_assignment
from uxdp_runtime.map_layout import Notation
from uxdp_runtime.map_values import MapCodec

pytestmark = pytest.mark.kernel

CPUS = num_possible_cpus()


def dumped(program: Program, name: str) -> str:
    """Return what bpftool prints of a map as JSON."""
    command = ["bpftool", "--json", "map", "dump", "pinned", str(program.map_dir / name)]
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout


def merged(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of what bpftool prints, which gives all anonymous members the name of nothing."""
    result: dict[str, Any] = {}
    for name, value in pairs:
        result |= value if name == "" else {name: value}
    return result


def assert_same(codecs: dict[str, MapCodec], name: str, text: str) -> None:
    """Check that a map is read from bpftool's dump, and written like it."""
    printed = json.loads(text, object_pairs_hook=merged)
    contents = load_text(f'{{"{name}": {text}}}', codecs, cpus=CPUS, source="bpftool")
    assert len(contents[name]) == len(printed) > 0
    assert dump(contents, codecs, notation=Notation.BPFTOOL) == {name: printed}
    for notation in Notation:
        again = json.dumps(dump(contents, codecs, notation=notation))
        assert load_text(again, codecs, cpus=CPUS, source="dump") == contents


@pytest.fixture(scope="module")
def image() -> bytes:
    return bundle_factory.build_case("map_value_types")


@pytest.fixture
def program(image: bytes, bpffs: Path, tmp_path: Path) -> Program:
    path = tmp_path / "map_value_types.uxdp"
    path.write_bytes(image)
    return Program(path, bpffs / "program", tmp_path)


@pytest.fixture(scope="module")
def codecs(image: bytes) -> dict[str, MapCodec]:
    return MapCodec.for_object(bytes(bundle_from_bytes(image).object))


@pytest.mark.parametrize("name", ["shapes", "services", "per_cpu", "per_cpu_lists", "names", "untyped", "prefixes"])
def test_map_values_of_any_bytes_are_what_bpftool_prints(
    program: Program, codecs: dict[str, MapCodec], name: str
) -> None:
    codec, dice = codecs[name], random.Random(name)
    for i in range(1 if name.startswith("per_cpu") else 4):
        key = u32(i) if name.startswith("per_cpu") else dice.randbytes(codec.key.size)
        if name == "prefixes":
            key = u32(8 * i) + key[4:]
        program.update(name, key, dice.randbytes(codec.value.size))
    assert_same(codecs, name, dumped(program, name))


@pytest.mark.parametrize("text", ["", "x", "fifteen letters", "sixteen letters!", "tab\there", "zero\0then\1"])
def test_map_values_of_texts_are_what_bpftool_prints(program: Program, codecs: dict[str, MapCodec], text: str) -> None:
    size = codecs["shapes"].value.size
    at, _layout = codecs["shapes"].value.members["name"]  # type: ignore[attr-defined]
    program.update("shapes", bytes(4), bytes(at) + text.encode().ljust(size - at, b"\0"))
    assert_same(codecs, "shapes", dumped(program, "shapes"))


@pytest.mark.parametrize("color", [0, 7, -2, -1, 5, 2**31 - 1, -(2**31)])
def test_map_values_of_enums_are_what_bpftool_prints(program: Program, codecs: dict[str, MapCodec], color: int) -> None:
    program.update("names", color.to_bytes(4, "little", signed=True), b"text\0\0\0\0")
    assert_same(codecs, "names", dumped(program, "names"))


@pytest.mark.parametrize("section", ["rodata", "data", "bss"])
def test_map_values_of_global_data_are_what_bpftool_prints(
    program: Program, codecs: dict[str, MapCodec], section: str
) -> None:
    program.run(bytes(60))
    (path,) = program.map_dir.glob(f"*_{section}")
    text = dumped(program, path.name)
    assert_same(codecs, f".{section}", text)
    if section == "rodata":
        ((key, value),) = load_text(f'{{".rodata": {text}}}', codecs, cpus=1, source="x")[".rodata"]
        assert (key, value) == (u32(0), codecs[".rodata"].initial)


def test_map_values_of_empty_devmap_are_skipped(program: Program, codecs: dict[str, MapCodec]) -> None:
    text = dumped(program, "devices")
    assert load_text(f'{{"devices": {text}}}', codecs, cpus=1, source="x") == {"devices": []}


@pytest.mark.parametrize(
    "assignment",
    [
        'services:{"addr":"198.51.100.10","port":80,"proto":6}=7',
        "prefixes:2001:db8::/32=1",
        'shapes:{"a":1,"b":-1}={"s64":-5,"port":443,"name":"hello","color":"BLUE","signed_bits":-3,"x":9}',
        "names:GREEN=green",
        'per_cpu:1=[{"cpu":0,"value":{"a":1}}]',
        "untyped:61 62 63=0x3132333435",
    ],
)
def test_map_values_that_were_encoded_come_back_from_the_kernel(
    program: Program, codecs: dict[str, MapCodec], assignment: str
) -> None:
    name, key, value = parse_assignment(assignment, codecs, cpus=CPUS)
    if codecs[name].is_per_cpu:  # bpftool gives all CPUs the same value
        program.update(name, key, codecs[name].split(value)[0])
        assert program.values(name, key) == [codecs[name].split(value)[0]] * CPUS
    else:
        program.update(name, key, value)
        assert program.elements(name) == {key: [value]}


def test_load_balancer_configured_by_short_forms_is_what_its_readme_writes(load: Load) -> None:
    program = load("load_balancer")
    codecs = MapCodec.for_object((program.map_dir.parents[2] / "load_balancer.uxdp").read_bytes())
    for text in (
        "reals:0=10.0.0.11",
        "ring:0=0",
        'vips:{"addr":"198.51.100.10","port":80,"proto":6}={"ring_slots":2}',
        'config:0={"gateway_mac":"02:00:00:00:00:fe","local_mac":"02:00:00:00:00:01","local_addr":"10.0.0.1"}',
    ):
        name, key, value = parse_assignment(text, codecs, cpus=CPUS)
        program.update(name, key, value)
    # As the README has them: each number a byte.
    assert program.values("reals", u32(0)) == [bytes((10, 0, 0, 11))]
    assert program.values("vips", bytes((198, 51, 100, 10, 0, 80, 6, 0))) == [bytes(12) + u32(2)]
    assert program.values("config", u32(0)) == [bytes.fromhex("0200000000fe0200000000010a000001")]
    for name in ("vips", "config", "vip_stats", "reals"):
        assert_same(codecs, name, dumped(program, name))
