import dataclasses
import json
import os
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.unit import trust_fixtures
from tests.unit.trust_fixtures import Directories, bundle_image, signed_bundle, unsigned_bundle, with_signatures
from uxdp_bundle import signature
from uxdp_bundle.authentication import AuthenticBundle, SignatureState, Signer, assess, authenticate
from uxdp_bundle.container import bundle_from_bytes, open_bundle
from uxdp_bundle.errors import (
    BundleFormatError,
    FileAccessError,
    KeyFileError,
    RevokedError,
    RollbackError,
    SignatureError,
    TrustError,
)
from uxdp_bundle.keys import SigningKey, generate_key
from uxdp_bundle.rollback import RollbackState
from uxdp_bundle.trust import Revocations, Rule, TrustedKey, TrustStore

isolated = trust_fixtures.isolated
key = trust_fixtures.key
other_key = trust_fixtures.other_key

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def rollback(isolated: Directories) -> RollbackState:
    return RollbackState.load()


def entry(key: SigningKey, *names: str, role: str = "publisher", **more) -> TrustedKey:
    return TrustedKey(key.public, names or ("*",), role, source=f"{role}.toml", **more)


def store(*entries: TrustedKey, rules=(), revoked_keys=(), revoked_bundles=()) -> TrustStore:
    revocations = Revocations(
        {item.public: "revoked.toml" for item in revoked_keys}, dict.fromkeys(revoked_bundles, "revoked.toml")
    )
    return TrustStore(entries, tuple(rules), revocations)


def resigned(bundle, *entries: dict) -> bytes:
    """Return one envelope with these signatures."""
    envelope = json.loads(signature.sign_statement(bundle.bundle_id, bundle.manifest.name, generate_key()))
    return json.dumps(envelope | {"signatures": list(entries)}).encode() + b"\n"


def entry_of(bundle, key: SigningKey, keyid: str | None) -> dict:
    (item,) = json.loads(signature.sign_statement(bundle.bundle_id, bundle.manifest.name, key))["signatures"]
    return {"sig": item["sig"]} if keyid is None else {"keyid": keyid, "sig": item["sig"]}


def states(verdict) -> list[SignatureState]:
    return [item.state for item in verdict.signatures]


def test_authenticate_trusted_signature(key, rollback):
    bundle = signed_bundle(key)
    authentic = authenticate(bundle, store(entry(key)), now=NOW, rollback=rollback)
    assert authentic.bundle is bundle
    assert authentic.signers == (Signer(key.public, "publisher", "publisher.toml"),)
    assert authentic.insecure is False
    assert not rollback.directory.exists(), "authenticating is no use"


def test_authentic_bundle_has_no_other_maker(key, rollback):
    bundle = signed_bundle(key)
    authentic = authenticate(bundle, store(entry(key)), now=NOW, rollback=rollback)
    with pytest.raises(TypeError, match="authenticate"):
        AuthenticBundle(bundle, (), False, object())
    with pytest.raises(TypeError):
        AuthenticBundle(bundle, (), False)  # type: ignore[call-arg]
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(authentic, insecure=False)
    with pytest.raises(TypeError):
        dataclasses.replace(authentic, maker=None)
    with pytest.raises(TypeError, match="derived"):
        type("Forged", (AuthenticBundle,), {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        authentic.insecure = True  # type: ignore[misc]
    with pytest.raises((TypeError, pickle.PicklingError)):
        pickle.dumps(authentic)


def test_assess_without_time_zone_is_a_programming_error(rollback):
    with pytest.raises(ValueError, match="time zone"):
        assess(unsigned_bundle(), store(), now=datetime(2026, 1, 1), rollback=rollback)


def test_unsigned_bundle_raises_trust_error(key, rollback):
    with pytest.raises(TrustError) as caught:
        authenticate(unsigned_bundle(), store(entry(key)), now=NOW, rollback=rollback)
    error = caught.value
    assert type(error) is TrustError
    assert error.exit_code == 4
    assert error.context == "firewall.uxdp"
    assert error.message == "'firewall' needs 1 publisher signature (has 0): it is not signed"
    assert error.remedy == "sign it with `uxdp sign firewall.uxdp`, or accept it as it is with --insecure-unsigned"


def test_unknown_signer_raises_with_the_line_that_trusts_it(key, other_key, rollback):
    with pytest.raises(TrustError) as caught:
        authenticate(signed_bundle(key), store(entry(other_key)), now=NOW, rollback=rollback)
    assert f"{key.public} is not a trusted key" in caught.value.message
    assert f"uxdp trust add {key.public} --names 'firewall'" in caught.value.remedy.splitlines()


def test_two_unknown_signers_give_two_lines(key, other_key, rollback):
    with pytest.raises(TrustError) as caught:
        authenticate(signed_bundle(key, other_key), store(), now=NOW, rollback=rollback)
    assert len(caught.value.remedy.splitlines()) == 3


def test_missing_role_is_named_in_the_line(key, other_key, rollback):
    trust = store(entry(key), rules=[Rule(("*",), "auditor", 1)])
    with pytest.raises(TrustError, match=r"needs 1 auditor signature \(has 0\)") as caught:
        authenticate(signed_bundle(key, other_key), trust, now=NOW, rollback=rollback)
    assert f"uxdp trust add {other_key.public} --names 'firewall' --role auditor" in caught.value.remedy.splitlines()


@pytest.mark.parametrize(
    ("changes", "state", "words", "remedy"),
    [
        ({"not_after": NOW - DAY}, SignatureState.EXPIRED, "is expired since 2026-05-31", "extend not_after"),
        ({"not_before": NOW + DAY}, SignatureState.NOT_YET_VALID, "is not valid before 2026-06-02", "clock"),
        ({"names": ("other", "lb-*")}, SignatureState.OUT_OF_SCOPE, "other names (lb-*, other)", "uxdp trust add"),
        ({"names": ("Firewall",)}, SignatureState.OUT_OF_SCOPE, "other names (Firewall)", "uxdp trust add"),
    ],
    ids=["expired", "not-yet-valid", "out-of-scope", "scope-differs-in-case"],
)
def test_key_that_does_not_count_raises_and_says_why(key, rollback, changes, state, words, remedy):
    bundle = signed_bundle(key)
    trust = store(dataclasses.replace(entry(key), **changes))
    assert states(assess(bundle, trust, now=NOW, rollback=rollback)) == [state]
    with pytest.raises(TrustError) as caught:
        authenticate(bundle, trust, now=NOW, rollback=rollback)
    assert words in caught.value.message
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("moment", "trusted"),
    [(NOW - DAY, False), (NOW, True), (NOW + DAY, True), (NOW + DAY + timedelta(microseconds=1), False)],
    ids=["before", "first", "last", "after"],
)
def test_validity_includes_both_ends(key, rollback, moment, trusted):
    trust = store(entry(key, not_before=NOW, not_after=NOW + DAY))
    assert assess(signed_bundle(key), trust, now=moment, rollback=rollback).trusted is trusted


def test_validity_is_a_moment_whatever_the_time_zone(key, rollback):
    trust = store(entry(key, not_after=datetime.fromisoformat("2026-06-01T13:00:00+02:00")))
    assert not assess(signed_bundle(key), trust, now=NOW, rollback=rollback).trusted


def test_one_valid_entry_of_several_is_enough(key, rollback):
    trust = store(entry(key, not_after=NOW - DAY), entry(key, "other"), entry(key, not_before=NOW - DAY))
    assert assess(signed_bundle(key), trust, now=NOW, rollback=rollback).trusted


def test_revoked_key_raises_revoked_error(key, rollback):
    trust = store(entry(key), revoked_keys=[key])
    with pytest.raises(RevokedError, match=r"is revoked by revoked\.toml") as caught:
        authenticate(signed_bundle(key), trust, now=NOW, rollback=rollback)
    assert "another key has signed" in caught.value.remedy


def test_revoked_key_beside_a_trusted_one_does_not_matter(key, other_key, rollback):
    trust = store(entry(key), entry(other_key), revoked_keys=[key])
    verdict = assess(signed_bundle(key, other_key), trust, now=NOW, rollback=rollback)
    assert states(verdict) == [SignatureState.REVOKED, SignatureState.COUNTED]
    assert verdict.trusted


def test_revoked_key_beside_an_unknown_one_is_not_revoked_error(key, other_key, rollback):
    trust = store(entry(key), revoked_keys=[key])
    with pytest.raises(TrustError) as caught:
        authenticate(signed_bundle(key, other_key), trust, now=NOW, rollback=rollback)
    assert type(caught.value) is TrustError


def test_revoked_key_without_keyid_is_recognised(key, rollback):
    bundle = unsigned_bundle()
    bundle = with_signatures(bundle, resigned(bundle, entry_of(bundle, key, None)))
    verdict = assess(bundle, store(revoked_keys=[key]), now=NOW, rollback=rollback)
    assert states(verdict) == [SignatureState.REVOKED]


@pytest.mark.parametrize("allow_unsigned", [False, True], ids=["strict", "insecure"])
def test_revoked_bundle_raises_always(key, rollback, allow_unsigned):
    bundle = signed_bundle(key)
    trust = store(entry(key), revoked_bundles=[bundle.bundle_id])
    with pytest.raises(RevokedError, match=bundle.bundle_id):
        authenticate(bundle, trust, now=NOW, rollback=rollback, allow_unsigned=allow_unsigned)
    with pytest.raises(RevokedError):
        authenticate(unsigned_bundle(), trust, now=NOW, rollback=rollback, allow_unsigned=allow_unsigned)


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: b"junk\n",
        lambda good: good[:-1],
        lambda good: good + good[:100] + b"\n",
        lambda good: good.replace(b"in-toto", b"in-tota"),
        lambda good: signature.sign_statement("cd" * 32, "firewall", generate_key()),
        lambda good: good.replace(b'"sig":"', b'"sig":"AAAA').replace(b'=="}', b'"}'),
        lambda good: good * 17,
    ],
    ids=["junk", "cut", "half-a-line", "payload-type", "other-bundle", "long-sig", "too-many"],
)
@pytest.mark.parametrize("allow_unsigned", [False, True], ids=["strict", "insecure"])
def test_malformed_signatures_raise_always(key, rollback, damage, allow_unsigned):
    good = signed_bundle(key)
    bundle = with_signatures(good, damage(good.signatures))
    trust = store(entry(key))
    with pytest.raises(SignatureError):
        authenticate(bundle, trust, now=NOW, rollback=rollback, allow_unsigned=allow_unsigned)
    verdict = assess(bundle, trust, now=NOW, rollback=rollback)
    assert states(verdict) == [SignatureState.INVALID]
    assert verdict.signatures[0].key is None
    assert isinstance(verdict.error, SignatureError)


@pytest.mark.parametrize("known", [True, False], ids=["trusted", "unknown"])
@pytest.mark.parametrize("allow_unsigned", [False, True], ids=["strict", "insecure"])
def test_false_signature_raises_always(key, other_key, rollback, known, allow_unsigned):
    bundle = unsigned_bundle()
    jsonl = resigned(bundle, entry_of(bundle, other_key, key.public.text))
    bundle = with_signatures(bundle, signed_bundle(other_key).signatures + jsonl)
    trust = store(entry(other_key), *([entry(key)] if known else []))
    with pytest.raises(SignatureError, match=f"is not the signature of {key.public}".replace("+", r"\+")):
        authenticate(bundle, trust, now=NOW, rollback=rollback, allow_unsigned=allow_unsigned)
    verdict = assess(bundle, trust, now=NOW, rollback=rollback)
    assert states(verdict) == [SignatureState.COUNTED, SignatureState.INVALID]


def test_signature_of_another_bundle_raises(key, rollback):
    other = signed_bundle(key, security_version=7)
    bundle = with_signatures(unsigned_bundle(), other.signatures)
    with pytest.raises(SignatureError, match="the signature of another bundle"):
        authenticate(bundle, store(entry(key)), now=NOW, rollback=rollback)


@pytest.mark.parametrize("keyid", [None, "", "release key 2026"], ids=["absent", "empty", "hint"])
def test_keyid_is_only_a_hint(key, other_key, rollback, keyid):
    bundle = unsigned_bundle()
    bundle = with_signatures(bundle, resigned(bundle, entry_of(bundle, key, keyid)))
    assert assess(bundle, store(entry(other_key), entry(key)), now=NOW, rollback=rollback).trusted
    verdict = assess(bundle, store(entry(other_key)), now=NOW, rollback=rollback)
    assert states(verdict) == [SignatureState.UNKNOWN]
    assert ("release key 2026" in verdict.signatures[0].reason) is (keyid == "release key 2026")
    assert verdict.error is not None
    assert "uxdp sign --add" in verdict.error.remedy


@pytest.mark.parametrize("second", [None, "", "other name", "same"], ids=["absent", "empty", "renamed", "same"])
@pytest.mark.parametrize("one_envelope", [True, False], ids=["one-envelope", "two-envelopes"])
def test_same_key_twice_counts_once(key, rollback, second, one_envelope):
    bundle = unsigned_bundle()
    entries = [
        entry_of(bundle, key, key.public.text),
        entry_of(bundle, key, key.public.text if second == "same" else second),
    ]
    jsonl = resigned(bundle, *entries) if one_envelope else b"".join(resigned(bundle, item) for item in entries)
    bundle = with_signatures(bundle, jsonl)
    trust = store(entry(key), entry(key, "fire*"), rules=[Rule(("*",), "publisher", 2)])
    verdict = assess(bundle, trust, now=NOW, rollback=rollback)
    assert states(verdict) == [SignatureState.COUNTED, SignatureState.DUPLICATE]
    assert verdict.requirements[0].counted == 1
    with pytest.raises(TrustError, match=r"needs 2 publisher signatures \(has 1\)") as caught:
        authenticate(bundle, trust, now=NOW, rollback=rollback)
    assert "signed twice and counts once" in caught.value.message
    assert "uxdp sign --add" in caught.value.remedy


def test_threshold_met_by_two_keys(key, other_key, rollback):
    trust = store(entry(key), entry(other_key), rules=[Rule(("fire*",), "publisher", 2)])
    assert authenticate(signed_bundle(key, other_key), trust, now=NOW, rollback=rollback).insecure is False
    with pytest.raises(TrustError):
        authenticate(signed_bundle(key), trust, now=NOW, rollback=rollback)
    assert assess(signed_bundle(key, name="lb"), trust, now=NOW, rollback=rollback).trusted


def test_key_in_two_roles_counts_in_each(key, rollback):
    trust = store(entry(key), entry(key, role="auditor"), rules=[Rule(("*",), "auditor", 1)])
    authentic = authenticate(signed_bundle(key), trust, now=NOW, rollback=rollback)
    assert {signer.role for signer in authentic.signers} == {"publisher", "auditor"}


def test_auditor_is_no_publisher(key, rollback):
    trust = store(entry(key, role="auditor"))
    with pytest.raises(TrustError, match="needs 1 publisher signature"):
        authenticate(signed_bundle(key), trust, now=NOW, rollback=rollback)


def test_unknown_signers_beside_a_trusted_one_do_not_matter(key, other_key, rollback):
    verdict = assess(signed_bundle(other_key, key), store(entry(key)), now=NOW, rollback=rollback)
    assert verdict.trusted
    assert states(verdict) == [SignatureState.UNKNOWN, SignatureState.COUNTED]
    assert [signer.key for signer in verdict.signers] == [key.public]


def test_rollback_raises_after_use_of_a_newer_one(key, rollback):
    trust = store(entry(key))
    newer = authenticate(signed_bundle(key, security_version=2), trust, now=NOW, rollback=rollback)
    older = signed_bundle(key, security_version=1)
    assert authenticate(older, trust, now=NOW, rollback=rollback).insecure is False, "nothing was used yet"
    assert newer.record_use(rollback) is True
    for allow_unsigned in (False, True):
        with pytest.raises(RollbackError, match="older than 2"):
            authenticate(older, trust, now=NOW, rollback=rollback, allow_unsigned=allow_unsigned)
    authenticate(signed_bundle(key, name="other"), trust, now=NOW, rollback=rollback)


def test_damaged_rollback_state_raises_key_file_error(key, rollback):
    rollback.record("firewall", 1)
    rollback.path("firewall").write_text("junk")
    verdict = assess(signed_bundle(key), store(entry(key)), now=NOW, rollback=rollback)
    assert isinstance(verdict.error, KeyFileError)
    with pytest.raises(KeyFileError):
        authenticate(signed_bundle(key), store(entry(key)), now=NOW, rollback=rollback)


def test_allow_unsigned_accepts_loudly_and_records_nothing(key, rollback):
    for bundle in (unsigned_bundle(security_version=5), signed_bundle(key, security_version=5)):
        authentic = authenticate(bundle, store(), now=NOW, rollback=rollback, allow_unsigned=True)
        assert authentic.insecure is True
        assert authentic.signers == ()
        assert authentic.record_use(rollback) is False
    assert rollback.highest("firewall") is None


def test_allow_unsigned_does_not_make_a_trusted_bundle_insecure(key, rollback):
    authentic = authenticate(signed_bundle(key), store(entry(key)), now=NOW, rollback=rollback, allow_unsigned=True)
    assert authentic.insecure is False


def test_problems_come_before_the_shortfall(key, rollback):
    rollback.record("firewall", 3)
    bundle = unsigned_bundle()
    bundle = with_signatures(bundle, b"junk\n")
    verdict = assess(bundle, store(revoked_bundles=[bundle.bundle_id]), now=NOW, rollback=rollback)
    assert [type(problem) for problem in verdict.problems] == [SignatureError, RevokedError, RollbackError]
    assert verdict.shortfall is not None
    assert verdict.error is verdict.problems[0]
    assert not verdict.trusted


def test_flipped_bit_anywhere_is_one_typed_error(key, rollback):
    bundle = signed_bundle(key)
    image = bundle.with_signatures(bundle.signatures)
    trust = store(entry(key))
    for position in range(len(image)):
        damaged = bytearray(image)
        damaged[position] ^= 1 << position % 8
        with pytest.raises((BundleFormatError, TrustError)):
            authenticate(bundle_from_bytes(bytes(damaged)), trust, now=NOW, rollback=rollback)


def test_flipped_bit_in_the_signatures_behind_a_new_checksum_is_a_typed_error(key, rollback):
    bundle = signed_bundle(key)
    trust = store(entry(key))
    for position in range(len(bundle.signatures)):
        for bit in range(8):
            jsonl = bytearray(bundle.signatures)
            jsonl[position] ^= 1 << bit
            verdict = assess(with_signatures(bundle, bytes(jsonl)), trust, now=NOW, rollback=rollback)
            if verdict.trusted:
                # A keyid that is no public key any more is a mere hint, and the signature itself is untouched.
                assert b'"keyid":"ed25519:' not in jsonl
            else:
                assert isinstance(verdict.error, SignatureError)


def test_file_replaced_after_opening_does_not_matter(tmp_path: Path, key, rollback):
    path = tmp_path / "nf.uxdp"
    good = signed_bundle(key)
    path.write_bytes(good.with_signatures(good.signatures))
    with open_bundle(path) as bundle:
        path.write_bytes(bundle_image())
        assert authenticate(bundle, store(entry(key)), now=NOW, rollback=rollback).bundle.bundle_id == good.bundle_id
        path.unlink()
        assert bytes(bundle.object[:4]) == b"\x7fELF"


def test_symlinked_bundle_raises(tmp_path: Path, key):
    (tmp_path / "nf.uxdp").write_bytes(bundle_image())
    os.symlink("nf.uxdp", tmp_path / "link.uxdp")
    with pytest.raises(FileAccessError, match="symbolic link"):
        open_bundle(tmp_path / "link.uxdp")


def test_sixteen_unknown_signatures_and_many_keys_take_bounded_time(key, rollback):
    bundle = unsigned_bundle()
    strangers = [generate_key() for _ in range(16)]
    bundle = with_signatures(bundle, resigned(bundle, *(entry_of(bundle, item, None) for item in strangers)))
    trust = store(*(entry(generate_key()) for _ in range(50)))
    verdict = assess(bundle, trust, now=NOW, rollback=rollback)
    assert states(verdict) == [SignatureState.UNKNOWN] * 16
