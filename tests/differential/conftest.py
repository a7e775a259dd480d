"""The kernel is the specification here: what is missing to ask it skips a test, or fails it under UXDP_REQUIRE."""

from pathlib import Path

import pytest

from tests.privileged.conftest import kernel
from uxdp_runtime.compile import targets
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.stores import ControlLibrary, control_library

__all__ = ["kernel"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this run's compiled objects are kept."""
    path = tmp_path_factory.mktemp("native-cache")
    path.chmod(0o700)
    return path


@pytest.fixture(scope="session")
def target() -> Target:
    """This machine."""
    return targets.host_target()


@pytest.fixture(scope="session")
def control() -> ControlLibrary:
    """The control library of this machine."""
    return control_library()
