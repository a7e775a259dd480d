"""Signatures that are malformed, false, of something else, or of somebody who may not sign this."""

import base64
import hashlib
import json

import pytest

from tests.bundle_factory import AUDITOR, PUBLISHER, STRANGER, Forgery, canonical_json, signed_case
from tests.hostile.workbench import Workbench
from uxdp_bundle.errors import RevokedError, RollbackError, SignatureError, TrustError
from uxdp_bundle.signature import pae, sign_statement, statement

IN_TOTO = "application/vnd.in-toto+json"


def settled(**fields: object) -> tuple[Forgery, bytes, str]:
    """Return the minimal bundle taken apart, its manifest and its id; ``fields`` change the manifest."""
    forged = Forgery.of("minimal").settle()
    forged.manifest |= fields
    manifest = canonical_json(forged.manifest)
    return forged, manifest, hashlib.sha256(manifest).hexdigest()


def with_signatures(signatures: bytes) -> bytes:
    return Forgery.of("minimal").settle().image_as_it_is(signatures=signatures)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def envelope(
    payload: bytes | None = None, kind: str = IN_TOTO, key=PUBLISHER, keyid: str | None = None, signed_kind: str = ""
) -> dict:
    """Return an envelope that ``key`` has really signed, whatever it holds."""
    _forged, _manifest, bundle_id = settled()
    payload = statement(bundle_id, "minimal") if payload is None else payload
    signature = key.sign(pae(signed_kind or kind, payload))
    entry = {"keyid": key.public.text if keyid is None else keyid, "sig": b64(signature)}
    return {"payload": b64(payload), "payloadType": kind, "signatures": [entry]}


def line(value: dict) -> bytes:
    return canonical_json(value) + b"\n"


def with_sig(sig: object) -> bytes:
    value = envelope()
    value["signatures"][0]["sig"] = sig
    return line(value)


def altered_statement(**fields: object) -> bytes:
    _forged, _manifest, bundle_id = settled()
    return canonical_json(json.loads(statement(bundle_id, "minimal")) | fields)


def other_subject(digest: str | None = None, name: str = "minimal") -> bytes:
    _forged, _manifest, bundle_id = settled()
    return statement(digest or bundle_id, name)


@pytest.mark.parametrize(
    ("signatures", "fragment"),
    [
        pytest.param(b"\n", "signatures[0]: not JSON", id="empty-line"),
        pytest.param(b"garbage\n", "signatures[0]: not JSON", id="garbage"),
        pytest.param(line(envelope())[:-1], "does not end with a newline", id="no-newline"),
        pytest.param(line(envelope()) + b"\0\n", "signatures[1]: not JSON", id="zero-line"),
        pytest.param(b"[]\n", "expected an object", id="array"),
        pytest.param(b'{"payload":"","payload":""}\n', "'payload' stands twice", id="duplicate-key"),
        pytest.param(b'{"payload":1e3}\n', "1e3 is no integer", id="float"),
        pytest.param(b"[" * 1000 + b"\n", "nested deeper", id="deep-nesting"),
        pytest.param(b'{"payload":"\xff"}\n', "not UTF-8", id="invalid-utf8"),
        pytest.param(b"{}\n", "signatures[0].payload: missing", id="empty-envelope"),
        pytest.param(line(envelope() | {"extra": 1}), "unknown key 'extra'", id="unknown-key"),
        pytest.param(line(envelope() | {"signatures": []}), "signatures[0].signatures: an empty", id="no-signature"),
        pytest.param(line(envelope() | {"signatures": {}}), "expected an array", id="signatures-are-an-object"),
        pytest.param(line(envelope(kind="application/json")), "payloadType: 'application/json'", id="payload-type"),
        pytest.param(
            line(envelope(kind="text/plain") | {"payloadType": IN_TOTO}),
            "is not the signature",
            id="pae-of-another-type",
        ),
        pytest.param(line(envelope(kind="")), "payloadType: ''", id="no-payload-type"),
        pytest.param(line(envelope() | {"payload": "e30"}), "not base64", id="base64-without-padding"),
        pytest.param(line(envelope() | {"payload": "e30=\n"}), "not base64", id="base64-with-newline"),
        pytest.param(line(envelope(altered_statement(_type="x"))), "payload._type: 'x'", id="statement-type"),
        pytest.param(
            line(envelope(altered_statement(predicateType="x"))), "payload.predicateType", id="predicate-type"
        ),
        pytest.param(line(envelope(altered_statement(predicate={"a": 1}))), "payload.predicate", id="predicate"),
        pytest.param(line(envelope(altered_statement(extra=1))), "payload.extra", id="statement-with-more"),
        pytest.param(line(envelope(altered_statement(subject=[]))), "signature of another bundle", id="no-subject"),
        pytest.param(line(envelope(other_subject("0" * 64))), "signature of another bundle", id="other-digest"),
        pytest.param(line(envelope(other_subject(name="firewall"))), "signature of another bundle", id="other-name"),
        pytest.param(line(envelope(other_subject() + b" ")), "not in canonical form", id="payload-not-canonical"),
        pytest.param(line(envelope(b"{}")), "payload.", id="empty-statement"),
        pytest.param(line(envelope(b"\xff")), "payload: not UTF-8", id="payload-not-utf8"),
        pytest.param(with_sig(b64(bytes(64))), "is not the signature of", id="zero-signature"),
        pytest.param(with_sig(b64(bytes(63))), "63 bytes, expected 64", id="short-signature"),
        pytest.param(with_sig(b64(bytes(65))), "65 bytes, expected 64", id="long-signature"),
        pytest.param(with_sig(None), "expected a string of base64", id="null-signature"),
        pytest.param(with_sig(b64(bytes(64))[:-3] + "B=="), "not the standard base64", id="spare-bits"),
        pytest.param(
            line(envelope(key=STRANGER, keyid=PUBLISHER.public.text)), "is not the signature of", id="false-keyid"
        ),
        pytest.param(line(envelope(keyid="ed25519:" + b64(bytes(32)))), "weak key", id="weak-key"),
        pytest.param(line(envelope(keyid="ed25519:AAAA")), "is no public key", id="short-key"),
        pytest.param(line(envelope(keyid="\x1b[2J")), "printable characters", id="keyid-moves-the-cursor"),
        pytest.param(line(envelope(keyid="k" * 300)), "at most 256 printable", id="long-keyid"),
        pytest.param(line(envelope()) * 17, "more than 16 signatures", id="17-envelopes"),
        pytest.param(
            line(envelope() | {"signatures": envelope()["signatures"] * 17}), "more than 16", id="17-in-one-envelope"
        ),
        pytest.param(b"\n" * 262_144, "signatures[0]: not JSON", id="only-newlines"),
    ],
)
def test_malformed_or_false_signature_is_refused(bench: Workbench, signatures, fragment):
    error = bench.refuses(with_signatures(signatures), SignatureError, fragment, step="authenticate")
    assert len(str(error)) < 800
    # Whoever accepts unsigned bundles does not accept forged ones.
    bench.refuses_in_shell(error, "bind", "--insecure-unsigned")


def test_signature_of_another_bundle_is_refused(bench):
    other = Forgery(signed_case("many_facts"))
    manifest = canonical_json(other.manifest)
    image = with_signatures(other.signatures(manifest, [PUBLISHER]))
    bench.refuses(image, SignatureError, "the signature of another bundle", step="authenticate")


def test_signature_of_an_older_manifest_is_refused(bench):
    forged, _old, bundle_id = settled()
    signatures = sign_statement(bundle_id, "minimal", PUBLISHER)
    forged.manifest["version"] = "1"
    bench.refuses(forged.image_as_it_is(signatures=signatures), SignatureError, "another bundle", step="authenticate")


@pytest.mark.parametrize(
    ("keys", "fragment"),
    [
        pytest.param([], "needs 1 publisher signature (has 0): it is not signed", id="unsigned"),
        pytest.param([STRANGER], "is not a trusted key", id="unknown-signer"),
        pytest.param([STRANGER, AUDITOR], "has 0", id="two-unknown-signers"),
    ],
)
def test_bundle_without_a_signature_that_counts_is_refused(bench, keys, fragment):
    forged = Forgery.of("minimal")
    bench.refuses(forged.image(keys=keys), TrustError, fragment, step="authenticate")


def trusted(*names: str, key=PUBLISHER, extra: str = "") -> str:
    return f'[[keys]]\nkey = "{key.public.text}"\nnames = {json.dumps(names or ("*",))}\n{extra}\n'


TWO_NEEDED = '[[rules]]\nnames = ["*"]\nrole = "publisher"\nthreshold = 2\n'


def signed_twice(*keyids: str) -> bytes:
    entries = [envelope(keyid=keyid)["signatures"][0] for keyid in keyids]
    return with_signatures(line(envelope() | {"signatures": entries}))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: signed_twice("one", "two"), id="two-keyids"),
        pytest.param(lambda: signed_twice(PUBLISHER.public.text, ""), id="with-and-without-keyid"),
        pytest.param(lambda: signed_twice(PUBLISHER.public.text, PUBLISHER.public.text), id="same-keyid"),
        pytest.param(
            lambda: with_signatures(line(envelope(keyid="a")) + line(envelope(keyid="b"))), id="two-envelopes"
        ),
    ],
)
def test_same_key_twice_counts_once(bench, make):
    bench.user.trust(trusted() + trusted(key=AUDITOR) + TWO_NEEDED)
    error = bench.refuses(make(), TrustError, "'minimal' needs 2 publisher signatures (has 1)", step="authenticate")
    assert "signed twice and counts once" in str(error)


def test_two_keys_reach_a_threshold_of_two(bench):
    bench.user.trust(trusted() + trusted(key=AUDITOR) + TWO_NEEDED)
    bench.put(Forgery.of("minimal").image(keys=[PUBLISHER, AUDITOR]))
    bench.take("authenticate")


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        pytest.param(trusted(extra="not_after = 2020-01-01T00:00:00Z"), "expired since 2020-01-01", id="expired"),
        pytest.param(trusted(extra="not_before = 2999-01-01T00:00:00Z"), "not valid before 2999", id="not-yet-valid"),
        pytest.param(trusted("firewall", "lb-*"), "is trusted for other names (firewall, lb-*)", id="out-of-scope"),
        pytest.param(trusted("Minimal"), "is trusted for other names", id="out-of-scope-by-case"),
        pytest.param(trusted("minima"), "is trusted for other names", id="out-of-scope-by-prefix"),
        pytest.param(trusted(extra='role = "auditor"'), "needs 1 publisher signature (has 0)", id="other-role"),
        pytest.param(
            trusted() + '[[rules]]\nnames = ["min*"]\nrole = "auditor"\nthreshold = 1\n',
            "needs 1 auditor signature (has 0)",
            id="missing-role",
        ),
    ],
)
def test_key_that_may_not_sign_this_is_refused(bench, minimal_image, text, fragment):
    bench.user.trust(text)
    bench.refuses(minimal_image, TrustError, fragment, step="authenticate")


def test_revoked_key_is_refused(bench, minimal_image):
    bench.user.revoke(f'keys = ["{PUBLISHER.public.text}"]\n')
    bench.refuses(minimal_image, RevokedError, "is revoked by", step="authenticate")


@pytest.mark.parametrize("keyid", ["", "somebody"])
def test_revoked_key_is_refused_whatever_its_keyid(bench, keyid):
    bench.user.revoke(f'keys = ["{PUBLISHER.public.text}"]\n')
    bench.refuses(with_signatures(line(envelope(keyid=keyid))), RevokedError, "is revoked by", step="authenticate")


def test_revoked_bundle_is_refused_though_another_key_signs_it(bench):
    _forged, _manifest, bundle_id = settled()
    bench.user.trust(trusted() + trusted(key=AUDITOR))
    bench.user.revoke(f'bundles = ["{bundle_id}"]\n')
    image = Forgery.of("minimal").image(keys=[AUDITOR, PUBLISHER])
    error = bench.refuses(image, RevokedError, f"bundle {bundle_id} is revoked by", step="authenticate")
    bench.refuses_in_shell(error, "bind", "--insecure-unsigned")


def test_older_security_version_is_refused(bench):
    bench.user.record("minimal", 7)
    forged, _manifest, _bundle_id = settled(security_version=6)
    error = bench.refuses(
        forged.image(), RollbackError, "security_version 6 of 'minimal' is older than 7", step="authenticate"
    )
    bench.refuses_in_shell(error, "bind", "--insecure-unsigned")


@pytest.mark.parametrize("version", [7, 8])
def test_newer_security_version_is_used(bench, version):
    bench.user.record("minimal", 7)
    forged, _manifest, _bundle_id = settled(security_version=version)
    bench.put(forged.image())
    bench.take("authenticate")
