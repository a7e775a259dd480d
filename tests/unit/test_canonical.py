import json

import pytest

from uxdp_bundle import canonical
from uxdp_bundle.errors import BundleFormatError, KeyFileError


def loads(data: bytes, max_bytes: int = 1 << 20):
    return canonical.loads(data, what="thing", max_bytes=max_bytes)


def test_dumps_sorts_keys_by_code_point_and_writes_no_white_space():
    # U+10000 is a surrogate pair in UTF-16, which would sort before U+FFFF.
    assert canonical.dumps({"\U00010000": 1, "\uffff": 2, "a": {"z": [], "b": {}}, "B": [1, 2]}) == (
        '{"B":[1,2],"a":{"b":{},"z":[]},"\uffff":2,"\U00010000":1}'.encode()
    )


def test_dumps_escapes_only_what_json_demands():
    text = "".join(map(chr, range(0x20))) + '"\\/\x7f\x80\u2028é€😀'
    escaped = "".join(f"\\u{code:04x}" for code in range(8))
    escaped += "\\b\\t\\n\\u000b\\f\\r" + "".join(f"\\u{code:04x}" for code in range(0x0E, 0x20))
    assert canonical.dumps({"t": text}) == f'{{"t":"{escaped}\\"\\\\/\x7f\x80\u2028é€😀"}}'.encode()


@pytest.mark.parametrize("value", [0, -1, canonical.MIN_INTEGER, canonical.MAX_INTEGER])
def test_loads_integer_of_64_bits_gives_it(value):
    assert loads(b'{"i":%d}' % value) == {"i": value}


def test_loads_free_order_and_white_space_gives_the_object():
    assert loads(b' {"b" : true ,\n "a":[null,\t"\\u00e9\\/"]} ') == {"b": True, "a": [None, "é/"]}


def test_loads_deepest_nesting_gives_the_object():
    value = loads(b'{"a":' * canonical.MAX_DEPTH + b"1" + b"}" * canonical.MAX_DEPTH)
    assert json.dumps(value).count("{") == canonical.MAX_DEPTH


def test_loads_brackets_inside_of_strings_are_no_nesting():
    text = '[{\\"' * 40
    assert loads(f'{{"a":"{text}"}}'.encode()) == {"a": '[{"' * 40}


def test_loads_integer_key_that_looks_twice_is_two_keys():
    assert loads(b'{"a":1,"A":2}') == {"a": 1, "A": 2}


@pytest.mark.parametrize(
    ("data", "fragment"),
    [
        pytest.param(b"", "not JSON", id="empty"),
        pytest.param(b"{", "not JSON", id="cut-off"),
        pytest.param(b"{}x", "Extra data at character 2", id="trailing"),
        pytest.param(b"{} {}", "Extra data", id="two-documents"),
        pytest.param(b'{"a":1,}', "not JSON", id="trailing-comma"),
        pytest.param(b"{'a':1}", "not JSON", id="single-quotes"),
        pytest.param(b"[]", "a JSON list, expected an object", id="array"),
        pytest.param(b'"a"', "a JSON str", id="string"),
        pytest.param(b"null", "a JSON NoneType", id="null"),
        pytest.param(b'{"a":1,"a":1}', "'a' stands twice", id="duplicate-key"),
        pytest.param(b'{"b":{"a":1,"\\u0061":2}}', "'a' stands twice", id="duplicate-key-by-escape"),
        pytest.param(b'{"a":NaN}', "NaN is no integer", id="nan"),
        pytest.param(b'{"a":Infinity}', "Infinity is no integer", id="infinity"),
        pytest.param(b'{"a":-Infinity}', "-Infinity is no integer", id="minus-infinity"),
        pytest.param(b'{"a":1.0}', "1.0 is no integer", id="float"),
        pytest.param(b'{"a":1e3}', "1e3 is no integer", id="exponent"),
        pytest.param(b'{"a":1e999}', "1e999 is no integer", id="float-overflow"),
        pytest.param(b'{"a":01}', "not JSON", id="leading-zero"),
        pytest.param(b'{"a":+1}', "not JSON", id="plus"),
        pytest.param(b'{"a":18446744073709551616}', "does not fit 64 bits", id="over-u64"),
        pytest.param(b'{"a":-9223372036854775809}', "does not fit 64 bits", id="under-s64"),
        pytest.param(b'{"a":' + b"9" * 10000 + b"}", "999 does not fit 64 bits", id="more-digits-than-int-takes"),
        pytest.param(b'{"a":' * 17 + b"1" + b"}" * 17, "deeper than 16", id="deep-objects"),
        pytest.param(b'{"a":' + b"[" * 100_000, "deeper than 16", id="deep-arrays"),
        pytest.param(b'{"a":"\xff"}', "not UTF-8 at byte 6", id="invalid-utf8"),
        pytest.param(b'{"a":"\xc0\x80"}', "not UTF-8 at byte 6", id="overlong-utf8"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', "not UTF-8 at byte 6", id="surrogate-in-utf8"),
        pytest.param(b'{"a":"\\ud800"}', "lone surrogate", id="lone-surrogate"),
        pytest.param(b'{"\\udfff":1}', "lone surrogate", id="lone-surrogate-in-key"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', "not JSON", id="byte-order-mark"),
        pytest.param('{"a":1}'.encode("utf-16"), "not UTF-8", id="utf-16"),
        pytest.param(b'{"a":"\n"}', "not JSON", id="control-character"),
        pytest.param(b'{"a":"\x00"}', "not JSON", id="zero-byte"),
        pytest.param(b'{"a":tru}', "not JSON", id="misspelt-literal"),
    ],
)
def test_loads_defect_raises_with_its_context(data, fragment):
    with pytest.raises(BundleFormatError) as caught:
        loads(data)
    assert caught.value.context == "thing"
    assert fragment in caught.value.message
    assert len(caught.value.message) < 200


def test_loads_paired_surrogate_escapes_give_one_character():
    assert loads(b'{"a":"\\ud83d\\ude00"}') == {"a": "😀"}


def test_loads_too_long_raises_before_parsing():
    assert loads(b"{}", max_bytes=2) == {}
    with pytest.raises(BundleFormatError, match="3 bytes of JSON, at most 2 allowed"):
        loads(b"\xff\xff\xff", max_bytes=2)


def test_loads_raises_the_error_that_was_asked_for():
    with pytest.raises(KeyFileError) as caught:
        canonical.loads(b"\xff", what="state", max_bytes=10, error=KeyFileError)
    assert isinstance(caught.value.__cause__, UnicodeDecodeError)


def test_loads_canonical_canonical_bytes_give_the_object():
    value = {"name": "é", "values": [1, {"a": None}]}
    assert canonical.loads_canonical(canonical.dumps(value), what="thing", max_bytes=100) == value


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"a": 1}', id="space"),
        pytest.param(b'{"a":1}\n', id="newline"),
        pytest.param(b'{"b":1,"a":1}', id="unsorted"),
        pytest.param(b'{"a":-0}', id="minus-zero"),
        pytest.param(b'{"a":"\\u00e9"}', id="escape-that-is-not-needed"),
        pytest.param(b'{"a":"\\/"}', id="escaped-slash"),
        pytest.param(b'{"a":"\\u000A"}', id="upper-case-escape"),
        pytest.param(b'{"a":"\\u0008"}', id="long-escape"),
        pytest.param(b'{"a":"\\u007f"}', id="escaped-delete"),
    ],
)
def test_loads_canonical_other_form_raises(data):
    with pytest.raises(BundleFormatError, match="not in canonical form"):
        canonical.loads_canonical(data, what="thing", max_bytes=100)
