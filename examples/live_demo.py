"""A load balancer on live traffic: a client, two servers and uxdp serve between them, in namespaces of their own.

    client 10.0.0.1 ──── 10.0.0.2 load balancer (192.0.2.1:80 is its service)
       │ routes to
       ├── 10.1.1.2 server 1
       └── 10.1.2.2 server 2

The client asks 192.0.2.1 by UDP, from many ports. The load balancer wraps each request into an outer IPv4 header to the
server that it chose; the server unwraps it and answers the client itself. Everything else that reaches the load
balancer's interface, such as ping, is passed to its own stack. Meanwhile the process that serves is killed once.

    python live_demo.py UXDP BUNDLE [OPTION…]    with the path of the uxdp command, and options for serve; as root
"""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

MARK = str(os.getpid())
NET, BALANCER, SERVERS = f"demo-net-{MARK}", f"demo-lb-{MARK}", (f"demo-s1-{MARK}", f"demo-s2-{MARK}")
CLIENT_MAC, BALANCER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
SERVICE = ("192.0.2.1", 80)
IPIP = 4
FLOWS = 600
SETTINGS = (
    f'config:0={{"gateway_mac": "{CLIENT_MAC}", "local_mac": "{BALANCER_MAC}", "local_addr": "10.0.0.2"}}',
    'vips:{"addr": "192.0.2.1", "port": 80, "proto": 17}={"id": 0, "ring_slots": 2}',
    "ring:0=0",
    "ring:1=1",
    "reals:0=10.1.1.2",
    "reals:1=10.1.2.2",
)


def main() -> None:
    """Run the demo, or one of its parts in a namespace."""
    if sys.argv[1] == "server":
        server(sys.argv[2])
    elif sys.argv[1] == "client":
        print(json.dumps(client(int(sys.argv[2]))))
    else:
        demo(sys.argv[1], sys.argv[2])


def demo(uxdp: str, bundle: str) -> None:
    """Build the network, serve, send, kill, send again, and take everything down."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        build_network()
        for number, namespace in enumerate(SERVERS, start=1):
            processes.append(start(namespace, sys.executable, __file__, "server", f"server {number}"))
        settings = [word for setting in SETTINGS for word in ("--set", setting)]
        show("uxdp", "serve", bundle, "--af-xdp", "lb0", "--set", "config:…", "--set", "vips:…")
        service = start(BALANCER, uxdp, "serve", bundle, "--af-xdp", "lb0", *settings, *sys.argv[3:])
        processes.append(service)
        wait_for(lambda: status(uxdp)["serving"])

        print("\nping 10.0.0.2: not for the service, so it is passed to the stack")
        run(NET, "ping", "-c", "3", "-i", "0.2", "-W", "1", "10.0.0.2", quiet=False)

        print(f"\n{FLOWS} requests to 192.0.2.1:80, and who answered:")
        report(ask(FLOWS))

        print("\nkill -9 of the process that serves, in the middle of the same again:")
        asking = subprocess.Popen(
            in_namespace(NET, sys.executable, __file__, "client", str(FLOWS)), stdout=subprocess.PIPE
        )
        processes.append(asking)
        watch = ("stats", status(uxdp)["name"], "--watch", "--count", "2")
        show("uxdp", *watch)
        subprocess.run([uxdp, *watch], check=True)
        before = status(uxdp)["data_pid"]
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: status(uxdp)["data_pid"] not in (None, before))
        output, _ = asking.communicate(timeout=30)
        report(json.loads(output))
        print(f"  data process {before} was killed, {status(uxdp)['data_pid']} serves")

        print()
        for command in (("status",), ("stats", status(uxdp)["name"])):
            show("uxdp", *command)
            subprocess.run([uxdp, *command], check=True)
        service.terminate()
        if service.wait(timeout=20) != 0:
            raise SystemExit(f"uxdp serve ended with {service.returncode}")
        print("SIGTERM: drained and detached")
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for namespace in (NET, BALANCER, *SERVERS):
            subprocess.run(["ip", "netns", "del", namespace], check=False, stderr=subprocess.DEVNULL)


def build_network() -> None:
    """Make four namespaces and the links between them."""
    for namespace in (NET, BALANCER, *SERVERS):
        subprocess.run(["ip", "netns", "add", namespace], check=True)
        run(namespace, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv4.conf.all.rp_filter=0")
        run(namespace, "ip", "link", "set", "lo", "up")
    run(NET, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    link("lb0", BALANCER, "10.0.0.1/24", "10.0.0.2/24")
    run(NET, "ip", "link", "set", "to-lb0", "address", CLIENT_MAC)
    run(BALANCER, "ip", "link", "set", "lb0", "address", BALANCER_MAC)
    run(NET, "ip", "route", "add", "192.0.2.1", "via", "10.0.0.2")
    for number, namespace in enumerate(SERVERS, start=1):
        link(f"s{number}", namespace, f"10.1.{number}.1/24", f"10.1.{number}.2/24")
        run(namespace, "ip", "route", "add", "default", "via", f"10.1.{number}.1")
        run(namespace, "ip", "addr", "add", "192.0.2.1/32", "dev", "lo")  # answers come from the service's address


def link(name: str, namespace: str, near: str, far: str) -> None:
    """Join a namespace to the client's by a veth pair."""
    ends = ["link", "add", f"to-{name}", "type", "veth", "peer", "name", name, "netns", namespace]
    subprocess.run(["ip", "-n", NET, *ends], check=True)
    for place, interface, address in ((NET, f"to-{name}", near), (namespace, name, far)):
        run(place, "ip", "addr", "add", address, "dev", interface)
        run(place, "ip", "link", "set", interface, "up")


def server(name: str) -> None:
    """Unwrap requests and answer their senders, as a server behind such a load balancer does."""
    wrapped = socket.socket(socket.AF_INET, socket.SOCK_RAW, IPIP)
    answers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    answers.bind(SERVICE)
    while True:
        packet = wrapped.recv(65536)
        inner = packet[(packet[0] & 15) * 4 :]
        udp = inner[(inner[0] & 15) * 4 :]
        (port,) = struct.unpack_from("!H", udp)
        answers.sendto(udp[8:] + b" " + name.encode(), (socket.inet_ntoa(inner[12:16]), port))


def client(flows: int) -> dict[str, int]:
    """Ask from ``flows`` ports, a few hundred a second; return who answered how often."""
    answered: Counter[str] = Counter()
    for number in range(flows):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(0.5)
            asking.connect(SERVICE)
            for _ in range(3):  # UDP may be lost; so a client asks again
                asking.send(b"request %d" % number)
                try:
                    answer = asking.recv(2048)
                except TimeoutError:
                    answered["asked again"] += 1
                    continue
                answered[answer.decode().split(" ", 2)[2]] += 1
                break
            else:
                answered["nobody"] += 1
        time.sleep(0.002)
    return dict(answered)


def ask(flows: int) -> dict[str, int]:
    """Run the client where it lives."""
    run_ = subprocess.run(
        in_namespace(NET, sys.executable, __file__, "client", str(flows)), check=True, stdout=subprocess.PIPE
    )
    return dict(json.loads(run_.stdout))


def report(answered: dict[str, int]) -> None:
    """Print the share of each server; fail if somebody got no answer."""
    for name, number in sorted(answered.items()):
        print(f"  {name:12} {number:4}  {'█' * (number * 40 // FLOWS)}")
    if answered.get("nobody") or len([name for name in answered if name.startswith("server")]) != len(SERVERS):
        raise SystemExit(f"not every request was answered, or not by both servers: {answered}")


def status(uxdp: str) -> dict[str, Any]:
    """Ask the service what it is doing; an empty answer while it is not there."""
    run_ = subprocess.run([uxdp, "status", "--json"], check=False, capture_output=True)
    found = json.loads(run_.stdout) if run_.returncode == 0 else {}
    services = found.get("services", [])
    return dict(services[0]) if services else {"serving": False, "data_pid": None, "name": ""}


def wait_for(condition: Any) -> None:
    """Wait up to 20 s."""
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the service did not start")
        time.sleep(0.05)


def in_namespace(namespace: str, *command: str) -> list[str]:
    """Return the command that runs in a namespace."""
    return ["ip", "netns", "exec", namespace, *command]


def run(namespace: str, *command: str, quiet: bool = True) -> None:
    """Run a command in a namespace."""
    subprocess.run(in_namespace(namespace, *command), check=True, stdout=subprocess.DEVNULL if quiet else None)


def start(namespace: str, *command: str) -> subprocess.Popen[bytes]:
    """Start a command in a namespace."""
    return subprocess.Popen(in_namespace(namespace, *command))


def show(*words: str) -> None:
    """Print a command as it would be typed."""
    print("$ " + " ".join(Path(word).name if word.startswith("/") else word for word in words), flush=True)


if __name__ == "__main__":
    main()
