"""What is derived from objects, held against what the kernel and its libbpf make of the same objects.

For context accesses the kernel is the oracle: it replaces every load from xdp_md by loads from xdp_buff. To tell which
instruction became what, each object gets line information with one line per instruction, whose number is the
instruction's; the kernel keeps it up to date while it rewrites.
"""

import itertools
import json
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.facts_fixtures import SOURCES, clang
from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.facts import ObjectFacts, object_facts
from uxdp_bundle.instructions import Code
from uxdp_bundle.manifest import MapDefinition
from uxdp_bundle.map_definitions import BPF_F_MMAPABLE, BPF_F_RDONLY_PROG

pytestmark = pytest.mark.kernel

EXAMPLES = ("l2_swap", "firewall", "load_balancer", "icmp_echo", "flow_meter", "payload_hash")
CASES = (
    *("minimal", "context_direct", "context_spilled", "context_subprograms", "context_callbacks", "context_core"),
    *("map_types", "data_sections", "helpers_reached"),
)
PAGE_BYTES = 4096
NAME_CHARACTERS = 15  # BPF_OBJ_NAME_LEN - 1
# net/xdp.h, struct xdp_buff: what a load from xdp_md begins with, by (offset, how many loads it becomes).
FIELDS = {
    (0, 1): "data",
    (8, 1): "data_end",
    (16, 1): "data_meta",
    (32, 3): "ingress_ifindex",  # rxq, dev, ifindex
    (32, 2): "rx_queue_index",  # rxq, queue_index
    (40, 3): "egress_ifindex",  # txq, dev, ifindex
}
U32_LOADS = (0x61, 0x81)


def bpftool(*arguments: str | Path) -> Any:
    command = ["bpftool", "--json", *map(str, arguments)]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return json.loads(result.stdout) if result.stdout.strip() else None


class Loaded:
    """An object's programs and maps in the kernel."""

    def __init__(self, obj: bytes, bpffs: Path, folder: Path, *, kind: str = "") -> None:
        path = folder / "object.o"
        path.write_bytes(obj)
        self._programs, self._maps = bpffs / "programs", bpffs / "maps"
        bpftool("prog", "loadall", path, self._programs, *(("type", kind) if kind else ()), "pinmaps", self._maps)

    @property
    def programs(self) -> list[str]:
        """The programs' names."""
        return sorted(path.name for path in self._programs.iterdir())

    def maps(self) -> list[dict[str, Any]]:
        """The maps in the order of their creation."""
        shown = [bpftool("map", "show", "pinned", path) for path in self._maps.iterdir()] if self._maps.exists() else []
        return sorted(shown, key=lambda item: item["id"])

    def elements(self, name: str) -> Any:
        return bpftool("map", "dump", "pinned", self._maps / name)

    def translated(self) -> Iterator[list[dict[str, Any]]]:
        """Each program's instructions, as the kernel has rewritten them."""
        for name in self.programs:
            yield bpftool("prog", "dump", "xlated", "pinned", self._programs / name, "linum")


def with_line_per_instruction(obj: bytes) -> bytes:
    """Return the object with line information whose lines are instruction slots, counted from 1, in their section."""
    bpf_object = BpfObject(obj)
    code = Code(bpf_object)
    strings = obj_strings(bpf_object)
    lines = struct.pack("<I", 16)
    for index, instructions in code.sections.items():
        name = strings.index(b"\0" + bpf_object.sections[index].name.encode() + b"\0") + 1
        slots = [s for s in range(len(instructions)) if s == 0 or instructions[s - 1].code != 0x18]
        lines += struct.pack("<II", name, len(slots))
        lines += b"".join(struct.pack("<IIII", slot * 8, name, 0, (slot + 1) << 10) for slot in slots)
    section = bpf_object.section(".BTF.ext")
    assert section is not None
    head = struct.Struct("<HBBI6I")
    magic, version, flags, length, *ranges = head.unpack_from(section.data)
    functions, _lines, relocations = (
        section.data[length + start : length + start + size]
        for start, size in zip(ranges[::2], ranges[1::2], strict=True)
    )
    parts = (functions, lines, relocations)
    starts = itertools.accumulate((len(part) for part in parts), initial=0)
    ranges = [number for start, part in zip(starts, parts, strict=False) for number in (start, len(part))]
    extension = head.pack(magic, version, flags, head.size, *ranges) + b"".join(parts)
    image = bytearray(obj) + bytes(-len(obj) % 8)
    (table,) = struct.unpack_from("<Q", image, 40)
    struct.pack_into("<QQ", image, table + section.index * 64 + 24, len(image), len(extension))
    return bytes(image + extension)


def obj_strings(bpf_object: BpfObject) -> bytes:
    section = bpf_object.section(".BTF")
    assert section is not None
    start, size = struct.unpack_from("<II", section.data, 16)
    return section.data[24 + start : 24 + start + size]


def kernel_accesses(obj: bytes, loaded: Loaded) -> tuple[set[tuple[str, int, str]], set[tuple[str, int]]]:
    """Return (section, slot, field) of each access that the kernel rewrote, and (section, slot) of all that it kept."""
    bpf_object = BpfObject(obj)
    sections = {bpf_object.sections[index].name: code for index, code in Code(bpf_object).sections.items()}
    found, kept = set(), set()
    for program in loaded.translated():
        starts = [index for index, line in enumerate(program) if "line_num" in line]
        for start, end in zip(starts, [*starts[1:], len(program)], strict=True):
            section, slot = program[start]["file"], program[start]["line_num"] - 1
            kept.add((section, slot))
            load = re.match(r"\(79\) r\d+ = \*\(u64 \*\)\(r\d+ \+(\d+)\)", program[start]["disasm"])
            if load and sections[section][slot].code in U32_LOADS:
                found.add((section, slot, FIELDS[int(load[1]), end - start]))
    return found, kept


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        *((name, ()) for name in (*CASES, *EXAMPLES)),
        *((name, flags) for name in CASES for flags in (("-O1",), ("-O3", "-mcpu=v2"), ("-Os", "-mcpu=v4"))),
    ],
)
def test_context_accesses_are_those_that_the_kernel_rewrites(name, flags, bpffs, tmp_path):
    obj = clang(SOURCES[name].read_text(), *flags)
    found, kept = kernel_accesses(obj, Loaded(with_line_per_instruction(obj), bpffs, tmp_path))
    derived = {(access.section, access.offset // 8, access.field) for access in object_facts(obj).accesses}
    # What the verifier removed because it is never run, it did not rewrite either.
    assert {access for access in derived if access[:2] in kept} == found


def as_the_kernel_shows(definition: MapDefinition) -> dict[str, Any]:
    """Return what bpftool shows of a map that was made from a definition: libbpf and the kernel adjust some."""
    flags, entries = definition.flags, definition.max_entries
    if definition.type == "ringbuf":
        entries = max(PAGE_BYTES, 1 << (entries - 1).bit_length())
    if definition.type == "perf_event_array" and entries == 0:
        entries = possible_cpus()
    if definition.type in ("devmap", "devmap_hash"):
        flags |= BPF_F_RDONLY_PROG  # kernel/bpf/devmap.c, dev_map_init_map
    if definition.name.startswith(".") and libbpf_version() < (1, 2):
        flags |= BPF_F_MMAPABLE
    return {
        "type": definition.type,
        "bytes_key": definition.key_size,
        "bytes_value": definition.value_size,
        "max_entries": entries,
        "flags": flags,
    }


def possible_cpus() -> int:
    return int(re.findall(r"\d+", Path("/sys/devices/system/cpu/possible").read_text())[-1]) + 1


def libbpf_version() -> tuple[int, int]:
    version = bpftool("version")["libbpf_version"]
    major, minor = version.lstrip("v").split(".")[:2]
    return int(major), int(minor)


def is_name_of(shown: str, definition: MapDefinition) -> bool:
    """Whether the kernel's name is a map's: cut, and for .data, .rodata, .bss and .kconfig behind the object's name."""
    of_object = definition.name.count(".") == 1 and definition.name.startswith(".")
    return shown.endswith(definition.name) if of_object else shown == definition.name[:NAME_CHARACTERS]


def shown_as_expected(shown: dict[str, Any], definition: MapDefinition) -> None:
    expected = as_the_kernel_shows(definition)
    assert {key: shown[key] for key in expected} == expected, definition.name


@pytest.mark.parametrize("name", [*CASES, *EXAMPLES])
def test_maps_and_programs_are_those_that_the_kernel_shows(name, bpffs, tmp_path):
    obj = clang(SOURCES[name].read_text())
    facts = object_facts(obj)
    loaded = Loaded(obj, bpffs, tmp_path)
    others = [finding.message.split()[0] for finding in facts.other_programs]
    assert loaded.programs == sorted([*(program.name for program in facts.programs), *others])
    maps = loaded.maps()
    assert len(maps) == len(facts.maps)
    for shown, definition in zip(maps, facts.maps, strict=True):
        assert is_name_of(shown["name"], definition)
        shown_as_expected(shown, definition)


def inner(facts: ObjectFacts, name: str) -> MapDefinition:
    definition = next(definition.inner for definition in facts.maps if definition.name == name)
    assert definition is not None
    return definition


def test_inner_maps_are_those_that_the_kernel_shows(bpffs, tmp_path):
    obj = clang(SOURCES["map_types"].read_text())
    loaded = Loaded(obj, bpffs, tmp_path)
    elements = loaded.elements("an_array_of_maps")
    assert len(elements) == 2
    for element in elements:
        inner_id = int.from_bytes(bytes(int(byte, 16) for byte in element["value"]), "little")
        shown = bpftool("map", "show", "id", str(inner_id))
        shown_as_expected(shown, inner(object_facts(obj), "an_array_of_maps"))


OLD_NAMES = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp_router") int underscore(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp/lb") int slash(struct xdp_md *ctx) { return ctx->rx_queue_index; }
SEC("xdp1") int digit(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdpfilter") int letters(struct xdp_md *ctx) { return XDP_PASS; }
char _license[] SEC("license") = "GPL";
"""


def test_programs_in_sections_of_old_objects_load_as_xdp(bpffs, tmp_path):
    obj = clang(OLD_NAMES)
    facts = object_facts(obj)
    assert [program.flags for program in facts.programs] == [(), (), (), ()]
    assert Loaded(obj, bpffs, tmp_path, kind="xdp").programs == sorted(program.name for program in facts.programs)


FRAGS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp.frags") int f(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp.frags/devmap") int d(struct xdp_md *ctx) { return ctx->egress_ifindex; }
SEC("xdp.frags/cpumap") int c(struct xdp_md *ctx) { return XDP_PASS; }
char _license[] SEC("license") = "GPL";
"""


def test_programs_with_flags_load_as_their_section_says(bpffs, tmp_path):
    obj = clang(FRAGS)
    flags = {program.name: program.flags for program in object_facts(obj).programs}
    assert flags == {"f": ("frags",), "d": ("devmap", "frags"), "c": ("cpumap", "frags")}
    assert Loaded(obj, bpffs, tmp_path).programs == ["c", "d", "f"]
