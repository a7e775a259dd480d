"""Helpers whose answer is the running kernel's: routes, neighbours, devices, sockets, SYN cookies."""

import itertools
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.bound_bundles import bound_image
from tests.router_namespace import RouterNamespace, router_namespace
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.compile.program import compile_program
from uxdp_runtime.differential import Differential, native_cpus
from uxdp_runtime.frames.generate import Frame
from uxdp_runtime.kernel_state import Questions
from uxdp_runtime.stores import ControlLibrary
from uxdp_runtime.verify import verify

pytestmark = pytest.mark.kernel

CASES = Path(__file__).parents[1] / "cases" / "native"
ETHERNET = bytes(12) + struct.pack("!H", 0x88B5)
TX = 3
DIRECT, OUTPUT, SKIP_NEIGH, TBID, SRC, MARK, UNKNOWN = (1 << bit for bit in range(7))
FLAGS = range(UNKNOWN)


class Cases:
    """Builds a case and runs frames through it on both sides."""

    def __init__(self, target: Target, control: ControlLibrary, cache: Path) -> None:
        self._target, self._control, self._cache = target, control, cache

    def run(self, name: str, frames: Iterable[bytes]) -> tuple[list[bytes], Questions]:
        """Expect that nothing differs; return what became of the frames, and what was asked for them in bursts."""
        image = build(BuildRequest(sources=(f"{name}.c",), cwd=CASES)).bundle
        answers = []
        with bound_image(image) as bound, verify(bound) as verified:
            compiled = compile_program(
                verified, name, self._target, num_cpus=native_cpus(), cache_directory=self._cache
            )
            with Differential(compiled, self._control) as sides:
                for _frame, outcome, difference in sides.run(Frame(data) for data in frames):
                    assert difference is None, f"{_frame.data.hex()} {difference}"
                    assert outcome.verdict == TX
                    answers.append(outcome.data)
                assert list(sides.map_differences()) == []
                assert sides.left_out == 0
                kernel = sides._burst.kernel
                assert kernel is not None
                return answers, kernel.questions


@pytest.fixture
def cases(kernel: None, target: Target, control: ControlLibrary, cache: Path) -> Cases:
    return Cases(target, control, cache)


@pytest.fixture(scope="module")
def router() -> Iterator[RouterNamespace]:
    with router_namespace() as space:
        yield space


@pytest.fixture
def inside(kernel: None, router: RouterNamespace) -> Iterator[RouterNamespace]:
    """The thread is in the namespace meanwhile."""
    with router.entered():
        yield router


def fib(
    ifindex: int,
    target: str,
    flags: int = 0,
    *,
    source: str = "",
    total: int = 0,
    tos: int = 0,
    protocol: int = 17,
    ports: tuple[int, int] = (0, 0),
    table: int = 0,
    tail: bytes = bytes(12),
    short: bool = False,
) -> bytes:
    """Return a frame for fib_lookup.c: struct bpf_fib_lookup in it; tail is the mark, or what the MACs hold before."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    source = source or ("2001:db8::1" if family == socket.AF_INET6 else "10.0.0.9")
    addresses = b"".join(socket.inet_pton(family, address).ljust(16, b"\0") for address in (source, target))
    params = (
        struct.pack("=BB", family, protocol) + struct.pack("!HH", *ports) + struct.pack("=HII", total, ifindex, tos)
    )
    params += addresses + struct.pack("=I", table) + tail
    return ETHERNET + struct.pack("=HI", short, flags) + params + bytes(8)


def fib_result(frame: bytes) -> int:
    return int(struct.unpack_from("=q", frame, 84)[0])


IPV4_TARGETS = (
    *(f"192.0.{net}.5" for net in range(2, 11)),
    *(f"203.0.113.{host}" for host in (1, 17, 33, 49, 65, 200)),
    *("10.0.0.1", "10.1.0.2", "10.1.0.9", "10.1.0.255", "127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0"),
)
IPV6_TARGETS = (
    *(f"2001:db8:{net}::5" for net in (2, 3, 4, 5, 6, 7, 10, 11, 12, 99)),
    *("fd00:0::1", "fd00:1::2", "fd00:1::9", "::1", "ff02::1", "fe80::1", "::", "::ffff:192.0.2.5"),
)


def test_fib_lookup_agrees_for_every_flag_and_kind_of_route(cases: Cases, inside: RouterNamespace) -> None:
    here = inside.index("in0")
    frames = [fib(here, target, flags) for target in (*IPV4_TARGETS, *IPV6_TARGETS) for flags in FLAGS]
    answers, questions = cases.run("fib_lookup", frames)
    assert {fib_result(answer) for answer in answers} == {0, 1, 2, 3, 4, 6, 7}  # BPF_FIB_LKUP_RET_…
    assert questions.failed == 0
    assert questions.asked == len(frames)


def test_fib_lookup_agrees_for_every_other_argument(cases: Cases, inside: RouterNamespace) -> None:
    here, there, closed = (inside.index(name) for name in ("in0", "out0", "closed0"))
    frames = []
    for target in ("192.0.2.5", "192.0.6.5", "192.0.8.5", "2001:db8:2::5", "2001:db8:6::5"):
        for flags in (0, DIRECT, OUTPUT, DIRECT | TBID, MARK, SRC, SKIP_NEIGH, DIRECT | OUTPUT, UNKNOWN, 1 << 31):
            frames += [fib(ifindex, target, flags) for ifindex in (0, 1, here, there, closed, 12345, 0xFFFFFFFF)]
            frames += [fib(here, target, flags, source=source) for source in ("10.9.1.1",) if ":" not in target]
            frames += [fib(here, target, flags, source=source) for source in ("fd00:9::1",) if ":" in target]
            frames += [fib(here, target, flags, tos=tos) for tos in (0x10, 0x03, 0xFF, 0x0F00000)]
            frames += [fib(here, target, flags, ports=ports) for ports in ((1, 4789), (7, 8), (8, 7))]
            frames += [fib(here, target, flags, protocol=6, ports=(1, 4789))]
            frames += [fib(here, target, flags, table=table) for table in (100, 101, 254, 255, 4242)]
            frames += [fib(here, target, flags, tail=struct.pack("=I", mark).ljust(12, b"x")) for mark in (7, 8)]
            frames += [fib(here, target, flags, short=True)]
    frames += [bytes(14) + struct.pack("=HI", 0, 0) + bytes([family]) + bytes(71) for family in (0, 1, 3, 255)]
    answers, questions = cases.run("fib_lookup", frames)
    results = {fib_result(answer) for answer in answers}
    assert results >= {0, 1, 3, 4, 5, -22, -19, -97}
    assert questions.failed == 0


@pytest.mark.parametrize("to", ["192.0.2.5", "192.0.3.5", "192.0.4.5", "192.0.99.5", "2001:db8:4::5", "127.0.0.1"])
def test_fib_lookup_agrees_for_every_length_with_one_question(cases: Cases, inside: RouterNamespace, to: str) -> None:
    here = inside.index("in0")
    lengths = (0, 1, 576, 1199, 1200, 1201, 1299, 1300, 1301, 1399, 1400, 1401, 1500, 9000, 65534, 65535)
    frames = [fib(here, to, flags, total=total) for flags in (SKIP_NEIGH, DIRECT | TBID) for total in lengths]
    answers, questions = cases.run("fib_lookup", frames)
    assert len(frames) == 32  # a burst
    assert (questions.asked, questions.remembered) == (2, 30)
    if to in ("192.0.2.5", "192.0.3.5", "192.0.4.5", "2001:db8:4::5"):
        assert {fib_result(answer) for answer in answers} >= {0, 8}


def test_fib_lookup_forgets_what_has_changed(cases: Cases, inside: RouterNamespace) -> None:
    here = inside.index("in0")
    frame = fib(here, "192.0.9.5")

    results = []
    for step in (
        "neigh replace 10.1.0.8 lladdr 02:00:00:00:00:08 dev out0 nud permanent",
        "neigh del 10.1.0.8 dev out0",
    ):
        (before,), _ = cases.run("fib_lookup", [frame])
        inside.ip(step)
        (after,), _ = cases.run("fib_lookup", [frame])
        results.append((fib_result(before), fib_result(after)))
    assert results == [(7, 0), (0, 7)]


def mtu(ifindex: int, *, mtu_len: int = 0, len_diff: int = 0, flags: int = 0, padding: int = 0) -> bytes:
    """Return a frame for check_mtu.c."""
    return ETHERNET + struct.pack("=HIIiQq", 0, ifindex, mtu_len, len_diff, flags, 0) + bytes(padding)


def test_check_mtu_agrees(cases: Cases, inside: RouterNamespace) -> None:
    own = len(mtu(0))
    frames = []
    for name in ("in0", "out0", "lo"):
        index, size = inside.index(name), int(inside.ip(f"-o link show dev {name}").split(" mtu ")[1].split()[0])
        edge = [size - 1, size, size + 1, size + 13, size + 14, size + 15]
        frames += [mtu(index, mtu_len=length) for length in (1, 2**31 - 1, 2**31, 2**32 - 1, *edge)]
        frames += [mtu(index, len_diff=length - own) for length in edge]
        frames += [mtu(index, len_diff=diff) for diff in (-(2**31), -1, 2**31 - 1, 2**31 - own)]
        frames += [mtu(index, mtu_len=100, len_diff=length - 100) for length in edge]
        frames += [mtu(index, padding=length - own) for length in edge if own <= length <= 3000]
    frames += [mtu(0, padding=padding) for padding in (0, 500)]
    frames += [mtu(index, flags=flags, mtu_len=5) for index in (0, 1, 77) for flags in (1, 2, 1 << 40)]
    frames += [mtu(index, mtu_len=9) for index in (77, 0x7FFFFFFF, 0xFFFFFFFF)]
    answers, questions = cases.run("check_mtu", itertools.chain(frames, frames))
    results = {struct.unpack_from("=q", answer, 36)[0] for answer in answers}
    assert results == {0, 1, -22, -19}
    assert questions.failed == 0
    assert questions.remembered > len(frames)
