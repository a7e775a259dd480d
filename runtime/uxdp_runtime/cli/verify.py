"""``uxdp verify``: let the kernel's verifier judge a bundle's programs."""

from typing import TYPE_CHECKING, Any

import click

from uxdp_bundle.container import Bundle

from . import output
from .pipeline import bound_bundle, parse_params

if TYPE_CHECKING:
    from uxdp_bundle.binding import BoundBundle

    from ..errors import VerifierError
    from ..verify import VerifiedObject, VerifiedProgram

# Enough to see the path to the refused instruction; --log prints all of it.
_EXCERPT_LINES = 15


@click.command()
@click.argument("bundle", metavar="BUNDLE|NAME")
@click.option("--program", "programs", metavar="NAME", multiple=True, help="Load this program only; may be repeated.")
@click.option(
    "--param",
    "params",
    metavar="NAME=VALUE",
    multiple=True,
    help="Set a constant before loading; see `uxdp inspect`. May be repeated.",
)
@click.option("--log", "whole_log", is_flag=True, help="Print everything that the verifier says.")
@click.option("--insecure-unsigned", is_flag=True, help="Go on with a bundle that nobody you trust has signed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(
    bundle: str,
    programs: tuple[str, ...],
    params: tuple[str, ...],
    whole_log: bool,
    insecure_unsigned: bool,
    as_json: bool,
) -> int:
    """Authenticate and bind a bundle, then load its programs into the kernel, whose verifier judges them.

    Nothing is attached, no frame is touched, and nothing stays in the kernel. BUNDLE is a file, or the name of an
    installed network function. Needs CAP_BPF, CAP_NET_ADMIN and, for most programs, CAP_PERFMON.

    A refused program is shown with the instruction at which the verifier stopped, its C line, and the end of the log;
    the exit code is then 9.

    \b
    Example:
      sudo uxdp verify load_balancer.uxdp
      sudo uxdp verify firewall --param default_action=0
      sudo uxdp verify nf.uxdp --program nf_main --log
      sudo uxdp verify nf.uxdp --json | jq -r '.programs[] | "\\(.name) \\(.tag)"'
    """
    from ..errors import VerifierError
    from ..verify import verify as verify_bound

    with bound_bundle(bundle, insecure_unsigned=insecure_unsigned) as bound:
        opened = bound.authentic.bundle
        path = opened.path
        values = parse_params(opened, params)
        try:
            with verify_bound(bound, programs=programs or None, params=values) as verified:
                if as_json:
                    output.print_json(_json(path, opened, bound, verified))
                else:
                    _print(path, verified, whole_log=whole_log)
        except VerifierError as refused:
            if as_json:
                output.print_json({"error": _refusal_json(refused)})
                return refused.exit_code
            left_out = 0 if whole_log else max(0, len(refused.log.splitlines()) - _EXCERPT_LINES)
            _print_refusal(refused, left_out)
            if left_out:
                refused.remedy = "\n".join(filter(None, (refused.remedy, "add --log to see the whole log")))
            raise
    return 0


def _print(path: str, verified: "VerifiedObject", *, whole_log: bool) -> None:
    again = "; what this LLVM makes of its IR is verified too" if verified.reverified else ""
    count = len(verified.programs)
    output.say(f"{path}: verified: the kernel accepts {count} program{'s' if count != 1 else ''}{again}")
    output.print_table(
        "Programs",
        ("Name", "Tag", "Instructions processed", "Time", "Maps"),
        [
            (
                program.name,
                program.tag,
                str(program.processed_instructions),
                _time(program.verification_time_us),
                ", ".join(program.maps) or "—",
            )
            for program in verified.programs.values()
        ],
    )
    if whole_log:
        for program in verified.programs.values():
            _print_log(program.name, program.log)


def _time(time_us: int | None) -> str:
    if time_us is None:
        return "—"
    return f"{time_us} µs" if time_us < 10_000 else f"{time_us / 1000:.0f} ms"


def _print_refusal(refused: "VerifierError", left_out: int) -> None:
    """Show where the verifier stopped, on stderr; the sentence that says what is wrong follows as the error."""
    if left_out:
        _to_stderr(f"… {left_out} lines before these of the verifier's log")
    for line in refused.log.splitlines()[left_out:]:
        _to_stderr(line)
    if refused.source is not None:
        _to_stderr("")
        _to_stderr(f"{refused.source}:  {refused.source.text}")
    if refused.instruction is not None:
        _to_stderr(f"  {_instruction_line(refused)}")
    _to_stderr("")


def _instruction_line(refused: "VerifierError") -> str:
    start = f"{refused.instruction}: ("
    return next((line for line in reversed(refused.log.splitlines()) if line.startswith(start)), start)


def _print_log(name: str, log: str) -> None:
    output.say()
    output.say(f"verifier's log of {name}:")
    for line in log.splitlines():
        output.say(line)


def _to_stderr(line: str) -> None:
    click.echo(output.printable(line), err=True)


def _json(path: str, opened: Bundle, bound: "BoundBundle", verified: "VerifiedObject") -> dict[str, Any]:
    return {
        "bundle": path,
        "bundle_id": opened.bundle_id,
        "name": opened.manifest.name,
        "version": opened.manifest.version,
        "insecure": bound.authentic.insecure,
        "binding": bound.binding.value,
        "reverified": verified.reverified,
        "programs": [_program_json(program) for program in verified.programs.values()],
        "maps": [
            {
                "name": name,
                "type": item.type,
                "key_size": item.info.key_size,
                "value_size": item.info.value_size,
                "max_entries": item.info.max_entries,
                "flags": item.info.flags,
            }
            for name, item in verified.maps.items()
        ],
        "params": {name: value.hex() for name, value in verified.params.items()},
    }


def _program_json(program: "VerifiedProgram") -> dict[str, Any]:
    return {
        "name": program.name,
        "section": program.section,
        "tag": program.tag,
        "instructions": len(program.code.instructions),
        "instructions_processed": program.processed_instructions,
        "verification_time_us": program.verification_time_us,
        "jited_bytes": program.jited_bytes,
        "maps": list(program.maps),
        "log": program.log,
    }


def _refusal_json(refused: "VerifierError") -> dict[str, Any]:
    return {
        "type": type(refused).__name__,
        "message": refused.message,
        "context": refused.context,
        "remedy": refused.remedy,
        "exit_code": refused.exit_code,
        "program": refused.program,
        "reason": refused.reason,
        "instruction": refused.instruction,
        "source": str(refused.source) if refused.source is not None else None,
        "log": refused.log,
    }
