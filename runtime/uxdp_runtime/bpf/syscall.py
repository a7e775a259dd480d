"""bpf(2): the commands that uxdp uses, as functions of bytes and descriptors.

One function per command. Each packs the part of ``union bpf_attr`` that its command reads; the kernel takes the rest as
zero, and refuses a longer attribute than it knows only if what it does not know is not zero. So the structures below
end where the last field that is used ends, and new fields need no check of the kernel's version.

Whose memory is whose: buffers that the kernel fills belong to this module and are copied to bytes before a function
returns. Descriptors belong to the caller, those that are returned too; the kernel opens all of them close-on-exec.

Invariants: keys, values and counts are checked against sizes by the caller (see maps), because the kernel reads and
writes as many bytes as the map's definition says, whatever the length of the buffer.

Every failure is a BpfError, which is an OSError, with the kernel's errno.

References: bpf(2); include/uapi/linux/bpf.h, union bpf_attr; kernel/bpf/syscall.c
"""

import ctypes
import errno
import os
import platform
import resource
import struct
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from uxdp_bundle.errors import UnsupportedFeatureError

from ..errors import BpfError, errno_text
from .capabilities import explain_refusal

# __NR_bpf, by machine as uname(2) names it; Source: arch/*/include/**/unistd*.h
_NUMBERS: Final = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "loongarch64": 280,
    "s390x": 351,
    "ppc64le": 361,
}
OBJECT_NAME_BYTES: Final = 16  # BPF_OBJ_NAME_LEN
PROG_TYPE_XDP: Final = 6  # BPF_PROG_TYPE_XDP
PROG_TYPE_RAW_TRACEPOINT: Final = 17  # BPF_PROG_TYPE_RAW_TRACEPOINT
BPF_F_TEST_XDP_LIVE_FRAMES: Final = 1 << 1
_BPF_XDP: Final = 37  # enum bpf_attach_type
# The cursor of a batch is a hash map's bucket number, or a key.
_MIN_CURSOR_BYTES: Final = 8

# Descriptors are u32 in union bpf_attr; as int, one that was closed (-1) gets as far as the kernel's EBADF.
_ELEMENT = struct.Struct("=ixxxxQQQ")  # map_fd, key, value or next_key, flags
_BATCH = struct.Struct("=QQQQIiQQ")  # in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags
_BATCH_COUNT_OFFSET = 32
_MAP_CREATE = struct.Struct("=7I16s5IQ")
_PROG_LOAD = struct.Struct("=IIQQIIQII16sII")
_RAW_TRACEPOINT_OPEN = struct.Struct("=QixxxxQ")  # name, prog_fd, cookie
_LINK_CREATE = struct.Struct("=iiII")  # prog_fd, target_ifindex, attach_type, flags
_LINK_UPDATE = struct.Struct("=iiII")  # link_fd, new_prog_fd, flags, old_prog_fd
_OBJ_PIN = struct.Struct("=QiI")  # pathname, bpf_fd, file_flags
_LINK_INFO = struct.Struct("=IIIxxxxI")  # type, id, prog_id, xdp.ifindex
_LINK_INFO_BYTES: Final = 64
_BPF_LINK_TYPE_XDP: Final = 6
_INFO = struct.Struct("=iIQ")
_TEST_RUN = struct.Struct("=iIIIQQIIIIQQIII")
_MAP_INFO = struct.Struct("=6I16sIIQQIIII")
_PROG_INFO = struct.Struct("=II8sIIQQQIIQ16sIIQQIIQQIIQIIQQIIIIQQQQII")


class Command(IntEnum):
    """enum bpf_cmd, what is used of it."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    PROG_TEST_RUN = 10
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    RAW_TRACEPOINT_OPEN = 17
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_FREEZE = 22
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_GET_FD_BY_ID = 30
    LINK_GET_NEXT_ID = 31
    LINK_DETACH = 34


@dataclass(frozen=True, slots=True)
class MapInfo:
    """struct bpf_map_info: what the kernel says of a map; sizes in bytes."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """struct bpf_prog_info: what the kernel says of a program.

    ``tag`` is the first half of the SHA-1 of its instructions, in hex; ``verified_instructions`` is how many the
    verifier processed, 0 before Linux 5.16; ``runs`` and ``run_ns`` are 0 unless the kernel counts them (sysctl
    kernel.bpf_stats_enabled); sizes in bytes, 0 where the kernel does not tell this process.
    """

    type: int
    id: int
    tag: str
    jited_size: int
    xlated_size: int
    name: str
    map_ids: tuple[int, ...]
    btf_id: int
    verified_instructions: int
    runs: int
    run_ns: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """What BPF_PROG_TEST_RUN gave back: the program's result, frame and context as it left them, mean ns per run."""

    retval: int
    data: bytes
    context: bytes
    duration_ns: int


def create_map(
    kind: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    *,
    flags: int = 0,
    name: str = "",
    inner_map_fd: int = 0,
) -> int:
    """Create a map and return its descriptor, which the caller owns.

    :param kind: enum bpf_map_type
    :param name: at most 15 characters of [A-Za-z0-9_.]
    """
    encoded = name.encode("ascii")[: OBJECT_NAME_BYTES - 1]
    return _create(
        Command.MAP_CREATE,
        _MAP_CREATE.pack(
            *(kind, key_size, value_size, max_entries, flags, inner_map_fd, 0, encoded),
            *(0, 0, 0, 0, 0, 0),  # map_ifindex; BTF: none; map_extra
        ),
    )


def lookup_element(fd: int, key: bytes, value_bytes: int, flags: int = 0) -> bytes:
    """Return the value of a key; for a per-CPU map ``value_bytes`` is that of all CPUs' slots.

    :param key: empty for a map without keys (queue, stack)
    :raises BpfError: ENOENT if there is no such element
    """
    value = ctypes.create_string_buffer(value_bytes)
    keep = _Input(key)
    _bpf(Command.MAP_LOOKUP_ELEM, _ELEMENT.pack(fd, keep.address, ctypes.addressof(value), flags))
    return value.raw


def pop_element(fd: int, value_bytes: int) -> bytes:
    """Take the next value out of a queue or stack.

    :raises BpfError: ENOENT if it is empty
    """
    value = ctypes.create_string_buffer(value_bytes)
    _bpf(Command.MAP_LOOKUP_AND_DELETE_ELEM, _ELEMENT.pack(fd, 0, ctypes.addressof(value), 0))
    return value.raw


def has_value(fd: int, value: bytes) -> bool:
    """Whether a Bloom filter may have seen a value."""
    keep = ctypes.create_string_buffer(value, len(value))
    try:
        _bpf(Command.MAP_LOOKUP_ELEM, _ELEMENT.pack(fd, 0, ctypes.addressof(keep), 0))
    except BpfError as missing:
        if missing.errno == errno.ENOENT:
            return False
        raise
    return True


def push_element(fd: int, value: bytes, flags: int = 0) -> None:
    """Put a value into a map without keys."""
    keep = _Input(value)
    _bpf(Command.MAP_UPDATE_ELEM, _ELEMENT.pack(fd, 0, keep.address, flags))


def update_element(fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    """Set the value of a key; ``flags`` is BPF_ANY, BPF_NOEXIST or BPF_EXIST."""
    keep = _Input(key), _Input(value)
    _bpf(Command.MAP_UPDATE_ELEM, _ELEMENT.pack(fd, keep[0].address, keep[1].address, flags))


def delete_element(fd: int, key: bytes) -> None:
    """Delete an element.

    :raises BpfError: ENOENT if there is none, EINVAL for arrays, whose elements always exist
    """
    keep = _Input(key)
    _bpf(Command.MAP_DELETE_ELEM, _ELEMENT.pack(fd, keep.address, 0, 0))


def next_key(fd: int, key: bytes | None, key_size: int) -> bytes | None:
    """Return the key after ``key``, or the first one; None behind the last."""
    following = ctypes.create_string_buffer(key_size)
    keep = _Input(key or b"")
    try:
        _bpf(Command.MAP_GET_NEXT_KEY, _ELEMENT.pack(fd, keep.address, ctypes.addressof(following), 0))
    except BpfError as end:
        if end.errno == errno.ENOENT:
            return None
        raise
    return following.raw


@dataclass(frozen=True, slots=True)
class Batch:
    """Elements read at once: ``count`` keys and values one behind the other; ``cursor`` is None behind the last."""

    count: int
    keys: bytes
    values: bytes
    cursor: bytes | None


def lookup_batch(fd: int, cursor: bytes | None, count: int, key_size: int, value_bytes: int) -> Batch:
    """Read up to ``count`` elements, from the beginning or where ``cursor`` says.

    :raises BpfError: ENOSPC if a hash map's bucket holds more than ``count``; EINVAL or ENOTSUPP if the kernel has no
        batches for this type of map
    """
    keys = ctypes.create_string_buffer(count * key_size)
    values = ctypes.create_string_buffer(count * value_bytes)
    following = ctypes.create_string_buffer(max(key_size, _MIN_CURSOR_BYTES))
    keep = _Input(cursor or b"")
    attributes = _writable(
        _BATCH.pack(
            *(keep.address, ctypes.addressof(following), ctypes.addressof(keys), ctypes.addressof(values)),
            *(count, fd, 0, 0),
        )
    )
    last = False
    try:
        _call(Command.MAP_LOOKUP_BATCH, attributes)
    except BpfError as end:
        if end.errno != errno.ENOENT:
            raise
        last = True
    (read,) = struct.unpack_from("=I", attributes, _BATCH_COUNT_OFFSET)
    return Batch(read, keys.raw[: read * key_size], values.raw[: read * value_bytes], None if last else following.raw)


def update_batch(fd: int, keys: bytes, values: bytes, count: int, flags: int = 0) -> None:
    """Set ``count`` elements; on failure those before the one that failed stay set."""
    _batch(Command.MAP_UPDATE_BATCH, fd, keys, values, count, flags)


def delete_batch(fd: int, keys: bytes, count: int) -> None:
    """Delete ``count`` elements; on failure those before the one that failed are gone."""
    _batch(Command.MAP_DELETE_BATCH, fd, keys, b"", count, 0)


def freeze_map(fd: int) -> None:
    """Make a map read-only for system calls, for ever; BPF programs may still write unless its flags forbid it.

    :raises BpfError: EBUSY if it is mapped writable, or frozen already
    """
    _bpf(Command.MAP_FREEZE, struct.pack("=i", fd))


def load_program(instructions: bytes, *, license_text: str, name: str = "", kind: int = PROG_TYPE_XDP) -> int:
    """Load a program without BTF or relocations, and return its descriptor, which the caller owns.

    For measuring and probing; network functions are loaded by libbpf.
    """
    code, terms = _Input(instructions), _Input(license_text.encode("ascii") + b"\0")
    encoded = name.encode("ascii")[: OBJECT_NAME_BYTES - 1]
    return _create(
        Command.PROG_LOAD,
        _PROG_LOAD.pack(kind, len(instructions) // 8, code.address, terms.address, 0, 0, 0, 0, 0, encoded, 0, 0),
    )


def open_raw_tracepoint(program_fd: int, name: str) -> int:
    """Run a program whenever the kernel passes a tracepoint; return a descriptor that ends it when it is closed.

    :raises BpfError: ENOENT if the kernel has no such tracepoint
    """
    keep = _Input(name.encode("ascii") + b"\0")
    return _create(Command.RAW_TRACEPOINT_OPEN, _RAW_TRACEPOINT_OPEN.pack(keep.address, program_fd, 0))


def create_xdp_link(program_fd: int, ifindex: int, flags: int) -> int:
    """Attach an XDP program to an interface; return a descriptor that detaches it when it is closed.

    :param flags: XDP_FLAGS_* of include/uapi/linux/if_link.h
    """
    return _create(Command.LINK_CREATE, _LINK_CREATE.pack(program_fd, ifindex, _BPF_XDP, flags))


def update_link(link_fd: int, program_fd: int) -> None:
    """Put another program in the place of the one that a link attaches; no frame misses both."""
    _bpf(Command.LINK_UPDATE, _LINK_UPDATE.pack(link_fd, program_fd, 0, 0))


def pin_object(fd: int, path: str) -> None:
    """Give a map, program or link a name in a bpffs, which keeps it until the name is removed.

    :raises BpfError: EPERM if the path is in no bpffs, or has a dot in its last part; EEXIST if it is taken
    """
    keep = _Input(os.fsencode(path) + b"\0")
    _bpf(Command.OBJ_PIN, _OBJ_PIN.pack(keep.address, fd, 0))


def find_xdp_links(ifindex: int, program_id: int) -> list[int]:
    """Return descriptors of the bpf_links by which an XDP program is attached to an interface; the caller owns them.

    The kernel tells a link's ifindex but not its network namespace: an interface of another namespace may have the same
    one. So it takes the program as well, and there may be more than one link.

    :raises BpfError: EPERM without CAP_SYS_ADMIN
    """
    found: list[int] = []
    link_id = 0
    while True:
        request = _writable(struct.pack("=III", link_id, 0, 0))
        try:
            _call(Command.LINK_GET_NEXT_ID, request)
            (link_id,) = struct.unpack_from("=I", request, 4)
            fd = _bpf(Command.LINK_GET_FD_BY_ID, struct.pack("=III", link_id, 0, 0))
        except BpfError as end:
            if end.errno == errno.ENOENT and request.raw[4:8] == bytes(4):
                return found
            if end.errno == errno.ENOENT:
                continue  # it ended meanwhile
            raise
        kind, _id, program, where = _LINK_INFO.unpack_from(_info(fd, _LINK_INFO_BYTES))
        if (kind, program, where) == (_BPF_LINK_TYPE_XDP, program_id, ifindex):
            found.append(fd)
        else:
            os.close(fd)


def detach_link(fd: int) -> None:
    """Detach what a bpf_link attached, whoever else holds it."""
    _bpf(Command.LINK_DETACH, struct.pack("=i", fd))


def map_info(fd: int) -> MapInfo:
    """Ask the kernel about a map."""
    raw = _info(fd, _MAP_INFO.size)
    kind, number, key_size, value_size, max_entries, flags, name, *rest = _MAP_INFO.unpack(raw)
    _ifindex, _vmlinux_value_type_id, _netns_dev, _netns_ino, btf_id, key_type, value_type, _vmlinux_id = rest
    return MapInfo(kind, number, key_size, value_size, max_entries, flags, _text(name), btf_id, key_type, value_type)


def map_fd_by_id(number: int) -> int:
    """Return a descriptor of the map with an id, which the caller owns.

    :raises BpfError: ENOENT if it is gone
    """
    return _bpf(Command.MAP_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))


def program_info(fd: int) -> ProgramInfo:
    """Ask the kernel about a program."""
    fields = _PROG_INFO.unpack(_info(fd, _PROG_INFO.size))
    kind, number, tag, jited_size, xlated_size = fields[:5]
    num_maps = fields[9]
    ids = ctypes.create_string_buffer(4 * num_maps)
    if num_maps:
        # The kernel writes at most as many ids as the request says there is room for.
        request = bytearray(_PROG_INFO.size)
        struct.pack_into("=IQ", request, 52, num_maps, ctypes.addressof(ids))
        _info(fd, _PROG_INFO.size, bytes(request))
    return ProgramInfo(
        type=kind,
        id=number,
        tag=tag.hex(),
        jited_size=jited_size,
        xlated_size=xlated_size,
        name=_text(fields[11]),
        map_ids=struct.unpack(f"={num_maps}I", ids.raw),
        btf_id=fields[20],
        verified_instructions=fields[-2],
        runs=fields[-4],
        run_ns=fields[-5],
    )


def run_program(
    fd: int,
    data: bytes,
    *,
    context: bytes = b"",
    data_out_bytes: int = 0,
    repeat: int = 1,
    flags: int = 0,
    batch_size: int = 0,
) -> RunResult:
    """Run a program on ``data`` in the kernel, as BPF_PROG_TEST_RUN.

    :param context: the program type's context, struct xdp_md for XDP; what the program left of it is returned, but not
        of live frames, which the kernel takes away
    :param data_out_bytes: room for the data that comes back; 0 asks for none
    :param repeat: how many times; the data is not restored between runs
    :raises BpfError: ENOSPC if the room is too small: the program has then run all the same
    """
    source, given = _Input(data), _Input(context)
    data_out = ctypes.create_string_buffer(data_out_bytes)
    context_bytes = 0 if flags & BPF_F_TEST_XDP_LIVE_FRAMES else len(context)
    context_out = ctypes.create_string_buffer(context_bytes)
    attributes = _writable(
        _TEST_RUN.pack(
            *(fd, 0, len(data), data_out_bytes, source.address, ctypes.addressof(data_out) if data_out_bytes else 0),
            *(repeat, 0, len(context), context_bytes),
            *(given.address, ctypes.addressof(context_out) if context_bytes else 0, flags, 0, batch_size),
        )
    )
    _call(Command.PROG_TEST_RUN, attributes)
    _fd, retval, _in, size, _data, _data_out, _repeat, duration, _ctx_in, ctx_size, *_rest = _TEST_RUN.unpack(
        attributes.raw
    )
    return RunResult(retval, data_out.raw[:size], context_out.raw[:ctx_size], duration)


class _Input:
    """Bytes that the kernel reads: keeps them alive, and knows where they are; nothing has the address 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        # A bytes object's own memory, without a copy; it does not move.
        pointer = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
        self.address = (pointer or 0) if data else 0


def _batch(command: Command, fd: int, keys: bytes, values: bytes, count: int, flags: int) -> None:
    keep = _Input(keys), _Input(values)
    _bpf(command, _BATCH.pack(0, 0, keep[0].address, keep[1].address, count, fd, flags, 0))


def _info(fd: int, size: int, request: bytes = b"") -> bytes:
    info = ctypes.create_string_buffer(request or bytes(size), size)
    _bpf(Command.OBJ_GET_INFO_BY_FD, _INFO.pack(fd, size, ctypes.addressof(info)))
    return info.raw


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("ascii", "replace")


def _create(command: Command, attributes: bytes) -> int:
    """Make what Linux before 5.11 counts against RLIMIT_MEMLOCK: there EPERM may mean that it is used up."""
    try:
        return _bpf(command, attributes)
    except BpfError as refused:
        if refused.errno != errno.EPERM or not _raise_memlock_limit():
            raise
    return _bpf(command, attributes)


def _raise_memlock_limit() -> bool:
    """Raise RLIMIT_MEMLOCK as far as this process may; return whether it was lower."""
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for wanted in ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (before[1], before[1])):
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, wanted)
            break
    return resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != before[0]


def _writable(attributes: bytes) -> "ctypes.Array[ctypes.c_char]":
    return ctypes.create_string_buffer(attributes, len(attributes))


def _bpf(command: Command, attributes: bytes) -> int:
    return _call(command, _writable(attributes))


_libc = ctypes.CDLL(None, use_errno=True)


def _call(command: Command, attributes: "ctypes.Array[ctypes.c_char]") -> int:
    """Make the system call; the kernel may write into ``attributes``."""
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise UnsupportedFeatureError("bpf(2)", f"its number on {platform.machine()} is not known to uxdp")
    result = int(
        _libc.syscall(
            ctypes.c_long(number),
            ctypes.c_long(command),
            ctypes.c_void_p(ctypes.addressof(attributes)),
            ctypes.c_long(len(attributes)),
        )
    )
    if result >= 0:
        return result
    error = ctypes.get_errno()
    name = f"bpf(BPF_{command.name})"
    if error == errno.ENOSYS:
        raise UnsupportedFeatureError(
            "bpf(2)", "this kernel has no such system call", remedy="use a kernel built with CONFIG_BPF_SYSCALL=y"
        )
    if error == errno.EPERM and command in (Command.MAP_CREATE, Command.PROG_LOAD, Command.PROG_TEST_RUN):
        lacking = explain_refusal(name)
        if lacking is not None:
            raise lacking
    raise BpfError(error, f"{name}: {errno_text(error)}")
