"""``uxdp serve``: a network function on live traffic."""

import logging
import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uxdp_bundle.errors import UxdpError

from ..errors import ParameterError
from .pipeline import bound_bundle, parse_params, program_to_run, report_origin
from .serve_config import use_config

if TYPE_CHECKING:
    from rich.console import Console

    from ..ports.dpdk import DpdkDevice
    from ..serve.live_table import LiveTable
    from ..serve.metrics import MetricsEndpoint
    from ..serve.options import ServeOptions
    from ..serve.sampling import Sampler


@click.command()
@click.argument("bundle", metavar="BUNDLE|NAME", required=False)
@click.option("--af-xdp", "interfaces", metavar="IFACE[,IFACE…]", help="Interfaces to serve on, by AF_XDP.")
@click.option("--dpdk", "pci", metavar="PCI[,PCI…]", help="Devices to serve on, by DPDK.")
@click.option(
    "--dpdk-vdev",
    "vdevs",
    metavar="DEVARGS",
    multiple=True,
    help="A virtual device, such as net_memif0,id=1.",
)
@click.option("--name", default="", help="Name of the service.  [default: the bundle's]")
@click.option("--program", default="", metavar="NAME", help="Program to serve.  [default: the bundle's first]")
@click.option(
    "--mode",
    type=click.Choice(["native", "kernel"]),
    default="native",
    help="Native code on AF_XDP, or the program itself in the kernel.  [default: native]",
)
@click.option("--queues", metavar="RANGES", help="RX queues of each interface, such as 0-3.  [default: all]")
@click.option("--cpus", metavar="RANGES", help="CPUs for the queues, in turn.  [default: all allowed]")
@click.option("--lcores", metavar="RANGES", help="The same, as DPDK calls them; each device has as many queues.")
@click.option("--chunks", type=int, default=4096, help="Buffers for frames of each queue.  [default: 4096]")
@click.option("--chunk-bytes", type=int, default=4096, help="Size of a buffer, 2048 or 4096.  [default: 4096]")
@click.option("--eal", metavar="ARGUMENTS", default="", help="More arguments for DPDK's EAL.")
@click.option(
    "--ifindex", "ifindexes", metavar="N=DEVICE", multiple=True, help="What ifindex a device has for programs."
)
@click.option(
    "--pass",
    "stack",
    type=click.Choice(["auto", "tap", "netdev", "none"]),
    default="auto",
    help="On DPDK: where XDP_PASS leads: a TAP interface, the kernel's own one on the device, or nowhere."
    "  [default: auto, netdev if there is one, else tap]",
)
@click.option(
    "--power",
    type=click.Choice(["poll", "pause", "interrupt"]),
    default="poll",
    help="On DPDK: what to do without frames.  [default: poll]",
)
@click.option(
    "--tx", type=click.Choice(["auto", "ring", "live"]), default="auto", help="How to transmit.  [default: auto]"
)
@click.option("--busy-poll", is_flag=True, help="Never sleep: lowest latency, a whole CPU for each queue.")
@click.option("--generic", is_flag=True, help="Attach on socket buffers, even if the driver has XDP.")
@click.option("--replace", is_flag=True, help="Detach another XDP program first; it is not attached again.")
@click.option(
    "--on-failure",
    type=click.Choice(["pass", "drop", "kernel"]),
    default="pass",
    show_default=True,
    help="What happens to frames while nobody serves: the stack, nothing, or the program itself in the kernel.",
)
@click.option("--maps", "maps_file", default="", help="Fill the maps from a JSON file (bpftool's format too).")
@click.option("--set", "assignments", metavar="MAP:KEY=VALUE", multiple=True, help="Set one map element.")
@click.option("--param", "params", metavar="NAME=VALUE", multiple=True, help="Set a constant of the program.")
@click.option("--metrics", default="", metavar="HOST:PORT", help="Answer Prometheus there, at /metrics.")
@click.option(
    "--pcap-sample",
    nargs=2,
    type=(click.IntRange(1, 2**32 - 1), str),
    metavar="N FILE",
    help="Write every Nth frame of each queue, as the program left it, with its verdict, to a .pcapng file.",
)
@click.option("--perf-map", is_flag=True, help="Tell perf the names of compiled code, in /tmp/perf-PID.map.")
@click.option("--log-json", is_flag=True, help="Log events as JSON objects, one a line.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=use_config,
    help="TOML file whose keys are the flags' names, and bundle; flags come first.",
)
@click.option("--insecure-unsigned", is_flag=True, help="Go on with a bundle that nobody you trust has signed.")
def serve(bundle: str | None, **flags: Any) -> int:
    """Serve a bundle: authenticate, bind, verify, compile, attach, and run it on live frames.

    On a terminal a table shows what happens; elsewhere there is a line for each event. SIGTERM and SIGINT stop it.

    \b
    Example:
      sudo uxdp serve load_balancer.uxdp --af-xdp eth0 --maps maps.json
      sudo uxdp serve some-nf --af-xdp eth0,eth1 --queues 0-3 --on-failure kernel
      sudo uxdp serve --config /etc/uxdp/services/edge.toml
    """
    from ..serve.events import report

    console = _terminal(log_json=flags["log_json"])
    _log_events(console, as_json=flags["log_json"])
    try:
        _serve(bundle, flags, console)
    except UxdpError as error:
        if not flags["log_json"]:
            raise
        fields = {"type": type(error).__name__, "context": error.context, "remedy": error.remedy}
        report("failed", error.message, level=logging.ERROR, **fields, exit_code=error.exit_code)
        return error.exit_code
    return 0


def _serve(bundle: str | None, flags: Mapping[str, Any], console: "Console | None") -> None:
    from ..ports.attachment import Fallback
    from ..serve.events import report
    from ..serve.kernel_service import KernelService
    from ..serve.operation import Operation
    from ..serve.options import ServeOptions, parse_ranges
    from ..serve.perf_map import PerfMap
    from ..serve.service import Service
    from ..serve.service_manager import ServiceManager

    if bundle is None:
        raise ParameterError("no bundle to serve", remedy="name a file or an installed network function")
    sample_every, sample_file = flags["pcap_sample"] or (0, "")
    warn = partial(report, "insecure", level=logging.WARNING)
    with bound_bundle(bundle, insecure_unsigned=flags["insecure_unsigned"], warn=warn) as bound:
        opened = bound.authentic.bundle
        options = ServeOptions(
            bundle=bundle,
            interfaces=tuple(flags["interfaces"].split(",")) if flags["interfaces"] else (),
            dpdk=_devices(flags),
            name=flags["name"],
            program=program_to_run(opened, flags["program"] or None),
            mode=flags["mode"],
            queues=parse_ranges(flags["queues"], "--queues") if flags["queues"] else None,
            cpus=_cpus(flags),
            tx=flags["tx"],
            busy_poll=flags["busy_poll"],
            generic=True if flags["generic"] else None,
            replace=flags["replace"],
            on_failure=Fallback[flags["on_failure"].upper()],
            num_chunks=flags["chunks"],
            chunk_bytes=flags["chunk_bytes"],
            params=parse_params(opened, flags["params"]),
            maps=flags["maps_file"],
            assignments=flags["assignments"],
            metrics=flags["metrics"],
            sample_every=sample_every,
            sample_file=sample_file,
            perf_map=flags["perf_map"],
            eal=tuple(shlex.split(flags["eal"])),
            ifindexes=flags["ifindexes"],
            stack=flags["stack"],
            power=flags["power"],
            insecure_unsigned=flags["insecure_unsigned"],
        )
        again = partial(bound_bundle, insecure_unsigned=flags["insecure_unsigned"], warn=warn)
        kind = KernelService if options.mode == "kernel" else Service
        with (
            ServiceManager.from_environment(os.environ) or nullcontext() as manager,
            _metrics(flags["metrics"]) as metrics,
            _live_table(console) as table,
            _sampler(sample_every, sample_file, options) as sampler,
            kind(bound, options, again) as service,
        ):
            if isinstance(service, Service) and not flags["log_json"]:
                report_origin(service.loaded.compiled)
            perf_map = PerfMap() if options.perf_map else None
            with Operation(service, table=table, metrics=metrics, manager=manager, sampler=sampler, perf_map=perf_map):
                service.run()


# What most services go without is not imported: a service begins sooner.


def _metrics(address: str | None) -> "AbstractContextManager[MetricsEndpoint | None]":
    if not address:
        return nullcontext()
    from ..serve.metrics import MetricsEndpoint

    return MetricsEndpoint(address)


def _live_table(console: "Console | None") -> "AbstractContextManager[LiveTable | None]":
    if console is None:
        return nullcontext()
    from ..serve.live_table import LiveTable

    return LiveTable(console)


def _sampler(every: int, path: str, options: "ServeOptions") -> "AbstractContextManager[Sampler | None]":
    if not every:
        return nullcontext()
    from ..serve.sampling import Sampler

    return Sampler(path, options.port_names())


def _devices(flags: Mapping[str, Any]) -> "tuple[DpdkDevice, ...]":
    from ..ports.dpdk import parse_pci, parse_vdev

    pci = parse_pci(flags["pci"]) if flags["pci"] else ()
    return (*pci, *map(parse_vdev, flags["vdevs"]))


def _cpus(flags: Mapping[str, Any]) -> tuple[int, ...] | None:
    from ..serve.options import parse_ranges

    if flags["cpus"] and flags["lcores"]:
        raise ParameterError("say one of --cpus and --lcores", context="--lcores")
    for name in ("cpus", "lcores"):
        if flags[name]:
            return parse_ranges(flags[name], f"--{name}")
    return None


def _terminal(*, log_json: bool) -> "Console | None":
    """Return the terminal that a live table and the events can share, if there is one."""
    if log_json or not (sys.stdout.isatty() and sys.stderr.isatty()):
        return None
    from rich.console import Console

    return Console()


def _log_events(console: "Console | None", *, as_json: bool) -> None:
    from ..serve.events import JsonFormatter, LineFormatter

    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if console is not None:
        from ..serve.live_table import ConsoleHandler

        handler = ConsoleHandler(console)
    handler.setFormatter(JsonFormatter() if as_json else LineFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
