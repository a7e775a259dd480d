"""How long packaging takes: uxdp-cc against the clang it wraps, authenticate and bind, and a large bundle.

    python tests/bench_packaging.py [--runs N] [--json FILE]

Runs alternate, so that whatever else the machine does meets both; medians are compared with the limits that the
project keeps to. The exit status is 1 if one is exceeded.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uxdp_bundle.keys import development_key
from uxdp_cc.toolchain import find_toolchain, system_headers

SOURCE = Path(__file__).parents[1] / "examples/load_balancer/load_balancer.c"
SCRIPTS = Path(sysconfig.get_path("scripts"))
MAX_COMPILE_RATIO = 1.5
COMPILE_ALLOWANCE_S = 0.5
MAX_AUTHENTICATE_AND_BIND_S = 0.5
MAX_LARGE_CPU_S = 0.3
# Constants that fill an object up to its limit of 16 MiB, less what the rest of the file needs.
LARGE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

static const volatile unsigned char table[(16 << 20) - 8192] = {1};

SEC("xdp")
int large(struct xdp_md *ctx)
{
	return table[ctx->rx_queue_index & 0xff] ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
"""


def main() -> int:
    """Measure, print, and say whether the limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10, help="of each command (default: 10)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="uxdp-bench-") as folder:
        figures = measure(Path(folder), arguments.runs)
    for name, text in lines(figures):
        print(f"{name:<40} {text}")
    print(json.dumps(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(figures["kept"].values()) else 1


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Run everything; return the figures, seconds unless their name says otherwise."""
    isolate(folder)
    toolchain = find_toolchain()
    clang = [*toolchain.command, *"-target bpf -O2 -g -mcpu=v3".split(), *toolchain.headers, *system_headers(())]
    bundle, large = str(folder / "x.uxdp"), str(folder / "large.uxdp")
    by_clang = [*clang, "-O2", "-c", str(SOURCE), "-o", str(folder / "x.o")]
    by_uxdp_cc = [str(SCRIPTS / "uxdp-cc"), "-O2", "-c", str(SOURCE), "-o", bundle]
    authenticate = [str(SCRIPTS / "uxdp"), "authenticate", bundle]
    bind = [str(SCRIPTS / "uxdp"), "bind", bundle]
    compiled = alternate([by_clang, by_uxdp_cc], runs)
    used = alternate([authenticate, bind], runs)
    (folder / "large.c").write_text(LARGE)
    run([str(SCRIPTS / "uxdp-cc"), "-c", str(folder / "large.c"), "-o", large])
    large_cpu = [run([str(SCRIPTS / "uxdp"), "authenticate", large])[1] for _ in range(runs)]
    clang_s, cc_s = (statistics.median(times) for times in compiled)
    authenticate_s, bind_s = (statistics.median(times) for times in used)
    large_cpu_s = statistics.median(large_cpu)
    return {
        "runs": runs,
        "clang": toolchain.version,
        "clang_s": round(clang_s, 4),
        "uxdp_cc_s": round(cc_s, 4),
        "uxdp_cc_ratio": round(cc_s / clang_s, 2),
        "uxdp_cc_limit_s": round(MAX_COMPILE_RATIO * clang_s + COMPILE_ALLOWANCE_S, 4),
        "authenticate_s": round(authenticate_s, 4),
        "bind_s": round(bind_s, 4),
        "large_bytes": os.path.getsize(large),
        "large_authenticate_cpu_s": round(large_cpu_s, 4),
        "kept": {
            "uxdp_cc": cc_s <= MAX_COMPILE_RATIO * clang_s + COMPILE_ALLOWANCE_S,
            "authenticate_and_bind": authenticate_s + bind_s <= MAX_AUTHENTICATE_AND_BIND_S,
            "large_authenticate": large_cpu_s <= MAX_LARGE_CPU_S,
        },
    }


def lines(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the figures for people."""
    both = figures["authenticate_s"] + figures["bind_s"]
    return [
        (f"{figures['clang']}, load_balancer.c", f"{figures['clang_s']:.3f} s"),
        (
            "uxdp-cc",
            f"{figures['uxdp_cc_s']:.3f} s, {figures['uxdp_cc_ratio']:.2f} times clang; "
            f"limit 1.5 times + 0.5 s = {figures['uxdp_cc_limit_s']:.3f} s",
        ),
        ("uxdp authenticate", f"{figures['authenticate_s']:.3f} s"),
        ("uxdp bind", f"{figures['bind_s']:.3f} s"),
        ("authenticate and bind", f"{both:.3f} s; limit {MAX_AUTHENTICATE_AND_BIND_S} s"),
        (
            f"uxdp authenticate, {figures['large_bytes'] / (1 << 20):.1f} MiB",
            f"{figures['large_authenticate_cpu_s']:.3f} s of CPU; limit {MAX_LARGE_CPU_S} s",
        ),
    ]


def isolate(folder: Path) -> None:
    """Be a user whose keys and trust lie in ``folder``."""
    for name in [name for name in os.environ if name.startswith(("UXDP_", "XDG_", "SUDO_"))]:
        del os.environ[name]
    os.environ |= {
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "UXDP_SYSTEM_CONFIG": str(folder / "etc"),
        "UXDP_STATE_DIR": str(folder / "state"),
    }
    development_key(create=True)  # which the first uxdp-cc would do, and say


def alternate(commands: Sequence[list[str]], runs: int) -> list[list[float]]:
    """Run the commands in turn, once more than is counted; return their elapsed times."""
    times: list[list[float]] = [[] for _ in commands]
    for index in range(runs + 1):
        for command, kept in zip(commands, times, strict=True):
            elapsed = run(command)[0]
            if index:
                kept.append(elapsed)
    return times


def run(command: list[str]) -> tuple[float, float]:
    """Run one command; return elapsed and CPU seconds, the latter with its children's."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    elapsed, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main())
