"""``uxdp reload``: another version of a network function, while it is served."""

from pathlib import Path

import click

from . import output
from .bundle_argument import resolve_bundle


@click.command()
@click.argument("service", metavar="NAME")
@click.argument("bundle", metavar="[BUNDLE|NF]", required=False)
@click.option("--drop-maps", is_flag=True, help="Let maps that are declared otherwise start empty.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reload(service: str, bundle: str | None, drop_maps: bool, as_json: bool) -> None:
    """Let a running service go on with another version of its bundle, without losing a frame.

    The service itself authenticates, binds, verifies and compiles it, as when it started. Maps that the new version
    declares alike are kept. If anything is refused, the old version goes on. Without a bundle, the one that was opened
    last is opened again, as by SIGHUP.

    \b
    Example:
      sudo uxdp reload load_balancer load_balancer-1.1.uxdp
    """
    from ..serve.control_socket import ask

    path = None if bundle is None else str(Path(resolve_bundle(bundle)).absolute())
    done = ask(service, {"command": "reload", "bundle": path, "drop_maps": drop_maps})
    if as_json:
        output.print_json(done)
        return
    output.say(f"{service}: serves {done['bundle']} now; nobody served for {done['pause_ms']:.1f} ms")
    for what, text in (("kept", "kept"), ("reset", "start anew (global data)"), ("dropped", "dropped")):
        if done[what]:
            output.say(f"  maps {text}: {', '.join(done[what])}")
