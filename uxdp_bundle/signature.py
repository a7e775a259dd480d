"""Signatures of a bundle: DSSE envelopes, one per line, over an in-toto statement that names the bundle id.

What is signed is the pre-authentication encoding (PAE) of a statement that follows from the bundle id and name alone.
So the payload of an envelope is compared with the one that is expected instead of being interpreted: a signature of
another bundle has another payload.

A keyid helps to find the key and decides nothing: a signature counts for the trusted key under which it verifies. But
a keyid that is written as a public key claims something, and a claim that is wrong makes the bundle unusable, because
somebody has damaged or forged it.

Parsing is pure and says nothing about trust; see authentication. FORMAT.md, "Signatures", is the specification.

References: DSSE 1.0.2 (https://github.com/secure-systems-lab/dsse), in-toto Statement v1
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

from . import canonical
from .container import MAX_SIGNATURES_BYTES, Bundle
from .errors import KeyFileError, SignatureError
from .keys import PREFIX, SIGNATURE_BYTES, PublicKey, SigningKey

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:uxdp:bundle:1"
MAX_SIGNATURES: Final = 16
MAX_KEYID_CHARACTERS: Final = 256

_REPLACE = "replace all signatures with `uxdp sign` (without --add)"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of a well-formed envelope; nothing was verified yet."""

    context: str
    """Where it stands, such as ``signatures[0].signatures[1]``."""
    keyid: str
    """A hint which key it is; empty if there is none."""
    claimed: PublicKey | None
    """The key that ``keyid`` names, if it is written as a public key."""
    value: bytes
    """The signature itself, 64 bytes."""


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding: what is signed in place of the payload."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def statement(bundle_id: str, bundle_name: str) -> bytes:
    """Return the in-toto statement, in canonical JSON, that a signature of this bundle has as its payload."""
    return canonical.dumps(
        {
            "_type": STATEMENT_TYPE,
            "predicate": {},
            "predicateType": PREDICATE_TYPE,
            "subject": [{"digest": {"sha256": bundle_id}, "name": bundle_name}],
        }
    )


def sign_statement(bundle_id: str, bundle_name: str, key: SigningKey) -> bytes:
    """Return one envelope with one signature as a line of signatures.jsonl, newline included."""
    payload = statement(bundle_id, bundle_name)
    signature = key.sign(pae(PAYLOAD_TYPE, payload))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": key.public.text, "sig": base64.b64encode(signature).decode()}],
    }
    return canonical.dumps(envelope) + b"\n"


def append_signature(jsonl: bytes, line: bytes, bundle_id: str, bundle_name: str) -> bytes:
    """Return ``jsonl`` with one more envelope line.

    :raises SignatureError: either is malformed or wrong, a key would sign twice, or there would be too many
    """
    old = parse_envelopes(jsonl, bundle_id, bundle_name)
    new = parse_envelopes(line, bundle_id, bundle_name)
    message = pae(PAYLOAD_TYPE, statement(bundle_id, bundle_name))
    for signature in (*old, *new):
        check_claim(signature, message)
    for added in new:
        for present in old:
            key = added.claimed or present.claimed
            if key is not None and key.is_signature(added.value, message) and key.is_signature(present.value, message):
                raise SignatureError(
                    f"{key} has signed this bundle already",
                    context=present.context,
                    remedy="nothing needs to be done; to sign anew, " + _REPLACE,
                )
    result = jsonl + line
    parse_envelopes(result, bundle_id, bundle_name)
    return result


def sign_bundle(bundle: Bundle, key: SigningKey, *, add: bool = False) -> bytes:
    """Return the file image of ``bundle`` with this key's signature; the bundle id stays what it is.

    :param add: keep the signatures that are there; otherwise they are replaced
    :raises SignatureError: with ``add``, see ``append_signature``
    """
    name = bundle.manifest.name
    line = sign_statement(bundle.bundle_id, name, key)
    if add:
        line = append_signature(bundle.signatures, line, bundle.bundle_id, name)
    return bundle.with_signatures(line)


def parse_envelopes(jsonl: bytes, bundle_id: str, bundle_name: str) -> tuple[Signature, ...]:
    """Parse signatures.jsonl and require that each payload is the statement of this bundle.

    :raises SignatureError: malformed, too large, too many, or the signature of something else
    """
    if len(jsonl) > MAX_SIGNATURES_BYTES:
        raise SignatureError(f"{len(jsonl)} bytes, at most {MAX_SIGNATURES_BYTES} allowed", context="signatures")
    if not jsonl:
        return ()
    if not jsonl.endswith(b"\n"):
        raise SignatureError("the last line does not end with a newline", context="signatures", remedy=_REPLACE)
    lines = jsonl[:-1].split(b"\n", MAX_SIGNATURES)
    expected = statement(bundle_id, bundle_name)
    signatures: list[Signature] = []
    for number, line in enumerate(lines[:MAX_SIGNATURES]):
        signatures += _parse_envelope(line, f"signatures[{number}]", expected)
    if len(lines) > MAX_SIGNATURES or len(signatures) > MAX_SIGNATURES:
        raise SignatureError(f"more than {MAX_SIGNATURES} signatures", context="signatures", remedy=_REPLACE)
    return tuple(signatures)


def check_claim(signature: Signature, message: bytes) -> None:
    """Require that a signature verifies under the public key that its keyid spells, if it spells one.

    :param message: the PAE that was signed
    :raises SignatureError: it does not
    """
    if signature.claimed is not None and not signature.claimed.is_signature(signature.value, message):
        raise SignatureError(
            f"is not the signature of {signature.claimed}, whose key it claims",
            context=signature.context,
            remedy="get the bundle from its publisher again",
        )


def _parse_envelope(line: bytes, context: str, expected: bytes) -> list[Signature]:
    envelope = canonical.loads(line, what=context, max_bytes=MAX_SIGNATURES_BYTES, error=SignatureError)
    _require_keys(envelope, {"payload", "payloadType", "signatures"}, set(), context)
    payload_type = envelope["payloadType"]
    if payload_type != PAYLOAD_TYPE:
        raise SignatureError(f"{payload_type!r:.80}, expected {PAYLOAD_TYPE!r}", context=f"{context}.payloadType")
    payload = _decode_base64(envelope["payload"], f"{context}.payload")
    if payload != expected:
        raise _wrong_payload(payload, expected, f"{context}.payload")
    entries = envelope["signatures"]
    if not isinstance(entries, list) or not entries:
        raise SignatureError(f"{_kind(entries)}, expected an array of signatures", context=f"{context}.signatures")
    return [_parse_signature(entry, f"{context}.signatures[{i}]") for i, entry in enumerate(entries)]


def _parse_signature(entry: Any, context: str) -> Signature:
    if not isinstance(entry, dict):
        raise SignatureError(f"{_kind(entry)}, expected an object", context=context)
    _require_keys(entry, {"sig"}, {"keyid"}, context)
    keyid = entry.get("keyid", "")
    if not isinstance(keyid, str) or len(keyid) > MAX_KEYID_CHARACTERS or not keyid.isprintable():
        raise SignatureError(
            f"{_kind(keyid)}, expected at most {MAX_KEYID_CHARACTERS} printable characters", context=f"{context}.keyid"
        )
    claimed = None
    if keyid.startswith(PREFIX):
        try:
            claimed = PublicKey.parse(keyid)
        except KeyFileError as cause:
            raise SignatureError(cause.message, context=f"{context}.keyid") from cause
    value = _decode_base64(entry["sig"], f"{context}.sig")
    if len(value) != SIGNATURE_BYTES:
        raise SignatureError(f"{len(value)} bytes, expected {SIGNATURE_BYTES}", context=f"{context}.sig")
    return Signature(context, keyid, claimed, value)


def _require_keys(value: dict[str, Any], required: set[str], optional: set[str], context: str) -> None:
    missing = sorted(required - value.keys())
    if missing:
        raise SignatureError("missing", context=f"{context}.{missing[0]}")
    extra = sorted(value.keys() - required - optional)
    if extra:
        raise SignatureError(f"unknown key {extra[0]!r:.80}", context=context)


def _decode_base64(value: Any, context: str) -> bytes:
    if not isinstance(value, str):
        raise SignatureError(f"{_kind(value)}, expected a string of base64", context=context)
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as cause:
        raise SignatureError(f"not base64: {cause}", context=context) from cause
    if base64.b64encode(data).decode() != value:
        raise SignatureError("not the standard base64 of its bytes", context=context)
    return data


def _wrong_payload(payload: bytes, expected: bytes, context: str) -> SignatureError:
    """Say in which field the payload differs from the statement that was expected."""
    found = canonical.loads(payload, what=context, max_bytes=MAX_SIGNATURES_BYTES, error=SignatureError)
    wanted = canonical.loads(expected, what=context, max_bytes=MAX_SIGNATURES_BYTES)
    if found == wanted:
        return SignatureError("the statement is not in canonical form", context=context)
    for key in sorted(wanted.keys() | found.keys()):
        if found.get(key) != wanted.get(key):
            context = f"{context}.{key}"
            break
    if context.endswith(".subject"):
        return SignatureError(
            f"the signature of another bundle: {found.get('subject')!r:.200}, expected {wanted['subject']!r}",
            context=context,
            remedy="get the bundle from its publisher again, or sign this one",
        )
    return SignatureError(f"{found.get(key)!r:.80}, expected {wanted.get(key)!r}", context=context)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", int: "an integer", bool: "a boolean"}
    if value == [] and isinstance(value, list):
        return "an empty array"
    return names.get(type(value), "null")
