"""Helpers whose answer is the running kernel's: routes, neighbours, devices, sockets, SYN cookies."""

import itertools
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.bound_bundles import bound_image
from tests.router_namespace import RouterNamespace, router_namespace
from tests.serving import wait_until
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.compile.program import compile_program
from uxdp_runtime.differential import Differential, native_cpus
from uxdp_runtime.frames.generate import Frame
from uxdp_runtime.kernel_state import Questions
from uxdp_runtime.native_module import kernel_hz
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

    def run(self, name: str, frames: Iterable[bytes], *, ifindex: int = 1) -> tuple[list[bytes], Questions]:
        """Expect that nothing differs; return what became of the frames, and what was asked for them in bursts."""
        image = build(BuildRequest(sources=(f"{name}.c",), cwd=CASES)).bundle
        answers = []
        with bound_image(image) as bound, verify(bound) as verified:
            compiled = compile_program(
                verified, name, self._target, num_cpus=native_cpus(), cache_directory=self._cache
            )
            with Differential(compiled, self._control) as sides:
                for frame, outcome, difference in sides.run(Frame(data, ifindex) for data in frames):
                    assert difference is None, f"{frame.data.hex()} {difference}"
                    assert outcome.verdict == TX
                    answers.append(outcome.data)
                assert list(sides.map_differences()) == []
                assert sides.left_out == 0
                kernel = sides._burst.kernel
                assert kernel is not None
                assert kernel.questions.failed == 0
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
    answers, _questions = cases.run("fib_lookup", frames)
    results = {fib_result(answer) for answer in answers}
    assert results >= {0, 1, 3, 4, 5, -22, -19, -97}


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


def with_other_rest(frame: bytes, number: int) -> bytes:
    """Return the question with other bytes in what no lookup of these flags depends on, and another length."""
    data = bytearray(frame)
    (flags,), family = struct.unpack_from("=I", data, 16), data[20]
    junk = bytes([number]) * 12
    data[26:28] = struct.pack("=H", 1000 + number)
    if family == socket.AF_INET:
        data[33:36], data[40:52], data[56:68] = junk[:3], junk, junk
    if not flags & TBID:
        data[68:72] = junk[:4]
    first = 76 if flags & MARK else 72
    data[first:84] = junk[: 84 - first]
    return bytes(data)


def test_fib_lookup_agrees_for_what_no_lookup_depends_on_with_one_question(
    cases: Cases, inside: RouterNamespace
) -> None:
    here = inside.index("in0")
    targets = (
        *(f"192.0.{net}.5" for net in (2, 3, 4, 6, 7)),
        *("203.0.113.1", "2001:db8:2::5", "2001:db8:3::5", "2001:db8:6::5", "ff02::1"),
    )
    questions = [fib(here, target, flags, table=100) for target in targets for flags in FLAGS]
    frames = [with_other_rest(frame, number) for frame in questions for number in (1, 0x5A, 250, 255)]
    answers, counted = cases.run("fib_lookup", frames)
    assert {fib_result(answer) for answer in answers} == {0, 1, 4, 7, 8}
    assert (counted.asked, counted.remembered) == (len(questions), 3 * len(questions))


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
    assert questions.remembered > len(frames)


TCP, UDP, SKC = range(3)
LISTENER, LISTENER_V6, BOUND, UDP_PORT, UDP_CONNECTED, CLIENT_PORT, UDP_V6 = range(8080, 8087)
HALF_OPEN_PORT = 7777
TCP_CLOSE, TCP_LISTEN, TCP_NEW_SYN_RECV = 7, 10, 12


@contextmanager
def sockets(space: RouterNamespace) -> Iterator[None]:
    """Have sockets of every kind in a namespace; the calling thread is in it."""
    with ExitStack() as stack:

        def make(family: int, kind: int, address: str, port: int) -> socket.socket:
            made = stack.enter_context(socket.socket(family, kind))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address, port))
            return made

        listener = make(socket.AF_INET, socket.SOCK_STREAM, "10.0.0.1", LISTENER)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x1234)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 5)
        listener.listen(8)
        make(socket.AF_INET6, socket.SOCK_STREAM, "::", LISTENER_V6).listen(8)
        bound = make(socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0", BOUND)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"in0")
        bound.listen(8)
        make(socket.AF_INET, socket.SOCK_DGRAM, "0.0.0.0", UDP_PORT)
        make(socket.AF_INET, socket.SOCK_DGRAM, "10.0.0.1", UDP_CONNECTED).connect(("10.0.0.1", UDP_PORT))
        make(socket.AF_INET6, socket.SOCK_DGRAM, "::1", UDP_V6)
        client = make(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", CLIENT_PORT)
        client.connect(("10.0.0.1", LISTENER))
        stack.enter_context(listener.accept()[0])
        space.sysctl("net.ipv4.tcp_syncookies=1")  # or nothing would be half open
        half_open(space)
        yield


def half_open(space: RouterNamespace) -> None:
    """Send a SYN from an address that never answers."""
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 1, 0, 64, 6, 0, *map(socket.inet_aton, ("10.0.0.9", "10.0.0.1")))
    ip = ip[:10] + checksum(ip) + ip[12:]
    tcp = struct.pack("!HHIIHHHH", HALF_OPEN_PORT, LISTENER, 1, 0, 5 << 12 | 2, 1000, 0, 0)
    tcp = tcp[:16] + checksum(ip[12:20] + struct.pack("!HH", 6, len(tcp)) + tcp) + tcp[18:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("in1", 0))
        macs = space.ip("-o link show dev in0").split("link/ether ")[1].split()[0]
        raw.send(bytes.fromhex(macs.replace(":", "")) + bytes(6) + struct.pack("!H", 0x0800) + ip + tcp)
    # In SYN_RECV until the kernel has sent its answer several times, which is half a minute.
    wait_until(lambda: f":{HALF_OPEN_PORT:04X} 03 " in Path("/proc/thread-self/net/tcp").read_text(), "a half-open one")


def checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)


def socket_tuple(source: tuple[str, int], target: tuple[str, int]) -> bytes:
    """Return struct bpf_sock_tuple."""
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    addresses = b"".join(socket.inet_pton(family, address) for address, _port in (source, target))
    return addresses + struct.pack("!HH", source[1], target[1])


def lookup(kind: int, name: bytes, *, length: int | None = None, netns: int = 2**64 - 1, flags: int = 0) -> bytes:
    """Return a frame for socket_lookup.c."""
    order = struct.pack("=HIQQ", kind, len(name) if length is None else length, netns, flags)
    return ETHERNET + order + name.ljust(36, b"\0") + bytes(84)


PAIRS = (
    (("10.0.0.9", 5), ("10.0.0.1", LISTENER)),
    (("10.0.0.9", HALF_OPEN_PORT), ("10.0.0.1", LISTENER)),
    (("127.0.0.1", CLIENT_PORT), ("10.0.0.1", LISTENER)),
    (("10.0.0.1", LISTENER), ("127.0.0.1", CLIENT_PORT)),
    (("10.0.0.9", 5), ("10.0.0.1", LISTENER_V6)),
    (("10.0.0.9", 5), ("10.0.0.1", BOUND)),
    (("10.0.0.9", 5), ("10.0.0.1", UDP_PORT)),
    (("10.0.0.1", UDP_PORT), ("10.0.0.1", UDP_CONNECTED)),
    (("10.0.0.1", UDP_PORT + 9), ("10.0.0.1", UDP_CONNECTED)),
    (("10.0.0.9", 5), ("10.0.0.1", 9)),
    (("fd00::9", 5), ("fd00::1", LISTENER_V6)),
    (("::1", 5), ("::1", UDP_V6)),
    (("fd00::9", 5), ("fd00::1", LISTENER)),
)


@pytest.mark.parametrize("device", ["lo", "in0"])
def test_socket_lookups_agree(cases: Cases, inside: RouterNamespace, device: str) -> None:
    with sockets(inside):
        frames = [lookup(kind, socket_tuple(*pair)) for kind in (TCP, UDP, SKC) for pair in PAIRS]
        known = socket_tuple(*PAIRS[0])
        for kind in (TCP, UDP, SKC):
            frames += [lookup(kind, known, length=length) for length in (0, 13, 36)]
            frames += [lookup(kind, known, netns=netns) for netns in (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63)]
            frames += [lookup(kind, known, flags=flags) for flags in (1, 2**32, 2**63)]
        answers, questions = cases.run("socket_lookup", frames, ifindex=inside.index(device))
    found = [struct.unpack_from("=I14I4I", answer, 72) for answer in answers]
    states = {fields[11] for fields in found if fields[0]}
    assert {TCP_LISTEN, TCP_NEW_SYN_RECV, TCP_CLOSE} <= states
    assert {fields[17] for fields in found} >= {0x1234}
    assert sum(bool(fields[0]) for fields in found) > 15
    assert questions.remembered == 0
    bound = found[PAIRS.index((("10.0.0.9", 5), ("10.0.0.1", BOUND)))]
    assert bool(bound[0]) is (device == "in0")


def test_several_sockets_are_held_at_once(cases: Cases, inside: RouterNamespace) -> None:
    addresses = ("10.0.0.1", "10.1.0.1", "10.99.0.1")
    ports = (LISTENER, LISTENER_V6, 9)
    with sockets(inside):
        frames = []
        for one, other in itertools.product(addresses, repeat=2):
            for first, second in itertools.product(ports, repeat=2):
                order = b"".join(map(socket.inet_aton, (one, other))) + struct.pack("!HH", first, second)
                frames.append(ETHERNET + bytes(2) + order + bytes(32))
        answers, _questions = cases.run("socket_several", frames)
    seen = [struct.unpack_from("=8I", answer, 28) for answer in answers]
    assert (LISTENER, LISTENER_V6) in {(fields[0], fields[1]) for fields in seen}
    assert any(all(fields[:3]) for fields in seen)


COOKIE_PERIOD_SECONDS = 60


def wait_for_quiet_cookies() -> None:
    """Cookies change when a minute of the kernel's jiffies is over: that must not be between the two sides."""
    # jiffies_64 began 300 s before the lower 32 bits wrapped.
    hz = kernel_hz()
    period = COOKIE_PERIOD_SECONDS * hz
    jiffies = (2**32 - 300 * hz) + int(time.clock_gettime(6) * hz)
    left = (period - jiffies % period) / hz
    if left < 3:
        time.sleep(left + 0.1)


def ip_header(source: str, target: str) -> bytes:
    if ":" in target:
        addresses = b"".join(socket.inet_pton(socket.AF_INET6, address) for address in (source, target))
        return struct.pack("!IHBB", 6 << 28, 20, 6, 64) + addresses
    return struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0) + socket.inet_aton(source) + socket.inet_aton(target)


FIN, SYN, RST, ACK = 1, 2, 4, 16


def tcp_header(ports: tuple[int, int], flags: int, *, seq: int = 1, ack: int = 0, options: bytes = b"") -> bytes:
    offset = 5 + len(options) // 4
    return struct.pack("!HHIIHHHH", *ports, seq, ack, offset << 12 | flags, 1000, 0, 0) + options


def cookie(
    kind: int, name: bytes, ip: bytes, tcp: bytes, *, check: bool = False, ip_len: int = 0, tcp_len: int = 0
) -> bytes:
    """Return a frame for syncookies.c; lengths are those of the headers where none is given."""
    lengths = ((ip_len or len(ip)) - 1, (tcp_len or len(tcp)) - 1)
    order = struct.pack("=BBBBBB", check, kind, len(name) == 36, *lengths, 0)
    return ETHERNET + order + name.ljust(36, b"\0") + bytes(8) + ip.ljust(64, b"\0") + tcp.ljust(64, b"\0")


def cookie_result(answer: bytes) -> int:
    return int(struct.unpack_from("=q", answer, 56)[0])


MSS, LONG_OPTIONS = bytes.fromhex("020405b4"), bytes.fromhex("020403000402080a0000000100000000" + "01" * 24)
TWO_ENDS = [(("10.0.0.9", 5), ("10.0.0.1", LISTENER)), (("fd00::9", 5), ("fd00::1", LISTENER_V6))]


def cookie_frames(source: tuple[str, int], target: tuple[str, int], made: Mapping[bytes, int]) -> list[bytes]:
    """Return what a listener can be asked, right and wrong.

    :param made: the cookies that are known, by the options of the SYN
    """
    name, ports, ip = socket_tuple(source, target), (source[1], target[1]), ip_header(source[0], target[0])
    other_ip = ip_header(*("10.0.0.9", "10.0.0.1") if ":" in target[0] else ("fd00::9", "fd00::1"))
    frames = []
    for kind in (TCP, SKC):
        frames += [
            cookie(kind, name, ip, tcp_header(ports, SYN, options=options)) for options in (b"", MSS, LONG_OPTIONS)
        ]
        frames += [
            cookie(kind, name, ip, tcp_header(ports, flags)) for flags in (0, ACK, SYN | ACK, SYN | FIN, SYN | RST)
        ]
        for check in (False, True):
            header = tcp_header(ports, ACK if check else SYN)
            frames += [cookie(kind, name, ip, header, check=check, ip_len=size) for size in (1, 19, 20, 21, 39, 40, 64)]
            frames += [
                cookie(kind, name, ip, header, check=check, tcp_len=size) for size in (1, 19, 20, 21, 60, 61, 64)
            ]
            frames += [
                cookie(kind, name, version + ip[1:], header, check=check) for version in (b"\x15", b"\x45", b"\x60")
            ]
            frames.append(cookie(kind, name, other_ip, header, check=check))
        for number in (*made.values(), 0x12345):
            frames += [
                cookie(kind, name, ip, tcp_header(ports, flags, seq=2, ack=number + 1), check=True)
                for flags in (ACK, ACK | SYN, ACK | RST, 0)
            ]
    frames.append(cookie(UDP, socket_tuple(*PAIRS[6]), ip, tcp_header(ports, SYN)))
    frames.append(cookie(UDP, socket_tuple(*PAIRS[6]), ip, tcp_header(ports, ACK), check=True))
    # A socket that does not listen.
    established = socket_tuple(*PAIRS[2])
    frames += [
        cookie(TCP, established, ip, tcp_header(ports, SYN)),
        cookie(SKC, established, ip, tcp_header(ports, SYN)),
    ]
    half_open_one = socket_tuple(*PAIRS[1])
    frames.append(cookie(SKC, half_open_one, ip, tcp_header(ports, ACK), check=True))
    return frames


@pytest.mark.parametrize("setting", [0, 1, 2])
def test_syncookies_of_listeners_agree(cases: Cases, inside: RouterNamespace, setting: int) -> None:
    with sockets(inside):
        inside.sysctl(f"net.ipv4.tcp_syncookies={setting}")
        wait_for_quiet_cookies()
        made = {}
        for ends in TWO_ENDS:
            name, ip = socket_tuple(*ends), ip_header(ends[0][0], ends[1][0])
            wanted = [
                cookie(TCP, name, ip, tcp_header((ends[0][1], ends[1][1]), SYN, options=options))
                for options in (b"", MSS, LONG_OPTIONS)
            ]
            answers, _questions = cases.run("syncookies", wanted)
            results = [cookie_result(answer) for answer in answers]
            assert all((result > 1 << 32) is (setting == 2) for result in results), results
            made[ends] = dict(zip((b"", MSS, LONG_OPTIONS), (result & 0xFFFFFFFF for result in results), strict=True))
        frames = [frame for ends in TWO_ENDS for frame in cookie_frames(*ends, made[ends])]
        answers, _questions = cases.run("syncookies", frames)
    results = {cookie_result(answer) for answer in answers}
    assert results >= ({0, -2, -22, -93} if setting == 2 else {-2, -22})


def test_raw_syncookies_agree(cases: Cases, inside: RouterNamespace) -> None:
    def raw(ip: bytes, tcp: bytes, *, check: bool = False, tcp_len: int | None = None) -> bytes:
        order = struct.pack("=BBBB", check, len(ip) == 40, len(tcp) if tcp_len is None else tcp_len, 0)
        return ETHERNET + order + bytes(8) + ip.ljust(64, b"\0") + tcp.ljust(64, b"\0")

    wait_for_quiet_cookies()
    headers = [ip_header("198.51.100.1", "192.0.2.1"), ip_header("2001:db8::1", "2001:db8::2")]
    frames = []
    for ip in headers:
        frames += [raw(ip, tcp_header((7, 8), SYN, options=options)) for options in (b"", MSS, LONG_OPTIONS)]
        frames += [raw(ip, tcp_header((7, 8), SYN), tcp_len=size) for size in (0, 1, 19, 20, 21, 60, 61, 64)]
        frames += [raw(ip, tcp_header((7, 8), flags)) for flags in (0, ACK)]
    answers, questions = cases.run("raw_syncookies", frames)
    results = [struct.unpack_from("=q", answer, 18)[0] for answer in answers]
    assert {result for result in results if result < 0} == {-22}
    assert questions.remembered == 0
    cookies = [result & 0xFFFFFFFF for result in results if result > 0]
    assert len(cookies) > 8
    checks = [
        raw(ip, tcp_header((7, 8), ACK, seq=2, ack=number + 1 & 0xFFFFFFFF), check=True)
        for ip in headers
        for number in (*cookies, 5)
    ]
    answers, _questions = cases.run("raw_syncookies", checks)
    assert {struct.unpack_from("=q", answer, 18)[0] for answer in answers} == {0, -13}
