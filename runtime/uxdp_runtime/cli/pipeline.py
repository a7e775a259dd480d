"""The steps that every command before a running program takes: open, authenticate, bind."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from uxdp_bundle.container import open_bundle

from . import output
from .bundle_argument import resolve_bundle

if TYPE_CHECKING:
    from uxdp_bundle.binding import BoundBundle

    from ..compile.program import CompiledProgram


@contextmanager
def bound_bundle(argument: str, *, insecure_unsigned: bool) -> Iterator["BoundBundle"]:
    """Open a bundle by path or installed name, authenticate and bind it; it is closed afterwards.

    :param insecure_unsigned: go on, with a warning, if nobody trusted has signed it
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
            output.warn(f"{path}: INSECURE: nobody you trust has signed this bundle; accepted by --insecure-unsigned")
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
