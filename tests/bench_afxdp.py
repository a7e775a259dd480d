"""``make bench-afxdp``: uxdp serve on a veth pair against the kernel's native XDP, with the same bundles, in one run.

    python tests/bench_afxdp.py [--seconds N] [--rounds N] [--json FILE] [--plot FILE]

Frames of 16,384 flows come from the other end as fast as the kernel makes them (tests/traffic.py, on one CPU), are
served on another CPU, and what is transmitted is counted where it came from. All variants alternate; medians count, and
for ratios the median of those within a round, for machines are faster at some times than at others. The promises of
README are printed with what was seen; exit code 1 if one is not kept. Run it on a quiet machine.

CPU seconds: of the generator, which also pays for the kernel's part of receiving, since a veth hands frames over in the
sender's context, and of the data process.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bound_bundles import bound_image
from tests.isolated_user import IsolatedUser
from tests.serving import RunningService, serving
from tests.veth import HOST_MAC, PEER_MAC, VethPair, veth_pair
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.bpf import syscall
from uxdp_runtime.map_file import read_map_file
from uxdp_runtime.verify import verify

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
XDP_FLAGS_DRV_MODE = 1 << 2
GENERATOR_CPU, SERVICE_CPU = 0, 1
SMALL = {"proto": "udp", "payload_bytes": 22}  # 64 bytes
BALANCED = {"proto": "tcp", "destination": "192.0.2.1", "port": 80, "payload_bytes": 10}
LARGE = {"proto": "udp", "payload_bytes": 256}
ALWAYS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int always(struct xdp_md *ctx) { return VERDICT; }
char _license[] SEC("license") = "Dual MIT/GPL";
"""
VERDICTS = {"drop_all": "XDP_DROP", "pass_all": "XDP_PASS"}
BALANCER_MAPS = (
    f'config:0={{"gateway_mac": "{PEER_MAC}", "local_mac": "{HOST_MAC}", "local_addr": "10.255.0.9"}}',
    'vips:{"addr": "192.0.2.1", "port": 80, "proto": 6}={"id": 1, "ring_slots": 4}',
    *(f"ring:{number}={number}" for number in range(4)),
    *(f"reals:{number}=10.1.0.{number + 1}" for number in range(4)),
)
# name: (network function, frame, maps, how it is served)
VARIANTS: dict[str, tuple[str, dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {
    "l2_swap, AF_XDP ring": ("l2_swap", SMALL, (), ("--tx", "ring")),
    "l2_swap, uxdp": ("l2_swap", SMALL, (), ()),
    "l2_swap, kernel": ("l2_swap", SMALL, (), ("kernel",)),
    "drop_all, uxdp": ("drop_all", SMALL, (), ()),
    "drop_all, kernel": ("drop_all", SMALL, (), ("kernel",)),
    "load_balancer, uxdp": ("load_balancer", BALANCED, BALANCER_MAPS, ()),
    "load_balancer, kernel": ("load_balancer", BALANCED, BALANCER_MAPS, ("kernel",)),
    "payload_hash, uxdp": ("payload_hash", LARGE, (), ()),
    "payload_hash, kernel": ("payload_hash", LARGE, (), ("kernel",)),
}


def main() -> int:
    """Run everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    chosen = {name: spec for name, spec in VARIANTS.items() if not arguments.only or spec[0] in arguments.only}
    with tempfile.TemporaryDirectory() as folder:
        isolate(Path(folder))
        bundles = build_bundles(Path(folder), {spec[0] for spec in chosen.values()})
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
        for _ in range(arguments.rounds):
            for name, (function, frame, maps, how) in chosen.items():
                measure = in_kernel if how == ("kernel",) else by_uxdp
                rounds[name].append(measure(bundles[function], frame, maps, how, arguments.seconds))
    medians = {
        name: {key: statistics.median(item[key] for item in items) for key in items[0]}
        for name, items in rounds.items()
    }
    print(f"{'':24} {'sent':>8} {'served':>8} {'back':>8}  Mpps   {'loss':>6}   CPU ns per frame served")
    for name, item in medians.items():
        print(
            f"{name:24} {item['sent_mpps']:8.2f} {item['served_mpps']:8.2f} {item['back_mpps']:8.2f}       "
            f"{item['loss']:6.1%}   {item['cpu_ns']:8.0f}"
        )
    kept = promises(medians, rounds)
    print()
    for text, seen, holds in kept:
        print(f"{'kept  ' if holds else 'MISSED'}  {text}: {seen}")
    if arguments.json:
        told = [{"what": text, "seen": seen, "kept": holds} for text, seen, holds in kept]
        document = {"medians": medians, "rounds": rounds, "promises": told}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    if arguments.plot:
        arguments.plot.write_text(chart(medians))
    return 0 if all(holds for _text, _seen, holds in kept) else 1


def isolate(folder: Path) -> None:
    """Be a user whose keys, trust, cache and sockets lie in ``folder``."""
    user = IsolatedUser(folder, folder / "etc", folder / "state")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what pip installed has its bytecode
    os.environ |= {
        "HOME": str(user.home),
        "UXDP_SYSTEM_CONFIG": str(user.system_config),
        "UXDP_STATE_DIR": str(user.state),
        "UXDP_CACHE_DIR": str(folder / "cache"),
        "UXDP_RUN_DIR": str(folder / "run"),
    }


def build_bundles(folder: Path, functions: set[str]) -> dict[str, Path]:
    """Build the bundles that are measured; return their paths."""
    paths = {}
    for function in functions:
        source = EXAMPLES / function / f"{function}.c"
        if function in VERDICTS:
            source = folder / f"{function}.c"
            source.write_text(ALWAYS.replace("VERDICT", VERDICTS[function]))
        paths[function] = folder / f"{function}.uxdp"
        paths[function].write_bytes(build(BuildRequest(sources=(source.name,), cwd=source.parent)).bundle)
    return paths


def generate(
    pair: VethPair, frame: dict[str, Any], seconds: float, when_warm: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Send for some seconds from the other end; return what tests/traffic.py says.

    :param when_warm: what is done before the frames that count are sent
    """
    command = ["ip", "netns", "exec", pair.peer, sys.executable, "-m", "tests.traffic", pair.interface]
    with subprocess.Popen(
        [*command, str(seconds), str(GENERATOR_CPU)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as run:
        assert run.stdin is not None and run.stdout is not None
        run.stdin.write(json.dumps(frame) + "\n")
        run.stdin.flush()
        assert run.stdout.readline() == "warm\n"
        if when_warm is not None:
            when_warm()
        run.stdin.write("go\n")
        run.stdin.flush()
        return dict(json.loads(run.stdout.readline()))


def figures(sent: dict[str, Any], served: int, cpu_seconds: float) -> dict[str, float]:
    """Return rates in Mpps, the share that was lost, and CPU time for a served frame."""
    millions = 1e6 * sent["seconds"]
    return {
        "sent_mpps": sent["sent"] / millions,
        "served_mpps": served / millions,
        "back_mpps": sent["received"] / millions,
        "loss": max(0.0, 1 - served / sent["sent"]),
        "cpu_ns": 1e9 * cpu_seconds / max(served, 1),
        "service_cpu_seconds": cpu_seconds - sent["cpu_seconds"],
    }


def by_uxdp(
    bundle: Path, frame: dict[str, Any], maps: tuple[str, ...], how: tuple[str, ...], seconds: float
) -> dict[str, float]:
    """Serve by uxdp."""
    settings = [word for setting in (*maps, *blocked(bundle, frame)) for word in ("--set", setting)]
    arguments = (*settings, *how, "--cpus", str(SERVICE_CPU))
    with veth_pair() as pair, serving(pair, bundle, *arguments, name="bench") as service:
        before: list[float] = []

        def look() -> None:
            before[:] = service.totals()["rx"], cpu_seconds(service)

        sent = generate(pair, frame, seconds, look)
        served, used = service.totals()["rx"] - int(before[0]), cpu_seconds(service) - before[1]
        return figures(sent, served, sent["cpu_seconds"] + used)


def cpu_seconds(service: RunningService) -> float:
    """Return the CPU time of the data process."""
    fields = Path(f"/proc/{service.ask('status')['data_pid']}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_kernel(
    bundle: Path, frame: dict[str, Any], maps: tuple[str, ...], how: tuple[str, ...], seconds: float
) -> dict[str, float]:
    """Attach the same bundle's program in the driver."""
    del how
    with veth_pair() as pair, attached(pair, bundle, (*maps, *blocked(bundle, frame))):
        sent = generate(pair, frame, seconds)
        return figures(sent, sent["received"] or sent["sent"], sent["cpu_seconds"])


@contextmanager
def attached(pair: VethPair, bundle: Path, maps: tuple[str, ...], namespace: str = "") -> Iterator[Any]:
    """The bundle's program on the host's interface, or in another namespace; yields the verified object."""
    image = bundle.read_bytes()
    with bound_image(image) as bound, verify(bound) as verified:
        for name, items in read_map_file(bytes(bound.authentic.bundle.object), None, maps).items():
            for key, value in items:
                verified.maps[name].update(key, value)
        (program,) = verified.programs.values()
        with pair.entered(namespace or pair.host):
            link = syscall.create_xdp_link(program.fd, socket.if_nametoindex(pair.interface), XDP_FLAGS_DRV_MODE)
        try:
            yield verified
        finally:
            os.close(link)


_fingerprints: dict[Path, tuple[str, ...]] = {}


def blocked(bundle: Path, frame: dict[str, Any]) -> tuple[str, ...]:
    """Return the setting that lets payload_hash drop these frames: what passes would measure the host's stack."""
    if bundle.stem != "payload_hash":
        return ()
    if bundle not in _fingerprints:
        with veth_pair() as pair, attached(pair, bundle, ()) as verified:
            generate(pair, frame | {"rate_pps": 1000}, 0.2)
            histogram = verified.maps["histogram"]
            slots = [slot for _key, value in histogram.items() for slot in histogram.split_slots(value)]
            found = {int.from_bytes(slot[8:16], "little") for slot in slots} - {0}
            (fingerprint,) = found
        _fingerprints[bundle] = (f"blocklist:{fingerprint}=0",)
    return _fingerprints[bundle]


def promises(
    medians: dict[str, dict[str, float]], rounds: dict[str, list[dict[str, float]]]
) -> list[tuple[str, str, bool]]:
    """Return each promise whose variants were measured, what was seen, and whether it is kept."""
    found = []

    def ratio(what: str, one: str, other: str, key: str, least: float) -> None:
        if one in medians and other in medians:
            pairs = zip(rounds[one], rounds[other], strict=True)
            seen = statistics.median(mine[key] / theirs[key] for mine, theirs in pairs)
            found.append((f"{what} at least {least}", f"{seen:.2f}", seen >= least))

    ratio("l2_swap, uxdp / AF_XDP ring", "l2_swap, uxdp", "l2_swap, AF_XDP ring", "back_mpps", 4.0)
    ratio("l2_swap, uxdp / kernel XDP_TX", "l2_swap, uxdp", "l2_swap, kernel", "back_mpps", 0.65)
    if "drop_all, uxdp" in medians:
        item = medians["drop_all, uxdp"]
        text = f"{item['served_mpps']:.2f} of {item['sent_mpps']:.2f} Mpps, loss {item['loss']:.2%}"
        found.append(
            (
                "drop_all, uxdp: 3.3 Mpps or all that is sent, loss at most 0.5 %",
                text,
                item["served_mpps"] >= min(3.3, 0.995 * item["sent_mpps"]) and item["loss"] <= 0.005,
            )
        )
    ratio("load_balancer, uxdp / kernel", "load_balancer, uxdp", "load_balancer, kernel", "back_mpps", 1.0)
    ratio("payload_hash, uxdp / kernel", "payload_hash, uxdp", "payload_hash, kernel", "served_mpps", 1.0)
    return found


def chart(medians: dict[str, dict[str, float]]) -> str:
    """Return a bar chart as SVG: frames served per second by variant."""
    top = max(item["served_mpps"] for item in medians.values())
    rows = []
    for number, (name, item) in enumerate(medians.items()):
        y, width = 40 + 26 * number, 420 * item["served_mpps"] / top
        colour = "#555555" if name.endswith("kernel") else "#0072b2" if name.endswith("uxdp") else "#e69f00"
        rows.append(f'<text x="180" y="{y + 14}" text-anchor="end">{name}</text>')
        rows.append(f'<rect x="190" y="{y}" width="{width:.1f}" height="20" fill="{colour}"/>')
        rows.append(f'<text x="{196 + width:.1f}" y="{y + 14}">{item["served_mpps"]:.2f}</text>')
    height = 56 + 26 * len(medians)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="680" height="{height}" font-family="sans-serif" '
        'font-size="12">'
        '<rect width="100%" height="100%" fill="white"/><text x="10" y="20" font-size="15">Mpps served on veth</text>'
        + "".join(rows)
        + "</svg>\n"
    )


if __name__ == "__main__":
    sys.exit(main())
