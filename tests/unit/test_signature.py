import base64
import json

import pytest

from tests.unit import trust_fixtures
from tests.unit.trust_fixtures import signed_bundle, unsigned_bundle, with_signatures
from uxdp_bundle import signature
from uxdp_bundle.container import bundle_from_bytes
from uxdp_bundle.errors import SignatureError
from uxdp_bundle.keys import generate_key

key = trust_fixtures.key
other_key = trust_fixtures.other_key

BUNDLE_ID = "ab" * 32
NAME = "firewall"
KEY = generate_key()
STATEMENT = signature.statement(BUNDLE_ID, NAME)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def envelope(**changes) -> dict:
    """Return a correct envelope with some fields replaced; a field that is None is left out."""
    value = json.loads(signature.sign_statement(BUNDLE_ID, NAME, KEY))
    value.update(changes)
    return {name: field for name, field in value.items() if field is not None}


def entry(**changes) -> dict:
    value = envelope()["signatures"][0] | changes
    return {name: field for name, field in value.items() if field is not None}


def lines(*values) -> bytes:
    return b"".join((value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n" for value in values)


def statement_with(**changes) -> str:
    return b64(json.dumps(json.loads(STATEMENT) | changes, sort_keys=True, separators=(",", ":")).encode())


def test_pae_is_that_of_the_dsse_specification():
    # protocol.md of DSSE, "Test Vectors"
    assert (
        signature.pae("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert signature.pae("ä", b"") == b"DSSEv1 2 \xc3\xa4 0 "


def test_statement_is_canonical_in_toto():
    assert (
        b'{"_type":"https://in-toto.io/Statement/v1","predicate":{},"predicateType":"urn:uxdp:bundle:1",'
        b'"subject":[{"digest":{"sha256":"' + BUNDLE_ID.encode() + b'"},"name":"firewall"}]}'
    ) == STATEMENT


def test_sign_statement_is_one_line_that_parses_and_verifies():
    line = signature.sign_statement(BUNDLE_ID, NAME, KEY)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    (parsed,) = signature.parse_envelopes(line, BUNDLE_ID, NAME)
    assert parsed.context == "signatures[0].signatures[0]"
    assert parsed.keyid == KEY.public.text
    assert parsed.claimed == KEY.public
    message = signature.pae(signature.PAYLOAD_TYPE, STATEMENT)
    assert KEY.public.is_signature(parsed.value, message)
    signature.check_claim(parsed, message)


def test_sign_statement_is_deterministic():
    assert signature.sign_statement(BUNDLE_ID, NAME, KEY) == signature.sign_statement(BUNDLE_ID, NAME, KEY)


def test_parse_nothing_is_no_signature():
    assert signature.parse_envelopes(b"", BUNDLE_ID, NAME) == ()


def test_parse_several_envelopes_and_signatures():
    jsonl = lines(envelope(), envelope(signatures=[entry(), entry(keyid=None), entry(keyid="a hint")]))
    parsed = signature.parse_envelopes(jsonl, BUNDLE_ID, NAME)
    assert [item.context for item in parsed] == [
        "signatures[0].signatures[0]",
        "signatures[1].signatures[0]",
        "signatures[1].signatures[1]",
        "signatures[1].signatures[2]",
    ]
    assert [item.keyid for item in parsed] == [KEY.public.text, KEY.public.text, "", "a hint"]
    assert [item.claimed for item in parsed] == [KEY.public, KEY.public, None, None]


def test_parse_key_order_and_white_space_are_free():
    value = dict(reversed(envelope().items()))
    parsed = signature.parse_envelopes(json.dumps(value, separators=(" ,  ", " : ")).encode() + b"\n", BUNDLE_ID, NAME)
    assert len(parsed) == 1


@pytest.mark.parametrize(
    ("jsonl", "context", "message"),
    [
        (lines(envelope())[:-1], "signatures", "does not end with a newline"),
        (b"\n", "signatures[0]", "not JSON"),
        (lines(envelope()) + b"\n", "signatures[1]", "not JSON"),
        (b"not json\n", "signatures[0]", "not JSON"),
        (b"\xff\n", "signatures[0]", "not UTF-8"),
        (b"\xef\xbb\xbf" + lines(envelope()), "signatures[0]", "not JSON"),
        (b"[]\n", "signatures[0]", "expected an object"),
        (b"{}\n", "signatures[0].payload", "missing"),
        (b"[" * 5000 + b"\n", "signatures[0]", "nested deeper"),
        (lines(envelope(extra=float("nan"))), "signatures[0]", "no integer"),
        (lines(b'{"payload":"",' + lines(envelope())[1:-1]), "signatures[0]", "'payload' stands twice"),
        (lines(b'{"signatures":[],' + lines(envelope())[1:-1]), "signatures[0]", "'signatures' stands twice"),
        (lines(envelope(extra=1)), "signatures[0]", "unknown key 'extra'"),
        (lines(envelope(payload=None)), "signatures[0].payload", "missing"),
        (lines(envelope(payloadType=None)), "signatures[0].payloadType", "missing"),
        (lines(envelope(signatures=None)), "signatures[0].signatures", "missing"),
        (lines(envelope(payloadType="text/plain")), "signatures[0].payloadType", "'text/plain', expected"),
        (lines(envelope(payloadType=1)), "signatures[0].payloadType", "1, expected"),
        (lines(envelope(payload=1)), "signatures[0].payload", "an integer, expected a string"),
        (lines(envelope(payload="????")), "signatures[0].payload", "not base64"),
        (lines(envelope(payload="ä")), "signatures[0].payload", "not base64"),
        (lines(envelope(payload=b64(STATEMENT) + "\n")), "signatures[0].payload", "base64"),
        (lines(envelope(payload=b64(b"{"))), "signatures[0].payload", "not JSON"),
        (lines(envelope(payload=b64(b"[]"))), "signatures[0].payload", "expected an object"),
        (lines(envelope(payload=b64(STATEMENT + b"\n"))), "signatures[0].payload", "not in canonical form"),
        (lines(envelope(signatures=[])), "signatures[0].signatures", "an empty array, expected"),
        (lines(envelope(signatures={})), "signatures[0].signatures", "an object, expected"),
        (lines(envelope(signatures=[[]])), "signatures[0].signatures[0]", "an empty array, expected an object"),
        (lines(envelope(signatures=[[1]])), "signatures[0].signatures[0]", "an array, expected an object"),
        (lines(envelope(signatures=[{}])), "signatures[0].signatures[0].sig", "missing"),
        (lines(envelope(signatures=[entry(sig=True)])), "signatures[0].signatures[0].sig", "a boolean, expected"),
        (lines(envelope(signatures=[entry(cert="")])), "signatures[0].signatures[0]", "unknown key 'cert'"),
        (lines(envelope(signatures=[entry(keyid=1)])), "signatures[0].signatures[0].keyid", "an integer, expected"),
        (
            lines(
                b'{"payload":"%b","payloadType":"%b","signatures":[{"keyid":null,"sig":""}]}'
                % (b64(STATEMENT).encode(), signature.PAYLOAD_TYPE.encode())
            ),
            "signatures[0].signatures[0].keyid",
            "null, expected",
        ),
        (lines(envelope(signatures=[entry(keyid="x" * 257)])), "signatures[0].signatures[0].keyid", "at most 256"),
        (lines(envelope(signatures=[entry(keyid="\x1b[2J")])), "signatures[0].signatures[0].keyid", "printable"),
        (
            lines(envelope(signatures=[entry(keyid=KEY.public.text[:-1])])),
            "signatures[0].signatures[0].keyid",
            "is no public key",
        ),
        (
            lines(envelope(signatures=[entry(keyid="ed25519:" + b64(bytes(32)))])),
            "signatures[0].signatures[0].keyid",
            "weak key",
        ),
        (lines(envelope(signatures=[entry(sig="")])), "signatures[0].signatures[0].sig", "0 bytes, expected 64"),
        (lines(envelope(signatures=[entry(sig=b64(bytes(65)))])), "signatures[0].signatures[0].sig", "65 bytes"),
        (lines(envelope(signatures=[entry(sig=b64(bytes(64))[:-2])])), "signatures[0].signatures[0].sig", "not base64"),
        (
            lines(envelope(signatures=[entry(sig=b64(bytes(64))[:-3] + "B==")])),
            "signatures[0].signatures[0].sig",
            "not the standard base64",
        ),
        (lines(envelope(), envelope(payloadType="")), "signatures[1].payloadType", "expected"),
        (b" " * (256 << 10) + b"\n", "signatures", "at most 262144"),
        (lines(*[envelope()] * 17), "signatures", "more than 16"),
        (lines(envelope(signatures=[entry()] * 17)), "signatures", "more than 16"),
        (lines(envelope(signatures=[entry()] * 9), envelope(signatures=[entry()] * 8)), "signatures", "more than 16"),
        (lines(*[envelope()] * 16, b"junk"), "signatures", "more than 16"),
    ],
    ids=[
        "no-final-newline",
        "empty-line",
        "empty-last-line",
        "not-json",
        "not-utf-8",
        "byte-order-mark",
        "array",
        "empty-object",
        "deep-nesting",
        "nan",
        "duplicate-payload",
        "duplicate-signatures",
        "unknown-key",
        "no-payload",
        "no-payload-type",
        "no-signatures",
        "wrong-payload-type",
        "payload-type-integer",
        "payload-integer",
        "payload-not-base64",
        "payload-not-ascii",
        "payload-newline",
        "payload-not-json",
        "payload-array",
        "payload-not-canonical",
        "signatures-empty",
        "signatures-object",
        "signature-empty-array",
        "signature-array",
        "signature-empty",
        "sig-boolean",
        "signature-unknown-key",
        "keyid-integer",
        "keyid-null",
        "keyid-too-long",
        "keyid-terminal-escape",
        "keyid-damaged-key",
        "keyid-weak-key",
        "sig-empty",
        "sig-too-long",
        "sig-no-padding",
        "sig-spare-bits",
        "second-envelope",
        "region-too-large",
        "17-envelopes",
        "17-signatures",
        "17-in-two-envelopes",
        "16-and-junk",
    ],
)
def test_parse_malformed_raises_signature_error(jsonl, context, message):
    with pytest.raises(SignatureError) as caught:
        signature.parse_envelopes(jsonl, BUNDLE_ID, NAME)
    assert caught.value.context == context
    assert message in caught.value.message
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("payload", "context", "message"),
    [
        (b64(signature.statement("cd" * 32, NAME)), ".subject", "the signature of another bundle"),
        (b64(signature.statement(BUNDLE_ID, "other")), ".subject", "the signature of another bundle"),
        (statement_with(subject=[]), ".subject", "another bundle"),
        (statement_with(subject=json.loads(STATEMENT)["subject"] * 2), ".subject", "another bundle"),
        (statement_with(_type="https://in-toto.io/Statement/v0.1"), "._type", "v0.1', expected"),
        (statement_with(predicateType="urn:other"), ".predicateType", "'urn:other', expected"),
        (statement_with(predicate={"a": 1}), ".predicate", "expected {}"),
        (statement_with(more=1), ".more", "1, expected None"),
        (b64(b"{}"), "._type", "None, expected"),
    ],
    ids=[
        "other-bundle",
        "other-name",
        "no-subject",
        "two-subjects",
        "type",
        "predicate-type",
        "predicate",
        "unknown-key",
        "empty",
    ],
)
def test_parse_wrong_statement_raises_signature_error(payload, context, message):
    with pytest.raises(SignatureError) as caught:
        signature.parse_envelopes(lines(envelope(payload=payload)), BUNDLE_ID, NAME)
    assert caught.value.context == f"signatures[0].payload{context}"
    assert message in caught.value.message


def test_parse_sixteen_signatures_is_allowed():
    assert len(signature.parse_envelopes(lines(*[envelope()] * 16), BUNDLE_ID, NAME)) == 16


def test_check_claim_of_another_key_raises(other_key):
    jsonl = lines(envelope(signatures=[entry(keyid=other_key.public.text)]))
    (parsed,) = signature.parse_envelopes(jsonl, BUNDLE_ID, NAME)
    with pytest.raises(SignatureError, match="is not the signature of"):
        signature.check_claim(parsed, signature.pae(signature.PAYLOAD_TYPE, STATEMENT))


def test_check_claim_over_the_bare_payload_raises():
    jsonl = lines(envelope(signatures=[entry(sig=b64(KEY.sign(STATEMENT)))]))
    (parsed,) = signature.parse_envelopes(jsonl, BUNDLE_ID, NAME)
    with pytest.raises(SignatureError, match="is not the signature of"):
        signature.check_claim(parsed, signature.pae(signature.PAYLOAD_TYPE, STATEMENT))


def test_append_signature_keeps_what_is_there(key, other_key):
    one = signature.sign_statement(BUNDLE_ID, NAME, key)
    two = signature.sign_statement(BUNDLE_ID, NAME, other_key)
    assert signature.append_signature(b"", one, BUNDLE_ID, NAME) == one
    assert signature.append_signature(one, two, BUNDLE_ID, NAME) == one + two


@pytest.mark.parametrize("keyid", [KEY.public.text, None, "name"], ids=["claimed", "no-keyid", "hint"])
def test_append_signature_of_the_same_key_raises(keyid):
    present = lines(envelope(signatures=[entry(keyid=keyid)]))
    with pytest.raises(SignatureError, match="has signed this bundle already") as caught:
        signature.append_signature(present, lines(envelope()), BUNDLE_ID, NAME)
    assert caught.value.context == "signatures[0].signatures[0]"
    with pytest.raises(SignatureError, match="has signed this bundle already"):
        signature.append_signature(lines(envelope()), present, BUNDLE_ID, NAME)


def test_append_signature_seventeenth_raises(key):
    present = lines(*[envelope()] * 16)
    line = signature.sign_statement(BUNDLE_ID, NAME, key)
    with pytest.raises(SignatureError, match="more than 16"):
        signature.append_signature(present, line, BUNDLE_ID, NAME)


@pytest.mark.parametrize(
    "present",
    [
        b"junk\n",
        lines(envelope())[:-1],
        signature.sign_statement("cd" * 32, NAME, KEY),
        lines(envelope(signatures=[entry(sig=b64(bytes(64)))])),
    ],
    ids=["malformed", "cut", "other-bundle", "false"],
)
def test_append_signature_to_bad_ones_raises(present, other_key):
    with pytest.raises(SignatureError):
        signature.append_signature(present, signature.sign_statement(BUNDLE_ID, NAME, other_key), BUNDLE_ID, NAME)


def test_sign_bundle_keeps_the_id(key, other_key):
    bundle = unsigned_bundle()
    signed = bundle_from_bytes(signature.sign_bundle(bundle, key))
    assert signed.bundle_id == bundle.bundle_id
    assert signed.signatures == signature.sign_statement(bundle.bundle_id, "firewall", key)
    both = bundle_from_bytes(signature.sign_bundle(signed, other_key, add=True))
    assert both.bundle_id == bundle.bundle_id
    assert both.signatures.startswith(signed.signatures)
    assert len(signature.parse_envelopes(both.signatures, both.bundle_id, "firewall")) == 2
    replaced = bundle_from_bytes(signature.sign_bundle(both, key))
    assert replaced.signatures == signed.signatures


def test_sign_bundle_replaces_damaged_signatures_but_does_not_add_to_them(key):
    bundle = with_signatures(signed_bundle(key), b"junk\n")
    with pytest.raises(SignatureError, match="not JSON"):
        signature.sign_bundle(bundle, key, add=True)
    assert bundle_from_bytes(signature.sign_bundle(bundle, key)).signatures.startswith(b'{"payload"')
