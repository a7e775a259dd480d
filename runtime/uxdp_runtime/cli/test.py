"""``uxdp test``: the same frames in the kernel and natively, and the first difference."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import click

from uxdp_bundle.errors import UxdpError

from .. import hexdump
from ..differential import Differential, FrameDifference, MapDifference, native_cpus, verdict_name
from ..frames.generate import Frame
from . import output
from .pipeline import bound_bundle, report_origin

EXIT_DIFFERENT = 1
_SHOWN_MAP_DIFFERENCES = 10


@click.command()
@click.argument("bundle", metavar="BUNDLE|NAME")
@click.option("--program", metavar="NAME", help="Program to test.  [default: every program of the bundle]")
@click.option("-n", "count", default=1000, show_default=True, help="Number of frames to generate.")
@click.option("--seed", default=1, show_default=True, help="Of the generated frames.")
@click.option("--pcap", "capture", type=click.Path(), help="Take the frames from a capture instead.")
@click.option(
    "--maps", "maps_file", type=click.Path(), help="Fill the maps from a JSON file first (bpftool's format too)."
)
@click.option("--set", "assignments", metavar="MAP:KEY=VALUE", multiple=True, help="Set one map element first.")
@click.option("--insecure-unsigned", is_flag=True, help="Go on with a bundle that nobody you trust has signed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def test(
    bundle: str,
    program: str | None,
    count: int,
    seed: int,
    capture: str | None,
    maps_file: str | None,
    assignments: tuple[str, ...],
    insecure_unsigned: bool,
    as_json: bool,
) -> int:
    """Prove that the native code does what the kernel does: verdicts, bytes, metadata, maps.

    Runs the same frames through BPF_PROG_TEST_RUN and the native module, with state carried along. Exit code 1 and a
    side-by-side dump at the first difference.

    \b
    Example:
      uxdp test load_balancer.uxdp --set 'config:0={"local_addr": "10.0.0.9"}' -n 10000
      uxdp test nf.uxdp --pcap trace.pcapng --maps maps.json
    """

    from ..compile.cache import cache_directory
    from ..compile.program import compile_program
    from ..frames.capture import read_capture
    from ..frames.constants import constants_of
    from ..frames.generate import generate
    from ..map_file import read_map_file
    from ..stores import control_library
    from ..verify import verify

    reports: list[dict[str, Any]] = []
    different = False
    with bound_bundle(bundle, insecure_unsigned=insecure_unsigned) as bound:
        control = control_library()
        names = [program] if program else [fact.name for fact in bound.facts.programs]
        for name in names:
            with verify(bound) as verified:
                compiled = compile_program(
                    verified, name, None, num_cpus=native_cpus(), cache_directory=cache_directory()
                )
                report_origin(compiled)
                obj = bytes(bound.authentic.bundle.object)
                contents = read_map_file(obj, maps_file, assignments)
                with Differential(compiled, control) as sides:
                    sides.fill(contents)
                    frames: Iterable[Frame]
                    if capture:
                        frames = read_capture(capture)
                    else:
                        # Frames that hit what the maps were filled with say more than frames that miss it.
                        keys = {key for items in contents.values() for key, _value in items}
                        frames = generate(count, seed, {*constants_of(obj), *keys})
                    report = _run(sides, frames)
            report["program"] = name
            report["origin"] = compiled.origin.value
            different |= not report["equal"]
            reports.append(report)
            if not as_json:
                _print(name, report)
    if as_json:
        click.echo(json.dumps({"bundle": bundle, "programs": [_json(report) for report in reports]}, indent=2))
    return EXIT_DIFFERENT if different else 0


def _run(sides: Differential, frames: Iterable[Frame]) -> dict[str, Any]:
    verdicts: Counter[str] = Counter()
    first: FrameDifference | None = None
    total = 0
    for _frame, outcome, difference in sides.run(frames):
        total += 1
        verdicts[verdict_name(outcome.verdict)] += 1
        if difference is not None:
            first = difference
            break
    maps = list(itertools.islice(sides.map_differences(), _SHOWN_MAP_DIFFERENCES)) if first is None else []
    if total == 0:
        raise UxdpError("no frame to test with")
    return {
        "frames": total,
        "verdicts": dict(verdicts),
        "difference": first,
        "maps": maps,
        "equal": not first and not maps,
    }


def _print(name: str, report: dict[str, Any]) -> None:
    verdicts = ", ".join(f"{verdict} {number}" for verdict, number in sorted(report["verdicts"].items()))
    if report["equal"]:
        output.say(f"{name}: equal on {report['frames']} frames ({verdicts})")
        return
    output.say(f"{name}: DIFFERENT after {report['frames']} frames ({verdicts})")
    difference = report["difference"]
    if difference is not None:
        _print_frame(difference)
    for item in report["maps"]:
        _print_element(item)


def _print_frame(difference: FrameDifference) -> None:
    kernel, native = difference.kernel, difference.native
    output.say(f"frame {difference.number} ({difference.frame.description}): {difference.what} differs")
    output.say(
        f"  kernel {verdict_name(kernel.verdict)}, {len(kernel.data)} bytes, metadata {kernel.metadata.hex() or '—'}"
    )
    output.say(
        f"  native {verdict_name(native.verdict)}, {len(native.data)} bytes, metadata {native.metadata.hex() or '—'}"
    )
    output.say(f"  given  {difference.frame.data.hex()}")
    output.say("         kernel                    |  native")
    for line in hexdump.side_by_side(kernel.data, native.data):
        output.say(f"  {line}")


def _print_element(item: MapDifference) -> None:
    output.say(f"map {item.map}, key {item.key.hex()}:")
    output.say(f"  kernel {item.kernel.hex() if item.kernel is not None else 'not there'}")
    output.say(f"  native {item.native.hex() if item.native is not None else 'not there'}")


def _json(report: dict[str, Any]) -> dict[str, Any]:
    difference: FrameDifference | None = report["difference"]
    return {
        "program": report["program"],
        "origin": report["origin"],
        "equal": report["equal"],
        "frames": report["frames"],
        "verdicts": report["verdicts"],
        "difference": None
        if difference is None
        else {
            "frame": difference.number,
            "what": difference.what,
            "description": difference.frame.description,
            "given": difference.frame.data.hex(),
            "kernel": _outcome_json(difference.kernel),
            "native": _outcome_json(difference.native),
        },
        "maps": [
            {
                "map": item.map,
                "key": item.key.hex(),
                "kernel": item.kernel.hex() if item.kernel is not None else None,
                "native": item.native.hex() if item.native is not None else None,
            }
            for item in report["maps"]
        ],
    }


def _outcome_json(outcome: Any) -> dict[str, Any]:
    return {
        "verdict": verdict_name(outcome.verdict),
        "data": outcome.data.hex(),
        "metadata": outcome.metadata.hex(),
    }
