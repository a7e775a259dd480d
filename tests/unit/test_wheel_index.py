import json

import pytest

from uxdp_bundle.errors import InstalledError
from uxdp_bundle.wheel_index import MAX_BUNDLES, MAX_INDEX_BYTES, IndexEntry, encode_index, parse_index

ENTRY = IndexEntry("nf", "1.0", "nf/nf.uxdp", "a" * 64, "b" * 64)


def record(**changes):
    result = {"name": "nf", "version": "1.0", "path": "nf/nf.uxdp", "bundle_id": "a" * 64, "sha256": "b" * 64}
    result.update(changes)
    return {key: value for key, value in result.items() if value is not ...}


def encoded(*records, **top):
    return json.dumps({"schema": 1, "bundles": list(records), **top}).encode()


def test_parse_index_of_encode_index_returns_entries_sorted_by_name():
    live = IndexEntry("live", "2", "/src/live.uxdp", "c" * 64, "d" * 64, editable=True)
    data = encode_index([ENTRY, live])
    assert parse_index(data, what="index") == (live, ENTRY)
    assert data == encode_index([live, ENTRY])


def test_encode_index_path_out_of_the_site_raises_installed_error():
    with pytest.raises(InstalledError, match="without"):
        encode_index([IndexEntry("nf", "1", "../nf.uxdp", "a" * 64, "b" * 64)])


BAD = {
    "not-json": (b"{", "not JSON"),
    "not-utf8": (b'{"schema":"\xff"}', "not UTF-8"),
    "array": (b"[]", "expected an object"),
    "duplicate-key": (b'{"schema":1,"schema":1,"bundles":[]}', "stands twice"),
    "float": (b'{"schema":1.0,"bundles":[]}', "no integer"),
    "nan": (b'{"schema":NaN,"bundles":[]}', "no integer"),
    "deep": (b'{"schema":' + b"[" * 50 + b"]" * 50 + b"}", "nested deeper"),
    "large": (b'{"x":"' + b"a" * MAX_INDEX_BYTES + b'"}', "bytes of JSON"),
    "no-schema": (b'{"bundles":[]}', "'schema' is missing"),
    "boolean-schema": (encoded(schema=True), "this version reads 1"),
    "new-schema": (encoded(schema=2), "this version reads 1"),
    "unknown-top-key": (encoded(extra=1), "unknown key 'extra'"),
    "bundles-object": (encoded(bundles={}), "expected an array"),
    "many-bundles": (encoded(*[record()] * (MAX_BUNDLES + 1)), "at most 256"),
    "bundle-string": (encoded("nf"), "expected an object"),
    "missing-key": (encoded(record(sha256=...)), "'sha256' is missing"),
    "unknown-key": (encoded(record(run="setup.py")), "unknown key 'run'"),
    "name-number": (encoded(record(name=1)), "expected a string"),
    "name-path": (encoded(record(name="../nf")), "does not match"),
    "name-escape": (encoded(record(name="\x1b[2J")), "does not match"),
    "version-empty": (encoded(record(version="")), "does not match"),
    "short-digest": (encoded(record(sha256="b" * 63)), "does not match"),
    "upper-digest": (encoded(record(bundle_id="A" * 64)), "does not match"),
    "path-number": (encoded(record(path=7)), "expected a string"),
    "path-empty": (encoded(record(path="")), "without"),
    "path-absolute": (encoded(record(path="/etc/nf.uxdp")), "relative to the site"),
    "path-parent": (encoded(record(path="nf/../../nf.uxdp")), "without"),
    "path-dot": (encoded(record(path="./nf.uxdp")), "without"),
    "path-empty-part": (encoded(record(path="nf//nf.uxdp")), "without"),
    "path-backslash": (encoded(record(path="nf\\nf.uxdp")), "without"),
    "path-null": (encoded(record(path="nf\0.uxdp")), "printable"),
    "path-long": (encoded(record(path="a" * 1100 + ".uxdp")), "printable"),
    "path-suffix": (encoded(record(path="nf/nf.py")), "expected a .uxdp file"),
    "editable-false": (encoded(record(editable=False)), "expected true"),
    "editable-one": (encoded(record(editable=1)), "expected true"),
    "editable-relative": (encoded(record(editable=True)), "expected an absolute path"),
    "editable-parent": (encoded(record(editable=True, path="/a/../nf.uxdp")), "without"),
    "editable-two-slashes": (encoded(record(editable=True, path="//nf.uxdp")), "without"),
    "same-name-twice": (encoded(record(), record(path="nf/other.uxdp")), "stands twice"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD.keys())
def test_parse_index_hostile_raises_installed_error(data, message):
    with pytest.raises(InstalledError, match=message) as caught:
        parse_index(data, what="index.json")
    assert caught.value.context.startswith("index.json")
