import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit import trust_fixtures
from tests.unit.trust_fixtures import Directories, act_as, give_away, trust_toml, write
from uxdp_bundle import keys, trust, trust_edit, trusted_files
from uxdp_bundle.errors import KeyFileError
from uxdp_bundle.keys import generate_key
from uxdp_bundle.trust import Revocations, Rule, TrustedKey, TrustStore

isolated = trust_fixtures.isolated
key = trust_fixtures.key
other_key = trust_fixtures.other_key

KEY = generate_key().public
ENTRY = f'[[keys]]\nkey = "{KEY}"\nnames = ["a"]\n'
RULE = '[[rules]]\nnames = ["a"]\nthreshold = 2\n'


def parse(text: str | bytes):
    return trust.parse_trust_file(text.encode() if isinstance(text, str) else text, "t.toml")


def test_parse_trust_file_complete():
    entries, rules = parse(
        f"""
        [[keys]]
        key = "{KEY}"
        names = ["firewall", "lb-*"]
        role = "auditor"
        not_before = 2026-01-01T00:00:00Z
        not_after = 2027-01-01T00:00:00+02:00
        comment = "Example Networks"

        [[keys]]
        key = "{KEY}"
        names = ["x"]

        [[rules]]
        names = ["lb-*"]
        role = "auditor"
        threshold = 2
        """
    )
    assert entries[0].key == KEY
    assert entries[0].names == ("firewall", "lb-*")
    assert entries[0].role == "auditor"
    assert entries[0].not_before == datetime(2026, 1, 1, tzinfo=UTC)
    assert entries[0].not_after == datetime.fromisoformat("2027-01-01T00:00:00+02:00")
    assert entries[0].comment == "Example Networks"
    assert entries[0].source == "t.toml"
    assert entries[1] == TrustedKey(KEY, ("x",), source="t.toml")
    assert entries[1].role == "publisher"
    assert rules == (Rule(("lb-*",), "auditor", 2, "t.toml"),)


@pytest.mark.parametrize("text", ["", "# nothing\n", "keys = []\nrules = []\n"], ids=["empty", "comment", "arrays"])
def test_parse_trust_file_empty(text):
    assert parse(text) == ((), ())


@pytest.mark.parametrize(
    ("text", "context", "message"),
    [
        ("keys", "t.toml", "not TOML"),
        (b"\xff", "t.toml", "not UTF-8 at byte 0"),
        ("a = 1\na = 2", "t.toml", "not TOML"),
        ("a = " + "[" * 100_000, "t.toml", "not TOML"),
        ("a = " + "9" * 10_000, "t.toml", "not TOML"),
        ("key = 1", "t.toml: key", "unknown key, expected one of keys, rules"),
        ("keys = 1", "t.toml: keys", "an integer, expected an array of tables: [[keys]]"),
        ("[keys]", "t.toml: keys", "a table, expected an array of tables"),
        ("keys = [1]", "t.toml: keys[0]", "an integer, expected a table"),
        (ENTRY + "name = 'x'", "t.toml: keys[0].name", "unknown key, expected one of comment, key, names,"),
        ("[[keys]]", "t.toml: keys[0].key", "missing"),
        ("[[keys]]\nkey = 1", "t.toml: keys[0].key", "an integer, expected a string"),
        ("[[keys]]\nkey = 'ed25519:AAAA'", "t.toml: keys[0].key", "is no public key"),
        ("[[keys]]\nkey = 'ed25519:" + "A" * 43 + "='", "t.toml: keys[0].key", "weak key"),
        (f"[[keys]]\nkey = '{KEY}'", "t.toml: keys[0].names", "missing"),
        (ENTRY.replace('["a"]', '"a"'), "t.toml: keys[0].names", "a string, expected an array of strings"),
        (ENTRY.replace('["a"]', "[]"), "t.toml: keys[0].names", "an empty array, expected an array of strings"),
        (ENTRY.replace('["a"]', '["a", 1.5]'), "t.toml: keys[0].names[1]", "a float, expected a string"),
        (ENTRY.replace('["a"]', '[""]'), "t.toml: keys[0].names[0]", "'', expected a glob"),
        (ENTRY.replace('["a"]', '["\\u001b"]'), "t.toml: keys[0].names[0]", "printable"),
        (ENTRY.replace('"a"', f'"{"a" * 257}"'), "t.toml: keys[0].names[0]", "expected a glob of 1..256"),
        (ENTRY + "role = true", "t.toml: keys[0].role", "a boolean, expected a string"),
        (ENTRY + "role = 'Publisher'", "t.toml: keys[0].role", "'Publisher', expected a lower-case word"),
        (ENTRY + "role = ''", "t.toml: keys[0].role", "'', expected"),
        (ENTRY + "comment = []", "t.toml: keys[0].comment", "an empty array, expected a string"),
        (ENTRY + "comment = '''a\nb'''", "t.toml: keys[0].comment", "printable"),
        (ENTRY + f"comment = '{'x' * 1025}'", "t.toml: keys[0].comment", "at most 1024"),
        (ENTRY + "not_after = '2027-01-01'", "t.toml: keys[0].not_after", "a string, expected a date and time"),
        (ENTRY + "not_after = 2027-01-01", "t.toml: keys[0].not_after", "a date without time, expected"),
        (ENTRY + "not_after = 12:00:00", "t.toml: keys[0].not_after", "a time without date, expected"),
        (ENTRY + "not_before = 2027-01-01T00:00:00", "t.toml: keys[0].not_before", "without offset"),
        (
            ENTRY + "not_before = 2027-01-01T00:00:01Z\nnot_after = 2027-01-01T00:00:00Z",
            "t.toml: keys[0].not_after",
            "is before not_before",
        ),
        (ENTRY + ENTRY + "x = 1", "t.toml: keys[1].x", "unknown key"),
        ("[[rules]]\nthreshold = 1", "t.toml: rules[0].names", "missing"),
        ("[[rules]]\nnames = ['a']", "t.toml: rules[0].threshold", "missing"),
        (RULE.replace("2", "0"), "t.toml: rules[0].threshold", "0, expected 1..16"),
        (RULE.replace("2", "-1"), "t.toml: rules[0].threshold", "-1, expected 1..16"),
        (RULE.replace("2", "17"), "t.toml: rules[0].threshold", "17, expected 1..16"),
        (RULE.replace("2", "true"), "t.toml: rules[0].threshold", "a boolean, expected an integer"),
        (RULE.replace("2", "'2'"), "t.toml: rules[0].threshold", "a string, expected an integer"),
        (RULE + "key = 1", "t.toml: rules[0].key", "unknown key"),
        (RULE + "role = 'a b'", "t.toml: rules[0].role", "expected a lower-case word"),
    ],
    ids=[
        "not-toml",
        "not-utf-8",
        "duplicate-key",
        "deep-nesting",
        "huge-integer",
        "unknown-top-key",
        "keys-integer",
        "keys-table",
        "keys-of-integers",
        "unknown-key",
        "no-key",
        "key-integer",
        "key-short",
        "key-weak",
        "no-names",
        "names-string",
        "names-empty",
        "name-float",
        "name-empty",
        "name-terminal-escape",
        "name-too-long",
        "role-boolean",
        "role-upper-case",
        "role-empty",
        "comment-array",
        "comment-two-lines",
        "comment-too-long",
        "not-after-string",
        "not-after-date",
        "not-after-time",
        "not-before-local",
        "not-after-first",
        "second-entry",
        "rule-no-names",
        "rule-no-threshold",
        "threshold-zero",
        "threshold-negative",
        "threshold-too-large",
        "threshold-boolean",
        "threshold-string",
        "rule-unknown-key",
        "rule-role",
    ],
)
def test_parse_trust_file_malformed_raises(text, context, message):
    with pytest.raises(KeyFileError) as caught:
        parse(text)
    assert caught.value.context == context
    assert message in caught.value.message
    assert caught.value.exit_code == 6


def test_parse_revocations_complete():
    text = f'keys = ["{KEY}"]\nbundles = ["{"ab" * 32}"]\n'
    assert trust.parse_revocations(text.encode(), "r.toml") == Revocations({KEY: "r.toml"}, {"ab" * 32: "r.toml"})
    assert trust.parse_revocations(b"", "r.toml") == Revocations()


@pytest.mark.parametrize(
    ("text", "context", "message"),
    [
        ("keys = 'x'", "r.toml: keys", "a string, expected an array"),
        ("keys = [1]", "r.toml: keys[0]", "an integer, expected a string"),
        ("keys = ['x']", "r.toml: keys[0]", "is no public key"),
        ("bundles = ['AB']", "r.toml: bundles[0]", "'AB', expected the 64 lower-case hex digits"),
        (f"bundles = ['{'AB' * 32}']", "r.toml: bundles[0]", "lower-case"),
        ("[[keys]]\nkey = ''", "r.toml: keys[0]", "a table, expected a string"),
        ("bundle = []", "r.toml: bundle", "unknown key, expected one of bundles, keys"),
    ],
    ids=["string", "integer", "no-key", "short-id", "upper-case-id", "table", "unknown-key"],
)
def test_parse_revocations_malformed_raises(text, context, message):
    with pytest.raises(KeyFileError) as caught:
        trust.parse_revocations(text.encode(), "r.toml")
    assert caught.value.context == context
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("firewall", "firewall", True),
        ("firewall", "Firewall", False),
        ("firewall", "firewall2", False),
        ("lb-*", "lb-", True),
        ("lb-*", "my-lb-1", False),
        ("lb-?", "lb-12", False),
        ("[ab]*", "bx", True),
        ("*", "anything", True),
        ("*" * 60 + "b", "a" * 64, False),
    ],
    ids=["equal", "case", "longer", "star-empty", "anchored", "question", "set", "all", "no-backtracking"],
)
def test_matches_is_an_anchored_case_sensitive_glob(pattern, name, expected):
    assert TrustedKey(KEY, ("never", pattern)).matches(name) is expected
    assert Rule((pattern,), "publisher", 1).matches(name) is expected


def test_requirements_start_with_one_publisher_and_only_rise():
    rules = (
        Rule(("*",), "publisher", 1),
        Rule(("lb-*",), "publisher", 3),
        Rule(("lb-*",), "publisher", 2),
        Rule(("lb-1",), "auditor", 1),
        Rule(("other",), "auditor", 9),
    )
    store = TrustStore(rules=rules)
    assert store.requirements("nf") == {"publisher": 1}
    assert store.requirements("lb-2") == {"publisher": 3}
    assert store.requirements("lb-1") == {"publisher": 3, "auditor": 1}
    assert TrustStore().requirements("nf") == {"publisher": 1}


def test_load_of_nothing_trusts_nobody(isolated: Directories):
    assert TrustStore.load() == TrustStore()


def test_load_root_follows_the_system_alone(isolated: Directories, monkeypatch, key, other_key):
    write(isolated.trust / "a.toml", trust_toml(key))
    write(isolated.user / "trust.d" / "b.toml", trust_toml(other_key))
    act_as(monkeypatch, 0)
    if trusted_files.os.getuid() != 0:
        monkeypatch.setattr(trusted_files, "_check_ownership", lambda *_arguments, **_options: None)
    store = TrustStore.load()
    assert [entry.key for entry in store.keys] == [key.public]
    assert store.keys[0].source == str(isolated.trust / "a.toml")


def test_load_user_follows_the_system_and_their_own(isolated: Directories, monkeypatch, key, other_key):
    write(isolated.trust / "a.toml", trust_toml(key))
    write(isolated.system / "revoked.toml", f'keys = ["{KEY}"]')
    write(isolated.user / "trust.d" / "b.toml", trust_toml(other_key) + RULE)
    write(isolated.user / "revoked.toml", f'bundles = ["{"ab" * 32}"]')
    if trusted_files.os.getuid() == 0:
        act_as(monkeypatch, 1234)  # root's files are safe for everybody
    store = TrustStore.load()
    assert [entry.key for entry in store.keys] == [key.public, other_key.public]
    assert [rule.threshold for rule in store.rules] == [2]
    assert store.revocations.keys == {KEY: str(isolated.system / "revoked.toml")}
    assert store.revocations.bundles == {"ab" * 32: str(isolated.user / "revoked.toml")}


def test_load_own_development_key_is_a_publisher_of_everything_native_code_included(isolated: Directories):
    development, _ = keys.development_key(create=True)
    entries = TrustStore.load().keys
    assert [entry.role for entry in entries] == ["publisher", "native"]
    for entry in entries:
        assert entry.key == development.public
        assert entry.names == ("*",)
        assert entry.source == str(isolated.user / "development.pem")


def test_load_callers_development_key_is_not_roots(isolated: Directories, monkeypatch):
    keys.development_key(create=True)
    act_as(monkeypatch, 0)
    monkeypatch.setenv("SUDO_UID", "1000")
    monkeypatch.setattr(trusted_files.pwd, "getpwuid", lambda _uid: type("Entry", (), {"pw_dir": "/nonexistent"}))
    assert TrustStore.load().keys == ()


@pytest.mark.parametrize("defect", ["group-writable", "world-writable", "other-owner", "symlink"])
@pytest.mark.parametrize("what", ["config", "trust.d", "file", "revoked"])
def test_load_unsafe_raises(isolated: Directories, monkeypatch, key, what, defect):
    trust_file = write(isolated.trust / "a.toml", trust_toml(key))
    revoked = write(isolated.system / "revoked.toml", "")
    path = {"config": isolated.system, "trust.d": isolated.trust, "file": trust_file, "revoked": revoked}[what]
    if defect == "other-owner":
        give_away(path, monkeypatch)
    elif defect == "symlink":
        path.rename(path.with_name("real"))
        path.symlink_to("real")
    else:
        path.chmod(path.stat().st_mode & 0o777 | (0o020 if defect == "group-writable" else 0o002))
    with pytest.raises(KeyFileError) as caught:
        TrustStore.load()
    expected = isolated.system if defect == "other-owner" and trusted_files.os.getuid() != 0 else path
    assert caught.value.context == str(expected)
    assert caught.value.remedy


def test_load_malformed_file_names_it(isolated: Directories, key):
    write(isolated.trust / "a.toml", trust_toml(key))
    write(isolated.trust / "b.toml", "[[keys]]\nkey = 1\n")
    with pytest.raises(KeyFileError) as caught:
        TrustStore.load()
    assert caught.value.context == f"{isolated.trust / 'b.toml'}: keys[0].key"


def test_load_ignores_other_suffixes_and_hidden_files(isolated: Directories, key):
    write(isolated.trust / "a.toml.bak", "junk")
    write(isolated.trust / ".a.toml", "junk")
    assert TrustStore.load().keys == ()


# trust_edit


def test_add_key_makes_one_safe_file(isolated: Directories, key):
    moment = datetime(2027, 1, 1, tzinfo=UTC)
    entry = TrustedKey(key.public, ("lb-*", "nf"), "auditor", datetime(2026, 1, 1, tzinfo=UTC), moment, 'Say "hi"')
    path = trust_edit.add_key(isolated.system, entry)
    assert path.parent == isolated.trust
    assert path.name == f"ed25519-{key.public.raw.hex()[:16]}.toml"
    assert [p.stat().st_mode & 0o777 for p in (path, path.parent, isolated.system)] == [0o644, 0o755, 0o755]
    assert TrustStore.load().keys == (dataclasses.replace(entry, source=str(path)),)


def test_add_key_to_the_user_makes_private_parents(isolated: Directories, key):
    path = trust_edit.add_key(isolated.user, TrustedKey(key.public, ("*",)))
    assert isolated.user.stat().st_mode & 0o777 == 0o700
    assert path.read_text() == f'[[keys]]\nkey = "{key.public}"\nnames = ["*"]\nrole = "publisher"\n'


def test_add_key_again_adds_names(isolated: Directories, key):
    trust_edit.add_key(isolated.system, TrustedKey(key.public, ("a", "b")))
    path = trust_edit.add_key(isolated.system, TrustedKey(key.public, ("b", "c", "c")))
    (entry,) = TrustStore.load().keys
    assert entry.names == ("a", "b", "c")
    before = path.read_bytes()
    trust_edit.add_key(isolated.system, TrustedKey(key.public, ("c",)))
    assert path.read_bytes() == before


def test_add_key_in_another_role_adds_an_entry_and_keeps_comments(isolated: Directories, key):
    path = trust_edit.add_key(isolated.system, TrustedKey(key.public, ("a",)))
    write(path, "# who: us\n" + path.read_text() + "# the end\n")
    trust_edit.add_key(isolated.system, TrustedKey(key.public, ("a",), "auditor"))
    assert [entry.role for entry in TrustStore.load().keys] == ["publisher", "auditor"]
    assert path.read_text().startswith("# who: us\n[[keys]]\n")
    assert "# the end\n" in path.read_text()


def test_add_key_to_a_file_with_inline_tables(isolated: Directories, key, other_key):
    path = isolated.trust / f"ed25519-{key.public.raw.hex()[:16]}.toml"
    write(path, f'keys = [{{key = "{other_key.public}", names = ["x"]}}]\n')
    trust_edit.add_key(isolated.system, TrustedKey(key.public, ("a",)))
    assert [entry.key for entry in TrustStore.load().keys] == [other_key.public, key.public]
    trust_edit.remove_key(isolated.system, other_key.public)
    assert [entry.key for entry in TrustStore.load().keys] == [key.public]


@pytest.mark.parametrize(
    "entry",
    [
        TrustedKey(KEY, ()),
        TrustedKey(KEY, ("",)),
        TrustedKey(KEY, ("a",), "Two words"),
        TrustedKey(KEY, ("a",), comment="\x1b"),
        TrustedKey(
            KEY, ("a",), not_before=datetime(2027, 1, 1, tzinfo=UTC), not_after=datetime(2026, 1, 1, tzinfo=UTC)
        ),
        TrustedKey(KEY, ("a",), not_after=datetime(2026, 1, 1)),
    ],
    ids=["no-names", "empty-name", "role", "comment", "times", "no-offset"],
)
def test_add_key_malformed_writes_nothing(isolated: Directories, entry):
    with pytest.raises(KeyFileError):
        trust_edit.add_key(isolated.system, entry)
    assert list(isolated.trust.iterdir()) == []


def test_add_key_to_a_malformed_file_raises_and_leaves_it(isolated: Directories, key):
    path = write(isolated.trust / f"ed25519-{key.public.raw.hex()[:16]}.toml", "junk")
    with pytest.raises(KeyFileError, match="not TOML"):
        trust_edit.add_key(isolated.system, TrustedKey(key.public, ("a",)))
    assert path.read_text() == "junk"


def test_add_key_write_error_raises(isolated: Directories, key, monkeypatch):
    def refuse(path: Path, data: bytes, mode: int) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(trusted_files, "replace_file", refuse)
    with pytest.raises(KeyFileError, match="cannot be written: Permission denied") as caught:
        trust_edit.add_key(isolated.system, TrustedKey(key.public, ("a",)))
    assert "sudo" in caught.value.remedy


def test_remove_key_everywhere_and_deletes_empty_files(isolated: Directories, key, other_key):
    alone = trust_edit.add_key(isolated.system, TrustedKey(key.public, ("a",)))
    shared = write(
        isolated.trust / "shared.toml", "# ours\n" + trust_toml(other_key, extra="# theirs\n") + trust_toml(key)
    )
    ruled = write(isolated.trust / "ruled.toml", trust_toml(key) + RULE)
    untouched = write(isolated.trust / "z.toml", trust_toml(other_key))
    before = untouched.read_bytes()
    assert trust_edit.remove_key(isolated.system, key.public) == (alone, ruled, shared)
    assert not alone.exists()
    assert "# theirs" in shared.read_text()
    assert key.public.text not in shared.read_text()
    assert untouched.read_bytes() == before
    store = TrustStore.load()
    assert {entry.key for entry in store.keys} == {other_key.public}
    assert len(store.rules) == 1


@pytest.mark.parametrize("exists", [False, True], ids=["no-directory", "other-key"])
def test_remove_key_that_is_not_there_raises(isolated: Directories, key, other_key, exists):
    if exists:
        trust_edit.add_key(isolated.system, TrustedKey(other_key.public, ("a",)))
    with pytest.raises(KeyFileError, match="is in none of its files"):
        trust_edit.remove_key(isolated.system, key.public)
    assert isolated.system.exists() == exists


def test_remove_key_delete_error_raises(isolated: Directories, key, monkeypatch):
    trust_edit.add_key(isolated.system, TrustedKey(key.public, ("a",)))

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(trust_edit.Path, "unlink", refuse)
    with pytest.raises(KeyFileError, match="cannot be written"):
        trust_edit.remove_key(isolated.system, key.public)


def test_revoke_collects(isolated: Directories, key, other_key):
    path = trust_edit.revoke(isolated.system, keys=[key.public])
    assert path == isolated.system / "revoked.toml"
    trust_edit.revoke(isolated.system, keys=[key.public, other_key.public], bundles=["ab" * 32])
    trust_edit.revoke(isolated.system, bundles=["ab" * 32, "cd" * 32])
    revocations = TrustStore.load().revocations
    assert set(revocations.keys) == {key.public, other_key.public}
    assert set(revocations.bundles) == {"ab" * 32, "cd" * 32}
    assert path.read_text().count(key.public.text) == 1
    assert path.read_text().count("ab" * 32) == 1


def test_revoke_keeps_comments(isolated: Directories, key):
    path = write(isolated.system / "revoked.toml", f'# stolen\nkeys = [\n  "{KEY}",  # 2026-05-01\n]\n')
    trust_edit.revoke(isolated.system, keys=[key.public])
    assert "# stolen" in path.read_text()
    assert "# 2026-05-01" in path.read_text()


@pytest.mark.parametrize("bundle_id", ["", "ab", "AB" * 32, "g" * 64, "ab" * 33])
def test_revoke_malformed_id_raises(isolated: Directories, bundle_id):
    with pytest.raises(KeyFileError, match="is no bundle id"):
        trust_edit.revoke(isolated.system, bundles=[bundle_id])
    assert not isolated.system.exists()


def test_edit_what_only_the_editor_cannot_read_raises(isolated: Directories, key, monkeypatch):
    import tomlkit
    from tomlkit.exceptions import ParseError

    def fail(_data: bytes) -> None:
        raise ParseError(1, 2)

    monkeypatch.setattr(tomlkit, "parse", fail)
    with pytest.raises(KeyFileError, match="not TOML"):
        trust_edit.add_key(isolated.system, TrustedKey(key.public, ("a",)))
