"""``make bench-dpdk``: uxdp serve on DPDK against Debian's dpdk-testpmd, in one run, on the same cores.

    python -m tests.bench_dpdk [--seconds N] [--rounds N] [--burst N] [--json FILE] [--plot FILE]

testpmd and uxdp take turns on one CPU. What there is to receive comes from net_null, which makes frames in the same
thread, or through memif from a testpmd on the other CPU, which sends back what it gets, 896 frames in all. Both never
sleep, so rates are frames by the CPU time of the thread that serves, and what else runs on the machine disturbs less;
of a run the median second counts, of all rounds the median, and of what is promised the median of the rounds' ratios.
testpmd has bursts of 64, with which it is fastest on the whole, of 32, 64, 128 and 256; on memif those of 128 are shown
beside them. What goes through memif depends most on how far both CPUs are from one another, which a virtual machine's
host changes: a round that it has changed in is measured again.
Both have huge pages, which are reserved for the time: in usual ones, a frame's page is hardly ever in the TLB, so that
the first load from a frame waits, and what a program takes depends on what it has to do meanwhile.
Run it on a quiet machine, as root. Exit code 1 if a promise is not kept.
"""

import argparse
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.bench_afxdp import BALANCED, BALANCER_MAPS, EXAMPLES, build_bundles, isolate
from tests.huge_pages import reserved_huge_pages
from tests.native_library import clang
from tests.serving import wait_until
from tests.serving_dpdk import namespace, serving_dpdk
from tests.traffic import flow_heads
from uxdp_runtime.bench.workload import HEAD_BYTES, flow_frame
from uxdp_runtime.frames.capture_writer import CaptureWriter

NATIVE = Path(__file__).parent / "native"
PEER_CPU, SERVED_CPU = 0, 1
SETTLE_SECONDS = 0.5
MAX_IDLE_SECONDS = 12  # testpmd waits for links up to 9
CONNECTED_SECONDS = 3.0
EAL = ["--no-pci", "--no-telemetry", "-m", "512"]
HUGE_PAGES = 700  # of 2 MiB: for two of testpmd, or one and uxdp
TESTPMD = ("--total-num-mbufs=16384", "--nb-cores=1")
SERVING = ["--stats-period=1"]
FASTEST_BURST = 64
LONGER_BURST = "--burst=128"  # as ours
LONGER = f"l2_swap, net_memif, testpmd {LONGER_BURST}"
BUFFERS = ("--chunk-bytes", "2048")  # as long as testpmd's
CAPTURED_FLOWS = 4096  # net_pcap keeps them in mbufs
MIN_MEMIF, MIN_NULL, MIN_DROP, MAX_START_SECONDS, PORT_COST = 0.95, 0.85, 0.95, 1.5, 0.15
SAME_DISTANCE, MAX_ATTEMPTS, MORE_ROUNDS_OF_MEMIF = 1.5, 6, 2
FUNCTIONS = {"l2_swap", "drop_all", "load_balancer"}

Measure = Callable[[float], float]


def testpmd(where: str, lcores: str, vdev: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start testpmd; it goes on until its standard input is closed."""
    program = ["ip", "netns", "exec", where, "dpdk-testpmd"]  # memif's sockets belong to a namespace
    command = [*program, "--lcores", lcores, *EAL, "--vdev", vdev, "--", *TESTPMD, *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def busiest_seconds(pid: int) -> float:
    """Return the CPU time of a process's busiest thread, which is the one that polls."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return max(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def median_mpps(samples: Sequence[tuple[int, float]]) -> float:
    """Return the median rate between samples of frames and seconds."""
    pairs = itertools.pairwise(samples)
    return statistics.median((frames - before) / (now - then) / 1e6 for (before, then), (frames, now) in pairs)


def testpmd_mpps(process: "subprocess.Popen[str]", seconds: float) -> float:
    """Let testpmd run, which prints its counters once a second."""
    assert process.stdout is not None
    samples: list[tuple[int, float]] = []
    said: list[str] = []
    idle = 0
    for line in process.stdout:
        said.append(line)
        match = re.search(r"RX-packets: (\d+)\s+RX-missed", line)
        if match is not None and int(match[1]) > (samples[-1][0] if samples else 0):
            samples.append((int(match[1]), busiest_seconds(process.pid)))
        idle += match is not None
        if len(samples) > seconds + 1 or idle - len(samples) > MAX_IDLE_SECONDS:
            break
    process.kill()
    process.communicate()
    if len(samples) < 3:
        raise RuntimeError(f"testpmd did not forward:\n{''.join(said[-40:])}")
    return median_mpps(samples[1:])


def by_testpmd(where: str, vdev: str, *arguments: str) -> Measure:
    """Return what measures testpmd on the served CPU."""

    def measure(seconds: float) -> float:
        return testpmd_mpps(testpmd(where, f"0@{PEER_CPU},1@{SERVED_CPU}", vdev, *SERVING, *arguments), seconds)

    return measure


def by_uxdp(where: str, bundle: Path, vdev: str, *arguments: str) -> Measure:
    """Return what measures uxdp serve on the served CPU."""

    def measure(seconds: float) -> float:
        flags = ("--pass", "none", "--lcores", str(SERVED_CPU), *BUFFERS, *arguments)
        with serving_dpdk(where, bundle, *flags, name="bench", vdevs=[vdev]) as service:
            wait_until(lambda: service.totals()["rx"] > 0, "frames", MAX_IDLE_SECONDS)
            time.sleep(SETTLE_SECONDS)
            pid = service.ask("status")["data_pid"]
            samples = []
            for _ in range(round(seconds) + 1):
                samples.append((service.totals()["rx"], busiest_seconds(pid)))
                time.sleep(1.0)
            return median_mpps(samples)

    return measure


def with_memif_peer(where: str, folder: Path, measure: Callable[[str], Measure]) -> Measure:
    """Return what measures with a testpmd at the other end of a memif, which sends everything back."""

    def measured(seconds: float) -> float:
        socket = f"socket={folder}/memif.sock"
        lcores = f"0@{PEER_CPU},1@{PEER_CPU}"
        peer = testpmd(where, lcores, f"net_memif0,role=server,{socket}", "--forward-mode=io", "-i")
        begin = threading.Timer(CONNECTED_SECONDS, send_first, [peer])
        try:
            time.sleep(SETTLE_SECONDS)  # it listens
            begin.start()
            return measure(f"net_memif0,role=client,{socket}")(seconds)
        finally:
            begin.cancel()
            peer.kill()
            peer.communicate()

    return measured


def send_first(peer: "subprocess.Popen[str]") -> None:
    """Let a testpmd send 896 frames, and from then on what comes back: one of both rings is always well filled."""
    assert peer.stdin is not None
    peer.stdin.write("set burst 64\nstart tx_first 14\n")
    peer.stdin.flush()


def flow_capture(path: Path) -> Path:
    """Write the frames of all flows that the load balancer is to balance."""
    frame = flow_frame(**BALANCED)
    heads = flow_heads(frame)
    with CaptureWriter(path) as writer:
        for flow in range(CAPTURED_FLOWS):
            writer.write(heads[flow * HEAD_BYTES :][:HEAD_BYTES] + frame.data[HEAD_BYTES:], flow)
    return path


def rte_bpf_commands(folder: Path) -> Path:
    """Compile the filter for rte_bpf, and return the commands that load it."""
    program = folder / "swap.o"
    flags = ["-target", "bpf", "-O2", "-nostdlibinc", "-c", str(NATIVE / "swap.rte_bpf.c"), "-o", str(program)]
    subprocess.run([*clang(), *flags], check=True)
    commands = folder / "commands"
    commands.write_text(f"bpf-load rx 0 0 J {program}\nstart\n")
    return commands


def program_ns(bundle: Path) -> float:
    """Return what uxdp bench says that a frame costs in native code, with as many flows."""
    uxdp = str(Path(sys.executable).parent / "uxdp")
    workload = EXAMPLES / bundle.stem / "bench.json"
    command = [uxdp, "bench", str(bundle), "--workload", str(workload), "--flows", str(CAPTURED_FLOWS)]
    run = subprocess.run([*command, "--insecure-unsigned", "--json"], check=True, capture_output=True, text=True)
    return float(json.loads(run.stdout)["results"][0]["ns_per_frame"]["native"])


def seconds_to_first_frame(where: str, bundle: Path) -> float:
    """Return how long it takes from the command to the first frame, with everything in the cache."""
    start = time.monotonic()
    with serving_dpdk(where, bundle, "--pass", "none", name="start", vdevs=["net_null0"]) as service:
        wait_until(lambda: service.totals()["rx"] > 0, "a frame")
        return time.monotonic() - start


def variants(where: str, bundles: dict[str, Path], folder: Path) -> dict[str, Measure]:
    """Return all measurements, by name."""
    swap, drop, balancer = (bundles[name] for name in ("l2_swap", "drop_all", "load_balancer"))
    capture = f"net_pcap0,rx_pcap={flow_capture(folder / 'flows.pcap')},infinite_rx=1"
    settings = [word for setting in BALANCER_MAPS for word in ("--set", setting)]
    many = ("--chunks", "16384")
    return {
        "l2_swap, net_null, testpmd macswap": by_testpmd(where, "net_null0", "--forward-mode=macswap", "--auto-start"),
        "l2_swap, net_null, uxdp": by_uxdp(where, swap, "net_null0"),
        "l2_swap, net_null, rte_bpf": by_testpmd(
            where, "net_null0", "--forward-mode=io", f"--cmdline-file={rte_bpf_commands(folder)}"
        ),
        "drop all, net_null, testpmd rxonly": by_testpmd(where, "net_null0", "--forward-mode=rxonly", "--auto-start"),
        "drop all, net_null, uxdp": by_uxdp(where, drop, "net_null0"),
        "l2_swap, net_memif, testpmd macswap": with_memif_peer(
            where, folder, lambda vdev: by_testpmd(where, vdev, "--forward-mode=macswap", "--auto-start")
        ),
        LONGER: with_memif_peer(
            where, folder, lambda vdev: by_testpmd(where, vdev, LONGER_BURST, "--forward-mode=macswap", "--auto-start")
        ),
        "l2_swap, net_memif, uxdp": with_memif_peer(where, folder, lambda vdev: by_uxdp(where, swap, vdev)),
        "l2_swap, flows, uxdp": by_uxdp(where, swap, capture, *many),
        "load_balancer, flows, uxdp": by_uxdp(where, balancer, capture, *many, *settings),
    }


def compiled(source: Path, program: Path) -> Path:
    """Compile a program with what compiles DPDK's glue, too."""
    subprocess.run(["cc", "-O2", "-pthread", str(source), "-o", str(program)], check=True)
    return program


def ns_apart(program: Path) -> float:
    """Return how long a cache line takes from the peer's CPU to the served one and back."""
    command = [str(program), str(PEER_CPU), str(SERVED_CPU)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def same_distance(measures: dict[str, Measure], seconds: float, distance: Callable[[], float]) -> dict[str, float]:
    """Measure one after another, and again all of them if both CPUs are not as far apart as they were."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        measured, distances = {}, [distance()]
        for key, measure in measures.items():
            measured[key] = measure(seconds)
            distances.append(distance())
        stayed = max(distances) <= SAME_DISTANCE * min(distances)
        apart = ", ".join(f"{ns:.0f}" for ns in distances)
        each = ", ".join(f"{1e3 / mpps:.1f}" for mpps in measured.values())
        fate = "" if stayed else "; again" if attempt < MAX_ATTEMPTS else "; counted all the same"
        print(f"net_memif, both CPUs {apart} ns apart: {each} ns per frame{fate}", file=sys.stderr)
        if stayed:
            break
    return measured


Promise = tuple[str, str, bool]


def median_ratio(rounds: dict[str, list[float]], ours: str, theirs: str) -> float | None:
    """Return the median of the rounds' ratios; None: one of both was not measured."""
    if ours not in rounds or theirs not in rounds:
        return None
    return statistics.median(mine / other for mine, other in zip(rounds[ours], rounds[theirs], strict=True))


def promises(rounds: dict[str, list[float]], program: dict[str, list[float]], start_seconds: float) -> list[Promise]:
    """Return what is promised, what was seen, and whether that keeps it; of what was measured."""
    kept: list[Promise] = []

    def ratio(what: str, peer: str, least: float) -> None:
        seen = median_ratio(rounds, f"{what}, uxdp", f"{what}, {peer}")
        if seen is not None:
            kept.append((f"{what}: uxdp / {peer} >= {least}", f"{seen:.2f}", seen >= least))

    ratio("l2_swap, net_memif", "testpmd macswap", MIN_MEMIF)
    ratio("l2_swap, net_null", "testpmd macswap", MIN_NULL)
    ratio("drop all, net_null", "testpmd rxonly", MIN_DROP)
    slow, fast = "load_balancer, flows, uxdp", "l2_swap, flows, uxdp"
    if slow in rounds and fast in rounds and program["l2_swap"]:
        served = [1e3 / a - 1e3 / b for a, b in zip(rounds[slow], rounds[fast], strict=True)]
        alone = [a - b for a, b in zip(program["load_balancer"], program["l2_swap"], strict=True)]
        share = statistics.median(a / b for a, b in zip(served, alone, strict=True))
        benched = f"{statistics.median(alone):.1f} ns"
        text = f"load_balancer over l2_swap: as uxdp bench has it, {benched}, within {PORT_COST:.0%}"
        kept.append((text, f"{statistics.median(served):.1f} ns, {share:.2f} times", abs(share - 1) <= PORT_COST))
    if start_seconds:
        text = f"start to first frame <= {MAX_START_SECONDS} s"
        kept.append((text, f"{start_seconds:.2f} s", start_seconds <= MAX_START_SECONDS))
    return kept


def chart(medians: dict[str, float]) -> str:
    """Return a bar for each variant, in Mpps, as SVG."""
    height, left, width = 22, 260, 420
    most = max(medians.values())
    rows = []
    for number, (name, value) in enumerate(medians.items()):
        y = 30 + number * height
        colour = "#4477aa" if name.endswith("uxdp") else "#bbbbbb"
        rows.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{name}</text>')
        rows.append(f'<rect x="{left}" y="{y}" width="{width * value / most:.1f}" height="16" fill="{colour}"/>')
        rows.append(f'<text x="{left + width * value / most + 5:.1f}" y="{y + 13}">{value:.1f}</text>')
    size = f'width="{left + width + 60}" height="{40 + len(medians) * height}"'
    title = '<text x="8" y="18" font-weight="bold">Mpps on one core: uxdp serve and testpmd on DPDK</text>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return f"{head}{title}{''.join(rows)}</svg>\n"


def main() -> int:
    """Run everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="only variants whose names contain this")
    parser.add_argument("--burst", type=int, default=FASTEST_BURST, help="testpmd's, 64 unless told")
    parser.add_argument("--usual-pages", action="store_true", help="no huge pages, for either side")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    SERVING.append(f"--burst={arguments.burst}")
    EAL.extend(("--no-huge", "--no-shconf") if arguments.usual_pages else ("--in-memory",))
    huge_pages = 0 if arguments.usual_pages else HUGE_PAGES
    with tempfile.TemporaryDirectory() as name, namespace() as where, reserved_huge_pages(huge_pages) as has_room:
        if not has_room:
            print(
                f"the kernel has no room for {HUGE_PAGES} huge pages of 2 MiB, which DPDK is measured with",
                file=sys.stderr,
            )
            return 1
        folder = Path(name)
        isolate(folder)
        bundles = build_bundles(folder, FUNCTIONS)
        chosen = {
            key: measure
            for key, measure in variants(where, bundles, folder).items()
            if not arguments.only or arguments.only in key
        }
        rounds: dict[str, list[float]] = {key: [] for key in chosen}
        program: dict[str, list[float]] = {"l2_swap": [], "load_balancer": []}
        apart = compiled(NATIVE / "apart.c", folder / "apart")
        memif = {key: measure for key, measure in chosen.items() if "memif" in key}
        for number in range(arguments.rounds + MORE_ROUNDS_OF_MEMIF):
            if memif:
                measured = same_distance(memif, arguments.seconds, lambda: ns_apart(apart))
                for key, value in measured.items():
                    rounds[key].append(value)
            if number >= arguments.rounds:
                continue
            for key, measure in chosen.items():
                if key not in memif:
                    rounds[key].append(measure(arguments.seconds))
            if not arguments.only:
                for key, values in program.items():
                    values.append(program_ns(bundles[key]))
        start_seconds = 0.0
        if not arguments.only:
            start_seconds = statistics.median(seconds_to_first_frame(where, bundles["l2_swap"]) for _ in range(3))
    medians = {key: statistics.median(values) for key, values in rounds.items()}
    for key, value in medians.items():
        print(f"{key:40} {value:8.2f} Mpps   {1e3 / value:6.1f} ns per frame")
    kept = promises(rounds, program, start_seconds)
    print()
    for text, seen, holds in kept:
        print(f"{'kept  ' if holds else 'MISSED'}  {text}: {seen}")
    longer = median_ratio(rounds, "l2_swap, net_memif, uxdp", LONGER)
    if longer is not None:
        print(f"beside  l2_swap, net_memif: uxdp / testpmd {LONGER_BURST}: {longer:.2f}")
    if arguments.json:
        told = [{"what": text, "seen": seen, "kept": holds} for text, seen, holds in kept]
        document: dict[str, Any] = {"mpps": medians, "rounds": rounds, "program_ns": program, "promises": told}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    if arguments.plot:
        arguments.plot.write_text(chart(medians))
    return 0 if all(holds for _text, _seen, holds in kept) else 1


if __name__ == "__main__":
    sys.exit(main())
