"""No unit test sees, or touches, the configuration of the user who runs it; and bundles that uxdp-cc built."""

import pytest

from tests import bundle_factory
from tests.isolated_user import IsolatedUser, isolate


@pytest.fixture(autouse=True)
def isolated_user(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> IsolatedUser:
    """A user without keys, trust or state."""
    return isolate(monkeypatch, tmp_path_factory.mktemp("user"))


@pytest.fixture(scope="session")
def minimal_image() -> bytes:
    """The file image of a real bundle with the publisher's signature: one program, no maps."""
    return bundle_factory.signed_case("minimal")


@pytest.fixture(scope="session")
def many_facts_image() -> bytes:
    """The file image of a real bundle with the publisher's signature: something of every kind."""
    return bundle_factory.signed_case("many_facts")
