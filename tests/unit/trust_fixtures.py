"""What the trust tests share: a user who is nobody's, and the smallest bundle that opens."""

import os
import pwd
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from uxdp_bundle import trusted_files
from uxdp_bundle.container import Bundle, Content, bundle_from_bytes, pack
from uxdp_bundle.keys import SigningKey, generate_key
from uxdp_bundle.manifest import Build, Manifest, Requirements
from uxdp_bundle.signature import sign_statement


@dataclass(frozen=True)
class Directories:
    """Where this test's user keeps things; none of them exists at first."""

    home: Path
    system: Path
    user: Path
    state: Path

    @property
    def trust(self) -> Path:
        """The trust.d that both root and other users follow."""
        return self.system / "trust.d"


@pytest.fixture
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Directories:
    """Redirect every directory that trust is read from or written to."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    for variable in ("SUDO_UID", "UXDP_SIGNING_KEY", "UXDP_SIGNING_KEY_PASSPHRASE", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("UXDP_SYSTEM_CONFIG", str(tmp_path / "etc"))
    monkeypatch.setenv("UXDP_STATE_DIR", str(tmp_path / "state"))
    return Directories(home, tmp_path / "etc", home / "config" / "uxdp", tmp_path / "state")


def act_as(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    """Make uxdp believe that it runs as ``uid``; what the kernel permits stays the same."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``path`` belong to somebody who is neither root nor the effective user."""
    if os.getuid() == 0:
        os.chown(path, 4711, -1)
    else:
        act_as(monkeypatch, os.getuid() + 1)


def write(path: Path, text: str | bytes, mode: int = 0o644) -> Path:
    """Write a file that passes the checks of ownership and mode."""
    for part in reversed(path.parents):
        if not part.exists():
            part.mkdir(mode=0o755)
            part.chmod(0o755)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def trust_toml(key: SigningKey, *, names: str = '["*"]', extra: str = "") -> str:
    """Return the text of a trust file with one key."""
    return f'[[keys]]\nkey = "{key.public.text}"\nnames = {names}\n{extra}\n'


def bundle_image(name: str = "firewall", security_version: int = 0, version: str = "1.0") -> bytes:
    """Return an unsigned bundle: an ELF header with an empty section table, and an empty shim."""
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 1, 247, 1, 0, 0, 64, 0, 64, 0, 0, 64, 1, 0)
    manifest = Manifest(
        name=name,
        version=version,
        security_version=security_version,
        license="Dual MIT/GPL",
        critical=(),
        members=(),
        programs=(),
        maps=(),
        xdp_md=(),
        params=(),
        requirements=Requirements(kernel=(), llvm=22, mcpu="v3"),
        build=Build(compiler="clang", flags=(), sources=(), lowering=None),
    )
    contents = [
        Content("object", "nf.o", "application/vnd.uxdp.bpf-object", header + bytes(64)),
        Content("shim", "shim.btf", "application/vnd.uxdp.btf-shim", b""),
    ]
    return pack(manifest, contents)


def unsigned_bundle(name: str = "firewall", security_version: int = 0) -> Bundle:
    """Return an opened unsigned bundle."""
    return bundle_from_bytes(bundle_image(name, security_version), path=f"{name}.uxdp")


def with_signatures(bundle: Bundle, jsonl: bytes) -> Bundle:
    """Return the same bundle with other signatures."""
    return bundle_from_bytes(bundle.with_signatures(jsonl), path=bundle.path)


def signed_bundle(*keys: SigningKey, name: str = "firewall", security_version: int = 0) -> Bundle:
    """Return an opened bundle that each of ``keys`` has signed."""
    bundle = unsigned_bundle(name, security_version)
    return with_signatures(bundle, b"".join(sign_statement(bundle.bundle_id, name, key) for key in keys))


@pytest.fixture
def key() -> SigningKey:
    """A key that nobody trusts yet."""
    return generate_key()


@pytest.fixture
def other_key() -> SigningKey:
    """A second key."""
    return generate_key()


@pytest.fixture
def no_passwd_entry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the effective user have no entry in the password database."""

    def missing(_uid: int) -> pwd.struct_passwd:
        raise KeyError("no such uid")

    monkeypatch.setattr(trusted_files.pwd, "getpwuid", missing)
    yield
