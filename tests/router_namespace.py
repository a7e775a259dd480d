"""A network namespace with interfaces, routes, rules and neighbours of every kind that lookups tell apart."""

import os
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from uxdp_runtime.bpf.network_namespace import _move

MAC = "02:00:00:00:00:%02x"
# What is set up: ip(8)'s arguments. in0 and out0 are veth devices whose other ends are here, too.
_LINKS = (
    "link add in0 type veth peer name in1",
    "link add out0 type veth peer name out1",
    "link add closed0 type veth peer name closed1",
    "link set lo up",
    *(f"link set {name} up" for name in ("in0", "in1", "out0", "out1", "closed0", "closed1")),
    "link set out0 mtu 1400",
)
_IPV4 = (
    "addr add 10.0.0.1/24 dev in0",
    "addr add 10.1.0.1/24 dev out0",
    "addr add 10.1.0.77/32 dev out0",
    "addr add 10.2.0.1/24 dev closed0",
    *(f"neigh add 10.1.0.{host} lladdr {MAC % host} dev out0 nud permanent" for host in (2, 3)),
    f"neigh add 10.0.0.9 lladdr {MAC % 9} dev in0 nud permanent",
    "neigh add 10.1.0.8 dev out0 nud failed",
    "route add 192.0.2.0/24 via 10.1.0.2",
    "route add 192.0.3.0/24 via 10.1.0.9",  # nobody's neighbour
    "route add 192.0.4.0/24 via 10.1.0.2 mtu lock 1200",
    "route add 192.0.5.0/24 via 10.1.0.2 src 10.1.0.77",
    "route add 192.0.6.0/24 nexthop via 10.1.0.2 nexthop via 10.1.0.3 weight 3",
    "route add 192.0.7.0/24 via inet6 fd00:1::2 dev out0",
    "route add 192.0.8.0/24 tos 0x10 via 10.1.0.3",
    "route add 192.0.8.0/24 via 10.1.0.2 metric 77",
    "route add 192.0.9.0/24 via 10.1.0.8",
    "route add 192.0.10.0/24 encap ip id 5 dst 10.1.0.2 dev out0",
    "route add blackhole 203.0.113.0/28",
    "route add unreachable 203.0.113.16/28",
    "route add prohibit 203.0.113.32/28",
    "route add throw 203.0.113.48/28",
    "route add broadcast 203.0.113.64/28 dev out0",
    "route add 192.0.2.0/24 via 10.1.0.3 table 100",
    "route add blackhole 192.0.2.0/24 table 101",
    "route add prohibit 192.0.2.0/24 table 102",
    "rule add fwmark 7 lookup 100",
    "rule add from 10.9.0.0/16 lookup 101",
    "rule add ipproto udp dport 4789 lookup 102",
    "rule add oif in0 lookup 100",
)
_IPV6 = (
    "addr add fd00:0::1/64 dev in0 nodad",
    "addr add fd00:1::1/64 dev out0 nodad",
    "addr add fd00:1::77/128 dev out0 nodad",
    "addr add fd00:2::1/64 dev closed0 nodad",
    *(f"neigh add fd00:1::{host} lladdr {MAC % (16 + host)} dev out0 nud permanent" for host in (2, 3)),
    "route add 2001:db8:2::/48 via fd00:1::2",
    "route add 2001:db8:3::/48 via fd00:1::9",
    "route add 2001:db8:4::/48 via fd00:1::2 mtu lock 1300",
    "route add 2001:db8:5::/48 via fd00:1::2 src fd00:1::77",
    "route add 2001:db8:6::/48 nexthop via fd00:1::2 dev out0 nexthop via fd00:1::3 dev out0",
    "route add 2001:db8:7::/48 encap ip6 id 5 dst fd00:1::2 dev out0",
    "route add blackhole 2001:db8:10::/48",
    "route add unreachable 2001:db8:11::/48",
    "route add prohibit 2001:db8:12::/48",
    "route add 2001:db8:2::/48 via fd00:1::3 table 100",
    "route add blackhole 2001:db8:2::/48 table 101",
    "rule add fwmark 7 lookup 100",
    "rule add from fd00:9::/32 lookup 101",
)


@dataclass(frozen=True)
class RouterNamespace:
    """A namespace by its name; it is gone when the test is over."""

    name: str

    def ip(self, arguments: str, *, check: bool = True) -> str:
        """Run ip(8) in it; return what it prints."""
        command = ["ip", "-n", self.name, *arguments.split()]
        return subprocess.run(command, check=check, capture_output=True, text=True, timeout=60).stdout

    def batch(self, lines: Sequence[str], *options: str) -> None:
        """Run ip(8) in it once for all lines."""
        command = ["ip", *options, "-n", self.name, "-batch", "-"]
        subprocess.run(command, input="\n".join(lines), check=True, text=True, timeout=60)

    def sysctl(self, *settings: str) -> None:
        """Set sysctls of the namespace."""
        command = ["ip", "netns", "exec", self.name, "sysctl", "-qw", *settings]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def index(self, interface: str) -> int:
        """Return an interface's index."""
        return int(self.ip(f"-o link show dev {interface}").partition(":")[0])

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have the calling thread in it meanwhile."""
        home, there = (os.open(path, os.O_RDONLY) for path in ("/proc/thread-self/ns/net", f"/run/netns/{self.name}"))
        try:
            _move(there)
            try:
                yield
            finally:
                _move(home)
        finally:
            os.close(home)
            os.close(there)


@contextmanager
def router_namespace() -> Iterator[RouterNamespace]:
    """Make the namespace, with all that is above; it forwards between all interfaces but closed0."""
    space = RouterNamespace(f"uxdp-r-{uuid.uuid4().hex[:8]}")
    subprocess.run(["ip", "netns", "add", space.name], check=True, timeout=60)
    try:
        space.sysctl("net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.default.router_solicitations=0")
        space.batch(_LINKS)
        space.batch(_IPV6, "-6")
        space.batch(_IPV4)
        space.sysctl(
            *("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"),
            *("net.ipv4.conf.closed0.forwarding=0", "net.ipv6.conf.closed0.forwarding=0"),
        )
        yield space
    finally:
        subprocess.run(["ip", "netns", "del", space.name], check=False, timeout=60)
