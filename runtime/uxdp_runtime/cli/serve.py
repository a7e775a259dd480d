"""``uxdp serve``: a network function on live traffic."""

import logging
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import ParameterError
from .pipeline import bound_bundle, parse_params, program_to_run, report_origin
from .serve_config import use_config


@click.command()
@click.argument("bundle", metavar="BUNDLE|NAME", required=False)
@click.option("--af-xdp", "interfaces", metavar="IFACE[,IFACE…]", help="Interfaces to serve on, by AF_XDP.")
@click.option("--name", default="", help="Name of the service.  [default: the bundle's]")
@click.option("--program", default="", metavar="NAME", help="Program to serve.  [default: the bundle's first]")
@click.option("--queues", metavar="RANGES", help="RX queues of each interface, such as 0-3.  [default: all]")
@click.option("--cpus", metavar="RANGES", help="CPUs for the queues, in turn.  [default: all allowed]")
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
def serve(bundle: str | None, **flags: Any) -> None:
    """Serve a bundle: authenticate, bind, verify, compile, attach, and run it on live frames.

    \b
    Example:
      sudo uxdp serve load_balancer.uxdp --af-xdp eth0 --maps maps.json
      sudo uxdp serve some-nf --af-xdp eth0,eth1 --queues 0-3 --on-failure kernel
      sudo uxdp serve --config /etc/uxdp/services/edge.toml
    """
    from ..ports.attachment import Fallback
    from ..serve.options import ServeOptions, parse_ranges
    from ..serve.service import Service

    if bundle is None:
        raise ParameterError("no bundle to serve", remedy="name a file or an installed network function")
    _log_to_stderr(as_json=flags["log_json"])
    with bound_bundle(bundle, insecure_unsigned=flags["insecure_unsigned"]) as bound:
        opened = bound.authentic.bundle
        options = ServeOptions(
            bundle=bundle,
            interfaces=tuple(flags["interfaces"].split(",")) if flags["interfaces"] else (),
            name=flags["name"],
            program=program_to_run(opened, flags["program"] or None),
            queues=parse_ranges(flags["queues"], "--queues") if flags["queues"] else None,
            cpus=parse_ranges(flags["cpus"], "--cpus") if flags["cpus"] else None,
            tx=flags["tx"],
            busy_poll=flags["busy_poll"],
            generic=True if flags["generic"] else None,
            replace=flags["replace"],
            on_failure=Fallback[flags["on_failure"].upper()],
            params=parse_params(opened, flags["params"]),
            maps=flags["maps_file"],
            assignments=flags["assignments"],
            insecure_unsigned=flags["insecure_unsigned"],
        )
        with Service(bound, options) as service:
            report_origin(service.loaded.compiled)
            service.run()


def _log_to_stderr(*, as_json: bool) -> None:
    from ..serve.events import JsonFormatter, LineFormatter

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else LineFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
