"""Ed25519 keys: the text that people copy, the files that hold them, and the development key.

A public key is written ``ed25519:`` and the standard base64 of its 32 bytes, in trust files, in signatures and on the
command line; it also comes as an SPKI PEM file (``.pub``). A secret key is a PKCS#8 PEM file of mode 0600, encrypted
with a passphrase if its owner wants that. Secret bytes leave a SigningKey only through ``write_secret_key``.

The development key belongs to one user, is made at first use and is trusted for that user's own commands only, so that
an author can run what was just compiled. Others need the public key in their trust directory.

References: RFC 8032 (Ed25519), RFC 8410 (its PEM forms), RFC 7468 (PEM text)
"""

import base64
import binascii
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from . import trusted_files
from .errors import KeyFileError

PREFIX: Final = "ed25519:"
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
SIGNING_KEY_VARIABLE: Final = "UXDP_SIGNING_KEY"
DEVELOPMENT_KEY_NAME: Final = "development.pem"
PUBLIC_SUFFIX: Final = ".pub"
MAX_PASSPHRASE_BYTES: Final = 1023  # OpenSSL's PEM_BUFSIZE, less the terminating zero

# A passphrase, or what asks for it (None: there is none). It is asked only if the key is encrypted.
Passphrase = str | Callable[[], str | None] | None

_MAX_PEM_BYTES = 16 << 10  # the largest Ed25519 PEM file has a few hundred bytes; the rest is room for comments
_FIELD_PRIME = (1 << 255) - 19
# The y coordinates of the eight points of small order. Under such a key (all zeros is one: a placeholder that somebody
# left in a file) signatures can be made that verify for any message. RFC 8032, 5.1; the order is checked in the tests.
_ORDER_8_Y = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER_Y: Final = frozenset((0, 1, _FIELD_PRIME - 1, _ORDER_8_Y, _FIELD_PRIME - _ORDER_8_Y))


@dataclass(frozen=True, slots=True, order=True)
class PublicKey:
    """An Ed25519 public key. Equal keys have equal bytes: a point has one accepted encoding."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_BYTES:
            raise KeyFileError(f"a public key of {len(self.raw)} bytes, expected {KEY_BYTES}")
        y = int.from_bytes(self.raw, "little") & ((1 << 255) - 1)
        if y >= _FIELD_PRIME or y in _SMALL_ORDER_Y:
            raise KeyFileError(
                f"{self.text} is a weak key, under which anyone can sign", remedy="make a key with `uxdp keygen`"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the text form.

        :raises KeyFileError: it is no Ed25519 public key in text form, or a weak one
        """
        encoded = text.removeprefix(PREFIX)
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        # Base64 leaves spare bits in the last character: only the one spelling that encodes them as zero is a key.
        if encoded == text or len(raw) != KEY_BYTES or base64.b64encode(raw).decode() != encoded:
            raise KeyFileError(
                f"{text[:80]!r} is no public key, expected {PREFIX} and 44 characters of base64",
                remedy="copy the whole line that `uxdp keygen` printed",
            )
        return cls(raw)

    @classmethod
    def from_pem(cls, pem: bytes, *, context: str = "") -> Self:
        """Parse an SPKI PEM file.

        :param context: what error messages call the bytes
        :raises KeyFileError: it is something else, such as the secret key, or an RSA key
        """
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        if b"PRIVATE KEY-----" in pem:
            raise KeyFileError(
                "holds a secret key, expected a public one", context=context, remedy=f"name the {PUBLIC_SUFFIX} file"
            )
        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as cause:
            raise KeyFileError("holds no public key in PEM form", context=context) from cause
        if not isinstance(key, Ed25519PublicKey):
            raise _wrong_algorithm(key, context)
        return cls(key.public_bytes_raw())

    @property
    def text(self) -> str:
        """The text form: ``ed25519:`` and 44 characters of base64."""
        return PREFIX + base64.b64encode(self.raw).decode()

    @property
    def pem(self) -> bytes:
        """The SPKI PEM form, which openssl and others read."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def is_signature(self, signature: bytes, message: bytes) -> bool:
        """Return whether ``signature`` is this key's signature of ``message``."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def __str__(self) -> str:
        return self.text


class SigningKey:
    """An Ed25519 secret key. Its representation shows the public key alone."""

    __slots__ = ("_secret", "public")

    def __init__(self, secret: Ed25519PrivateKey) -> None:
        self._secret = secret
        self.public = PublicKey(secret.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"<SigningKey {self.public.text}>"

    def sign(self, message: bytes) -> bytes:
        """Return the signature of ``message``, 64 bytes."""
        return self._secret.sign(message)

    def to_pem(self, passphrase: str | None) -> bytes:
        """Return the PKCS#8 PEM form, which is secret.

        :param passphrase: encrypts it; None leaves it in the clear
        :raises KeyFileError: the passphrase is empty or too long
        """
        from cryptography.hazmat.primitives.serialization import (
            BestAvailableEncryption,
            Encoding,
            KeySerializationEncryption,
            NoEncryption,
            PrivateFormat,
        )

        encryption: KeySerializationEncryption = NoEncryption()
        if passphrase is not None:
            encryption = BestAvailableEncryption(_passphrase_bytes(passphrase, "passphrase"))
        return self._secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def generate_key() -> SigningKey:
    """Make a new secret key from the system's random numbers."""
    return SigningKey(Ed25519PrivateKey.generate())


def write_secret_key(path: Path, key: SigningKey, passphrase: str | None = None) -> Path:
    """Write a secret key (mode 0600) and, beside it, its public key (``.pub``); return the latter's path.

    Neither file is ever overwritten. On failure nothing is left behind.

    :raises KeyFileError: a file of that name exists, it cannot be written, or the passphrase is unusable
    """
    pem = key.to_pem(passphrase)
    public_path = path.with_name(path.name + PUBLIC_SUFFIX)
    _write_new(public_path, key.public.pem, 0o644)
    try:
        _write_new(path, pem, 0o600)
    except KeyFileError:
        public_path.unlink()
        raise
    return public_path


def load_signing_key(path: Path, passphrase: Passphrase = None) -> SigningKey:
    """Read a secret key file.

    :raises KeyFileError: it is missing, readable or writable by others, no Ed25519 key, or the passphrase is wrong
    """
    return _parse_secret(trusted_files.read_trusted(path, max_bytes=_MAX_PEM_BYTES, secret=True), str(path), passphrase)


def load_public_key(path_or_text: str | os.PathLike[str]) -> PublicKey:
    """Return the public key that a command line names: its text form, or a file that holds it as text or PEM.

    :raises KeyFileError: it is neither, or the file could be changed by others
    """
    name = os.fspath(path_or_text)
    if name.startswith(PREFIX):
        return PublicKey.parse(name)
    try:
        data = trusted_files.read_trusted(Path(name), max_bytes=_MAX_PEM_BYTES)
    except KeyFileError as error:
        error.remedy += f"{', ' if error.remedy else ''}or give the key itself: {PREFIX}…"
        raise
    if data.startswith(PREFIX.encode()):
        try:
            return PublicKey.parse(data.decode("ascii", "replace").strip())
        except KeyFileError as error:
            error.context = name
            raise
    return PublicKey.from_pem(data, context=name)


def signing_key_from(value: str, passphrase: Passphrase = None, *, context: str = "") -> SigningKey:
    """Return the secret key that an option or a variable names: a PEM file's path, or the PEM text itself.

    :param context: what error messages call PEM text; it is never shown itself
    :raises KeyFileError: see ``load_signing_key``
    """
    if value.lstrip().startswith("-----BEGIN"):
        return _parse_secret(value.encode(errors="replace"), context or "signing key", passphrase)
    return load_signing_key(Path(value), passphrase)


def signing_key_from_environment(
    variable: str = SIGNING_KEY_VARIABLE, passphrase: Passphrase = None
) -> SigningKey | None:
    """Return the secret key that an environment variable names, or None if it is unset or empty.

    :param variable: holds a PEM file's path or the PEM text
    :param passphrase: used if the variable of that name with ``_PASSPHRASE`` is unset
    :raises KeyFileError: see ``load_signing_key``
    """
    value = os.environ.get(variable, "")
    if not value:
        return None
    return signing_key_from(value, os.environ.get(f"{variable}_PASSPHRASE", passphrase), context=f"${variable}")


def development_key_path() -> Path:
    """Return where the effective user's development key is, or will be."""
    return trusted_files.user_config_dir() / DEVELOPMENT_KEY_NAME


def development_key(create: bool) -> tuple[SigningKey, bool]:
    """Return the effective user's development key, and whether it was made just now.

    Processes that need it for the first time at once all get the same key.

    :param create: make it if there is none
    :raises KeyFileError: there is none, or its file or directory is not safe to use
    """
    path = development_key_path()
    if create and not trusted_files.exists(path):
        trusted_files.ensure_directory(path.parent, mode=0o700, parents_mode=0o700)
        try:
            trusted_files.write_new(path, generate_key().to_pem(None), 0o600)
        except FileExistsError:
            pass  # another process was first: its key is the key
        except OSError as cause:
            raise trusted_files.unwritable(path, cause) from cause
        else:
            return _read_development_key(path), True
    return _read_development_key(path), False


def _read_development_key(path: Path) -> SigningKey:
    os.close(trusted_files.open_trusted(path.parent, directory=True))
    return load_signing_key(path)


def _parse_secret(pem: bytes, context: str, passphrase: Passphrase) -> SigningKey:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem
    if not encrypted and b"-----BEGIN PRIVATE KEY-----" not in pem:
        raise KeyFileError(
            "holds no secret key in PKCS#8 PEM form", context=context, remedy="make one with `uxdp keygen -o FILE`"
        )
    secret = None
    if encrypted:
        text = passphrase() if callable(passphrase) else passphrase
        if text is None:
            raise KeyFileError(
                "is encrypted and no passphrase was given",
                context=context,
                remedy=f"set {SIGNING_KEY_VARIABLE}_PASSPHRASE",
            )
        secret = _passphrase_bytes(text, context)
    try:
        key = load_pem_private_key(pem, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as cause:
        defect = "cannot be decrypted: wrong passphrase, or damaged" if encrypted else "holds a damaged secret key"
        raise KeyFileError(defect, context=context) from cause
    if not isinstance(key, Ed25519PrivateKey):
        raise _wrong_algorithm(key, context)
    return SigningKey(key)


def _passphrase_bytes(passphrase: str, context: str) -> bytes:
    encoded = passphrase.encode(errors="surrogateescape")
    if not 1 <= len(encoded) <= MAX_PASSPHRASE_BYTES:
        raise KeyFileError(f"{len(encoded)} bytes of passphrase, expected 1..{MAX_PASSPHRASE_BYTES}", context=context)
    return encoded


def _wrong_algorithm(key: object, context: str) -> KeyFileError:
    kind = type(key).__name__.removeprefix("_").removesuffix("PublicKey").removesuffix("PrivateKey")
    return KeyFileError(
        f"holds a key of type {kind}, expected Ed25519", context=context, remedy="make one with `uxdp keygen -o FILE`"
    )


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        trusted_files.write_new(path, data, mode)
    except FileExistsError as cause:
        raise KeyFileError(
            "exists already and is not overwritten", context=str(path), remedy="choose another name for the key"
        ) from cause
    except OSError as cause:
        raise trusted_files.unwritable(path, cause) from cause
