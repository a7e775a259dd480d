"""Load a program with the system's unmodified bpftool and run frames through it.

Everything goes through bpftool's command line: loading and pinning, map access, and BPF_PROG_TEST_RUN, which calls
the program in the kernel with a frame as if it had been received and gives back the verdict and the frame as the
program left it. The kernel rejects input of fewer than 14 bytes, an Ethernet header.

Maps are read as raw bytes, so that nothing here depends on what bpftool makes of their BTF.
"""

import io
import itertools
import json
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile


class Verdict(IntEnum):
    """enum xdp_action of uapi/linux/bpf.h."""

    ABORTED = 0
    DROP = 1
    PASS = 2
    TX = 3
    REDIRECT = 4


@dataclass(frozen=True)
class Outcome:
    """What the program did with one frame."""

    verdict: Verdict
    frame: bytes


def _bpftool(*arguments: str | Path) -> Any:
    command = ["bpftool", "--json", *map(str, arguments)]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(command)}\n{result.stdout}\n{result.stderr}")
    return json.loads(result.stdout) if result.stdout.strip() else None


def _hex_arguments(data: bytes) -> list[str]:
    return ["hex", *(f"{byte:02x}" for byte in data)]


def _bytes_of(strings: list[str]) -> bytes:
    return bytes(int(text, 16) for text in strings)


def _values_of(element: dict[str, Any]) -> list[bytes]:
    if "values" in element:
        return [_bytes_of(slot["value"]) for slot in element["values"]]
    return [_bytes_of(element["value"])]


class Program:
    """One XDP program in the kernel, with its maps, pinned under ``pin_dir``."""

    def __init__(self, obj: Path, pin_dir: Path, workdir: Path) -> None:
        self._pin = pin_dir / "program"
        self.map_dir = pin_dir / "maps"
        self._workdir = workdir
        self._serial = itertools.count()
        pin_dir.mkdir(exist_ok=True)
        _bpftool("prog", "load", obj, self._pin, "type", "xdp", "pinmaps", self.map_dir)

    def run(self, frame: bytes, *, repeat: int = 1) -> Outcome:
        """Run the program on a frame; with ``repeat``, several times on the same memory."""
        serial = next(self._serial)
        data_in, data_out = self._workdir / f"{serial}.in", self._workdir / f"{serial}.out"
        data_in.write_bytes(frame)
        arguments = ("data_in", data_in, "data_out", data_out, "repeat", str(repeat))
        result = _bpftool("prog", "run", "pinned", self._pin, *arguments)
        return Outcome(Verdict(result["retval"]), data_out.read_bytes())

    def update(self, map_name: str, key: bytes, value: bytes) -> None:
        """Set one element, on all CPUs if the map is per-CPU."""
        element = ("key", *_hex_arguments(key), "value", *_hex_arguments(value))
        _bpftool("map", "update", "pinned", self.map_dir / map_name, *element)

    def delete(self, map_name: str, key: bytes) -> None:
        """Delete one element, which must exist."""
        _bpftool("map", "delete", "pinned", self.map_dir / map_name, "key", *_hex_arguments(key))

    def values(self, map_name: str, key: bytes) -> list[bytes]:
        """Read one element: its value on each CPU, or the only one."""
        return _values_of(_bpftool("map", "lookup", "pinned", self.map_dir / map_name, "key", *_hex_arguments(key)))

    def elements(self, map_name: str) -> dict[bytes, list[bytes]]:
        """Read all elements, each with its value on each CPU, or the only one."""
        dump = _bpftool("map", "dump", "pinned", self.map_dir / map_name)
        return {_bytes_of(element["key"]): _values_of(element) for element in dump}

    def total(self, map_name: str, key: bytes) -> tuple[int, ...]:
        """Read one element whose value is made of u64 fields, and add up the CPUs' copies field by field."""
        values = self.values(map_name, key)
        fields = (struct.unpack(f"<{len(value) // 8}Q", value) for value in values)
        return tuple(map(sum, zip(*fields, strict=True)))

    def counters(self, map_name: str) -> dict[int, int]:
        """Read an array of u64, added up over all CPUs; zeroes are left out."""
        keys = (int.from_bytes(key, "little") for key in self.elements(map_name))
        return {key: count for key in keys if (count := self.total(map_name, u32(key))[0])}


Load = Callable[..., Program]


def u32(*numbers: int) -> bytes:
    """Pack numbers the way this machine's kernel keeps them."""
    return struct.pack(f"<{len(numbers)}I", *numbers)


def u64(*numbers: int) -> bytes:
    """Pack numbers the way this machine's kernel keeps them."""
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def with_constants(obj: bytes, constants: dict[str, bytes]) -> bytes:
    """Give ``const volatile`` variables other values, as a libbpf loader does before it loads."""
    elf = ELFFile(io.BytesIO(obj))
    image = bytearray(obj)
    for name, value in constants.items():
        (symbol,) = elf.get_section_by_name(".symtab").get_symbol_by_name(name)
        assert symbol["st_size"] == len(value), name
        start = elf.get_section(symbol["st_shndx"])["sh_offset"] + symbol["st_value"]
        image[start : start + len(value)] = value
    return bytes(image)
