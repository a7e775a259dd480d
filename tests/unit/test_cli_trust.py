import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tests.unit import trust_fixtures
from tests.unit.trust_fixtures import Directories, act_as, bundle_image, trust_toml, write
from uxdp_bundle import keys, trusted_files
from uxdp_bundle.authentication import assess
from uxdp_bundle.container import open_bundle
from uxdp_bundle.errors import BundleFormatError
from uxdp_bundle.rollback import RollbackState
from uxdp_bundle.signature import parse_envelopes, sign_statement
from uxdp_bundle.trust import TrustedKey, TrustStore
from uxdp_runtime.cli import group, main, output
from uxdp_runtime.cli.keys import _ask_passphrase
from uxdp_runtime.cli.trust import verdict_json

isolated = trust_fixtures.isolated
key = trust_fixtures.key
other_key = trust_fixtures.other_key

UXDP = [sys.executable, "-m", "uxdp_runtime"]


def run(*arguments: object, **options) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], **options)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def run_json(*arguments: object) -> dict:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def bundle(tmp_path: Path, isolated: Directories) -> Path:
    path = tmp_path / "firewall.uxdp"
    path.write_bytes(bundle_image())
    path.chmod(0o640)
    return path


@pytest.fixture
def key_file(tmp_path: Path, isolated: Directories, key) -> Path:
    keys.write_secret_key(tmp_path / "nf.pem", key)
    return tmp_path / "nf.pem"


@pytest.fixture
def signed(bundle: Path, key_file: Path) -> Path:
    assert run("sign", bundle, "--key", key_file).exit_code == 0
    return bundle


# keygen


def test_key_pair_is_made_and_trusted_in_two_commands(tmp_path, bundle):
    made = run("keygen", "-o", tmp_path / "my key.pem")
    assert made.exit_code == 0
    public = made.stdout.splitlines()[0]
    (trust_line,) = [line.strip() for line in made.stdout.splitlines() if "trust add" in line]
    assert trust_line == f"uxdp trust add '{tmp_path / 'my key.pem.pub'}' --names 'NAME'"
    added = run("trust", "add", tmp_path / "my key.pem.pub", "--names", "firewall")
    assert added.exit_code == 0
    assert public in added.stdout
    assert run("sign", bundle, "--key", tmp_path / "my key.pem").exit_code == 0
    assert run("authenticate", bundle).exit_code == 0


def test_keygen_secret_is_private_and_never_printed(tmp_path, isolated: Directories):
    result = run("keygen", "-o", tmp_path / "nf.pem")
    assert (tmp_path / "nf.pem").stat().st_mode & 0o777 == 0o600
    secret = (tmp_path / "nf.pem").read_text().splitlines()[1]
    assert secret[10:] not in result.output
    assert "PRIVATE" not in result.output


def test_keygen_default_place_is_the_configuration_directory(isolated: Directories):
    value = run_json("keygen")
    path = isolated.user / "signing.pem"
    assert value["secret_key_file"] == str(path)
    assert value["public_key_file"] == f"{path}.pub"
    assert value["encrypted"] is False
    assert keys.load_signing_key(path).public.text == value["public_key"]
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_keygen_never_overwrites(tmp_path, isolated: Directories):
    assert run("keygen", "-o", tmp_path / "nf.pem").exit_code == 0
    before = (tmp_path / "nf.pem").read_bytes()
    result = run("keygen", "-o", tmp_path / "nf.pem")
    assert result.exit_code == 6
    assert "not overwritten" in result.stderr
    assert (tmp_path / "nf.pem").read_bytes() == before


def test_keygen_asks_for_a_passphrase_twice(tmp_path, isolated: Directories):
    result = run("keygen", "-o", tmp_path / "nf.pem", "--passphrase", input="secret words\nsecret words\n")
    assert result.exit_code == 0
    assert "(encrypted)" in result.stdout
    assert "secret words" not in result.output
    assert keys.load_signing_key(tmp_path / "nf.pem", "secret words")


def test_keygen_without_an_answer_is_interrupted(tmp_path, isolated: Directories):
    result = run("keygen", "-o", tmp_path / "nf.pem", "--passphrase", input="")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert os.listdir(tmp_path) == ["home"]


def test_keygen_passphrase_from_the_environment(tmp_path, isolated: Directories):
    result = run("keygen", "-o", tmp_path / "nf.pem", "--passphrase-env", "PASS", env={"PASS": "secret"})
    assert result.exit_code == 0
    assert keys.load_signing_key(tmp_path / "nf.pem", "secret")


@pytest.mark.parametrize(
    "arguments",
    [["--passphrase-env", "UNSET_VARIABLE"], ["--passphrase", "--passphrase-env", "X"]],
    ids=["unset", "both"],
)
def test_keygen_passphrase_usage(tmp_path, isolated: Directories, arguments):
    result = run("keygen", "-o", tmp_path / "nf.pem", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("uxdp: error: keygen: ")
    assert "  → see `uxdp keygen --help`" in result.stderr
    assert os.listdir(tmp_path) == ["home"]


# sign


def test_sign_keeps_id_and_mode(bundle, key_file, key):
    with open_bundle(bundle) as opened:
        before = opened.bundle_id
    value = run_json("sign", bundle, "--key", key_file)
    assert value == {
        "bundle": str(bundle),
        "bundle_id": before,
        "name": "firewall",
        "key": key.public.text,
        "signatures": 1,
    }
    with open_bundle(bundle) as opened:
        assert opened.bundle_id == before
        assert len(parse_envelopes(opened.signatures, before, "firewall")) == 1
    assert bundle.stat().st_mode & 0o777 == 0o640


def test_sign_add_keeps_signatures_and_without_it_replaces_them(tmp_path, signed, key_file, other_key):
    keys.write_secret_key(tmp_path / "other.pem", other_key)
    value = run_json("sign", signed, "--key", tmp_path / "other.pem", "--add")
    assert value["signatures"] == 2
    again = run("sign", signed, "--key", key_file, "--add")
    assert again.exit_code == 4
    assert "has signed this bundle already" in again.stderr
    assert "1 signature in all" in run("sign", signed, "--key", tmp_path / "other.pem").stdout
    with open_bundle(signed) as opened:
        (remaining,) = parse_envelopes(opened.signatures, opened.bundle_id, "firewall")
    assert remaining.claimed == other_key.public


def test_sign_to_another_file_leaves_the_bundle(tmp_path, bundle, key_file):
    before = bundle.read_bytes()
    old = os.umask(0o027)
    try:
        result = run("sign", bundle, "--key", key_file, "-o", tmp_path / "out.uxdp")
    finally:
        os.umask(old)
    assert result.exit_code == 0
    assert bundle.read_bytes() == before
    assert (tmp_path / "out.uxdp").stat().st_mode & 0o777 == 0o640
    with open_bundle(tmp_path / "out.uxdp") as opened:
        assert opened.signatures


def test_sign_with_the_development_key_says_so(bundle, isolated: Directories):
    first = run("sign", bundle)
    assert first.exit_code == 0
    assert "made and used your development key" in first.stderr
    second = run("sign", bundle)
    assert "used your development key" in second.stderr
    assert "made" not in second.stderr
    assert run("authenticate", bundle).exit_code == 0


def test_sign_with_the_key_in_the_environment(bundle, key, isolated: Directories):
    result = run("sign", bundle, env={"UXDP_SIGNING_KEY": key.to_pem("p").decode(), "UXDP_SIGNING_KEY_PASSPHRASE": "p"})
    assert result.exit_code == 0
    assert key.public.text in result.stdout
    assert not isolated.user.exists(), "no development key is made when another is given"


def test_sign_with_an_encrypted_key_file(tmp_path, bundle, key):
    keys.write_secret_key(tmp_path / "e.pem", key, "p")
    assert run("sign", bundle, "--key", tmp_path / "e.pem", env={"UXDP_SIGNING_KEY_PASSPHRASE": "p"}).exit_code == 0
    refused = run("sign", bundle, "--key", tmp_path / "e.pem")
    assert refused.exit_code == 6
    assert "no passphrase was given" in refused.stderr


@contextmanager
def at_a_terminal(*arguments: object) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run uxdp with a terminal as its input, up to its question; yield it and the terminal's other end."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*UXDP, *map(str, arguments)],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        question = b""
        while b"Passphrase: " not in question:
            byte = process.stderr.read(1)
            assert byte, question
            question += byte
        yield process, master
    finally:
        process.kill()
        process.communicate()
        os.close(master)
        os.close(slave)


def test_sign_asks_for_the_passphrase_on_a_terminal(tmp_path, bundle, key):
    keys.write_secret_key(tmp_path / "e.pem", key, "pass words")
    with at_a_terminal("sign", bundle, "--key", tmp_path / "e.pem") as (process, terminal):
        time.sleep(0.1)  # what is typed before the echo is off is thrown away
        os.write(terminal, b"pass words\n")
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert key.public.text.encode() in stdout
    assert b"pass words" not in stdout + stderr


def test_ask_passphrase_without_a_terminal_is_none(monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert _ask_passphrase() is None


def test_sign_malformed_bundle_changes_nothing(bundle, key_file):
    bundle.write_bytes(bundle.read_bytes()[:-1])
    before = bundle.read_bytes()
    result = run("sign", bundle, "--key", key_file)
    assert result.exit_code == 3
    assert bundle.read_bytes() == before


def test_sign_add_to_malformed_signatures_changes_nothing(bundle, key_file):
    with open_bundle(bundle) as opened:
        bundle.write_bytes(opened.with_signatures(b"junk\n"))
    before = bundle.read_bytes()
    result = run("sign", bundle, "--key", key_file, "--add")
    assert result.exit_code == 4
    assert bundle.read_bytes() == before


@pytest.mark.parametrize("target", ["directory", "fifo", "no-directory", "null-byte"])
def test_sign_unusable_output_raises(tmp_path, bundle, key_file, target):
    path = tmp_path / "out"
    if target == "directory":
        path.mkdir()
    elif target == "fifo":
        os.mkfifo(path)
    elif target == "no-directory":
        path = path / "below"
    else:
        path = tmp_path / "nul\0byte"
    result = run("sign", bundle, "--key", key_file, "-o", path)
    assert result.exit_code == 1
    assert result.stderr.startswith("uxdp: error: ")


def test_sign_unreadable_output_name_raises(tmp_path, bundle, key_file):
    result = run("sign", bundle, "--key", key_file, "-o", tmp_path / ("x" * 300))
    assert result.exit_code == 1
    assert "too long" in result.stderr


def test_sign_write_error_leaves_the_bundle(bundle, key_file, monkeypatch):
    def full(path: Path, data: bytes, mode: int) -> None:
        raise OSError(28, "No space left on device")

    before = bundle.read_bytes()
    monkeypatch.setattr(trusted_files, "replace_file", full)
    result = run("sign", bundle, "--key", key_file)
    assert result.exit_code == 1
    assert f"uxdp: error: {bundle}: cannot be written: No space left on device" in result.stderr
    assert bundle.read_bytes() == before


# trust


def test_trust_add_list_remove(isolated: Directories, key, other_key):
    arguments = ["--names", "lb-*,nf", "--names", "nf", "--role", "auditor", "--comment", "Example"]
    times = ["--not-before", "2020-01-01T00:00:00Z", "--not-after", "2120-01-01T00:00:00+01:00"]
    value = run_json("trust", "add", key.public, "--system", *arguments, *times)
    assert value["key"]["names"] == ["lb-*", "nf"]
    assert value["key"]["not_after"] == "2120-01-01T00:00:00+01:00"
    assert Path(value["file"]).parent == isolated.trust
    listed = run_json("trust", "list")
    assert listed["keys"] == [value["key"] | {"source": value["file"]}]
    assert listed["rules"] == []
    assert listed["revoked"] == {"keys": [], "bundles": []}
    refused = run("trust", "remove", other_key.public, "--system")
    assert refused.exit_code == 6
    assert "trust list" in refused.stderr
    assert run_json("trust", "remove", key.public, "--system") == {
        "key": key.public.text,
        "files": [value["file"]],
    }
    assert run_json("trust", "list")["keys"] == []


def test_trust_remove_says_what(isolated: Directories, key):
    run("trust", "add", key.public, "--names", "*", "--system")
    assert "no longer trusted" in run("trust", "remove", key.public, "--system").stdout


def test_trust_default_directory_of_root_is_the_systems(isolated: Directories, monkeypatch, key):
    act_as(monkeypatch, 0)
    monkeypatch.setattr(trusted_files, "_check_ownership", lambda *_arguments, **_options: None)
    value = run_json("trust", "add", key.public, "--names", "*")
    assert Path(value["file"]).parent == isolated.trust
    refused = run("trust", "add", key.public, "--names", "*", "--user")
    assert refused.exit_code == 2
    assert "no effect for root" in refused.stderr


def test_trust_default_directory_of_a_user_is_their_own(isolated: Directories, monkeypatch, key):
    act_as(monkeypatch, 1234)
    monkeypatch.setattr(trusted_files, "_check_ownership", lambda *_arguments, **_options: None)
    value = run_json("trust", "add", key.public, "--names", "*")
    assert Path(value["file"]).parent == isolated.user / "trust.d"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'KEY|FILE'"),
        (["KEY"], "Missing option '--names'"),
        (["KEY", "--names", " , "], "no name, expected globs"),
        (["KEY", "--names", "*", "--role", "Two words"], "'Two words', expected a lower-case word"),
        (["KEY", "--names", "*", "--not-after", "soon"], "'soon', expected a time such as"),
        (["KEY", "--names", "*", "--not-before", "2027-01-01"], "has no offset"),
        (["KEY", "--names", "*", "--nope"], "No such option"),
    ],
    ids=["no-key", "no-names", "empty-names", "role", "time", "no-offset", "unknown-option"],
)
def test_trust_add_usage(isolated: Directories, key, arguments, message):
    result = run("trust", "add", *[key.public if argument == "KEY" else argument for argument in arguments])
    assert result.exit_code == 2
    assert result.stderr.startswith("uxdp: error: trust add: ")
    assert message in result.stderr
    assert not isolated.system.exists()


@pytest.mark.parametrize("name", ["ed25519:short", "missing.pub"], ids=["malformed", "no-file"])
def test_trust_add_unusable_key_raises(isolated: Directories, name):
    result = run("trust", "add", name, "--names", "*")
    assert result.exit_code == 6
    assert not isolated.system.exists()


def test_trust_list_of_nothing_says_what_to_do(isolated: Directories):
    assert "uxdp trust add" in run("trust", "list").stdout


def test_trust_list_shows_everything_in_full(isolated: Directories, key, other_key):
    write(
        isolated.trust / "a.toml",
        trust_toml(key, extra='comment = "[bold]us[/bold]"\nnot_after = 2020-01-01T00:00:00Z'),
    )
    write(isolated.trust / "b.toml", trust_toml(other_key, extra="not_before = 2120-01-01T00:00:00Z"))
    write(isolated.trust / "c.toml", trust_toml(other_key, names='["x"]', extra="not_after = 2120-01-01T00:00:00Z"))
    write(isolated.trust / "d.toml", trust_toml(other_key, names='["y"]') + '[[rules]]\nnames=["y"]\nthreshold=2\n')
    run("trust", "revoke", "--system", "--bundle", "ab" * 32, "--key", key.public)
    text = run("trust", "list").stdout
    for expected in (
        key.public.text,
        other_key.public.text,
        "[bold]us[/bold]",
        "revoked",
        "from 2120-01-01",
        "until 2120-01-01",
        "always",
        str(isolated.trust / "d.toml"),
        "ab" * 32,
    ):
        assert expected in text
    value = run_json("trust", "list")
    assert value["rules"] == [
        {"names": ["y"], "role": "publisher", "threshold": 2, "source": str(isolated.trust / "d.toml")}
    ]
    assert value["revoked"]["keys"] == [{"key": key.public.text, "source": str(isolated.system / "revoked.toml")}]
    assert value["revoked"]["bundles"][0]["bundle_id"] == "ab" * 32


def test_trust_list_shows_an_expired_key(isolated: Directories, key):
    write(isolated.trust / "a.toml", trust_toml(key, extra="not_after = 2020-01-01T00:00:00Z"))
    assert "expired 2020-01-01" in run("trust", "list").stdout


def test_trust_revoke_key_and_bundle(signed, isolated: Directories, key, key_file):
    run("trust", "add", f"{key_file}.pub", "--names", "*", "--system")
    assert run("authenticate", signed).exit_code == 0
    revoked = run("trust", "revoke", "--key", f"{key_file}.pub", "--system")
    assert f"{key.public} is revoked" in revoked.stdout
    refused = run("authenticate", signed)
    assert refused.exit_code == 4
    assert "is revoked by" in refused.stderr
    with open_bundle(signed) as opened:
        bundle_id = opened.bundle_id
    value = run_json("trust", "revoke", "--bundle", signed, "--bundle", "ab" * 32, "--system")
    assert value == {
        "keys": [],
        "bundles": [bundle_id, "ab" * 32],
        "file": str(isolated.system / "revoked.toml"),
    }
    assert f"bundle {bundle_id} is revoked" in run("authenticate", signed, "--insecure-unsigned").stderr
    assert "bundle " + "cd" * 32 + " is revoked" in run("trust", "revoke", "--bundle", "cd" * 32, "--system").stdout


def test_trust_revoke_nothing_is_usage(isolated: Directories):
    result = run("trust", "revoke")
    assert result.exit_code == 2
    assert "nothing to revoke" in result.stderr


def test_trust_alone_shows_help(isolated: Directories):
    result = run("trust")
    assert result.exit_code == 2
    assert "Decide whose bundles may run here." in result.output


# authenticate


def test_authenticate_json_is_stable(signed, key, isolated: Directories):
    path = write(isolated.trust / "a.toml", trust_toml(key))
    with open_bundle(signed) as opened:
        bundle_id = opened.bundle_id
    assert run_json("authenticate", signed) == {
        "bundle": str(signed),
        "bundle_id": bundle_id,
        "name": "firewall",
        "version": "1.0",
        "security_version": 0,
        "insecure": False,
        "signers": [{"key": key.public.text, "role": "publisher", "source": str(path)}],
        "recorded": False,
    }
    text = run("authenticate", signed).stdout
    assert text.startswith(f"{signed}: authentic: firewall 1.0, bundle id {bundle_id}\n")
    assert f"publisher {key.public} ({path})" in text
    assert not isolated.state.exists()


def test_authenticate_unknown_signer_prints_the_line_that_mends_it(signed, key, isolated: Directories):
    result = run("authenticate", signed)
    assert result.exit_code == 4
    assert result.stdout == ""
    (line,) = [line.strip() for line in result.stderr.splitlines() if line.strip().startswith("uxdp trust add")]
    assert line == f"uxdp trust add {key.public} --names 'firewall'"
    assert run(*line.replace("'", "").split()[1:]).exit_code == 0
    assert run("authenticate", signed).exit_code == 0


def test_authenticate_error_as_json(signed, key, isolated: Directories):
    result = run("authenticate", signed, "--json")
    assert result.exit_code == 4
    assert result.stderr == ""
    error = json.loads(result.stdout)["error"]
    assert list(error) == ["type", "message", "context", "remedy", "exit_code"]
    assert error["type"] == "TrustError"
    assert error["context"] == str(signed)
    assert error["exit_code"] == 4
    assert f"uxdp trust add {key.public} --names 'firewall'" in error["remedy"]


def test_authenticate_insecure_is_loud(bundle, isolated: Directories):
    assert run("authenticate", bundle).exit_code == 4
    result = run("authenticate", bundle, "--insecure-unsigned", "--record-use")
    assert result.exit_code == 0
    assert "INSECURE" in result.stderr
    assert "NOT authentic" in result.stdout
    value = run_json("authenticate", bundle, "--insecure-unsigned", "--record-use")
    assert value["insecure"] is True
    assert value["recorded"] is False


def test_authenticate_record_use_then_older_is_refused(tmp_path, key, isolated: Directories):
    write(isolated.trust / "a.toml", trust_toml(key))
    for version in (1, 2):
        path = tmp_path / f"{version}.uxdp"
        path.write_bytes(bundle_image(security_version=version))
        with open_bundle(path) as opened:
            image = opened.with_signatures(sign_statement(opened.bundle_id, "firewall", key))
        path.write_bytes(image)
    assert run("authenticate", tmp_path / "1.uxdp").exit_code == 0
    assert run_json("authenticate", tmp_path / "2.uxdp", "--record-use")["recorded"] is True
    assert RollbackState.load().highest("firewall") == 2
    refused = run("authenticate", tmp_path / "1.uxdp")
    assert refused.exit_code == 4
    assert "older than 2" in refused.stderr


@pytest.mark.parametrize("defect", ["missing", "malformed", "trust-file", "symlink"])
def test_authenticate_exit_codes(bundle, isolated: Directories, defect):
    expected = {"missing": 1, "malformed": 3, "trust-file": 6, "symlink": 1}[defect]
    if defect == "missing":
        bundle.unlink()
    elif defect == "malformed":
        bundle.write_bytes(b"junk")
    elif defect == "symlink":
        bundle.rename(bundle.with_name("real"))
        bundle.symlink_to("real")
    else:
        write(isolated.trust / "a.toml", "junk")
    result = run("authenticate", bundle)
    assert result.exit_code == expected
    assert result.stdout == ""
    assert result.stderr.startswith("uxdp: error: ")
    assert len(result.stderr.splitlines()) <= 2


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "unknown"])
def test_verdict_json_is_stable(signed, key, isolated: Directories, trusted):
    entry = TrustedKey(key.public, ("*",), source="a.toml")
    with open_bundle(signed) as opened:
        verdict = assess(
            opened, TrustStore((entry,) if trusted else ()), now=datetime.now(UTC), rollback=RollbackState.load()
        )
    value = verdict_json(verdict)
    assert list(value) == ["trusted", "reason", "remedy", "requirements", "signatures"]
    assert value["trusted"] is trusted
    assert value["requirements"] == [{"role": "publisher", "threshold": 1, "counted": int(trusted)}]
    (signature,) = value["signatures"]
    assert signature["key"] == key.public.text
    assert signature["state"] == ("counted" if trusted else "unknown")
    assert signature["roles"] == (["publisher"] if trusted else [])
    assert bool(value["reason"]) is bool(value["remedy"]) is not trusted


# the group and the output


def test_help_needs_no_command_module():
    program = (
        "import sys; from uxdp_runtime.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(name for name in sys.modules if 'cryptography' in name or 'zstandard' in name))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    for name, (_, _, help_text) in group.COMMANDS.items():
        assert name in done.stdout
        assert help_text in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["keygen", "sign", "trust", "authenticate"])
def test_command_help_has_an_example(name):
    command = main.get_command(click.Context(main), name)
    assert command is not None
    for part in [command, *(command.commands.values() if isinstance(command, click.Group) else [])]:
        result = CliRunner().invoke(part, ["--help"])
        assert result.exit_code == 0
        assert "Example:\n" in result.output
        assert "  uxdp " in result.output


def test_unknown_command_is_usage():
    result = run("nope")
    assert result.exit_code == 2
    assert result.stderr == "uxdp: error: No such command 'nope'.\n  → see `uxdp --help`\n"


def test_usage_error_as_json():
    result = run("sign", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["exit_code"] == 2
    assert result.stderr == ""


def test_no_command_shows_help():
    result = run()
    assert result.exit_code == 2
    assert "Commands:" in result.output


def test_version():
    assert run("--version").stdout.startswith("uxdp, version ")


def raising(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "/x"), 1, "/x: No space left on device"),
        (OSError("odd"), 1, "odd"),
        (
            BundleFormatError("0, expected 1", context="maps[0].x", remedy="a\nb"),
            3,
            "maps[0].x: 0, expected 1\n  → a\n    b",
        ),
        (BundleFormatError("forged\nuxdp: all is well\x1b[2J"), 3, "forged\\nuxdp: all is well\\x1b[2J"),
        (click.ClickException("odd"), 1, "odd"),
    ],
    ids=["interrupt", "os-error", "os-error-text", "ours", "hostile-text", "click"],
)
def test_failures_are_one_sentence_and_an_exit_code(monkeypatch, error, code, words):
    monkeypatch.setattr(group.UxdpGroup, "get_command", lambda *_: raising(error))
    result = run("anything")
    assert result.exit_code == code
    assert f"uxdp: error: {words}\n" in result.stderr
    assert "Traceback" not in result.output
    as_json = CliRunner().invoke(main, ["anything", "--", "--json"])
    assert as_json.exit_code in (code, 2)


def test_other_exceptions_are_not_hidden(monkeypatch):
    monkeypatch.setattr(group.UxdpGroup, "get_command", lambda *_: raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        CliRunner().invoke(main, ["anything"], catch_exceptions=False)


def test_main_without_standalone_mode_raises_and_returns(monkeypatch):
    monkeypatch.setattr(group.UxdpGroup, "get_command", lambda *_: raising(BundleFormatError("x")))
    with pytest.raises(BundleFormatError):
        main(["anything"], standalone_mode=False)

    @click.command()
    def seven() -> int:
        return 7

    monkeypatch.setattr(group.UxdpGroup, "get_command", lambda *_: seven)
    assert main(["anything"], standalone_mode=False) == 7
    assert run("anything").exit_code == 7


def test_printable_escapes_everything_else():
    assert output.printable("a\x1b[2J\n\u202eb\U0001f512é") == "a\\x1b[2J\\n\\u202eb\U0001f512é"
    assert output.printable("a\nb\x07", keep="\n") == "a\nb\\x07"


def test_print_table_fits_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "25")
    monkeypatch.setenv("NO_COLOR", "1")
    output.print_table("Title", ("A",), [("x" * 100,)])
    text = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, text.splitlines())) <= 40
    assert text.count("x") == 100


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["trust", "list"], 141),
        (["trust", "list", "--json"], 141),
        (["--help"], 141),
        (["authenticate", "/nonexistent", "--json"], 141),
        (["authenticate", "/nonexistent"], 1),
    ],
    ids=["table", "json", "help", "error-json", "error-text"],
)
def test_subprocess_reader_has_gone_is_quiet(isolated: Directories, key, arguments, code):
    write(isolated.trust / "a.toml", trust_toml(key))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([*UXDP, *arguments], stdout=writer, stderr=subprocess.PIPE, timeout=60, text=True)
    finally:
        os.close(writer)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_subprocess_interrupt_is_quiet(isolated: Directories, tmp_path):
    with at_a_terminal("keygen", "--passphrase", "-o", tmp_path / "k") as (process, _):
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in stderr
    assert not (tmp_path / "k").exists()


def test_subprocess_authenticate_is_quick(signed, key, isolated: Directories):
    write(isolated.trust / "a.toml", trust_toml(key))
    keys.development_key(create=True)
    times = []
    for _ in range(5):
        start = time.monotonic()
        subprocess.run([*UXDP, "authenticate", signed], check=True, capture_output=True, timeout=60)
        times.append(time.monotonic() - start)
    # Interpreter, click and cryptography take about 80 ms here; importing LLVM, rich or tomlkit would show.
    assert min(times) < 0.4


def test_subprocess_authenticate_imports_nothing_heavy(signed, key, isolated: Directories):
    write(isolated.trust / "a.toml", trust_toml(key))
    program = (
        "import sys; from uxdp_runtime.cli import main\n"
        f"try: main(['authenticate', {str(signed)!r}])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print([name for name in ('llvmlite', 'rich', 'tomlkit', 'elftools') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_trust_store_of_the_cli_is_the_librarys(isolated: Directories, key):
    run("trust", "add", key.public, "--names", "a", "--system")
    assert [entry.key for entry in TrustStore.load().keys] == [key.public]
