"""The steps that every command before a running program takes: open, authenticate, bind; and what they are told."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from uxdp_bundle.container import Bundle, open_bundle

from . import output
from .bundle_argument import resolve_bundle

if TYPE_CHECKING:
    from uxdp_bundle.binding import BoundBundle

    from ..compile.program import CompiledProgram


@contextmanager
def bound_bundle(
    argument: str, *, insecure_unsigned: bool, warn: Callable[[str], None] = output.warn
) -> Iterator["BoundBundle"]:
    """Open a bundle by path or installed name, authenticate and bind it; it is closed afterwards.

    :param insecure_unsigned: go on, with a warning, if nobody trusted has signed it
    :param warn: what to do with the warning
    """
    from uxdp_bundle.authentication import authenticate
    from uxdp_bundle.binding import bind
    from uxdp_bundle.rollback import RollbackState
    from uxdp_bundle.trust import TrustStore

    path = resolve_bundle(argument)
    with open_bundle(path) as opened:
        authentic = authenticate(
            opened,
            TrustStore.load(),
            now=datetime.now(UTC),
            rollback=RollbackState.load(),
            allow_unsigned=insecure_unsigned,
        )
        if authentic.insecure:
            warn(f"{path}: INSECURE: nobody you trust has signed this bundle; accepted by --insecure-unsigned")
        yield bind(authentic)


def report_origin(compiled: "CompiledProgram") -> None:
    """Say, on stderr, why native code that the bundle carries was not used, and what would change that."""
    for rejection in compiled.rejections:
        output.note(f"compiled from IR, not taken from the bundle: {rejection}")
    if any(rejection.field == "signature" for rejection in compiled.rejections):
        authentic = compiled.verified.bound.authentic
        name = authentic.bundle.manifest.name
        for key in dict.fromkeys(signer.key.text for signer in authentic.signers):
            output.note(f"to use it: uxdp trust add {key} --names '{name}' --role native")


def parse_params(opened: Bundle, params: Sequence[str]) -> dict[str, int | bytes]:
    """Return the values that ``--param NAME=VALUE`` gives a bundle's constants, by name."""
    from ..bpf.constants import parse_value

    known = {param.name: param for param in opened.manifest.params}
    values: dict[str, int | bytes] = {}
    for text in params:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--param {text}: expected NAME=VALUE")
        if name not in known:
            raise click.UsageError(f"--param {text}: the bundle's constants are: {', '.join(known) or 'none'}")
        values[name] = parse_value(known[name], value)
    return values


def program_to_run(opened: Bundle, name: str | None) -> str:
    """Return the program that a user names, or the bundle's first.

    :raises ParameterError: there is no such program
    """
    from ..errors import ParameterError

    names = [program.name for program in opened.manifest.programs]
    if name is not None and name not in names:
        raise ParameterError(
            f"the bundle has no such program, but {', '.join(names)}", context=f"{opened.path}: program {name}"
        )
    return name or names[0]


def programs_to_load(bound: "BoundBundle", name: str) -> list[str]:
    """Return the programs that are loaded to run one: it, and all that need not be named (``SEC("?…")``)."""
    return [fact.name for fact in bound.facts.programs if fact.name == name or "manual" not in fact.flags]
