"""Use a hostile file as a program would, and as a person would, and look at how that ends."""

import hashlib
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.isolated_user import IsolatedUser
from uxdp_bundle.authentication import authenticate
from uxdp_bundle.binding import BoundBundle, bind
from uxdp_bundle.container import open_bundle
from uxdp_bundle.errors import UxdpError
from uxdp_bundle.rollback import RollbackState
from uxdp_bundle.trust import TrustStore

NAME = "hostile.uxdp"
# Ends what hangs. Limits of CPU time do not depend on how busy the machine is; they are in what is tested.
TIMEOUT_SECONDS = 120

STEPS = ("open", "authenticate", "bind")


class Workbench:
    """A folder with one hostile file in it."""

    def __init__(self, folder: Path, user: IsolatedUser) -> None:
        self.user = user
        self.folder = folder / "bench"
        self.folder.mkdir()
        self.path = self.folder / NAME

    def put(self, image: bytes) -> None:
        """Write the hostile file."""
        self.path.write_bytes(image)

    def take(self, step: str) -> BoundBundle | None:
        """Do what a program does with a bundle, up to ``step``."""
        with open_bundle(self.path) as bundle:
            if step == "open":
                return None
            now = datetime.now(UTC)
            authentic = authenticate(bundle, TrustStore.load(), now=now, rollback=RollbackState.load())
            return bind(authentic) if step == "bind" else None

    def refuses(
        self,
        image: bytes | None,
        error: type[UxdpError],
        fragment: str,
        *,
        step: str = "open",
        command: str | None = "",
    ) -> UxdpError:
        """Require that a file gets past the steps before ``step`` and is refused there, with one error of a type.

        :param image: the file's content, or None if it is there already
        :param fragment: part of the error's text
        :param command: subcommand of ``uxdp`` that meets the same end, by default the one that is named like the step;
            None if another test shows that
        """
        if image is not None:
            self.put(image)
        before = self.contents()
        if STEPS.index(step) > 0:
            self.take(STEPS[STEPS.index(step) - 1])
        with pytest.raises(UxdpError) as caught:
            self.take(step)
        raised = caught.value
        assert type(raised) is error, repr(raised)
        assert fragment in str(raised)
        assert self.contents() == before, "written in spite of the error"
        if command is not None:
            self.refuses_in_shell(raised, command or ("authenticate" if step == "open" else step))
        return raised

    def refuses_in_shell(self, error: UxdpError, command: str, *options: str) -> None:
        """Require that ``uxdp COMMAND FILE`` reports exactly that error, and writes nothing."""
        before = self.contents()
        done = run_uxdp(command, NAME, *options, folder=self.folder)
        # In its own folder the file has a shorter name.
        expected = str(error).replace(str(self.path), NAME)
        assert_one_error(done, error.exit_code, _escaped(expected))
        assert self.contents() == before, "written in spite of the error"

    def contents(self) -> dict[str, str]:
        """Return what is in the folder, and in the user's configuration and state: path -> hash or kind."""
        found = {}
        for root in (self.folder, self.user.system_config, self.user.state, self.user.home):
            for path in sorted(root.rglob("*")):
                regular = path.is_file() and not path.is_symlink()
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if regular else "not a file"
        return found


def run_uxdp(*arguments: str, folder: Path, limit_cpu_seconds: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder."""
    limit = [] if limit_cpu_seconds is None else ["prlimit", f"--cpu={limit_cpu_seconds}"]
    return subprocess.run(
        [*limit, sys.executable, "-m", "uxdp_runtime", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def assert_one_error(done: subprocess.CompletedProcess[str], exit_code: int, text: str) -> None:
    """Require one error line with ``text`` on stderr, perhaps a remedy, nothing on stdout, and an exit code."""
    first, *rest = done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    assert first.startswith("uxdp: error: "), done.stderr
    assert text in first
    assert all(line.startswith(("  → ", "    ")) for line in rest), done.stderr
    assert done.stdout == ""
    assert done.returncode == exit_code


def _escaped(text: str) -> str:
    """Return text as the command line prints it: what is not printable is escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
