"""A user who is nobody's: every folder and variable that uxdp reads points into a temporary folder."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

# What a test run may say to uxdp from outside: what must not be skipped, and which clang to use.
_KEPT = ("UXDP_REQUIRE", "UXDP_CLANG")


@dataclass(frozen=True)
class IsolatedUser:
    """Where this user's things would be; only ``home`` exists."""

    home: Path
    system_config: Path
    state: Path

    def trust(self, text: str) -> None:
        """Write a trust file of the system, which root and everybody else follow."""
        self._write(self.system_config / "trust.d" / "tests.toml", text)

    def revoke(self, text: str) -> None:
        """Write revoked.toml."""
        self._write(self.system_config / "revoked.toml", text)

    def record(self, name: str, security_version: int) -> None:
        """Write the record that a bundle of this name and security_version was used."""
        text = f'{{"name":"{name}","security_version":{security_version}}}\n'
        self._write(self.state / "rollback" / f"{name}.json", text)

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)


def isolate(monkeypatch: pytest.MonkeyPatch, root: Path) -> IsolatedUser:
    """Let this process and its children be a user whose home is below ``root``."""
    user = IsolatedUser(root / "home", root / "etc", root / "state")
    user.home.mkdir(mode=0o700)
    for variable in [name for name in os.environ if name.startswith(("UXDP_", "XDG_", "SUDO_"))]:
        if variable not in _KEPT:
            monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(user.home))
    monkeypatch.setenv("UXDP_SYSTEM_CONFIG", str(user.system_config))
    monkeypatch.setenv("UXDP_STATE_DIR", str(user.state))
    return user
