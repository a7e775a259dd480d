"""A process of another machine under qemu's user-mode emulation, driven from here: tests/native/remote.c.

Its address space is laid out from this side, so that native objects are linked by the runtime's own loader, as they
would be there: what is tested is the compiler's output and the loader's relocations, not another linker's.
"""

import ctypes
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Self

from tests.native_library import NATIVE_TESTS, clang
from uxdp_bundle.manifest import MapDefinition
from uxdp_bundle.map_definitions import MAP_TYPES
from uxdp_runtime import abi
from uxdp_runtime.compile.compiler import LIBC, NATIVE_FOLDER, with_extra, writable_variables
from uxdp_runtime.compile.definitions import CPU_STORE, NUM_CPUS, STORE
from uxdp_runtime.compile.loader import LinkedImage
from uxdp_runtime.compile.names import OWN
from uxdp_runtime.native_module import CHUNK_BYTES, TAIL_RESERVE_BYTES, FrameResult

MACHINE = "aarch64"
EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
# Above 4 GiB, below the 39 bits that every aarch64 has; frames lie across a 4 GiB boundary.
_FIRST_ADDRESS = 0x10_0000_0000
_FRAMES_ADDRESS = 0x20_0000_0000 - CHUNK_BYTES
_PAGE = 4096
_MAP, _PUT, _GET, _CODE, _CALL = range(1, 6)
_PROT_EXEC = 4
_MASK = (1 << 64) - 1


def emulator() -> str | None:
    """Return the path of the emulator, None if it is not installed."""
    return next((path for name in EMULATORS if (path := shutil.which(name))), None)


def build_remote(folder: Path) -> Path:
    """Compile and link the process, without any C library."""
    obj, program = folder / "remote.o", folder / "remote"
    flags = ["-target", f"{MACHINE}-linux-gnu", "-O2", "-ffreestanding", "-fno-builtin", "-fno-stack-protector"]
    subprocess.run([*clang(), *flags, "-c", str(NATIVE_TESTS / "remote.c"), "-o", str(obj)], check=True)
    zig = clang()[0]
    subprocess.run([zig, "ld.lld", "-static", "-o", str(program), str(obj)], check=True)
    return program


class RemoteMachine:
    """The process; use it as a context manager."""

    def __init__(self, program: Path) -> None:
        path = emulator()
        assert path is not None
        self._process = subprocess.Popen([path, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._next = _FIRST_ADDRESS
        self.symbols = _functions(program)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()

    def map(self, size: int, address: int | None = None) -> int:
        """Map zeroed memory and return its address."""
        size += -size % _PAGE
        if address is None:
            address, self._next = self._next, self._next + size + _PAGE
        assert self._ask(_MAP, address, size) == address
        return address

    def put(self, address: int, data: bytes) -> None:
        """Write memory."""
        self._send(_PUT, address, len(data))
        self._stdin.write(data)

    def get(self, address: int, size: int) -> bytes:
        """Read memory."""
        self._send(_GET, address, size)
        return self._receive(size)

    def call(self, address: int, *arguments: int) -> int:
        """Call a function; return its result as a signed number."""
        result = self._ask(_CALL, address, *arguments)
        return result - (1 << 64) if result >> 63 else result

    def load(self, data: bytes, externals: dict[str, int]) -> LinkedImage:
        """Link a native object with the runtime's loader, and put it there."""

        def allocate(size: int) -> tuple[bytearray, int]:
            return bytearray(size), self.map(size)

        image = LinkedImage(data, externals, MACHINE, allocate)
        self.put(image.base, bytes(image.memory))
        for start, end, protection in image.ranges:
            if protection & _PROT_EXEC:
                assert self._ask(_CODE, image.base + start, end - start) == 0
        return image

    @property
    def _stdin(self):
        assert self._process.stdin is not None
        return self._process.stdin

    def _send(self, what: int, address: int, *arguments: int) -> None:
        words = [what, address, *(argument & _MASK for argument in arguments)]
        self._stdin.write(struct.pack("<6Q", *words, *[0] * (6 - len(words))))

    def _ask(self, what: int, address: int, *arguments: int) -> int:
        self._send(what, address, *arguments)
        return int(struct.unpack("<Q", self._receive(8))[0])

    def _receive(self, size: int) -> bytes:
        self._stdin.flush()
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        assert len(data) == size, f"the process ended: {self._process.poll()}"
        return data


def _functions(program: Path) -> dict[str, int]:
    from elftools.elf.elffile import ELFFile

    with program.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        assert table is not None
        return {item.name: item["st_value"] for item in table.iter_symbols() if item["st_info"]["type"] == "STT_FUNC"}


class RemoteProgram:
    """A compiled program there, with its maps and global data, as Stores and NativeModule make them here."""

    def __init__(
        self,
        machine: RemoteMachine,
        native: bytes,
        obj: bytes,
        maps: tuple[MapDefinition, ...],
        sections: dict[str, bytes],
        worker: abi.Worker,
    ) -> None:
        """Load the code.

        :param sections: the initial content of the sections of global data
        :param worker: the worker that runs it, whose state is copied
        """
        self._machine = machine
        libc = {name: machine.symbols[name] for name in LIBC}
        self._worker = machine.map(_PAGE)
        machine.put(self._worker, bytes(worker))
        control = machine.load(
            (NATIVE_FOLDER / f"control-{MACHINE}.o").read_bytes(), {**libc, "uxdp_worker": self._worker}
        )
        self._control = control.symbols
        symbols = {**libc, "uxdp_worker": self._worker, NUM_CPUS: int(worker.num_cpus), "uxdp_pool": 0}
        self._maps: dict[str, tuple[int, MapDefinition]] = {}
        declared = [definition for definition in maps if not definition.name.startswith(".")]
        for number, (definition, extra) in enumerate(with_extra(declared, obj)):
            descriptor = abi.Map(
                kind=MAP_TYPES.index(definition.type),
                key_size=definition.key_size,
                value_size=definition.value_size,
                max_entries=definition.max_entries,
                flags=definition.flags,
                extra=extra,
                id=number,
                num_cpus=worker.num_cpus,
            )
            place = machine.map(_PAGE)
            machine.put(place, bytes(descriptor))
            store = machine.map(machine.call(self._control["uxdp_store_bytes"], place))
            offset = machine.call(self._control["uxdp_store_cpu_offset"], place, int(worker.cpu))
            symbols[STORE + definition.name] = descriptor.store = descriptor.cpu_store = store
            symbols[CPU_STORE + definition.name] = store + offset
            machine.put(place, bytes(descriptor))
            assert machine.call(self._control["uxdp_store_init"], place) == 0
            self._maps[definition.name] = place, definition
        self._sections = {name: (machine.map(len(content)), len(content)) for name, content in sections.items()}
        for name, content in sections.items():
            machine.put(self._sections[name][0], content)
        for name, (section, offset) in writable_variables(obj).items():
            symbols[OWN + name] = self._sections[section][0] + offset
        self._run = machine.load(native, symbols).symbols["uxdp_run"]
        self._scratch = machine.map(1 << 16)

    def update(self, name: str, key: bytes, value: bytes) -> None:
        """Set a map's element."""
        self._machine.put(self._scratch, key.ljust(256, b"\0") + value)
        place = self._maps[name][0]
        result = self._machine.call(self._control["uxdp_map_update"], place, self._scratch, self._scratch + 256, 0)
        assert result == 0

    def items(self, name: str, value_bytes: int) -> dict[bytes, bytes]:
        """Return all elements of a map."""
        place, definition = self._maps[name]
        found: dict[bytes, bytes] = {}
        previous, following, value = 0, self._scratch, self._scratch + 512
        while self._machine.call(self._control["uxdp_map_next_key"], place, previous, following) == 0:
            key = self._machine.get(following, definition.key_size)
            if self._machine.call(self._control["uxdp_map_lookup"], place, following, value) == 0:
                found[key] = self._machine.get(value, value_bytes)
            self._machine.put(self._scratch + 256, key)
            previous = self._scratch + 256
        return found

    def store(self, name: str, size: int) -> bytes:
        """Return the memory of a map."""
        descriptor = abi.Map.from_buffer_copy(self._machine.get(self._maps[name][0], ctypes.sizeof(abi.Map)))
        return self._machine.get(descriptor.store, size)

    def section(self, name: str) -> bytes:
        """Return the content of a section of global data."""
        return self._machine.get(*self._sections[name])

    def run(self, frames: list[tuple[bytes, bytes, int, int]]) -> list[FrameResult]:
        """Run a burst of (bytes, metadata, ifindex, queue)."""
        memory = self._machine.map(len(frames) * CHUNK_BYTES, _FRAMES_ADDRESS)
        descriptors = (abi.Frame * len(frames))()
        for number, (data, metadata, ifindex, queue) in enumerate(frames):
            start = memory + number * CHUNK_BYTES
            place = start + abi.HEADROOM
            self._machine.put(place - len(metadata), metadata + data)
            descriptors[number] = abi.Frame(
                data=place,
                data_end=place + len(data),
                data_meta=place - len(metadata),
                ingress_ifindex=ifindex,
                rx_queue_index=queue,
                hard_start=start,
                limit=start + CHUNK_BYTES - TAIL_RESERVE_BYTES,
            )
        where = self._machine.map(len(bytes(descriptors)))
        self._machine.put(where, bytes(descriptors))
        self._machine.call(self._run, where, len(frames))
        done = (abi.Frame * len(frames)).from_buffer_copy(self._machine.get(where, len(bytes(descriptors))))
        return [self._result(frame) for frame in done]

    def _result(self, frame: abi.Frame) -> FrameResult:
        data = self._machine.get(frame.data, frame.data_end - frame.data)
        metadata = self._machine.get(frame.data_meta, max(frame.data - frame.data_meta, 0))
        redirect = (frame.redirect_kind, frame.redirect_map, frame.redirect_key, frame.redirect_target)
        return FrameResult(
            frame.verdict, data, metadata, None if frame.redirect_kind == abi.REDIRECT_NONE else redirect
        )
