"""Bundles that got as far as ``bind``, from the images that bundle_factory makes."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tests.bundle_factory import Forgery, build_case
from uxdp_bundle.authentication import authenticate
from uxdp_bundle.binding import BoundBundle, bind
from uxdp_bundle.container import Bundle, bundle_from_bytes
from uxdp_bundle.rollback import RollbackState
from uxdp_bundle.trust import TrustStore


def bound_bundle(bundle: Bundle) -> BoundBundle:
    """Bind a bundle whoever signed it."""
    nothing_used = RollbackState(Path("/nonexistent"))
    return bind(authenticate(bundle, TrustStore(), now=datetime.now(UTC), rollback=nothing_used, allow_unsigned=True))


@contextmanager
def bound_image(image: bytes, path: str = "test.uxdp") -> Iterator[BoundBundle]:
    """Open and bind a bundle whoever signed it."""
    with bundle_from_bytes(image, path=path) as bundle:
        yield bound_bundle(bundle)


@contextmanager
def bound_case(name: str) -> Iterator[BoundBundle]:
    """Build tests/cases/NAME.c and bind it."""
    with bound_image(build_case(name), path=f"{name}.uxdp") as bound:
        yield bound


def made_by_another_llvm(name: str) -> bytes:
    """Return the image of a case's bundle whose object another LLVM seems to have made: its code is for another CPU."""
    forgery = Forgery(build_case(name, clang_args=("-mcpu=v2",)))
    forgery.manifest["build"]["lowering"] |= {"llvm": "21.1.0", "cpu": "v3"}
    forgery.manifest["requirements"] |= {"llvm": 21, "mcpu": "v3"}
    return forgery.image()
