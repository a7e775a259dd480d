import base64
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.unit import trust_fixtures
from tests.unit.trust_fixtures import Directories, give_away, write
from uxdp_bundle import keys, trusted_files
from uxdp_bundle.errors import KeyFileError
from uxdp_bundle.keys import PublicKey, SigningKey

isolated = trust_fixtures.isolated
key = trust_fixtures.key

# RFC 8032, 7.1, TEST 2
RFC_SECRET = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
RFC_PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
RFC_MESSAGE = b"\x72"
RFC_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def edwards_add(a, b):
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2 % P
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P,
    )


def edwards_x(y):
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    if root * root % P != square:
        root = root * pow(2, (P - 1) // 4, P) % P
    return root if root * root % P == square else None


def test_public_key_text_round_trip():
    public = PublicKey(RFC_PUBLIC)
    assert public.text == "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="
    assert PublicKey.parse(public.text) == public
    assert str(public) == public.text


def test_public_key_pem_round_trip():
    public = PublicKey(RFC_PUBLIC)
    assert public.pem.startswith(b"-----BEGIN PUBLIC KEY-----\n")
    assert PublicKey.from_pem(public.pem) == public


def test_signature_is_that_of_rfc_8032():
    signing = SigningKey(Ed25519PrivateKey.from_private_bytes(RFC_SECRET))
    assert signing.public == PublicKey(RFC_PUBLIC)
    assert signing.sign(RFC_MESSAGE) == RFC_SIGNATURE
    assert signing.public.is_signature(RFC_SIGNATURE, RFC_MESSAGE)


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        (RFC_SIGNATURE, b"\x73"),
        (RFC_SIGNATURE[:-1] + b"\x01", RFC_MESSAGE),
        (RFC_SIGNATURE[:32] + bytes(32), RFC_MESSAGE),
        (RFC_SIGNATURE[:-1], RFC_MESSAGE),
        (RFC_SIGNATURE + b"\0", RFC_MESSAGE),
        (b"", RFC_MESSAGE),
        # S + L: the same signature to a careless reader
        (
            RFC_SIGNATURE[:32]
            + (int.from_bytes(RFC_SIGNATURE[32:], "little") + 2**252 + 27742317777372353535851937790883648493).to_bytes(
                32, "little"
            ),
            RFC_MESSAGE,
        ),
    ],
    ids=["other-message", "flipped", "zero-s", "short", "long", "empty", "malleated-s"],
)
def test_is_signature_wrong_is_false(signature, message):
    assert not PublicKey(RFC_PUBLIC).is_signature(signature, message)


def test_is_signature_of_a_point_off_the_curve_is_false():
    raw = (2).to_bytes(32, "little")
    assert edwards_x(2) is None
    assert not PublicKey(raw).is_signature(RFC_SIGNATURE, RFC_MESSAGE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ed25519:",
        "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
        "rsa:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
        "ED25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
        "ed25519: PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
        "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=\n",
        "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw",
        "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgx=",
        "ed25519:PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw=",
        "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0",
        "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0ZgwA",
        "ed25519:Ä",
    ],
    ids=[
        "empty",
        "no-key",
        "no-prefix",
        "other-algorithm",
        "upper-case",
        "space",
        "newline",
        "no-padding",
        "spare-bits",
        "url-safe",
        "short",
        "long",
        "not-ascii",
    ],
)
def test_public_key_parse_malformed_raises(text):
    with pytest.raises(KeyFileError, match="is no public key"):
        PublicKey.parse(text)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_public_key_wrong_length_raises(length):
    with pytest.raises(KeyFileError, match=f"of {length} bytes, expected 32"):
        PublicKey(bytes(length))


@pytest.mark.parametrize("sign", [0, 1], ids=["even-x", "odd-x"])
@pytest.mark.parametrize("y", sorted(keys._SMALL_ORDER_Y), ids=hex)
def test_public_key_small_order_raises(y, sign):
    with pytest.raises(KeyFileError, match="weak key"):
        PublicKey((y | sign << 255).to_bytes(32, "little"))


def test_small_order_points_are_all_the_points_of_order_8_or_less():
    for y in keys._SMALL_ORDER_Y:
        x = edwards_x(y)
        assert x is not None
        point = (x, y)
        for _ in range(3):
            point = edwards_add(point, point)
        assert point == (0, 1)
    # y = ±1 have x = 0, the other three have two points each: 1 + 1 + 2 + 2 + 2 = 8, the cofactor.
    assert sum(1 if edwards_x(y) == 0 else 2 for y in keys._SMALL_ORDER_Y) == 8


@pytest.mark.parametrize("y", [P, P + 1, 2**255 - 1], ids=["p", "p+1", "all-ones"])
def test_public_key_second_encoding_of_a_point_raises(y):
    with pytest.raises(KeyFileError, match="weak key"):
        PublicKey(y.to_bytes(32, "little"))


def test_signing_key_repr_shows_the_public_key_alone(key):
    assert repr(key) == f"<SigningKey {key.public.text}>"
    assert not hasattr(key, "__dict__")


def test_signing_key_cannot_be_pickled(key):
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_generate_key_makes_different_keys():
    assert keys.generate_key().public != keys.generate_key().public


@pytest.mark.parametrize("passphrase", [None, "correct horse"], ids=["clear", "encrypted"])
def test_write_secret_key_can_be_loaded(tmp_path, key, passphrase):
    path = tmp_path / "nf.pem"
    public_path = keys.write_secret_key(path, key, passphrase)
    assert public_path == tmp_path / "nf.pem.pub"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(public_path.stat().st_mode) == 0o644
    label = b"ENCRYPTED PRIVATE KEY" if passphrase else b"PRIVATE KEY"
    assert path.read_bytes().startswith(b"-----BEGIN " + label + b"-----\n")
    assert keys.load_signing_key(path, passphrase).public == key.public
    assert keys.load_public_key(public_path) == key.public
    assert keys.load_public_key(str(public_path)) == key.public


def test_write_secret_key_mode_does_not_depend_on_umask(tmp_path, key):
    old = os.umask(0)
    try:
        public_path = keys.write_secret_key(tmp_path / "nf.pem", key)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "nf.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(public_path.stat().st_mode) == 0o644


@pytest.mark.parametrize("existing", ["nf.pem", "nf.pem.pub"], ids=["secret", "public"])
def test_write_secret_key_never_overwrites(tmp_path, key, existing):
    (tmp_path / existing).write_text("precious")
    with pytest.raises(KeyFileError, match="not overwritten") as caught:
        keys.write_secret_key(tmp_path / "nf.pem", key)
    assert caught.value.context == str(tmp_path / existing)
    assert os.listdir(tmp_path) == [existing]
    assert (tmp_path / existing).read_text() == "precious"


def test_write_secret_key_no_directory_raises(tmp_path, key):
    with pytest.raises(KeyFileError, match="cannot be written"):
        keys.write_secret_key(tmp_path / "missing" / "nf.pem", key)


@pytest.mark.parametrize("passphrase", ["", "x" * 1024], ids=["empty", "too-long"])
def test_write_secret_key_unusable_passphrase_raises(tmp_path, key, passphrase):
    with pytest.raises(KeyFileError, match=r"expected 1\.\.1023"):
        keys.write_secret_key(tmp_path / "nf.pem", key, passphrase)
    assert os.listdir(tmp_path) == []


def test_load_signing_key_asks_only_for_an_encrypted_key(tmp_path, key):
    def never() -> str:
        pytest.fail("asked for the passphrase of a key in the clear")

    keys.write_secret_key(tmp_path / "clear.pem", key)
    assert keys.load_signing_key(tmp_path / "clear.pem", never).public == key.public
    assert keys.load_signing_key(tmp_path / "clear.pem", "ignored").public == key.public
    keys.write_secret_key(tmp_path / "secret.pem", key, "pass")
    assert keys.load_signing_key(tmp_path / "secret.pem", lambda: "pass").public == key.public


@pytest.mark.parametrize(
    ("passphrase", "message"),
    [
        (None, "no passphrase was given"),
        (lambda: None, "no passphrase was given"),
        ("wrong", "wrong passphrase"),
        ("", "0 bytes of passphrase"),
    ],
    ids=["none", "nobody-to-ask", "wrong", "empty"],
)
def test_load_signing_key_without_the_passphrase_raises(tmp_path, key, passphrase, message):
    keys.write_secret_key(tmp_path / "nf.pem", key, "right")
    with pytest.raises(KeyFileError, match=message) as caught:
        keys.load_signing_key(tmp_path / "nf.pem", passphrase)
    assert caught.value.context == str(tmp_path / "nf.pem")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602], ids=oct)
def test_load_signing_key_open_to_others_raises(tmp_path, key, mode):
    keys.write_secret_key(tmp_path / "nf.pem", key)
    (tmp_path / "nf.pem").chmod(mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:04o}") as caught:
        keys.load_signing_key(tmp_path / "nf.pem")
    assert caught.value.remedy == f"chmod 600 {tmp_path / 'nf.pem'}"


def test_load_signing_key_of_another_owner_raises(tmp_path, key, monkeypatch):
    keys.write_secret_key(tmp_path / "nf.pem", key)
    give_away(tmp_path / "nf.pem", monkeypatch)
    with pytest.raises(KeyFileError, match="belongs to uid"):
        keys.load_signing_key(tmp_path / "nf.pem")


def test_load_signing_key_symlink_raises(tmp_path, key):
    keys.write_secret_key(tmp_path / "nf.pem", key)
    (tmp_path / "link").symlink_to("nf.pem")
    with pytest.raises(KeyFileError, match="symbolic link"):
        keys.load_signing_key(tmp_path / "link")


def other_private_pem(private, form=PrivateFormat.PKCS8) -> bytes:
    return private.private_bytes(Encoding.PEM, form, NoEncryption())


@pytest.mark.parametrize(
    ("pem", "message"),
    [
        (b"", "no secret key in PKCS#8"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "damaged"),
        (b"-----BEGIN PRIVATE KEY-----", "damaged"),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "cannot be decrypted"),
        (other_private_pem(ec.generate_private_key(ec.SECP256R1())), "of type E[A-Za-z]*, expected Ed25519"),
        (other_private_pem(ed448.Ed448PrivateKey.generate()), "of type Ed448, expected Ed25519"),
        (other_private_pem(Ed25519PrivateKey.generate(), PrivateFormat.OpenSSH), "no secret key in PKCS#8"),
        (PublicKey(RFC_PUBLIC).pem, "no secret key in PKCS#8"),
        (b"\xff" * 100, "no secret key in PKCS#8"),
        (b"#" * (17 << 10), "more than 16384 bytes"),
    ],
    ids=["empty", "short-der", "no-end", "bad-encrypted", "ecdsa", "ed448", "openssh", "public", "binary", "too-large"],
)
def test_load_signing_key_malformed_raises(tmp_path, pem, message):
    path = write(tmp_path / "key", pem, 0o600)
    with pytest.raises(KeyFileError, match=message) as caught:
        keys.load_signing_key(path, "x")
    assert caught.value.context == str(path)


def test_errors_never_show_the_secret(tmp_path, key):
    pem = key.to_pem(None).decode()
    damaged = pem.replace("MC4C", "MC5C")
    with pytest.raises(KeyFileError) as caught:
        keys.signing_key_from(damaged)
    assert pem.splitlines()[1][8:] not in f"{caught.value} {caught.value!r} {caught.value.remedy}"


@pytest.mark.parametrize("suffix", ["", "\n", "  \n"], ids=["bare", "newline", "space"])
def test_load_public_key_text_file(tmp_path, key, suffix):
    path = write(tmp_path / "key.txt", key.public.text + suffix)
    assert keys.load_public_key(path) == key.public


def test_load_public_key_text(key):
    assert keys.load_public_key(key.public.text) == key.public


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no public key in PEM form"),
        (b"ed25519:\xff", "is no public key"),
        (Ed25519PrivateKey.from_private_bytes(RFC_SECRET), "holds a secret key"),
        (ec.generate_private_key(ec.SECP256R1()).public_key(), "of type E[A-Za-z]*, expected Ed25519"),
    ],
    ids=["empty", "bad-text", "secret", "ecdsa"],
)
def test_load_public_key_malformed_raises(tmp_path, content, message):
    if isinstance(content, Ed25519PrivateKey):
        content = other_private_pem(content)
    elif not isinstance(content, bytes):
        content = content.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path = write(tmp_path / "key.pub", content)
    with pytest.raises(KeyFileError, match=message) as caught:
        keys.load_public_key(path)
    assert caught.value.context == str(path)


def test_load_public_key_writable_by_others_raises(tmp_path, key):
    path = write(tmp_path / "key.pub", key.public.pem, 0o664)
    with pytest.raises(KeyFileError, match="lets other users write") as caught:
        keys.load_public_key(path)
    assert "chmod go-w" in caught.value.remedy
    assert "give the key itself" in caught.value.remedy


def test_load_public_key_missing_raises(tmp_path):
    with pytest.raises(KeyFileError, match="No such file"):
        keys.load_public_key(tmp_path / "none")


def test_signing_key_from_path_and_text(tmp_path, key):
    keys.write_secret_key(tmp_path / "nf.pem", key)
    assert keys.signing_key_from(str(tmp_path / "nf.pem")).public == key.public
    assert keys.signing_key_from(key.to_pem(None).decode()).public == key.public
    assert keys.signing_key_from("\n" + key.to_pem("p").decode(), "p").public == key.public


def test_signing_key_from_environment(monkeypatch, isolated: Directories, key):
    assert keys.signing_key_from_environment() is None
    monkeypatch.setenv("UXDP_SIGNING_KEY", "")
    assert keys.signing_key_from_environment() is None
    monkeypatch.setenv("UXDP_SIGNING_KEY", key.to_pem("pass").decode())
    monkeypatch.setenv("UXDP_SIGNING_KEY_PASSPHRASE", "pass")
    loaded = keys.signing_key_from_environment()
    assert loaded is not None
    assert loaded.public == key.public
    monkeypatch.delenv("UXDP_SIGNING_KEY_PASSPHRASE")
    loaded = keys.signing_key_from_environment(passphrase=lambda: "pass")
    assert loaded is not None
    assert loaded.public == key.public
    with pytest.raises(KeyFileError, match="UXDP_SIGNING_KEY") as caught:
        keys.signing_key_from_environment()
    assert caught.value.remedy == "set UXDP_SIGNING_KEY_PASSPHRASE"


def test_signing_key_from_environment_of_another_name(monkeypatch, isolated: Directories, key):
    monkeypatch.setenv("PUBLISHER_KEY", key.to_pem(None).decode())
    loaded = keys.signing_key_from_environment("PUBLISHER_KEY")
    assert loaded is not None
    assert loaded.public == key.public


def test_development_key_is_made_once(isolated: Directories):
    first, created = keys.development_key(create=True)
    assert created
    path = isolated.user / "development.pem"
    assert keys.development_key_path() == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    second, created = keys.development_key(create=True)
    assert not created
    assert first.public == second.public == keys.development_key(create=False)[0].public
    assert os.listdir(path.parent) == ["development.pem"]


def test_development_key_missing_raises(isolated: Directories):
    with pytest.raises(KeyFileError, match="No such file"):
        keys.development_key(create=False)
    assert not isolated.user.exists()


def test_development_key_of_the_first_of_two_processes_wins(isolated: Directories, monkeypatch):
    winner, _ = keys.development_key(create=True)
    with monkeypatch.context() as patch:
        patch.setattr(trusted_files, "exists", lambda path: path != isolated.user / "development.pem")
        loser, created = keys.development_key(create=True)
    assert loser.public == winner.public
    assert not created


def test_development_key_many_processes_at_once_get_one_key(isolated: Directories):
    program = "from uxdp_bundle import keys; print(keys.development_key(create=True)[0].public)"
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    texts = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert len(texts) == 1
    assert PublicKey.parse(texts.pop()) == keys.development_key(create=False)[0].public


@pytest.mark.parametrize("what", ["file", "directory"])
def test_development_key_writable_by_others_raises(isolated: Directories, what):
    keys.development_key(create=True)
    path = isolated.user / "development.pem" if what == "file" else isolated.user
    path.chmod(0o777)
    with pytest.raises(KeyFileError, match="lets other users write") as caught:
        keys.development_key(create=True)
    assert caught.value.context == str(path)


@pytest.mark.parametrize("what", ["file", "directory"])
def test_development_key_of_another_owner_raises(isolated: Directories, monkeypatch, what):
    keys.development_key(create=True)
    give_away(isolated.user / "development.pem" if what == "file" else isolated.user, monkeypatch)
    with pytest.raises(KeyFileError, match="belongs to uid"):
        keys.development_key(create=True)


def test_development_key_unwritable_directory_raises(isolated: Directories, monkeypatch):
    def refuse(path: Path, data: bytes, mode: int) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(trusted_files, "write_new", refuse)
    with pytest.raises(KeyFileError, match="cannot be written: Permission denied"):
        keys.development_key(create=True)


def test_public_keys_sort_and_hash():
    one, two = PublicKey(RFC_PUBLIC), PublicKey(base64.b64decode("11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="))
    assert sorted([two, one]) == [one, two]
    assert len({one, PublicKey(RFC_PUBLIC), two}) == 2
