"""``uxdp compile``: native code ahead of time, as signed members of the bundle."""

import errno
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from uxdp_bundle import trusted_files
from uxdp_bundle.errors import FileAccessError

from . import output
from .bundle_argument import resolve_bundle
from .keys import mode_for, signing_key
from .pipeline import bound_bundle

if TYPE_CHECKING:
    from collections.abc import Callable

    from uxdp_bundle.native_code import NativeCode


@click.command("compile")
@click.argument("bundle", metavar="BUNDLE|NAME")
@click.option(
    "--cpu",
    "cpus",
    metavar="CPU",
    multiple=True,
    required=True,
    help="CPU to compile for; may be repeated. native, x86-64-generic, x86-64-v2 … v4, aarch64-generic, or LLVM's name "
    "of a CPU such as znver3 or neoverse-n1.",
)
@click.option(
    "--program", "programs", metavar="NAME", multiple=True, help="Compile this program only; may be repeated."
)
@click.option("-o", "--output", "output_file", metavar="OUT", help="Write there, and leave BUNDLE as it is.")
@click.option(
    "--key",
    "key_file",
    metavar="FILE",
    help="Secret key file.  [default: $UXDP_SIGNING_KEY, else your development key]",
)
@click.option("--insecure-unsigned", is_flag=True, help="Go on with a bundle that nobody you trust has signed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compile_bundle(
    bundle: str,
    cpus: tuple[str, ...],
    programs: tuple[str, ...],
    output_file: str | None,
    key_file: str | None,
    insecure_unsigned: bool,
    as_json: bool,
) -> None:
    """Authenticate and bind a bundle, compile its programs for the CPUs named, and put the code into the bundle.

    Machines with such a CPU then use the code without LLVM, if their trust file lets one of the bundle's signers bring
    native code: `uxdp trust add KEY --names NAME --role native`. Others compile the program from its IR.

    The bundle gets another id, so it is signed anew, with your key alone; what it was signed with before is gone.

    \b
    Example:
      uxdp compile nf.uxdp --cpu x86-64-v3 --cpu aarch64-generic -o nf.uxdp --key publisher.pem
      uxdp compile nf.uxdp --cpu native --program nf_main
    """
    from uxdp_bundle.container import bundle_from_bytes
    from uxdp_bundle.signature import parse_envelopes, sign_bundle

    from ..compile.ahead import compile_ahead
    from ..compile.program import program_source
    from ..compile.targets import named_target
    from ..errors import ParameterError

    path = resolve_bundle(bundle)
    if output_file is None and path != bundle:
        raise click.UsageError("an installed bundle is not changed: name another file with -o")
    goal = Path(output_file or path)
    mode = mode_for(goal)
    targets = [named_target(cpu) for cpu in dict.fromkeys(cpus)]
    codes: list[NativeCode] = []
    with bound_bundle(bundle, insecure_unsigned=insecure_unsigned) as bound:
        opened = bound.authentic.bundle
        known = [fact.name for fact in bound.facts.programs]
        for name in programs:
            if name not in known:
                raise ParameterError(
                    f"the bundle has no such program, but {', '.join(known)}", context=f"{path}: program {name}"
                )
        key = signing_key(key_file)
        work = [(name, target) for name in programs or known for target in targets]
        with _progress(len(work)) as advance:
            for name, target in work:
                source = program_source(bound, name, num_cpus=0, values=None, constants={})
                codes.append(compile_ahead(source, target))
                advance()
        replaced = len(parse_envelopes(opened.signatures, opened.bundle_id, opened.manifest.name))
        with bundle_from_bytes(opened.with_members([code.content() for code in codes]), path=str(goal)) as compiled:
            image = sign_bundle(compiled, key)
            bundle_id = compiled.bundle_id
    try:
        trusted_files.replace_file(goal, image, mode)
    except OSError as cause:
        raise FileAccessError(
            f"cannot be written: {cause.strerror}", errno=cause.errno or errno.EIO, context=str(goal)
        ) from cause
    if as_json:
        output.print_json(
            {
                "bundle": str(goal),
                "bundle_id": bundle_id,
                "key": key.public.text,
                "native": [
                    {
                        "program": code.program,
                        "machine": code.machine,
                        "cpu": code.cpu,
                        "features": list(code.features),
                        "llvm": code.llvm,
                        "bytes": len(code.data),
                    }
                    for code in codes
                ],
            }
        )
        return
    _print(str(goal), codes)
    was = f", in place of {replaced} signature{'s' if replaced != 1 else ''}" if replaced else ""
    output.say(f"bundle id {bundle_id}, signed by {key.public.text}{was}")


def _print(path: str, codes: "Sequence[NativeCode]") -> None:
    output.print_table(
        f"{path}: native code",
        ("Program", "Machine", "CPU", "Bytes", "Needs"),
        [
            (code.program, code.machine, code.cpu, str(len(code.data)), " ".join(code.features) or "nothing special")
            for code in codes
        ],
    )


@contextmanager
def _progress(total: int) -> "Iterator[Callable[[], None]]":
    """Show on a terminal how many of the programs and CPUs are done."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("compile", total=total)
        yield lambda: progress.advance(task)
