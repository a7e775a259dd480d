import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.facts_fixtures import SOURCES, clang
from uxdp_runtime import map_text
from uxdp_runtime.bpf.cpus import num_possible_cpus
from uxdp_runtime.map_file import MapFileError, dump, load, load_text, parse_assignment, read_map_file
from uxdp_runtime.map_layout import Notation
from uxdp_runtime.map_values import MapCodec, MapValueError

OBJECT = clang(SOURCES["map_value_types"].read_text())
CODECS = MapCodec.for_object(OBJECT)
LOAD_BALANCER = MapCodec.for_object(clang(SOURCES["load_balancer"].read_text()))
FIREWALL = MapCodec.for_object(clang(SOURCES["firewall"].read_text()))
VIP = bytes((198, 51, 100, 10, 0, 80, 6, 0))


def u32(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in numbers)


def loaded(document: Any, codecs: dict[str, MapCodec] = CODECS, cpus: int = 2) -> dict[str, list[tuple[bytes, bytes]]]:
    return load_text(json.dumps(document), codecs, cpus=cpus, source="maps.json")


# What bpftool 7.1 printed for maps of these types, bytes and "formatted"; "" are anonymous members.
BPFTOOL_SERVICES = """[{"key":["0xc6","0x33","0x64","0x0a","0x00","0x50","0x06","0x00"],"value":["0x07","0x00","0x00",\
"0x00"],"formatted":{"key":{"addr":174339014,"port":20480,"proto":6,"zero":0},"value":7}}]"""
BPFTOOL_PER_CPU = """[{"key":["0x00","0x00","0x00","0x00"],"values":[{"cpu":0,"value":["0x61","0x62","0x63","0x00"]},\
{"cpu":1,"value":["0x00","0x00","0x00","0x00"]}],"formatted":{"key":0,"values":[{"cpu":0,"value":{"a":25185,"b":99}},\
{"cpu":1,"value":{"a":0,"b":0}}]}}]"""
BPFTOOL_UNTYPED = '[{"key":["0x61","0x62","0x63"],"value":["0x31","0x32","0x33","0x34","0x35"]}]'
BPFTOOL_DEVICES = """[{"key":["0x00","0x00","0x00","0x00"],"value":{"error":"No such file or directory"}},\
{"key":["0x01","0x00","0x00","0x00"],"value":["0x03","0x00","0x00","0x00"]}]"""
BPFTOOL_RODATA = """[{"key":["0x00","0x00","0x00","0x00"],"value":["0x05","0x00","0x00","0x00","0x68","0x69","0x00",\
"0x00","0x00","0x00","0x00","0x00","0x00","0x00","0x00","0x00","0x01","0x00","0x00","0x00","0x00","0x00","0x00","0x00"]\
,"formatted":{"value":{".rodata":[{"seed":5},{"label":"hi"},{"magic":1}]}}}]"""


# --- files


def test_load_text_elements_in_every_form():
    document = {
        "config": {"0": {"gateway_mac": "02:00:00:00:00:fe", "local_addr": "10.0.0.1"}},
        "vips": [{"key": {"addr": "198.51.100.10", "port": 80, "proto": 6}, "value": {"ring_slots": 2}}],
        "reals": [{"key": 0, "value": "10.0.0.11"}, {"key": "1", "value": ["0x0a", "0x00", "0x00", "0x0c"]}],
        "ring": {"0": 0, "1": 1},
        "vip_stats": [{"key": 1, "values": [{"cpu": 1, "value": {"packets": 7}}]}, {"key": 2, "value": {"packets": 3}}],
        ".rodata": [{"value": {"hash_seed": 9}}],
    }
    contents = loaded(document, LOAD_BALANCER)
    stats = bytes(32)
    assert contents == {
        "config": [(u32(0), b"\2\0\0\0\0\xfe" + bytes(6) + b"\x0a\0\0\1")],
        "vips": [(VIP, u32(0, 0, 0, 2))],
        "reals": [(u32(0), b"\x0a\0\0\x0b"), (u32(1), b"\x0a\0\0\x0c")],
        "ring": [(u32(0), u32(0)), (u32(1), u32(1))],
        "vip_stats": [
            (u32(1), bytes(40) + b"\7" + bytes(7) + stats),
            (u32(2), (b"\3" + bytes(7) + stats) * 2),
        ],
        ".rodata": [(u32(0), u32(9, 0) + (30_000_000_000).to_bytes(8, "little"))],
    }


def test_load_text_keys_of_objects_may_be_json_or_text():
    keys = {
        '{"addr": "198.51.100.10", "port": 80, "proto": 6}': 1,
        VIP.hex(" "): 2,
        '["0xc6","0x33","0x64","0x0a","0x00","0x50","0x06","0x00"]': 3,
    }
    assert loaded({"services": keys}) == {"services": [(VIP, u32(1)), (VIP, u32(2)), (VIP, u32(3))]}
    assert loaded({"names": {"RED": "one", '"BLUE"': "two"}}) == {
        "names": [(u32(0), b"one\0\0\0\0\0"), (u32(0xFFFFFFFE), b"two\0\0\0\0\0")]
    }
    assert loaded({"rules4": {"10.0.0.0/8": 1}}, FIREWALL) == {"rules4": [(u32(8) + b"\x0a\0\0\0", u32(1))]}


@pytest.mark.parametrize(
    ("name", "text", "elements"),
    [
        ("services", BPFTOOL_SERVICES, [(VIP, u32(7))]),
        ("per_cpu", BPFTOOL_PER_CPU, [(u32(0), b"abc" + bytes(13))]),
        ("untyped", BPFTOOL_UNTYPED, [(b"abc", b"12345")]),
        ("devices", BPFTOOL_DEVICES, [(u32(1), u32(3))]),
        (".rodata", BPFTOOL_RODATA, [(u32(0), u32(5) + b"hi" + bytes(10) + b"\1" + bytes(7))]),
    ],
)
def test_load_text_reads_what_bpftool_prints(name, text, elements):
    assert load_text(f'{{"{name}": {text}}}', CODECS, cpus=2, source="x") == {name: elements}
    formatted = [{"formatted": item["formatted"]} for item in json.loads(text) if "formatted" in item]
    if formatted:  # for example after jq 'map({formatted})'
        assert loaded({name: formatted}) == {name: elements}


def test_load_text_formatted_of_bpftool_may_have_many_anonymous_members():
    text = '{"shapes":[{"formatted":{"key":{"a":1},"value":{"":{"word":1},"":{"x":2,"y":3},"low":"0x5"}}}]}'
    ((_key, value),) = load_text(text, CODECS, cpus=1, source="x")["shapes"]
    shapes = CODECS["shapes"].decode(value)
    assert (shapes["word"], shapes["parts"], shapes["x"], shapes["y"], shapes["low"]) == (1, [1, 0, 0, 0], 2, 3, 5)


def test_load_text_bytes_count_more_than_what_is_formatted():
    text = BPFTOOL_SERVICES.replace('"proto":6', '"proto":17')
    assert load_text(f'{{"services": {text}}}', CODECS, cpus=1, source="x") == {"services": [(VIP, u32(7))]}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", MapFileError, "maps.json, line 1, column 1: is not JSON: Expecting value"),
        ('{"ring": {\n"0": 1,}}', MapFileError, "maps.json, line 2, column"),
        (b"\xff", MapFileError, "maps.json: is not JSON that can be read: 'utf-8' codec"),
        ("[" * 100_000, MapFileError, "maps.json: is not JSON that can be read: maximum recursion"),
        ('{"ring": {"0": NaN}}', MapFileError, "maps.json: is not JSON that can be read: NaN is no number"),
        ('{"ring": {"0": ' + "1" * 5000 + "}}", MapFileError, "maps.json: is not JSON that can be read: Exceeds"),
        ('{"ring": {"0": 1, "0": 2}}', MapFileError, "the name '0' stands twice in one object"),
        ('{"ring": {}, "ring": {}}', MapFileError, "the name 'ring' stands twice"),
        ("5", MapFileError, "maps.json: 5, expected an object of maps by name"),
        (BPFTOOL_SERVICES, MapFileError, "expected an object of maps by name"),
        (
            '{"rings": {}}',
            MapFileError,
            "maps.json: there is no map 'rings'; the maps are: vips, config, vip_stats, ring",
        ),
        ('{"ring": 5}', MapFileError, "maps.json: map ring: 5, expected a list of elements, or an object of values by"),
        ('{"ring": [5]}', MapFileError, 'maps.json: map ring, [0]: 5, expected {"key": …, "value": …}'),
        ('{"ring": [{"key": 1, "val": 2}]}', MapFileError, "maps.json: map ring, [0]: {"),
        ('{"ring": [{"key": 1}]}', MapFileError, "maps.json: map ring, [0]: has key, expected a key and a value"),
        ('{"ring": [{"value": 1}]}', MapFileError, "maps.json: map ring, [0]: has value, expected a key and a value"),
        ('{"ring": [{}]}', MapFileError, "maps.json: map ring, [0]: has nothing, expected a key and a value"),
        ('{"ring": [{"key": 1, "value": 1, "values": 1}]}', MapFileError, "has key, value, values, expected"),
        ('{"ring": [{"formatted": 1}]}', MapFileError, "maps.json: map ring, [0]: formatted: 1, expected an object"),
        ('{"ring": [{"formatted": {}}]}', MapFileError, "maps.json: map ring, [0]: has nothing, expected"),
        ('{"ring": {"0": 1, "1": -1}}', MapValueError, 'maps.json: map ring, ["1"].value: -1, expected a whole number'),
        ('{"ring": {"x": 1}}', MapValueError, "maps.json: map ring, [\"x\"].key: 'x', expected a whole number"),
        ('{"ring": {"{": 1}}', MapFileError, "maps.json: '{' is not JSON"),
        (
            '{"vips": [{"key": {}, "value": {}}, {"key": {"port": 65536}, "value": {}}]}',
            MapValueError,
            "maps.json: map vips, [1].key.port: 65536, expected a whole number 0..65535",
        ),
        (
            '{"vip_stats": [{"key": 0, "values": [{"cpu": 1, "value": {"packets": "x"}}]}]}',
            MapValueError,
            "maps.json: map vip_stats, [0].value[1].packets: 'x', expected a whole number",
        ),
        (
            '{"reals": [{"key": 0, "value": {"error": "No such file or directory"}}]}',
            MapValueError,
            "[0].value: {'error'",
        ),
        (
            '{"reals": [{"key": ["0x00", "0x00", "0x00", "0x00"], "value": {"error": "Operation not permitted"}}]}',
            MapValueError,
            "maps.json: map reals, [0].value: {'error': 'Operation not permitted'}, expected",
        ),
    ],
)
def test_load_text_refuses(text, error, message):
    with pytest.raises(error) as caught:
        load_text(text, LOAD_BALANCER, cpus=2, source="maps.json")
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_load_text_unknown_map_suggests_the_one_that_was_meant():
    with pytest.raises(MapFileError) as caught:
        loaded({"rings": {}}, LOAD_BALANCER)
    assert caught.value.remedy == "did you mean ring?"


def test_load_reads_a_file_and_names_it(tmp_path):
    path = tmp_path / "maps.json"
    path.write_text('{"ring": {"0": 1}}')
    assert load(path, LOAD_BALANCER, cpus=1) == {"ring": [(u32(0), u32(1))]}
    path.write_text('{"ring": {"0": -1}}')
    with pytest.raises(MapValueError, match=f'^{path}: map ring, \\["0"\\].value: -1, expected'):
        load(path, LOAD_BALANCER, cpus=1)
    with pytest.raises(MapFileError, match="missing: cannot be read: No such file or directory"):
        load(tmp_path / "missing", LOAD_BALANCER, cpus=1)


def test_read_map_file_puts_assignments_behind_the_file(tmp_path):
    path = tmp_path / "maps.json"
    path.write_text('{"per_cpu": {"0": {"a": 1}}}')
    contents = read_map_file(OBJECT, path, ["per_cpu:1={}", "names:RED=red"])
    value = (b"\1" + bytes(7)) * num_possible_cpus()
    assert contents == {
        "per_cpu": [(u32(0), value), (u32(1), bytes(len(value)))],
        "names": [(u32(0), b"red\0\0\0\0\0")],
    }
    assert read_map_file(OBJECT, None, ["per_cpu:1={}"], cpus=3)["per_cpu"] == [(u32(1), bytes(24))]
    assert read_map_file(b"not even read", None) == {}


# --- assignments


@pytest.mark.parametrize(
    ("text", "codecs", "expected"),
    [
        ("ring:0=3", LOAD_BALANCER, ("ring", u32(0), u32(3))),
        (" ring : 0 = 3 ", LOAD_BALANCER, ("ring", u32(0), u32(3))),
        ("ring:0x10=0x20", LOAD_BALANCER, ("ring", u32(16), u32(32))),
        ("reals:0=10.0.0.11", LOAD_BALANCER, ("reals", u32(0), b"\x0a\0\0\x0b")),
        ("reals:0=0a 00 00 0b", LOAD_BALANCER, ("reals", u32(0), b"\x0a\0\0\x0b")),
        ('vips:{"addr":"198.51.100.10","port":80,"proto":6}={"id":5}', LOAD_BALANCER, ("vips", VIP, u32(5, 0, 0, 0))),
        (f"vips:{VIP.hex(' ')}={{}}", LOAD_BALANCER, ("vips", VIP, bytes(16))),
        (f"vips:0x{VIP.hex()}={{}}", LOAD_BALANCER, ("vips", VIP, bytes(16))),
        (
            'config:0={"local_mac":"02:00:00:00:00:01"}',
            LOAD_BALANCER,
            ("config", u32(0), bytes(6) + b"\2\0\0\0\0\1" + bytes(4)),
        ),
        ('.rodata:0={"hash_seed":7}', LOAD_BALANCER, (".rodata", u32(0), None)),
        ("rules4:10.0.0.0/8=1", FIREWALL, ("rules4", u32(8) + b"\x0a\0\0\0", u32(1))),
        ("rules6:2001:db8::/32=1", FIREWALL, ("rules6", u32(32) + b"\x20\1\x0d\xb8" + bytes(12), u32(1))),
        ('counters:0=[{"packets":1},{"packets":2}]', FIREWALL, ("counters", u32(0), None)),
        ("names:GREEN=a=b", CODECS, ("names", u32(7), b"a=b\0\0\0\0\0")),
        ('names:"GREEN"="a b"', CODECS, ("names", u32(7), b"a b\0\0\0\0\0")),
        ("names:GREEN=", CODECS, ("names", u32(7), bytes(8))),
        ("names:GREEN=nan", CODECS, ("names", u32(7), b"nan\0\0\0\0\0")),
        ("untyped:61 62 63=0x3132333435", CODECS, ("untyped", b"abc", b"12345")),
        ('untyped:["0x61","0x62","0x63"]=31 32 33 34 35', CODECS, ("untyped", b"abc", b"12345")),
    ],
)
def test_parse_assignment(text, codecs, expected):
    found = parse_assignment(text, codecs, cpus=2)
    assert found[:2] == expected[:2]
    assert expected[2] is None or found.value == expected[2]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", MapFileError, "'': expected MAP:KEY=VALUE"),
        ("ring", MapFileError, "'ring': expected MAP:KEY=VALUE"),
        (":0=1", MapFileError, "expected MAP:KEY=VALUE"),
        ("ring:0", MapFileError, "expected MAP:KEY=VALUE"),
        ("ring:=0", MapFileError, "expected MAP:KEY=VALUE"),
        ("rink:0=1", MapFileError, "there is no map 'rink'; the maps are: "),
        ('vips:{"port":80={}', MapFileError, "the key is not JSON: "),
        ('vips:{"port":80}', MapFileError, "'' behind the key, expected =VALUE"),
        ('vips:{"port":80}:5={}', MapFileError, "':5={}' behind the key, expected =VALUE"),
        ('vips:{"port":80}={"id":}', MapFileError, "'{\"id\":}' is not JSON: "),
        ("vips:" + "[" * 100_000, MapFileError, "the key is not JSON: maximum recursion"),
        ('vips:{"port":80,"port":81}={}', MapFileError, "the key is not JSON: the name 'port' stands twice"),
        ("ring:0=-1", MapValueError, "'ring:0=-1': map ring, value: -1, expected a whole number 0..4294967295"),
        ("ring:x=1", MapValueError, "'ring:x=1': map ring, key: 'x', expected a whole number"),
        ("ring:0=", MapValueError, "map ring, value: '', expected a whole number"),
        ("ring:0=null", MapValueError, "map ring, value: None, expected a whole number"),
        ("ring:0=1 0 0 0", MapValueError, "map ring, value: '1 0 0 0', expected a whole number"),
    ],
)
def test_parse_assignment_refuses(text, error, message):
    with pytest.raises(error) as caught:
        parse_assignment(text, LOAD_BALANCER, cpus=1)
    assert message in str(caught.value)


@settings(max_examples=500, deadline=None)
@given(
    st.text(alphabet='abcring:=,{}[]"0123456789. \\ux-', max_size=30),
    st.sampled_from(["", "ring:", "vips:{", "ring:0="]),
)
def test_parse_assignment_any_text_is_read_or_refused(text, prefix):
    try:
        found = parse_assignment(prefix + text, LOAD_BALANCER, cpus=1)
    except (MapFileError, MapValueError):
        return
    assert len(found.key) == LOAD_BALANCER[found.map_name].key.size


# --- dumps


def elements(codec: MapCodec) -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    size = codec.value.size
    value = st.binary(min_size=size, max_size=size)
    if codec.is_per_cpu:
        padding = bytes(-size % 8)
        value = st.tuples(value, value).map(lambda parts: b"".join(part + padding for part in parts))
    return st.lists(st.tuples(st.binary(min_size=codec.key.size, max_size=codec.key.size), value), max_size=3)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(CODECS.keys() - {"events"})), st.data(), st.sampled_from(list(Notation)))
def test_dump_is_read_again_without_loss(name, data, notation):
    """Padding and what is behind texts too, which values do not show."""
    contents = {name: data.draw(elements(CODECS[name]))}
    document = dump(contents, CODECS, notation=notation)
    assert load_text(json.dumps(document), CODECS, cpus=2, source="dump") == contents


def test_dump_is_for_people():
    document = dump({"vips": [(VIP, u32(1, 0, 0, 2))], "reals": [(u32(0), b"\x0a\0\0\x0b")]}, LOAD_BALANCER)
    assert document == {
        "vips": [
            {
                "key": {"addr": 0xC633640A, "port": 80, "proto": 6, "zero": 0},
                "value": {"id": 1, "flags": 0, "ring_start": 0, "ring_slots": 2},
            }
        ],
        "reals": [{"key": 0, "value": 0x0A00000B}],
    }
    readable = dump({"reals": [(u32(0), b"\x0a\0\0\x0b")]}, LOAD_BALANCER, notation=Notation.ADDRESSES)
    assert readable == {"reals": [{"key": 0, "value": "10.0.0.11"}]}


def test_dump_per_cpu_values_by_cpu():
    assert dump({"per_cpu": [(u32(1), b"\1" + bytes(15))]}, CODECS) == {
        "per_cpu": [
            {"key": 1, "values": [{"cpu": 0, "value": {"a": 1, "b": 0}}, {"cpu": 1, "value": {"a": 0, "b": 0}}]}
        ]
    }


def test_dump_adds_the_bytes_where_padding_would_get_lost():
    assert dump({"shapes": [(b"\1\0\2\xff", bytes(CODECS["shapes"].value.size))]}, CODECS)["shapes"][0].keys() == {
        "key",
        "value",
        "formatted",
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("services", BPFTOOL_SERVICES),
        ("per_cpu", BPFTOOL_PER_CPU),
        ("untyped", BPFTOOL_UNTYPED),
        (".rodata", BPFTOOL_RODATA),
    ],
)
def test_dump_in_bpftools_notation_is_bpftools(name, text):
    contents = load_text(f'{{"{name}": {text}}}', CODECS, cpus=2, source="x")
    assert dump(contents, CODECS, notation=Notation.BPFTOOL) == {name: json.loads(text)}


def test_readme_elements_of_examples_are_read():
    """What the examples' READMEs write with bpftool, byte by byte, is what the short forms mean."""
    found = parse_assignment("reals:1=10.0.0.12", LOAD_BALANCER, cpus=1)
    assert map_text.as_hex_list(found.value) == ["0x0a", "0x00", "0x00", "0x0c"]
    text = Path(SOURCES["load_balancer"].parent / "README.md").read_text()
    assert "key 1 0 0 0 value 10 0 0 12" in text
