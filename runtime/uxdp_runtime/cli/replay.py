"""``uxdp replay``: captured frames through a program, natively, without any interface."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import click

from ..differential import verdict_name
from ..frames.generate import Frame
from ..replay import Replay, replay_unverified, replay_verified
from . import output
from .pipeline import bound_bundle, report_origin

_TX, _REDIRECT = 3, 4


@click.command()
@click.argument("bundle", metavar="BUNDLE|NAME")
@click.argument("capture", type=click.Path())
@click.option("-o", "--output", "target_file", type=click.Path(), help="Write transmitted frames (TX, REDIRECT) here.")
@click.option("--program", metavar="NAME", help="Program to run.  [default: the bundle's first]")
@click.option("--maps", "maps_file", type=click.Path(), help="Fill the maps from a JSON file (bpftool's format too).")
@click.option("--set", "assignments", metavar="MAP:KEY=VALUE", multiple=True, help="Set one map element.")
@click.option("--dump", is_flag=True, help="Print the maps afterwards, decoded by their types.")
@click.option("--unverified", is_flag=True, help="Without the kernel's verifier: for machines where you are not root.")
@click.option("--insecure-unsigned", is_flag=True, help="Go on with a bundle that nobody you trust has signed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def replay(
    bundle: str,
    capture: str,
    target_file: str | None,
    program: str | None,
    maps_file: str | None,
    assignments: tuple[str, ...],
    dump: bool,
    unverified: bool,
    insecure_unsigned: bool,
    as_json: bool,
) -> None:
    """Run a capture (pcap or pcapng) through a program and count the verdicts.

    \b
    Example:
      uxdp replay firewall.uxdp in.pcap --set 'rules4:10.0.0.0/8={"action": "XDP_DROP"}' --dump
      uxdp replay load_balancer.uxdp in.pcapng -o out.pcapng --maps maps.json
    """
    from ..compile import targets
    from ..compile.cache import cache_directory
    from ..frames.capture import CaptureReader
    from ..frames.capture_writer import CaptureWriter
    from ..map_file import read_map_file
    from ..stores import control_library
    from ..verify import verify

    with ExitStack() as stack:
        bound = stack.enter_context(bound_bundle(bundle, insecure_unsigned=insecure_unsigned))
        obj = bytes(bound.authentic.bundle.object)
        name = program or bound.facts.programs[0].name
        if unverified:
            output.warn("the kernel's verifier has not seen this program: --unverified")
            session = replay_unverified(bound, name, targets.host_target(cache_directory()), control_library())
        else:
            verified = stack.enter_context(verify(bound))
            session = replay_verified(verified, name, None, control_library(), cache_directory())
        if session.compiled is not None:
            report_origin(session.compiled)
        for map_name, items in read_map_file(obj, maps_file, assignments, cpus=1).items():
            for key, value in items:
                session.stores[map_name].update(key, value)
        reader = stack.enter_context(CaptureReader(capture))
        writer = stack.enter_context(CaptureWriter(target_file, reading=reader)) if target_file else None
        times: dict[str, Any] = {}
        frames = _with_progress(_frames(reader, times), reader)
        written = 0
        for frame, result in session.run(frames):
            if writer is not None and result.verdict in (_TX, _REDIRECT):
                writer.write(result.data, times.pop(frame.description, 0))
                written += 1
            else:
                times.pop(frame.description, None)
        _report(session, obj, capture, written, dump=dump, as_json=as_json)


def _frames(reader: Any, times: dict[str, Any]) -> Iterator[Frame]:
    """Yield a capture's frames, and keep the times of those under way."""
    for captured in reader:
        description = f"packet {captured.number}"
        times[description] = captured.timestamp_ns
        yield Frame(captured.data, description=description)


def _with_progress(frames: Iterable[Frame], reader: Any) -> Iterator[Frame]:
    """Yield frames; on a terminal show how much of the file was read, once that takes a while."""
    if not sys.stderr.isatty():
        yield from frames
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("replay", total=reader.size_bytes)
        for number, frame in enumerate(frames):
            if number % 4096 == 0:
                progress.update(task, completed=reader.position_bytes)
            yield frame


def _report(session: Replay, obj: bytes, capture: str, written: int, *, dump: bool, as_json: bool) -> None:
    total = sum(session.verdicts.values())
    verdicts = {verdict_name(verdict): number for verdict, number in sorted(session.verdicts.items())}
    maps = _dump(session, obj) if dump else {}
    if as_json:
        output.print_json({"capture": capture, "frames": total, "verdicts": verdicts, "written": written, "maps": maps})
        return
    rows = [(name, str(number), f"{100 * number / total:.1f} %") for name, number in verdicts.items()]
    output.print_table(f"{capture}: {total} frames", ("Verdict", "Frames", "Share"), rows)
    for name, elements in maps.items():
        output.say(f"{name}:")
        for element in elements:
            output.say(f"  {_shown(element)}")


def _shown(element: dict[str, Any]) -> str:
    import json

    return json.dumps(element)


def _dump(session: Replay, obj: bytes) -> dict[str, list[dict[str, Any]]]:
    """Return the content of all maps but those whose elements are all zero, which arrays are full of."""
    from ..map_file import dump
    from ..map_values import MapCodec

    contents = {
        store.definition.name: [(key, value) for key, value in store.items() if any(value)]
        for store in session.stores
        if store.definition.type not in ("ringbuf", "prog_array", "devmap", "devmap_hash", "cpumap", "xskmap")
    }
    return dump({name: items for name, items in contents.items() if items}, MapCodec.for_object(obj))
