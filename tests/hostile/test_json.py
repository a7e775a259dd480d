"""Manifests that two readers could read in two ways, or that one could not read at all; hashed and signed correctly."""

import json

import pytest

from tests.bundle_factory import Forgery, canonical_json
from tests.hostile.workbench import Workbench
from uxdp_bundle.errors import BundleFormatError


def manifest() -> dict:
    return Forgery.of("minimal").settle().manifest


def with_manifest(data: bytes) -> bytes:
    return Forgery.of("minimal").settle().image_as_it_is(manifest=data)


def changed(**fields: object) -> bytes:
    return canonical_json(manifest() | fields)


def spliced(old: bytes, new: bytes) -> bytes:
    """Return the manifest's canonical JSON with one piece of text replaced."""
    data = canonical_json(manifest())
    assert data.count(old) == 1
    return data.replace(old, new)


LICENSE = b'"license":"Dual MIT/GPL"'
LEVEL = b'"security_version":0'


@pytest.mark.parametrize(
    ("data", "fragment"),
    [
        pytest.param(spliced(LICENSE, LICENSE + b"," + LICENSE), "'license' stands twice", id="duplicate-key"),
        pytest.param(spliced(LICENSE, LICENSE + b',"l\\u0069cense":"MIT"'), "stands twice", id="duplicate-by-escape"),
        pytest.param(
            spliced(b'"role":"object"', b'"role":"ir","role":"object"'), "'role' stands twice", id="nested-twin"
        ),
        pytest.param(spliced(LEVEL, b'"security_version":NaN'), "NaN is no integer", id="nan"),
        pytest.param(spliced(LEVEL, b'"security_version":Infinity'), "Infinity is no integer", id="infinity"),
        pytest.param(spliced(LEVEL, b'"security_version":-Infinity'), "-Infinity is no", id="minus-infinity"),
        pytest.param(spliced(LEVEL, b'"security_version":0.0'), "0.0 is no integer", id="float"),
        pytest.param(spliced(LEVEL, b'"security_version":1e400'), "1e400 is no integer", id="float-that-overflows"),
        pytest.param(spliced(LEVEL, b'"security_version":0e0'), "0e0 is no integer", id="float-that-is-zero"),
        pytest.param(spliced(LEVEL, b'"security_version":-0'), "not in canonical form", id="minus-zero"),
        pytest.param(spliced(LEVEL, b'"security_version":00'), "not JSON", id="leading-zero"),
        pytest.param(spliced(LEVEL, b'"security_version":' + b"9" * 5000), "does not fit 64 bits", id="huge-integer"),
        pytest.param(spliced(LEVEL, b'"security_version":true'), "a bool, expected an integer", id="true-is-no-1"),
        pytest.param(spliced(LEVEL, b'"security_version":"0"'), "a str, expected an integer", id="text-is-no-number"),
        pytest.param(spliced(LEVEL, b'"security_version":null'), "expected an integer", id="null"),
        pytest.param(b"[" * 100_000, "nested deeper than 16", id="deep-arrays"),
        pytest.param(b'{"a":' * 40_000, "nested deeper than 16", id="deep-objects"),
        pytest.param(changed(future=json.loads("[" * 16 + "]" * 16)), "nested deeper than 16", id="deep-unknown-key"),
        pytest.param(spliced(b"Dual MIT", b"Dual \xffMIT"), "not UTF-8 at byte", id="invalid-utf8"),
        pytest.param(spliced(b"Dual MIT", b"Dual \xc0\xafMIT"), "not UTF-8 at byte", id="overlong-utf8"),
        pytest.param(spliced(b"Dual MIT", b"Dual \xed\xa0\x80MIT"), "not UTF-8 at byte", id="surrogate-in-utf8"),
        pytest.param(spliced(b"Dual MIT", b"Dual \\ud800MIT"), "lone surrogate", id="lone-surrogate"),
        pytest.param(spliced(b"Dual MIT", b"Dual \\udc00\\ud800MIT"), "lone surrogate", id="swapped-surrogates"),
        pytest.param(spliced(b"Dual MIT", b"Dual \\u0000MIT"), "printable", id="zero-character"),
        pytest.param(spliced(b"Dual MIT", b"Dual \\u001b[2JMIT"), "printable", id="escape-sequence"),
        pytest.param(spliced(b"Dual MIT", "Dual \u202eMIT".encode()), "printable", id="right-to-left-override"),
        pytest.param(spliced(b"Dual MIT", b"Dual \nMIT"), "not JSON", id="raw-newline"),
        pytest.param(b"\xef\xbb\xbf" + canonical_json(manifest()), "not JSON", id="byte-order-mark"),
        pytest.param(canonical_json(manifest()).decode().encode("utf-16"), "not UTF-8", id="utf-16"),
        pytest.param(canonical_json(manifest()) + b"\n", "not in canonical form", id="newline"),
        pytest.param(json.dumps(manifest(), sort_keys=True).encode(), "not in canonical form", id="white-space"),
        pytest.param(b"{" + LICENSE + b"," + spliced(LICENSE + b",", b"")[1:], "not in canonical form", id="unsorted"),
        pytest.param(spliced(b"Dual MIT/GPL", b"Dual MIT\\/GPL"), "not in canonical form", id="escaped-slash"),
        pytest.param(spliced(b"Dual MIT", b"D\\u0075al MIT"), "not in canonical form", id="escaped-letter"),
        pytest.param(canonical_json(manifest()) * 2, "not JSON", id="two-documents"),
        pytest.param(b"[]", "a JSON list, expected an object", id="array"),
        pytest.param(b"null", "a JSON NoneType", id="null-document"),
        pytest.param(b"{}", "manifest.schema: missing", id="empty-object"),
        pytest.param(canonical_json(manifest())[:-1], "not JSON", id="cut-off"),
        pytest.param(changed(schema=2), "manifest.schema: 2, this version reads 1", id="schema-of-the-future"),
        pytest.param(changed(critical=["hardware"]), "hardware must be understood", id="unknown-critical"),
        pytest.param(changed(critical=["maps", "x" * 1000]), "must be understood", id="long-unknown-critical"),
        pytest.param(changed(critical="maps"), "manifest.critical: a str, expected an array", id="critical-is-text"),
        pytest.param(changed(name="../../etc"), "manifest.name: '../../etc' does not match", id="name-leads-out"),
        pytest.param(changed(name="x; rm -rf"), "manifest.name", id="name-for-a-shell"),
        pytest.param(changed(programs=[{"name": "x"}]), "programs[0].", id="record-without-fields"),
        pytest.param(changed(maps={}), "manifest.maps: a dict, expected an array", id="object-is-no-array"),
        pytest.param(changed(build=[]), "manifest.build: a list, expected an object", id="array-is-no-object"),
        pytest.param(
            changed(requirements=manifest()["requirements"] | {"cpus": 3}),
            "unknown key 'cpus'",
            id="unknown-nested-key",
        ),
        pytest.param(changed(params=[0] * 2000), "2000 entries, at most 1024", id="too-many-params"),
        pytest.param(changed(license="x" * 1025), "at most 1024 printable", id="long-text"),
        pytest.param(changed(filler="x" * 262_144), "at most 262144 allowed", id="too-long"),
    ],
)
def test_manifest_that_is_not_exactly_right_is_refused(bench: Workbench, data, fragment):
    error = bench.refuses(with_manifest(data), BundleFormatError, fragment)
    assert len(str(error)) < 600


def test_manifest_with_an_unknown_key_that_is_not_critical_is_used(bench: Workbench):
    bench.put(with_manifest(changed(future={"since": 2030})))
    assert bench.take("bind") is not None
