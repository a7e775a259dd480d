import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.elf_forge import btf, btf_type
from tests.unit.facts_fixtures import HEADER, SOURCES, clang
from uxdp_bundle.btf import Btf, Kind
from uxdp_bundle.errors import ObjectError
from uxdp_runtime import map_text
from uxdp_runtime.map_layout import Image, Layout, Notation
from uxdp_runtime.map_values import MapCodec, MapValueError, _Layouts

CODECS = MapCodec.for_object(clang(SOURCES["map_value_types"].read_text()))
SHAPES, SERVICES, PER_CPU, LISTS = (CODECS[name] for name in ("shapes", "services", "per_cpu", "per_cpu_lists"))
NAMES, UNTYPED, DEVICES, PREFIXES = (CODECS[name] for name in ("names", "untyped", "devices", "prefixes"))
LOAD_BALANCER = MapCodec.for_object(clang(SOURCES["load_balancer"].read_text()))
FIREWALL = MapCodec.for_object(clang(SOURCES["firewall"].read_text()))

MAC = b"\2\0\0\0\0\xfe"
VIP = {"addr": "198.51.100.10", "port": 80, "proto": 6}
VIP_BYTES = bytes((198, 51, 100, 10, 0, 80, 6, 0))


def decoded(**members: Any) -> Any:
    """Return a value of the map shapes after encoding and decoding some of its members."""
    return SHAPES.decode(SHAPES.encode(members))


# --- numbers and names


@pytest.mark.parametrize(
    ("member", "value", "content"),
    [
        ("s64", -2, struct.pack("<q", -2)),
        ("u64", 2**64 - 1, b"\xff" * 8),
        ("u64", "0x10", b"\x10".ljust(8, b"\0")),
        ("u64", " 16 ", b"\x10".ljust(8, b"\0")),
        ("u64", "01 02 03 04 05 06 07 08", b"\1\2\3\4\5\6\7\x08"),
        ("u64", ["0x01"] * 8, b"\1" * 8),
        ("s16", -32768, b"\0\x80"),
        ("port", 80, b"\0\x50"),
        ("port", "0x0050", b"\0\x50"),
        ("port", "00 50", b"\0\x50"),
        ("flag", True, b"\1"),
        ("flag", 0, b"\0"),
        ("c", -1, b"\xff"),
        ("name", "hello", b"hello".ljust(16, b"\0")),
        ("name", "aa bb", b"aa bb".ljust(16, b"\0")),
        ("name", "0x" + "41" * 7, b"0x41414141414141"),
        ("name", [104, 105, *[0] * 14], b"hi".ljust(16, b"\0")),
        ("schars", [-1, 1, 2, 3], b"\xff\1\2\3"),
        ("schars", "10.0.0.1", b"\x0a\0\0\1"),
        ("mac", "02:00:00:00:00:fe", MAC),
        ("mac", "02-00-00-00-00-FE", MAC),
        ("mac", "02 00 00 00 00 fe", MAC),
        ("mac", "0x0200000000fe", MAC),
        ("mac", [2, 0, 0, 0, 0, 254], MAC),
        ("mac", ["0x02", "0x0", "0x0", "0x0", "0x0", "0xfe"], MAC),
        ("color", "GREEN", struct.pack("<i", 7)),
        ("color", -2, struct.pack("<i", -2)),
        ("color", "-2", struct.pack("<i", -2)),
        ("color", "07 00 00 00", struct.pack("<i", 7)),
        ("wide", "HUGE", struct.pack("<Q", 0x123456789A)),
        ("addr", {"v4": "10.0.0.1"}, b"\x0a\0\0\1"),
        ("addr", {"v4": 0x0A000001}, b"\x0a\0\0\1"),
        ("addr", "2001:db8::1", b"\x20\1\x0d\xb8" + bytes(11) + b"\1"),
        ("addr", {"v6": "::ffff:10.0.0.1"}, bytes(10) + b"\xff\xff\x0a\0\0\1"),
        ("addr", "0x" + "ab" * 16, b"\xab" * 16),
        ("gateways", ["10.0.0.1", 0x0A000002], b"\x0a\0\0\1\x0a\0\0\2"),
        ("cookie", 1, b"\0\0\0\0\0\0\0\1"),
        ("pointer", 2**64 - 1, b"\xff" * 8),
        ("big", -1, b"\xff" * 16),
        ("big", "0x" + "f" * 32, b"\xff" * 16),
        ("unsigned_big", 2**127, bytes(15) + b"\x80"),
        ("nested", {"a": 1, "b": -1}, b"\1\0\xff"),
        ("nested", "01 00 ff 00", b"\1\0\xff\0"),
        ("nested", "0x0100ff00", b"\1\0\xff\0"),
        ("grid", [[{"a": 1}, {"a": 2}, {}], [{}, {}, {"b": 3}]], b"\1\0\0\0\2\0" + bytes(16) + b"\3"),
        ("colors", ["GREEN", 0], struct.pack("<ii", 7, 0)),
        ("word", 0x01020304, b"\4\3\2\1"),
        ("parts", [4, 3, 2, 1], b"\4\3\2\1"),
        ("x", 5, b"\5\0\0\0"),
        ("rest", [], b""),
        ("nothing", {}, b""),
    ],
)
def test_encode_puts_a_member_where_the_compiler_has_it(member, value, content):
    at, _layout = SHAPES.value.members[member]  # type: ignore[attr-defined]
    image = SHAPES.encode({member: value})
    assert image[at : at + len(content)] == content
    assert not any(image[:at]) and not any(image[at + len(content) :])


@pytest.mark.parametrize(
    ("member", "value", "seen"),
    [
        ("port", 0x1234, 0x1234),
        ("color", 7, "GREEN"),
        ("color", 3, 3),
        ("colors", [-2, 0], ["BLUE", "RED"]),
        ("big", -1, "0x" + "f" * 32),
        ("big", "0x7", "0x7"),
        ("low", 7, 7),
        ("mid", 8191, 8191),
        ("signed_bits", -16, -16),
        ("wide_bits", 2**40 - 1, 2**40 - 1),
        ("name", "x" * 15, "x" * 15),
        ("name", "x" * 16, [120] * 16),
        ("name", "é", [-61, -87, *[0] * 14]),
        ("letters", [97, 98, 0, 0], [97, 98, 0, 0]),
        ("gateways", [1, 2], [1, 2]),
        ("x", 3, 3),
    ],
)
def test_decode_gives_back_what_was_encoded(member, value, seen):
    assert decoded(**{member: value})[member] == seen


def test_decode_text_with_something_behind_it_is_a_list_so_that_nothing_is_lost():
    assert decoded(name=[104, 105, 0, 1, *[0] * 12])["name"] == [104, 105, 0, 1, *[0] * 12]


def test_decode_unions_show_all_members_and_anonymous_ones_stand_outside():
    value = decoded(word=0x01020304)
    assert (value["word"], value["parts"]) == (0x01020304, [4, 3, 2, 1])
    assert "" not in value
    assert decoded(addr={"v4": 0x01020304})["addr"]["v6"]["in6_u"]["u6_addr8"][:4] == [1, 2, 3, 4]


def test_decode_is_json():
    for codec in CODECS.values():
        for notation in Notation:
            value = codec.value.decode(bytes(range(256))[: codec.value.size], 0, notation)
            assert json.loads(json.dumps(value)) == value


def test_notation_addresses_writes_addresses_as_people_do():
    value = SHAPES.decode(
        SHAPES.encode({"addr": "2001:db8::1", "gateways": ["10.0.0.1", 0], "mac": MAC.hex(" ")}),
        notation=Notation.ADDRESSES,
    )
    assert (value["addr"]["v6"], value["gateways"], value["mac"]) == (
        "2001:db8::1",
        ["10.0.0.1", "0.0.0.0"],
        "02:00:00:00:00:fe",
    )
    assert SERVICES.decode_key(VIP_BYTES, notation=Notation.ADDRESSES) == VIP | {"zero": 0}
    assert LOAD_BALANCER["reals"].decode(b"\x0a\0\0\x0b", notation=Notation.ADDRESSES) == "10.0.0.11"


def test_notation_bpftool_reads_numbers_as_this_machine_does():
    assert SERVICES.decode_key(VIP_BYTES, notation=Notation.BPFTOOL) == {
        "addr": 174339014,
        "port": 20480,
        "proto": 6,
        "zero": 0,
    }
    value = SHAPES.decode(SHAPES.encode({"signed_bits": -1, "low": 5}), notation=Notation.BPFTOOL)
    assert (value["signed_bits"], value["low"]) == ("0x1f", "0x5")
    assert SERVICES.encode_key({"addr": 174339014, "port": 20480, "proto": 6}, notation=Notation.BPFTOOL) == VIP_BYTES


# --- errors


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ({"u64": -1}, "value.u64", "-1, expected a whole number 0..18446744073709551615"),
        ({"u64": 2**64}, "value.u64", "expected a whole number"),
        ({"u64": 1.0}, "value.u64", "1.0, expected a whole number"),
        ({"u64": True}, "value.u64", "True, expected a whole number"),
        ({"u64": None}, "value.u64", "None, expected a whole number"),
        ({"u64": "ten"}, "value.u64", "'ten', expected a whole number"),
        ({"u64": "1 0"}, "value.u64", "'1 0', expected"),
        ({"u64": "10.0.0.1"}, "value.u64", "expected a whole number"),
        ({"u64": "0x" + "1" * 5000}, "value.u64", "expected a whole number"),
        ({"s16": 32768}, "value.s16", "32768, expected a whole number -32768..32767"),
        ({"port": 65536}, "value.port", "65536, expected a whole number 0..65535"),
        ({"flag": 2}, "value.flag", "2, expected true or false"),
        ({"flag": "yes"}, "value.flag", "'yes', expected true or false"),
        ({"low": 8}, "value.low", "8, expected a whole number 0..7"),
        ({"low": True}, "value.low", "True, expected a whole number 0..7"),
        ({"signed_bits": 16}, "value.signed_bits", "16, expected a whole number -16..15"),
        ({"color": "PINK"}, "value.color", "'PINK', expected a number or one of: RED, GREEN, BLUE"),
        ({"color": 2**31}, "value.color", "expected a whole number"),
        ({"name": "x" * 17}, "value.name", "expected text of at most 16 bytes"),
        ({"mac": [1, 2]}, "value.mac", "2 elements, expected a list of 6 elements or 6 bytes as hex"),
        ({"mac": "02:00:00:00:00"}, "value.mac", "expected a list of 6 elements"),
        ({"mac": [1, 2, 3, 4, 5, 256]}, "value.mac[5]", "256, expected a whole number 0..255"),
        ({"grid": [[{}, {}, {"b": 128}], [{}] * 3]}, "value.grid[0][2].b", "128, expected a whole number -128..127"),
        ({"grid": [[{}, {}, {"c": 1}], [{}] * 3]}, "value.grid[0][2]", "'c', expected one of the members a, b"),
        ({"nested": 5}, "value.nested", "5, expected an object with a, b, or 4 bytes as hex"),
        ({"nested": {"a": {}}}, "value.nested.a", "expected a whole number"),
        ({"addr": {"v6": {"in6_u": {"u6_addr8": "::1/128"}}}}, "value.addr.v6.in6_u.u6_addr8", "'::1/128', expected"),
        ({"addr": "fe80::1%eth0"}, "value.addr", "expected an object with v4, v6"),
        ({"addr": "10.0.0.1"}, "value.addr", "expected an object with v4, v6, or 16 bytes as hex"),
        ({"word": 1, "parts": [2, 0, 0, 0]}, "value.parts[0]", "expected the same as another member of the union says"),
        ({"nope": 1}, "value", "'nope', expected one of the members s64, u64"),
        ({5: 1}, "value", "5, expected one of the members"),
        ({"nothing": {"a": 1}}, "value.nothing", "'a', expected an empty object"),
        ({"rest": [1]}, "value.rest", "expected a list of 0 elements"),
        ([1], "value", "expected an object"),
        ("", "value", "expected an object"),
        (None, "value", "expected an object"),
    ],
)
def test_encode_refuses_value(value, path, message):
    with pytest.raises(MapValueError) as caught:
        SHAPES.encode(value)
    error = caught.value
    assert error.path == path
    assert message in str(error)
    assert str(error).startswith(f"map shapes, {path}: ")
    assert (error.map_name, error.exit_code) == ("shapes", 2)
    assert str(error).endswith(f"{error.seen}, expected {error.wanted}")
    assert len(str(error)) < 600


def test_encode_error_says_where_the_value_came_from():
    with pytest.raises(MapValueError) as caught:
        SERVICES.encode_key({"port": -1})
    assert str(caught.value.at("maps.json", "[3]")) == (
        "maps.json: map services, [3].key.port: -1, expected a whole number 0..65535"
    )


@pytest.mark.parametrize("size", [0, 7, 9])
def test_decode_refuses_other_lengths(size):
    with pytest.raises(MapValueError, match=f"map services, key: {size} bytes, expected 8"):
        SERVICES.decode_key(bytes(size))
    with pytest.raises(MapValueError, match=f"map services, value: {size} bytes, expected 4"):
        SERVICES.decode(bytes(size))


def test_union_members_that_agree_may_be_given_together():
    assert decoded(word=0x01020304, parts=[4, 3, 2, 1])["word"] == 0x01020304
    assert decoded(parts=[4, 3, 2, 1], word=0x01020304)["word"] == 0x01020304


# --- keys, per-CPU values, maps without types


def test_encode_key_of_service_is_what_the_program_looks_up():
    assert SERVICES.encode_key(VIP) == VIP_BYTES
    assert SERVICES.encode_key(VIP_BYTES.hex(" ")) == VIP_BYTES
    assert SERVICES.encode_key(map_text.as_hex_list(VIP_BYTES)) == VIP_BYTES


@pytest.mark.parametrize(
    ("codec", "text", "key"),
    [
        (FIREWALL["rules4"], "10.1.2.0/24", b"\x18\0\0\0\x0a\1\2\0"),
        (FIREWALL["rules4"], "10.1.2.3", b"\x20\0\0\0\x0a\1\2\3"),
        (FIREWALL["rules4"], "10.1.2.3/8", b"\x08\0\0\0\x0a\1\2\3"),
        (FIREWALL["rules4"], "0.0.0.0/0", bytes(8)),
        (FIREWALL["rules4"], {"prefixlen": 8, "addr": "10.0.0.0"}, b"\x08\0\0\0\x0a\0\0\0"),
        (PREFIXES, "2001:db8::/32", b"\x20\0\0\0\x20\1\x0d\xb8" + bytes(12)),
    ],
)
def test_encode_key_of_trie_takes_prefixes(codec, text, key):
    if text == "10.1.2.3":
        with pytest.raises(MapValueError):  # an address says nothing of a length
            codec.encode_key(text)
    else:
        assert codec.encode_key(text) == key


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.0/8", "x/8", "2001:db8::/32/1", "fe80::%1/64"])
def test_encode_key_of_trie_refuses_other_prefixes(text):
    with pytest.raises(MapValueError, match="map prefixes, key: "):
        PREFIXES.encode_key(text)


@pytest.mark.parametrize(
    ("value", "first", "second"),
    [
        ({"a": 1}, b"\1\0\0\0", b"\1\0\0\0"),
        ([{"a": 1}, {"b": 2}], b"\1\0\0\0", b"\0\0\2\0"),
        ([{"cpu": 1, "value": {"a": 1}}], bytes(4), b"\1\0\0\0"),
        ([{"cpu": 1, "value": {"a": 1}}, {"cpu": 0, "value": {"a": 2}}], b"\2\0\0\0", b"\1\0\0\0"),
        (["0x01", "0x02", "0x03", "0x04"], b"\1\2\3\4", b"\1\2\3\4"),
        ([["0x01", "0x02", "0x03", "0x04"], {}], b"\1\2\3\4", bytes(4)),
        ("01 02 03 04", b"\1\2\3\4", b"\1\2\3\4"),
    ],
)
def test_encode_per_cpu_values(value, first, second):
    assert PER_CPU.encode(value, cpus=2) == first + bytes(4) + second + bytes(4)


def test_encode_per_cpu_array_values_are_told_apart_by_cpu_alone():
    assert LISTS.encode([1, 2], cpus=2) == b"\1\0\2\0\0\0\0\0" * 2
    assert LISTS.encode([{"cpu": 0, "value": [1, 2]}], cpus=2) == b"\1\0\2\0" + bytes(12)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([{}] * 3, "value: values of 3 CPUs, expected those of 2, or one value for all"),
        ([], "value: values of 0 CPUs"),
        ([{"cpu": 2, "value": {}}], "value, cpu: 2, expected 0..1"),
        ([{"cpu": "0", "value": {}}], "value, cpu: '0', expected 0..1"),
        ([{}, {"a": -1}], r"value\[1\].a: -1, expected"),
        (5, r"value\[0\]: 5, expected an object"),
    ],
)
def test_encode_per_cpu_refuses(value, message):
    with pytest.raises(MapValueError, match=message):
        PER_CPU.encode(value, cpus=2)


def test_decode_per_cpu_values():
    data = b"\1\0\0\0" + bytes(4) + b"\0\0\2\0" + bytes(4)
    value = PER_CPU.decode(data)
    assert value == [{"cpu": 0, "value": {"a": 1, "b": 0}}, {"cpu": 1, "value": {"a": 0, "b": 2}}]
    assert PER_CPU.encode(value, cpus=2) == data
    with pytest.raises(MapValueError, match="12 bytes, expected 8 for each CPU"):
        PER_CPU.decode(bytes(12))
    with pytest.raises(MapValueError, match="0 bytes, expected 8 for each CPU"):
        PER_CPU.decode(b"")


def test_untyped_maps_are_hex():
    for value in ("61 62 63", "0x616263", ["0x61", "0x62", "0x63"]):
        assert UNTYPED.encode_key(value) == b"abc"
    assert UNTYPED.decode(b"12345") == ["0x31", "0x32", "0x33", "0x34", "0x35"]
    with pytest.raises(MapValueError, match="5, expected 3 bytes as hex, since there is no BTF that describes them"):
        UNTYPED.encode_key(5)
    assert not UNTYPED.is_typed


def test_untyped_indices_and_targets_are_numbers():
    assert DEVICES.encode_key(1) == b"\1\0\0\0"
    assert DEVICES.encode("2") == b"\2\0\0\0"
    assert DEVICES.decode(b"\2\0\0\0") == 2


def test_maps_without_keys_take_no_elements():
    with pytest.raises(MapValueError, match="a map of type ringbuf, expected a map with keys"):
        CODECS["events"].encode_key(0)


def test_global_data_keeps_what_is_not_given():
    rodata, data, bss = CODECS[".rodata"], CODECS[".data"], CODECS[".bss"]
    assert rodata.decode(rodata.initial) == {"seed": 5, "label": "hello", "magic": 0x1122334455667788}
    assert rodata.decode(rodata.encode({"seed": 7}))["label"] == "hello"
    assert rodata.encode({".rodata": [{"seed": 7}, {"label": "x"}]}) == rodata.encode({"seed": 7, "label": "x"})
    assert rodata.decode(rodata.initial, notation=Notation.BPFTOOL) == {
        ".rodata": [{"seed": 5}, {"label": "hello"}, {"magic": 0x1122334455667788}]
    }
    assert data.decode(data.initial, notation=Notation.ADDRESSES) == {
        "fallback": {"addr": "10.0.0.1", "port": 80, "proto": 6, "zero": 0},
        "counter": 9,
    }
    assert data.decode(data.encode({"fallback": {"port": 81}}))["fallback"]["addr"] == 0x0A000001
    assert bss.decode(bss.initial) == {"total": 0}
    assert (rodata.encode_key(0), rodata.is_global_data, SHAPES.is_global_data) == (bytes(4), True, False)
    with pytest.raises(MapValueError, match="'nope', expected one of the members seed, label, magic"):
        rodata.encode({"nope": 1})


def test_for_object_has_a_codec_for_every_map_of_every_program():
    for source in SOURCES.values():
        for codec in MapCodec.for_object(clang(source.read_text())).values():
            assert codec.key.size == codec.definition.key_size
            assert codec.value.size == codec.definition.value_size
            assert len(codec.initial) == codec.definition.value_size
            value = codec.value.decode(codec.initial, 0, Notation.NETWORK)
            assert codec.encode(value, cpus=1)[: codec.value.size] == codec.initial


def test_for_object_without_debugging_information_of_data():
    source = HEADER + "int counter; int other = 5;" + 'SEC("xdp") int f(struct xdp_md *c) { return counter++ + other; }'
    codecs = MapCodec.for_object(clang(source, "-g0"))
    assert codecs[".bss"].decode(bytes(4)) == ["0x00"] * 4
    assert not codecs[".bss"].is_typed


# --- round trips


def json_values() -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    names = st.sampled_from(["a", "b", "addr", "v6", "cpu", "value", "", "color", "mac"])
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner), max_leaves=8
    )


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(CODECS)), st.data(), st.sampled_from(list(Notation)))
def test_bytes_survive_decoding_and_encoding(name, data, notation):
    """Once padding, which values do not show, is zero, nothing is lost."""
    codec = CODECS[name]
    for side, layout in (("key", codec.key), ("value", codec.value)):
        content = data.draw(st.binary(min_size=layout.size, max_size=layout.size))
        first = image_of(layout, layout.decode(content, 0, notation), notation)
        again = image_of(layout, layout.decode(first, 0, notation), notation)
        assert first == again, side
        assert layout.decode(content, 0, notation) == layout.decode(first, 0, notation)


def image_of(layout: Layout, value: Any, notation: Notation) -> bytes:
    image = Image(bytes(layout.size))
    layout.encode(image, 0, value, notation)
    return bytes(image.data)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 65535), st.integers(0, 255), st.sampled_from(list(Notation)))
def test_values_survive_encoding_and_decoding(addr, port, proto, notation):
    value = {"addr": addr, "port": port, "proto": proto, "zero": 0}
    content = SERVICES.encode_key(value, notation=notation)
    expected = value | (
        {"addr": map_text.as_address(addr.to_bytes(4, "big"))} if notation is Notation.ADDRESSES else {}
    )
    assert SERVICES.decode_key(content, notation=notation) == expected


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(CODECS)), json_values(), st.integers(1, 3), st.sampled_from(list(Notation)))
def test_any_value_is_encoded_or_refused(name, value, cpus, notation):
    codec = CODECS[name]
    for encode in (codec.encode_key, lambda v, **o: codec.encode(v, cpus=cpus, **o)):
        try:
            content = encode(value, notation=notation)
        except MapValueError as error:
            assert error.map_name == name
        else:
            assert len(content) in (codec.key.size, codec.value.size, len(codec.encode(codec_zero(codec), cpus=cpus)))


def codec_zero(codec: MapCodec) -> Any:
    return map_text.as_hex_list(bytes(codec.value.size))


@given(st.text(max_size=40), st.sampled_from([1, 4, 6, 8, 16, 20]))
def test_any_text_is_read_or_not(text, size):
    for read in (map_text.address_or_bytes, map_text.hex_digits, map_text.prefix):
        content = read(text, size)
        assert content is None or len(content) == size
    assert map_text.number(text) is None or int(map_text.number(text) or 0) == map_text.number(text)


@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16))
def test_addresses_survive(data):
    assert map_text.address_or_bytes(map_text.as_address(data), len(data)) == data


# --- hostile BTF

STRINGS = b"\0one\0two\0six\0ten\0"  # names at 1, 5, 9 and 13
INT = btf_type(1, Kind.INT, 4, (32,))


def layouts_of(*types: bytes) -> _Layouts:
    return _Layouts(Btf(btf(b"".join(types), STRINGS)))


def structure(size: int, *members: tuple[int, int], kind: Kind = Kind.STRUCT) -> bytes:
    extra = tuple(word for i, (type_id, bit) in enumerate(members) for word in (1 + 4 * i, type_id, bit))
    return btf_type(1, kind, size, extra, vlen=len(members))


def test_layout_of_structure_that_holds_itself_is_refused():
    with pytest.raises(ObjectError, match="types within types, more than 64 deep"):
        layouts_of(structure(4, (1, 0))).get(1)


def test_layout_of_arrays_that_hold_each_other_is_refused():
    types = btf_type(0, Kind.ARRAY, 0, (2, 1, 1)), btf_type(0, Kind.ARRAY, 0, (1, 1, 1))
    with pytest.raises(ObjectError):
        layouts_of(*types).get(1)


@pytest.mark.parametrize("members", [((1, 8),), ((1, 40),), ((1, 3),)], ids=["partly-behind", "behind", "unaligned"])
def test_layout_of_member_outside_of_its_structure_is_refused(members):
    with pytest.raises(ObjectError, match="member 'one' at bit"):
        layouts_of(INT, structure(4, *members)).get(2)


def test_layout_of_unions_that_multiply_is_refused():
    unions = [structure(4, *[(i, 0)] * 4, kind=Kind.UNION) for i in range(1, 12)]
    with pytest.raises(ObjectError, match="values in 4 bytes"):
        layouts_of(INT, *unions).get(12)


def test_layout_of_endless_array_of_nothing_is_refused():
    nothing, many = structure(0), btf_type(0, Kind.ARRAY, 0, (1, 1, 2**32 - 1))
    with pytest.raises(ObjectError, match="values in 0 bytes"):
        layouts_of(nothing, many).get(2)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [(4, 0xD), (4 << 16 | 4, 0xC), (1 << 24 | 4 << 16 | 4, -4), (3 << 24 | 8, None), (0, None), (33, None)],
)
def test_layout_of_integers_with_bits_of_their_own(extra, expected):
    layout = layouts_of(btf_type(1, Kind.INT, 4, (extra,))).get(1)
    value = layout.decode(b"\xcd\0\0\0", 0, Notation.NETWORK)
    assert value == expected if expected is not None else value in (["0xcd", "0x00", "0x00", "0x00"], -51)
