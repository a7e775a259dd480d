"""libbpf.so.1 by cffi, in ABI mode: the shared library of the system, whatever its 1.x version.

libbpf knows how an object becomes programs in a kernel: CO-RE, BTF-defined maps, global data, subprograms, externs,
frags, and how to make do without what an older kernel lacks. Only functions that every 1.x has are declared. Enums are
declared as the int that they are in C; structures with the first fields of the real ones, as libbpf's ``sz`` allows.

Whose memory is whose: everything that libbpf returns belongs to the bpf_object and is gone when it is closed, names
and descriptors included. Log buffers are ours and must outlive the object's last load, so the object keeps them.

libbpf prints through one callback per process. It is replaced once, when the library is loaded: warnings go to the list
of the object that this thread is working on, everything else nowhere, and nothing ever to stderr.

A ``va_list`` argument is declared as a pointer: on x86-64 (array type), AArch64 (a structure that is passed by
reference), s390x, ppc64 and RISC-V that is how it is passed.

References: libbpf.h; https://libbpf.readthedocs.io
"""

import ctypes
import ctypes.util
import errno
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, Self

from cffi import FFI

from uxdp_bundle.errors import UnsupportedFeatureError

from ..errors import LoadError, errno_text

_DECLARATIONS: Final = """
struct bpf_object; struct bpf_program; struct bpf_map;
struct bpf_object_open_opts {
	size_t sz; const char *object_name; bool relaxed_maps; const char *pin_root_path; uint32_t removed;
	const char *kconfig; const char *btf_custom_path;
	char *kernel_log_buf; size_t kernel_log_size; uint32_t kernel_log_level; uint32_t padding;
};
uint32_t libbpf_major_version(void);
const char *libbpf_version_string(void);
int libbpf_strerror(int err, char *buf, size_t size);
typedef int (*print_fn)(int level, const char *format, void *arguments);
print_fn libbpf_set_print(print_fn fn);
int bpf_xdp_query_id(int ifindex, int flags, uint32_t *prog_id);
int bpf_xdp_detach(int ifindex, uint32_t flags, const void *opts);
int bpf_prog_get_fd_by_id(uint32_t id);
int libbpf_probe_bpf_map_type(int map_type, const void *opts);

struct bpf_object *bpf_object__open_mem(const void *buf, size_t size, const struct bpf_object_open_opts *opts);
int bpf_object__load(struct bpf_object *obj);
void bpf_object__close(struct bpf_object *obj);
struct bpf_program *bpf_object__next_program(const struct bpf_object *obj, struct bpf_program *prog);
struct bpf_map *bpf_object__next_map(const struct bpf_object *obj, const struct bpf_map *map);

const char *bpf_program__name(const struct bpf_program *prog);
const char *bpf_program__section_name(const struct bpf_program *prog);
int bpf_program__fd(const struct bpf_program *prog);
int bpf_program__type(const struct bpf_program *prog);
int bpf_program__set_type(struct bpf_program *prog, int type);
int bpf_program__expected_attach_type(const struct bpf_program *prog);
int bpf_program__set_expected_attach_type(struct bpf_program *prog, int type);
uint32_t bpf_program__flags(const struct bpf_program *prog);
int bpf_program__set_flags(struct bpf_program *prog, uint32_t flags);
void bpf_program__set_ifindex(struct bpf_program *prog, uint32_t ifindex);
int bpf_program__set_autoload(struct bpf_program *prog, bool autoload);
const void *bpf_program__insns(const struct bpf_program *prog);
size_t bpf_program__insn_cnt(const struct bpf_program *prog);
int bpf_program__set_log_level(struct bpf_program *prog, uint32_t log_level);
int bpf_program__set_log_buf(struct bpf_program *prog, char *log_buf, size_t log_size);

const char *bpf_map__name(const struct bpf_map *map);
int bpf_map__fd(const struct bpf_map *map);
int bpf_map__type(const struct bpf_map *map);
uint32_t bpf_map__key_size(const struct bpf_map *map);
uint32_t bpf_map__value_size(const struct bpf_map *map);
uint32_t bpf_map__max_entries(const struct bpf_map *map);
int bpf_map__set_max_entries(struct bpf_map *map, uint32_t max_entries);
uint32_t bpf_map__map_flags(const struct bpf_map *map);
void *bpf_map__initial_value(struct bpf_map *map, size_t *size);
int bpf_map__set_map_flags(struct bpf_map *map, uint32_t flags);
int bpf_map__set_pin_path(struct bpf_map *map, const char *path);
int bpf_map__reuse_fd(struct bpf_map *map, int fd);

int vsnprintf(char *buf, size_t size, const char *format, void *arguments);
"""
_LIBRARY: Final = "libbpf.so.1"
_FUNCTION: Final = re.compile(r"\b(\w*bpf_\w+)\(")
_PRINT_WARN: Final = 0  # LIBBPF_WARN
_BPF_F_XDP_DEV_BOUND_ONLY: Final = 1 << 6  # include/uapi/linux/bpf.h
# The end of a warning about a map that libbpf then creates in another way.
_TRIED_AGAIN: Final = "Retrying without BTF."
_MAPS_OF_REFERENCES: Final = frozenset({3, 12, 13})  # BPF_MAP_TYPE_PROG_ARRAY, ARRAY_OF_MAPS, HASH_OF_MAPS
_MESSAGE_BYTES: Final = 4096
_INSTRUCTION_BYTES: Final = 8
# libbpf's own error numbers begin here (__LIBBPF_ERRNO__START); the C library has no words for them.
_FIRST_OWN_ERRNO: Final = 4000

_ffi: Any = FFI()
_ffi.cdef(_DECLARATIONS)
# Memory that the kernel writes from the front, and libbpf terminates: clearing 64 MiB first would take a while.
_allocate_unclear = _ffi.new_allocator(should_clear_after_alloc=False)
_working = threading.local()


class _Library:
    """The loaded library; made once per process by ``_library``."""

    def __init__(self) -> None:
        try:
            self.calls: Any = _ffi.dlopen(_LIBRARY)
        except OSError as cause:
            old = ctypes.util.find_library("bpf")
            seen = f"{old} is too old" if old and old != _LIBRARY else str(cause)
            raise UnsupportedFeatureError(
                "libbpf", f"1.0 or newer is needed, and {seen}", remedy="apt install libbpf1"
            ) from cause
        exports = ctypes.CDLL(_LIBRARY)  # the same library: asking cffi would compile every declaration
        missing = [name for name in _FUNCTION.findall(_DECLARATIONS) if not hasattr(exports, name)]
        if missing:
            raise UnsupportedFeatureError(
                "libbpf", f"{_LIBRARY} lacks {missing[0]}, which every 1.x has", remedy="apt install libbpf1"
            )
        self.libc: Any = _ffi.dlopen(None)
        # The callback object has to live as long as libbpf may call it.
        self._print = _ffi.callback("print_fn", self._collect)
        self.calls.libbpf_set_print(self._print)

    def _collect(self, level: int, text_format: Any, arguments: Any) -> int:
        messages: list[str] | None = getattr(_working, "messages", None)
        if level == _PRINT_WARN and messages is not None:
            buffer = _ffi.new("char[]", _MESSAGE_BYTES)
            self.libc.vsnprintf(buffer, _MESSAGE_BYTES, text_format, arguments)
            text = _ffi.string(buffer).decode(errors="replace")
            messages += [line.removeprefix("libbpf: ") for line in text.splitlines() if line.strip()]
        return 0


@cache
def _library() -> _Library:
    return _Library()


def libbpf_version() -> str:
    """Return the version of the library in use, such as ``1.1``.

    :raises UnsupportedFeatureError: there is none
    """
    return _text(_library().calls.libbpf_version_string()).removeprefix("v")


def attached_program(ifindex: int) -> int:
    """Return the id of the XDP program on an interface, whichever way it is attached; 0 if there is none.

    :raises LoadError: the kernel does not say
    """
    number = _ffi.new("uint32_t *")
    result = int(_library().calls.bpf_xdp_query_id(ifindex, 0, number))
    if result < 0:
        raise LoadError(-result, f"bpf_xdp_query_id: {errno_text(-result)}", context=f"ifindex {ifindex}")
    return int(number[0])


def detach_program(ifindex: int) -> None:
    """Detach the XDP program of an interface that was attached by netlink, as ip(8) does.

    :raises LoadError: EBUSY if it is attached by a bpf_link
    """
    result = int(_library().calls.bpf_xdp_detach(ifindex, 0, _ffi.NULL))
    if result < 0:
        raise LoadError(-result, f"bpf_xdp_detach: {errno_text(-result)}", context=f"ifindex {ifindex}")


def program_fd_of(program_id: int) -> int:
    """Return a descriptor of a program by its id, which the caller owns.

    :raises LoadError: ENOENT if there is none, EPERM without CAP_SYS_ADMIN
    """
    result = int(_library().calls.bpf_prog_get_fd_by_id(program_id))
    if result < 0:
        raise LoadError(-result, f"bpf_prog_get_fd_by_id: {errno_text(-result)}", context=f"program {program_id}")
    return result


def kernel_has_map_type(number: int) -> bool | None:
    """Try whether maps of a type can be created; None if that cannot be tried.

    A type that this libbpf does not know counts as one that cannot be created.
    """
    result = int(_library().calls.libbpf_probe_bpf_map_type(number, _ffi.NULL))
    if result < 0 and result != -errno.EOPNOTSUPP:
        return None
    return result == 1


class LibbpfProgram:
    """One struct bpf_program, borrowed from its object; setters have effect until the object is loaded."""

    def __init__(self, pointer: Any, owner: "LibbpfObject") -> None:
        calls = _library().calls
        self._pointer = pointer
        self._owner = owner
        self.name = _text(calls.bpf_program__name(pointer))
        self.section = _text(calls.bpf_program__section_name(pointer))
        self._log: Any = None

    @property
    def fd(self) -> int:
        """The descriptor after loading, borrowed; negative before."""
        return int(_library().calls.bpf_program__fd(self._pointer))

    @property
    def type(self) -> int:
        """The program type that libbpf derived from the section's name: enum bpf_prog_type, 0 if it knows none."""
        return int(_library().calls.bpf_program__type(self._pointer))

    @property
    def expected_attach_type(self) -> int:
        """The expected attach type: enum bpf_attach_type."""
        return int(_library().calls.bpf_program__expected_attach_type(self._pointer))

    @property
    def flags(self) -> int:
        """The flags to load with: BPF_F_XDP_HAS_FRAGS and others."""
        return int(_library().calls.bpf_program__flags(self._pointer))

    def set_autoload(self, autoload: bool) -> None:
        """Say whether loading the object loads this program."""
        self._owner.check(_library().calls.bpf_program__set_autoload(self._pointer, autoload), f"program {self.name}")

    def set_type(self, kind: int, attach_type: int, flags: int) -> None:
        """Set program type, expected attach type and flags, for a section whose name says nothing to libbpf."""
        calls = _library().calls
        where = f"program {self.name}"
        self._owner.check(calls.bpf_program__set_type(self._pointer, kind), where)
        self._owner.check(calls.bpf_program__set_expected_attach_type(self._pointer, attach_type), where)
        self._owner.check(calls.bpf_program__set_flags(self._pointer, flags), where)

    def bind_to_device(self, ifindex: int) -> None:
        """Load the program for one device, whose driver then answers kfuncs about hardware's metadata."""
        calls = _library().calls
        calls.bpf_program__set_ifindex(self._pointer, ifindex)
        flags = self.flags | _BPF_F_XDP_DEV_BOUND_ONLY
        self._owner.check(calls.bpf_program__set_flags(self._pointer, flags), f"program {self.name}")

    def set_log(self, level: int, size_bytes: int) -> None:
        """Let the verifier log at ``level`` (BPF_LOG_*) into a new buffer of ``size_bytes``."""
        calls = _library().calls
        self._log = _allocate_unclear("char[]", size_bytes)
        self._log[0] = b"\0"
        where = f"program {self.name}"
        self._owner.check(calls.bpf_program__set_log_level(self._pointer, level), where)
        self._owner.check(calls.bpf_program__set_log_buf(self._pointer, self._log, size_bytes), where)

    def log(self) -> str:
        """Return what the verifier wrote."""
        return "" if self._log is None else _text(self._log)

    def instructions(self) -> bytes:
        """Return the instructions: once loaded, as they were given to the kernel, subprograms appended."""
        calls = _library().calls
        count = calls.bpf_program__insn_cnt(self._pointer)
        return bytes(_ffi.buffer(calls.bpf_program__insns(self._pointer), count * _INSTRUCTION_BYTES))


class LibbpfMap:
    """One struct bpf_map, borrowed from its object; setters have effect until the object is loaded.

    ``section`` is the name of the section of global data that it holds, and empty for declared maps.
    """

    def __init__(self, pointer: Any, owner: "LibbpfObject") -> None:
        self._pointer = pointer
        self._owner = owner
        name = _text(_library().calls.bpf_map__name(pointer))
        # libbpf names the maps of global data after object and section; C names hold no dot.
        _, dot, rest = name.partition(".")
        self.section = f".{rest}" if dot else ""
        self.name = self.section or name

    @property
    def fd(self) -> int:
        """The descriptor after loading, borrowed; negative before."""
        return int(_library().calls.bpf_map__fd(self._pointer))

    @property
    def holds_references(self) -> bool:
        """Whether its elements are programs or maps, which libbpf may fill in when it loads the object."""
        return self.definition()[0] in _MAPS_OF_REFERENCES

    def definition(self) -> tuple[int, int, int, int, int]:
        """Return type, key size, value size, max_entries and flags."""
        calls = _library().calls
        return (
            int(calls.bpf_map__type(self._pointer)),
            int(calls.bpf_map__key_size(self._pointer)),
            int(calls.bpf_map__value_size(self._pointer)),
            int(calls.bpf_map__max_entries(self._pointer)),
            int(calls.bpf_map__map_flags(self._pointer)),
        )

    def set_max_entries(self, max_entries: int) -> None:
        """Set the number of elements that the map can hold."""
        self._owner.check(_library().calls.bpf_map__set_max_entries(self._pointer, max_entries), f"map {self.name}")

    def add_flags(self, flags: int) -> None:
        """Set further flags (BPF_F_*) to create the map with."""
        calls = _library().calls
        known = int(calls.bpf_map__map_flags(self._pointer))
        self._owner.check(calls.bpf_map__set_map_flags(self._pointer, known | flags), f"map {self.name}")

    def set_pin_path(self, path: str | None) -> None:
        """Pin the map there when the object is loaded, and use the one that is pinned there already; None: neither."""
        encoded = _ffi.NULL if path is None else _ffi.new("char[]", os.fsencode(path))
        self._owner.check(_library().calls.bpf_map__set_pin_path(self._pointer, encoded), f"map {self.name}")

    def reuse_fd(self, fd: int) -> None:
        """Use an existing map instead of creating one; the descriptor is duplicated."""
        self._owner.check(_library().calls.bpf_map__reuse_fd(self._pointer, fd), f"map {self.name}")

    def write_initial(self, offset: int, data: bytes) -> None:
        """Change bytes of what global data will hold when it is loaded."""
        size = _ffi.new("size_t *")
        value = _library().calls.bpf_map__initial_value(self._pointer, size)
        if value == _ffi.NULL or offset + len(data) > size[0]:
            raise LoadError(errno.EINVAL, "libbpf offers no such bytes of initial value", context=f"map {self.name}")
        _ffi.buffer(value, size[0])[offset : offset + len(data)] = data


class LibbpfObject:
    """One struct bpf_object, opened from memory. Close it, or use it as a context manager.

    ``messages`` are libbpf's warnings about it so far.
    """

    def __init__(self, data: bytes | memoryview, name: str) -> None:
        """Parse an object; nothing reaches the kernel yet.

        :param data: the ELF file; libbpf copies what it needs
        :param name: what libbpf calls it in messages, and the prefix of the kernel names of its global data
        :raises LoadError: libbpf cannot make sense of it
        :raises UnsupportedFeatureError: there is no libbpf
        """
        calls = _library().calls
        self.messages: list[str] = []
        object_name = _ffi.new("char[]", name.encode())
        options = _ffi.new("struct bpf_object_open_opts *")
        options.sz = _ffi.sizeof("struct bpf_object_open_opts")
        options.object_name = object_name
        with self._collecting(), _ffi.from_buffer(data) as buffer:
            self._pointer = calls.bpf_object__open_mem(buffer, len(data), options)
            number = _ffi.errno
        if self._pointer == _ffi.NULL:
            raise self._error(number, "libbpf cannot open the object")
        self.programs = [LibbpfProgram(pointer, self) for pointer in self._each(calls.bpf_object__next_program)]
        self.maps = [LibbpfMap(pointer, self) for pointer in self._each(calls.bpf_object__next_map)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the object with its descriptors; what is pinned or referred to elsewhere stays in the kernel."""
        if self._pointer != _ffi.NULL:
            _library().calls.bpf_object__close(self._pointer)
            self._pointer = _ffi.NULL

    def load(self) -> None:
        """Create the maps and load the programs.

        :raises LoadError: the first failure; nothing is in the kernel then, but logs and instructions can be read
        """
        with self._collecting():
            result = int(_library().calls.bpf_object__load(self._pointer))
        if result < 0:
            raise self._error(-result, "not loaded")

    def check(self, result: int, where: str) -> None:
        """Turn a negative result of a call about a part of this object into an error."""
        if result < 0:
            error = self._error(-result, "libbpf refused")
            error.context = where
            raise error

    def _error(self, number: int, what: str) -> LoadError:
        # The first warning tells what went wrong, those that follow what therefore failed too.
        warnings = [message for message in self.messages if not message.endswith(_TRIED_AGAIN)]
        said = warnings[0] if warnings else _error_text(number)
        return LoadError(number, f"{what}: {said}", messages=self.messages)

    def _each(self, following: Any) -> Iterator[Any]:
        pointer = following(self._pointer, _ffi.NULL)
        while pointer != _ffi.NULL:
            yield pointer
            pointer = following(self._pointer, pointer)

    @contextmanager
    def _collecting(self) -> Iterator[None]:
        _working.messages = self.messages
        try:
            yield
        finally:
            _working.messages = None


def _error_text(number: int) -> str:
    if number < _FIRST_OWN_ERRNO:
        return errno_text(number)
    buffer = _ffi.new("char[]", 128)
    _library().calls.libbpf_strerror(number, buffer, 128)
    return _text(buffer)


def _text(pointer: Any) -> str:
    return str(_ffi.string(pointer).decode(errors="replace"))
