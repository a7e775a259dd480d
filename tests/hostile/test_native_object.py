"""Native objects that no compiler of ours wrote: linked, or refused with one typed error; nothing else happens."""

import platform
import random
import struct

import pytest

from uxdp_runtime.compile.compiler import LIBC, NATIVE_FOLDER
from uxdp_runtime.compile.loader import LinkedImage, LoadedObject, NativeObjectError

MACHINES = ("x86_64", "aarch64")
BASE = 0x7F00_0000_0000
EXTERNALS = dict.fromkeys(("uxdp_worker", *LIBC), BASE - (1 << 30))
_LIMIT = 64 << 20
# Fields of struct Elf64_Shdr: offset in the header, format.
_FIELDS = {
    "type": (4, "I"),
    "flags": (8, "Q"),
    "offset": (24, "Q"),
    "size": (32, "Q"),
    "link": (40, "I"),
    "info": (44, "I"),
}


def control(machine: str) -> bytes:
    return (NATIVE_FOLDER / f"control-{machine}.o").read_bytes()


def link(data: bytes, machine: str) -> LinkedImage:
    def allocate(size: int) -> tuple[bytearray, int]:
        if size > _LIMIT:
            raise NativeObjectError("larger than this test wants to have")
        return bytearray(size), BASE

    return LinkedImage(data, EXTERNALS, machine, allocate)


@pytest.mark.parametrize("machine", MACHINES)
def test_link_for_any_machine_defines_what_the_object_does(machine):
    image = link(control(machine), machine)
    assert "uxdp_map_lookup" in image.symbols
    assert all(BASE <= address < BASE + len(image.memory) for address in image.symbols.values())
    assert [protection for _start, _end, protection in image.ranges][:2] == [1, 5]
    starts_and_ends = [place for start, end, _protection in image.ranges for place in (start, end)]
    assert starts_and_ends == sorted(starts_and_ends), "no page is of two kinds"


@pytest.mark.parametrize("machine", MACHINES)
def test_link_for_another_machine_is_refused(machine):
    other = next(name for name in MACHINES if name != machine)
    with pytest.raises(NativeObjectError, match="machine"):
        link(control(machine), other)
    with pytest.raises(NativeObjectError, match="riscv64"):
        link(control(machine), "riscv64")


def test_load_of_another_machines_object_is_refused():
    other = next(name for name in MACHINES if name != platform.machine())
    with pytest.raises(NativeObjectError, match="machine"):
        LoadedObject(control(other), EXTERNALS)


def test_link_missing_symbol_names_it():
    with pytest.raises(NativeObjectError, match="nobody defines 'clock_gettime'"):
        LinkedImage(control("x86_64"), {}, "x86_64", lambda size: (bytearray(size), BASE))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("seed", range(4))
def test_link_damaged_object_links_or_is_refused(machine, seed):
    original = control(machine)
    dice = random.Random(f"{machine} {seed}")
    refused = 0
    for _ in range(60):
        data = bytearray(original)
        for _ in range(dice.choice((1, 1, 4, 32))):
            data[dice.randrange(len(data))] = dice.randrange(256)
        if dice.random() < 0.2:
            del data[dice.randrange(len(data)) :]
        try:
            link(bytes(data), machine)
        except NativeObjectError:
            refused += 1
    assert refused


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("field", _FIELDS)
@pytest.mark.parametrize("value", [0, 1, 7, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1])
def test_link_damaged_section_links_or_is_refused(machine, field, value):
    original = control(machine)
    (table,) = struct.unpack_from("<Q", original, 40)
    (count,) = struct.unpack_from("<H", original, 60)
    offset, kind = _FIELDS[field]
    for section in range(count):
        data = bytearray(original)
        struct.pack_into(
            f"<{kind}", data, table + 64 * section + offset, value & ((1 << (32 if kind == "I" else 64)) - 1)
        )
        try:
            link(bytes(data), machine)
        except NativeObjectError as error:
            assert error.exit_code == 3
