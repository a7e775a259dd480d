"""Mutate a real bundle where it hurts, make hashes, checksum and signature right again, and use it.

Random bytes never get past the checksum. So what is mutated is the structure: values of the manifest, members, the
signatures, fields of the trailer, words of the object, its symbols and its BTF. Whatever comes of it, uxdp answers with
a result or one of its own errors, within the deadline.

The examples are the same in each run. UXDP_FUZZ_EXAMPLES=100000 runs that many new ones instead.
"""

import os
import struct
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import independent_reader
from tests.bundle_factory import AUDITOR, PUBLISHER, STRANGER, Forgery, canonical_json
from uxdp_bundle import binding
from uxdp_bundle.authentication import assess, authenticate
from uxdp_bundle.container import bundle_from_bytes
from uxdp_bundle.errors import LoweringError, ObjectError, UxdpError
from uxdp_bundle.facts import object_facts
from uxdp_bundle.lowering import LoweredObject, lower
from uxdp_bundle.manifest import parse_manifest
from uxdp_bundle.rollback import RollbackState
from uxdp_bundle.shim import decode_shim
from uxdp_bundle.signature import PAYLOAD_TYPE, check_claim, pae, parse_envelopes, statement
from uxdp_bundle.trust import TrustedKey, TrustStore

EXAMPLES = os.environ.get("UXDP_FUZZ_EXAMPLES")
DEADLINE_MS = 20_000  # most take some milliseconds; LLVM ends itself after 10 s
COMMON: dict[str, Any] = {
    "database": None,
    "derandomize": EXAMPLES is None,
    "deadline": DEADLINE_MS,
    "print_blob": True,
    "suppress_health_check": list(HealthCheck),
}
TRUST = TrustStore(keys=(TrustedKey(PUBLISHER.public, ("*",)), TrustedKey(AUDITOR.public, ("m*",), role="auditor")))
CASES = ("minimal", "many_facts")


def fuzzing(examples: int) -> settings:
    return settings(max_examples=int(EXAMPLES or examples), **COMMON)


edges = st.sampled_from(
    [0, 1, 2, 15, 16, 17, 63, 64, 255, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63, (1 << 64) - 1]
)
integers = edges | edges.map(lambda n: -n) | st.integers(-(1 << 65), 1 << 65)
texts = st.sampled_from(
    ["", "xdp", "data", "zstd", "object", "..", "/", "a" * 64, "0" * 64, "\0", "\x1b", "é", "\ud800"]
)
texts = texts | st.text(max_size=20)
values = st.recursive(
    st.none() | st.booleans() | integers | texts | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of everything in a JSON value but itself."""
    found = [path] if path else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found += places(inner, (*path, key))
    return found


def mutate_json(draw: st.DataObject, value: Any) -> None:
    """Change, remove, double or add one thing somewhere in a JSON value."""
    found = places(value)
    if not found:
        return
    *parents, last = draw.draw(st.sampled_from(found))
    target = value
    for key in parents:
        target = target[key]
    match draw.draw(st.sampled_from(["set", "nudge", "remove", "double", "move", "add"])):
        case "set":
            target[last] = draw.draw(values)
        case "nudge" if type(target[last]) is int:
            target[last] += draw.draw(st.sampled_from([-16, -1, 1, 16, 1 << 32]))
        case "nudge" if isinstance(target[last], str):
            target[last] = target[last][1:] + draw.draw(texts)
        case "remove":
            del target[last]
        case "double" if isinstance(target, list):
            target.insert(draw.draw(st.integers(0, len(target))), target[last])
        case "move" if isinstance(target, list):
            target.insert(draw.draw(st.integers(0, len(target) - 1)), target.pop(last))
        case "add" if isinstance(target, dict):
            target[draw.draw(texts)] = draw.draw(values)


def mutate_bytes(draw: st.DataObject, data: bytes) -> bytes:
    """Change some bytes: a bit, a word, a cut, a copy of something in it."""
    if not data:
        return draw.draw(st.binary(max_size=64))
    place = draw.draw(st.integers(0, len(data) - 1))
    size = draw.draw(st.sampled_from([1, 4, 8, 16, 64]))
    match draw.draw(st.sampled_from(["bit", "word", "cut", "copy", "insert", "end"])):
        case "bit":
            return data[:place] + bytes([data[place] ^ 1 << draw.draw(st.integers(0, 7))]) + data[place + 1 :]
        case "word":
            place &= ~3
            word = struct.pack("<Q", draw.draw(integers) & (1 << 64) - 1)[: draw.draw(st.sampled_from([1, 2, 4, 8]))]
            return data[:place] + word + data[place + len(word) :]
        case "cut":
            return data[:place] + data[place + size :]
        case "copy":
            source = draw.draw(st.integers(0, len(data) - 1))
            return data[:place] + data[source : source + size] + data[place + size :]
        case "insert":
            return data[:place] + draw.draw(st.binary(max_size=64)) + data[place:]
        case _:
            return data[:place]


def mutate_structure(draw: st.DataObject, forged: Forgery) -> None:
    """Change the manifest, or a member, or which members there are."""
    match draw.draw(st.sampled_from(["manifest", "manifest", "object", "ir", "shim", "stored", "members"])):
        case "manifest":
            mutate_json(draw, forged.manifest)
        case "object":
            forged.stored[0] = mutate_object(draw, forged.stored[0])
        case "ir":
            forged.store_compressed("ir", mutate_bytes(draw, forged.content("ir")))
        case "shim":
            forged.store("shim", mutate_bytes(draw, forged.content("shim")))
        case "stored":
            index = draw.draw(st.integers(0, len(forged.stored) - 1))
            forged.stored[index] = mutate_bytes(draw, forged.stored[index])
        case "members":
            index = draw.draw(st.integers(0, len(forged.stored) - 1))
            forged.manifest["members"].append(dict(forged.manifest["members"][index]))
            forged.stored.append(forged.stored[index])


def mutate_object(draw: st.DataObject, data: bytes) -> bytes:
    """Change something that is read: the header, a section header, or a section that is not debugging information."""
    if len(data) < 64:
        return mutate_bytes(draw, data)
    table, count = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    ranges = [(0, 64)]
    for index in range(count):
        place = table + 64 * index
        if place + 64 > len(data):
            break
        ranges.append((place, 64))
        kind, offset, size = struct.unpack_from("<I", data, place + 4)[0], *struct.unpack_from("<QQ", data, place + 24)
        if kind and size and offset + size <= len(data):
            ranges.append((offset, size))
    start, size = draw.draw(st.sampled_from(ranges))
    part = data[start : start + size]
    changed = mutate_bytes(draw, part)
    # Mostly of the same size, so that everything else stays where it is.
    changed = changed[:size].ljust(size, b"\0") if draw.draw(st.integers(0, 9)) else changed
    return data[:start] + changed + data[start + size :]


class Image(bytes):
    """A file image that is not printed when an example fails: the line for @reproduce_failure is of more use."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


@st.composite
def images(draw: Any) -> Image:
    """A bundle's file image with one to three things wrong, and all that follows from them made right."""
    data = draw(st.data())
    forged = Forgery.of(draw(st.sampled_from(CASES)))
    for _ in range(draw(st.integers(0, 3))):
        try:
            mutate_structure(data, forged)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, zstandard.ZstdError):
            break  # the manifest has no such part any more
    with suppress(ValueError, KeyError, TypeError):  # members that are no members stay as they are
        forged.settle()
    try:
        manifest = canonical_json(forged.manifest)
    except (UnicodeEncodeError, ValueError):
        manifest = repr(forged.manifest).encode(errors="replace")
    keys = draw(st.sampled_from([[PUBLISHER], [PUBLISHER, AUDITOR], [STRANGER], []]))
    try:
        signatures = forged.signatures(manifest, keys)
    except (KeyError, TypeError, UnicodeEncodeError):
        signatures = b""
    trailer: dict[str, int] = {}
    match draw(st.sampled_from(["nothing"] * 6 + ["signatures", "trailer", "manifest"])):
        case "signatures":
            signatures = mutate_bytes(data, signatures)
        case "manifest":
            manifest = mutate_bytes(data, manifest)
        case "trailer":
            field, mask = draw(
                st.sampled_from(
                    [
                        *[("version", 0xFFFF), ("reserved", 0xFFFF), ("signatures_length", 0xFFFFFFFF)],
                        *[("manifest_length", 0xFFFFFFFF), ("manifest_offset", (1 << 64) - 1)],
                    ]
                )
            )
            trailer[field] = draw(integers) & mask
    image = forged.image_as_it_is(manifest=manifest, signatures=signatures, **trailer)
    return Image(mutate_bytes(data, image) if draw(st.integers(0, 19)) == 0 else image)


@pytest.fixture
def no_llvm(monkeypatch: pytest.MonkeyPatch, tmp_path) -> RollbackState:
    """Let the IR lower to nothing in no time: LLVM has its own target below."""
    monkeypatch.setattr(binding, "lower_as", lambda *_: LoweredObject(b"", b"", "0.0.0", ""))
    return RollbackState(tmp_path / "rollback")


@fuzzing(800)
@given(image=images())
def test_fuzz_bundle(image: bytes, no_llvm: RollbackState):
    try:
        with bundle_from_bytes(image) as bundle:
            assert bundle.with_signatures(bundle.signatures) == image
            assert parse_manifest(bundle.manifest_bytes) == bundle.manifest
            now = datetime(2030, 1, 1, tzinfo=UTC)
            verdict = assess(bundle, TRUST, now=now, rollback=no_llvm)
            for member in bundle.manifest.members:
                assert len(bundle.member(member.role, member.name)) == member.size
            authentic = authenticate(bundle, TRUST, now=now, rollback=no_llvm)
            assert verdict.trusted
            assert PUBLISHER.public in {signer.key for signer in authentic.signers}
            binding.bind(authentic)
    except UxdpError as error:
        assert str(error)
        assert len(str(error)) < 5000


def is_sound(image: bytes) -> bool:
    """Whether uxdp finds a bundle well-formed, its members readable, its shim canonical, and no signature false."""
    try:
        with bundle_from_bytes(image) as bundle:
            for member in bundle.manifest.members:
                bundle.member(member.role, member.name)
            decode_shim(bundle.member("shim"))
            name = bundle.manifest.name
            message = pae(PAYLOAD_TYPE, statement(bundle.bundle_id, name))
            for signature in parse_envelopes(bundle.signatures, bundle.bundle_id, name):
                check_claim(signature, message)
    except UxdpError:
        return False
    return True


@fuzzing(800)
@given(image=images())
def test_fuzz_independent_reader_agrees(image: bytes):
    try:
        independent_reader.read(image)
    except independent_reader.Refused as refusal:
        assert not is_sound(image), refusal
    else:
        assert is_sound(image)


@fuzzing(1000)
@given(data=st.data(), case=st.sampled_from(CASES))
def test_fuzz_object(data: st.DataObject, case: str):
    obj = Forgery.of(case).content("object")
    for _ in range(data.draw(st.integers(1, 6))):
        obj = mutate_object(data, obj)
    try:
        object_facts(obj)
    except ObjectError as error:
        assert str(error)


@fuzzing(300)
@given(data=st.data())
def test_fuzz_shim(data: st.DataObject):
    shim = Forgery.of("many_facts").content("shim")
    for _ in range(data.draw(st.integers(1, 3))):
        shim = mutate_bytes(data, shim)
    try:
        decode_shim(shim)
    except UxdpError as error:
        assert str(error)


@fuzzing(20)
@given(data=st.data(), case=st.sampled_from(CASES))
def test_fuzz_bitcode(data: st.DataObject, case: str):
    ir = Forgery.of(case).content("ir")
    for _ in range(data.draw(st.integers(1, 3))):
        ir = mutate_bytes(data, ir)
    try:
        lower([ir])
    except LoweringError as error:
        assert str(error)
