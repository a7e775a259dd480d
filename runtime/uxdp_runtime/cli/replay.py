"""``uxdp replay``: captured frames through a program, natively, without any interface."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Final

import click

from ..frames.generate import Frame
from ..native_module import MAX_FRAME_BYTES
from ..outcomes import verdict_name
from ..replay import Replay, replay_unverified, replay_verified
from . import output
from .pipeline import bound_bundle, parse_params, program_to_run, programs_to_load, report_origin

if TYPE_CHECKING:
    from ..frames.capture import CaptureReader

_TX, _REDIRECT = 3, 4
_NOT_DUMPED: Final = frozenset(
    {
        "ringbuf",
        "user_ringbuf",
        "bloom_filter",
        "perf_event_array",
        "prog_array",
        "devmap",
        "devmap_hash",
        "cpumap",
        "xskmap",
    }
)
_ARRAYS: Final = frozenset({"array", "percpu_array"})


@click.command()
@click.argument("bundle", metavar="BUNDLE|NAME")
@click.argument("capture", type=click.Path())
@click.option("-o", "--output", "target_file", type=click.Path(), help="Write transmitted frames (TX, REDIRECT) here.")
@click.option("--program", metavar="NAME", help="Program to run.  [default: the bundle's first]")
@click.option("--maps", "maps_file", type=click.Path(), help="Fill the maps from a JSON file (bpftool's format too).")
@click.option("--set", "assignments", metavar="MAP:KEY=VALUE", multiple=True, help="Set one map element.")
@click.option(
    "--param",
    "params",
    metavar="NAME=VALUE",
    multiple=True,
    help="Set a constant before loading; see `uxdp inspect`. May be repeated.",
)
@click.option(
    "--dump", is_flag=True, help="Print the maps afterwards, decoded by their types; arrays without what is zero."
)
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
    params: tuple[str, ...],
    dump: bool,
    unverified: bool,
    insecure_unsigned: bool,
    as_json: bool,
) -> None:
    """Run a capture (pcap or pcapng, also gzipped) through a program and count the verdicts.

    The program is compiled for this machine and runs in this process, which touches no interface. The kernel verifies
    it first, unless --unverified says that it need not.

    \b
    Example:
      uxdp replay firewall.uxdp in.pcap --set 'rules4:10.0.0.0/8={"action": "XDP_DROP"}' --dump --unverified
      sudo uxdp replay load_balancer in.pcapng -o out.pcapng --maps maps.json
      sudo uxdp replay firewall in.pcap --param default_action=0 --json | jq .verdicts
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
        opened = bound.authentic.bundle
        name = program_to_run(opened, program)
        values = parse_params(opened, params)
        obj = bytes(opened.object)
        contents = read_map_file(obj, maps_file, assignments, cpus=1)
        reader = stack.enter_context(CaptureReader(capture))
        if unverified:
            output.warn("the kernel's verifier has not seen this program: --unverified")
            target = targets.host_target()
            session = replay_unverified(bound, name, target, control_library(), params=values)
        else:
            verified = stack.enter_context(verify(bound, programs=programs_to_load(bound, name), params=values))
            session = replay_verified(verified, name, None, control_library(), cache_directory())
        if session.compiled is not None:
            report_origin(session.compiled)
        for map_name, items in contents.items():
            for key, value in items:
                session.stores.update(map_name, key, value)
        writer = stack.enter_context(CaptureWriter(target_file, reading=reader)) if target_file else None
        times: dict[str, int] = {}
        skipped: Counter[str] = Counter()
        frames = stack.enter_context(
            closing(
                output.with_progress(
                    _frames(reader, times, skipped),
                    f"replay {capture}",
                    total=reader.size_bytes,
                    done=lambda _: reader.position_bytes,
                    wanted=not as_json,
                )
            )
        )
        written = 0
        for frame, result in session.run(frames):
            timestamp_ns = times.pop(frame.description)
            if writer is not None and result.verdict in (_TX, _REDIRECT):
                writer.write(result.data, timestamp_ns)
                written += 1
        frames.close()
        document = {
            "capture": capture,
            "program": name,
            "frames": sum(session.verdicts.values()),
            "verdicts": {verdict_name(verdict): number for verdict, number in sorted(session.verdicts.items())},
            "written": written,
            "skipped": dict(skipped),
            "records": dict(session.records),
        }
        if as_json:
            output.print_json(document | {"maps": _dump(session, obj) if dump else {}})
        else:
            _print(document, _dump(session, obj, readable=True) if dump else {}, target_file)


def _frames(reader: "CaptureReader", times: dict[str, int], skipped: Counter[str]) -> Iterator[Frame]:
    """Yield a capture's frames, keep the times of those under way, and count those that no buffer takes."""
    for captured in reader:
        if len(captured.data) > MAX_FRAME_BYTES:
            skipped[f"longer than {MAX_FRAME_BYTES} bytes"] += 1
            continue
        description = f"packet {captured.number}"
        times[description] = captured.timestamp_ns
        yield Frame(captured.data, description=description)


def _print(document: Mapping[str, Any], maps: dict[str, list[dict[str, Any]]], target_file: str | None) -> None:
    total = document["frames"]
    rows = [(name, str(number), f"{100 * number / total:.1f} %") for name, number in document["verdicts"].items()]
    output.say(f"{document['capture']}: {output.counted(total, 'frame')} through {document['program']}")
    output.print_table("Verdicts", ("Verdict", "Frames", "Share"), rows)
    for reason, number in document["skipped"].items():
        output.say(f"not run: {output.counted(number, 'frame')} {reason}")
    if target_file is not None:
        output.say(f"{target_file}: {output.counted(document['written'], 'frame')} transmitted or redirected")
    for name, number in document["records"].items():
        output.say(f"{name}: {output.counted(number, 'record')}")
    for name, elements in maps.items():
        output.say(f"{name}:")
        for element in elements:
            output.say(f"  {json.dumps(element, ensure_ascii=False)}")


def _dump(session: Replay, obj: bytes, *, readable: bool = False) -> dict[str, list[dict[str, Any]]]:
    """Return the content of all maps and of global data, without array elements that are zero.

    :param readable: addresses as people write them; otherwise numbers, as bpftool has them
    """
    from ..map_file import dump
    from ..map_layout import Notation
    from ..map_values import MapCodec

    contents = {
        store.definition.name: [
            (key, value) for key, value in store.items() if any(value) or store.definition.type not in _ARRAYS
        ]
        for store in (*session.stores, *session.stores.made())
        if store.definition.type not in _NOT_DUMPED and store.is_readable
    }
    contents |= {name: [(bytes(4), bytes(session.stores.section(name)))] for name in session.stores.sections}
    filled = {name: items for name, items in contents.items() if items}
    notation = Notation.ADDRESSES if readable else Notation.NETWORK
    return dump(filled, MapCodec.for_object(obj), notation=notation)
