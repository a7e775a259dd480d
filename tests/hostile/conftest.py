"""Bad input, and what every case of it has to end in: one typed error, no traceback, nothing written."""

from pathlib import Path

import pytest

from tests import bundle_factory
from tests.bundle_factory import PUBLISHER
from tests.hostile.workbench import Workbench
from tests.isolated_user import IsolatedUser, isolate


@pytest.fixture(autouse=True)
def user(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> IsolatedUser:
    """A user who trusts the publisher for every name."""
    user = isolate(monkeypatch, tmp_path_factory.mktemp("user"))
    user.trust(f'[[keys]]\nkey = "{PUBLISHER.public.text}"\nnames = ["*"]\n')
    return user


@pytest.fixture
def bench(tmp_path: Path, user: IsolatedUser) -> Workbench:
    """Where hostile files are put and used."""
    return Workbench(tmp_path, user)


@pytest.fixture(scope="session")
def minimal_image() -> bytes:
    """The file image of a small real bundle that the publisher signed."""
    return bundle_factory.signed_case("minimal")
