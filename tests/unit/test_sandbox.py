"""What a confined process can still do. Each attempt runs in a process of its own, which confines itself for good."""

import ctypes
import os
import platform
import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from uxdp_bundle import sandbox

ROOT = Path(__file__).parents[2]
MACHINE = platform.machine()
LIMITS = {"memory_bytes": 1 << 30, "cpu_seconds": 2}

PREAMBLE = """
import ctypes, errno, mmap, os, resource, signal, socket, subprocess, sys, threading, time
sys.path.insert(0, {root!r})
from uxdp_bundle import sandbox
libc = ctypes.CDLL(None, use_errno=True)
file = open({file!r}, "wb", buffering=0)
{before}
sandbox.confine(memory_bytes={memory_bytes}, cpu_seconds={cpu_seconds})

def attempt(call):
    try:
        call()
    except (OSError, RuntimeError, MemoryError, ValueError) as error:
        os.write(1, (errno.errorcode.get(getattr(error, "errno", None), type(error).__name__)).encode())
    else:
        os.write(1, b"done")

def syscall(number, *arguments):
    ctypes.set_errno(0)
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
"""


def run(body: str, tmp_path: Path, *, before: str = "", **limits: int) -> subprocess.CompletedProcess[str]:
    script = PREAMBLE.format(root=str(ROOT), file=str(tmp_path / "file"), before=before, **(LIMITS | limits)) + body
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)


def outcome(call: str, tmp_path: Path, **options) -> str:
    result = run(f"attempt(lambda: {call})", tmp_path, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "call",
    [
        pytest.param("open('/etc/hostname')", id="read-a-file"),
        pytest.param("open('/proc/self/environ')", id="read-proc"),
        pytest.param("open('/tmp/uxdp-sandbox-test', 'w')", id="make-a-file"),
        pytest.param("os.listdir('/')", id="list-a-folder"),
        pytest.param("os.stat('/')", id="stat"),
        pytest.param("os.unlink('/tmp/uxdp-sandbox-test')", id="remove-a-file"),
        pytest.param("os.chmod('/tmp', 0o777)", id="chmod"),
        pytest.param("os.memfd_create('x')", id="memfd"),
        pytest.param("os.pipe()", id="pipe"),
        pytest.param("os.dup(0)", id="dup"),
        pytest.param("socket.socket()", id="socket"),
        pytest.param("socket.socketpair()", id="socketpair"),
        pytest.param("os.fork()", id="fork"),
        pytest.param("os.execv('/bin/true', ['true'])", id="exec"),
        pytest.param("subprocess.run(['/bin/true'])", id="spawn"),
        pytest.param("threading.Thread(target=int).start()", id="thread"),  # RuntimeError
        pytest.param("os.kill(os.getppid(), 0)", id="signal-the-parent"),
        pytest.param("os.setuid(0)", id="setuid"),
        pytest.param("os.chroot('/')", id="chroot"),
        pytest.param("resource.setrlimit(resource.RLIMIT_CPU, (60, 60))", id="raise-a-limit"),  # ValueError
    ],
)
def test_confine_call_is_refused(call, tmp_path):
    assert outcome(call, tmp_path) in ("EPERM", "RuntimeError", "ValueError")


# Numbers of x86-64 and aarch64; see asm/unistd_64.h and asm-generic/unistd.h
SYSCALLS = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "mount": (165, 40),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "unshare": (272, 97),
    "setns": (308, 268),
    "init_module": (175, 105),
    "prctl": (157, 167),
    "seccomp": (317, 277),
    "capset": (126, 91),
    "openat2": (437, 437),
    "pidfd_getfd": (438, 438),
    "shmget": (29, 194),
    "open_by_handle_at": (304, 265),
}


@pytest.mark.parametrize("name", SYSCALLS)
def test_confine_system_call_is_refused(name, tmp_path):
    number = SYSCALLS[name][MACHINE == "aarch64"]
    assert outcome(f"syscall({number}, 0, 0, 0, 0, 0)", tmp_path) == "EPERM"


@pytest.mark.skipif(MACHINE != "x86_64", reason="only x86-64 has a second table of system calls")
def test_confine_x32_system_call_is_refused(tmp_path):
    assert outcome("syscall(0x40000000 | 39)", tmp_path) == "EPERM"


@pytest.mark.skipif(MACHINE != "x86_64", reason="only x86-64 has int 0x80")
def test_confine_system_call_of_another_architecture_ends_the_process(tmp_path):
    # mov eax, 20 (getpid); int 0x80; ret
    body = """
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("b814000000cd80c3"))
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
os.write(1, str(ctypes.CFUNCTYPE(ctypes.c_int)(address)()).encode())
"""
    result = run(body, tmp_path)
    # SIGSEGV where the kernel has no 32-bit system calls at all.
    assert (result.returncode, result.stdout) in ((-signal.SIGSYS, ""), (-signal.SIGSEGV, ""))


@pytest.mark.parametrize(
    "call",
    [
        pytest.param("os.write(2, b'x')", id="answer"),
        pytest.param("os.read(0, 1)", id="read-input"),
        pytest.param("bytearray(64 << 20)", id="memory"),
        pytest.param("time.time()", id="clock"),
        pytest.param("os.urandom(1)", id="random"),
    ],
)
def test_confine_what_computing_needs_still_works(call, tmp_path):
    assert outcome(call, tmp_path) == "done"


def test_confine_open_file_cannot_grow(tmp_path):
    assert outcome("file.write(b'x')", tmp_path) == "EFBIG"
    assert (tmp_path / "file").read_bytes() == b""


def test_confine_memory_is_limited(tmp_path):
    assert outcome("bytearray(2 << 30)", tmp_path) == "MemoryError"


def test_confine_processor_time_is_limited(tmp_path):
    assert run("while True: pass", tmp_path, cpu_seconds=1).returncode == -signal.SIGXCPU


def test_confine_dies_without_a_core(tmp_path):
    result = run("os.abort()", tmp_path)
    assert result.returncode == -signal.SIGABRT
    assert not list(tmp_path.glob("core*"))


def test_confine_leaves_no_capability_and_no_way_back(tmp_path):
    script = PREAMBLE.format(root=str(ROOT), file=str(tmp_path / "file"), before="", **LIMITS)
    script += "os.write(1, b'.')\nos.read(0, 1)\n"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.read(1) == b"."
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{child.pid}/status").read_text().splitlines())
        limits = Path(f"/proc/{child.pid}/limits").read_text() if os.geteuid() == 0 else ""
        child.communicate()
    # As root too: the user id stays, and means nothing without capabilities.
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    if limits:
        assert "Max processes             0                    0" in limits


def test_confine_lowers_limits_that_are_lower_already(tmp_path):
    before = "resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))"
    assert outcome("bytearray(600 << 20)", tmp_path, before=before, memory_bytes=4 << 30) == "MemoryError"


# The same without leaving this process: the steps in their order, and the filter, run by an interpreter.


class FakeLibc:
    """Records calls, and fails the one that it is told to."""

    def __init__(self, failing: str = "") -> None:
        self.calls: list[tuple[str, tuple[object, ...]]] = []
        self.program = b""
        self._failing = failing

    def prctl(self, option: int, *arguments: object) -> int:
        if option == 22 and isinstance(arguments[1], bytes):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
            length, address = struct.unpack("<HxxxxxxQ", arguments[1])
            self.program = ctypes.string_at(address, 8 * length)
        return self._record(f"prctl {option}", arguments)

    def syscall(self, number: int, *arguments: object) -> int:
        return self._record(f"syscall {number}", arguments)

    def _record(self, name: str, arguments: tuple[object, ...]) -> int:
        self.calls.append((name, arguments))
        if name == self._failing:
            ctypes.set_errno(13)
            return -1
        return 0


@pytest.fixture
def limits(monkeypatch) -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: found.update({which: pair}))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (0, 1000 if which == resource.RLIMIT_AS else -1))
    return found


def confine_with(libc: FakeLibc, monkeypatch, machine: str = "x86_64") -> None:
    monkeypatch.setattr(sandbox.ctypes, "CDLL", lambda *_arguments, **_options: libc)
    monkeypatch.setattr(sandbox.os, "uname", lambda: SimpleNamespace(machine=machine))
    sandbox.confine(memory_bytes=4096, cpu_seconds=7)


def test_confine_takes_every_step(limits, monkeypatch):
    libc = FakeLibc()
    confine_with(libc, monkeypatch)
    assert limits[resource.RLIMIT_CPU] == (7, 8)
    assert limits[resource.RLIMIT_AS] == (1000, 1000)
    assert {limits[which] for which in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC)} == {(0, 0)}
    # PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, capset, PR_SET_SECCOMP
    assert [name for name, _arguments in libc.calls] == ["prctl 4", "prctl 38", "syscall 126", "prctl 22"]
    assert libc.calls[2][1][1] == bytes(24)


@pytest.mark.parametrize("step", ["prctl 4", "prctl 38", "syscall 126", "prctl 22"])
def test_confine_step_that_fails_raises_os_error(step, limits, monkeypatch):
    with pytest.raises(OSError, match=r"prctl|capset") as caught:
        confine_with(FakeLibc(step), monkeypatch)
    assert caught.value.errno == 13


def test_confine_on_an_unknown_machine_raises_os_error(limits, monkeypatch):
    with pytest.raises(OSError, match="no system call table for riscv64; known are x86_64, aarch64"):
        confine_with(FakeLibc(), monkeypatch, "riscv64")


def verdict(program: bytes, architecture: int, number: int) -> int:
    """Run a filter of the three instructions that ours is made of."""
    accumulator, position = 0, 0
    while True:
        code, if_true, if_false, k = struct.unpack_from("<HBBI", program, 8 * position)
        position += 1
        if code == 0x06:  # return
            return k
        if code == 0x20:  # load a word of struct seccomp_data
            accumulator = {0: number, 4: architecture}[k]
        else:
            assert code == 0x15  # jump if equal
            position += if_true if accumulator == k else if_false


ALLOW, EPERM, KILL = 0x7FFF0000, 0x00050001, 0x80000000


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
def test_filter_allows_the_listed_calls_and_no_other(machine, architecture, limits, monkeypatch):
    libc = FakeLibc()
    confine_with(libc, monkeypatch, machine)
    allowed = set(sandbox._MACHINES[machine][2].values())
    for number in (*range(600), 0x40000000, 0xFFFFFFFF):
        assert verdict(libc.program, architecture, number) == (ALLOW if number in allowed else EPERM), number
    for other in (0x40000003, 0xC000003E ^ 0xC00000B7 ^ architecture, 0):  # i386, the other machine, none
        assert verdict(libc.program, other, min(allowed)) == KILL


def test_filter_tables_name_the_same_calls_for_every_machine():
    names = [set(calls) for _architecture, _capset, calls in sandbox._MACHINES.values()]
    assert names[0] == names[1]
