import pytest

from tests.unit.facts_fixtures import PASS, SOURCES, Assembly, clang, object_of
from uxdp_bundle import map_definitions as map_definitions_module
from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.errors import ObjectError
from uxdp_bundle.manifest import MapDefinition
from uxdp_bundle.map_definitions import BPF_F_MMAPABLE, BPF_F_RDONLY_PROG, MAP_TYPES, map_definitions

MMAPABLE, CONSTANT = BPF_F_MMAPABLE, BPF_F_RDONLY_PROG


def maps_of(source: str, *flags: str) -> tuple[MapDefinition, ...]:
    return map_definitions(object_of(PASS + source, *flags))


def rows(maps: tuple[MapDefinition, ...]) -> list[tuple[object, ...]]:
    return [(m.name, m.type, m.key_size, m.value_size, m.max_entries, m.flags) for m in maps]


def test_map_definitions_of_every_type_are_those_of_the_source():
    maps = map_definitions(BpfObject(clang(SOURCES["map_types"].read_text())))
    assert sorted(rows(maps)) == [
        ("a_bloom_filter", "bloom_filter", 0, 4, 100, 0),
        ("a_cpumap", "cpumap", 4, 8, 2, 0),
        ("a_devmap", "devmap", 4, 8, 8, 0),
        ("a_devmap_hash", "devmap_hash", 4, 4, 8, 0),
        ("a_hash", "hash", 16, 16, 22, 1),
        ("a_hash_of_maps", "hash_of_maps", 8, 4, 3, 0),
        ("a_percpu_array", "percpu_array", 4, 16, 3, 0),
        ("a_percpu_hash", "percpu_hash", 12, 20, 3, 0),
        ("a_queue", "queue", 0, 4, 4, 0),
        ("a_ringbuf", "ringbuf", 0, 0, 5000, 0),
        ("a_stack", "stack", 0, 4, 4, 0),
        ("a_trie", "lpm_trie", 8, 4, 5, 1),
        ("an_array", "array", 4, 10, 2, 1024),
        ("an_array_of_maps", "array_of_maps", 4, 4, 2, 0),
        ("an_lru_hash", "lru_hash", 8, 1, 64, 2),
        ("an_lru_percpu_hash", "lru_percpu_hash", 8, 8, 64, 0),
        ("an_xskmap", "xskmap", 4, 4, 2, 0),
        ("events", "perf_event_array", 4, 4, 0, 0),
        ("first_inner", "hash", 4, 16, 16, 0),
        ("programs", "prog_array", 4, 4, 2, 0),
        ("second_inner", "hash", 4, 16, 16, 0),
    ]
    inner = {m.name: m.inner for m in maps if m.inner is not None}
    assert rows((inner["an_array_of_maps"], inner["a_hash_of_maps"])) == [
        ("", "hash", 4, 16, 16, 0),
        ("", "array", 4, 8, 1, 0),
    ]
    assert inner.keys() == {"an_array_of_maps", "a_hash_of_maps"}


def test_map_definitions_of_global_data_follow_those_of_maps():
    maps = map_definitions(BpfObject(clang(SOURCES["data_sections"].read_text())))
    assert [(m.name, m.value_size, m.flags) for m in maps] == [
        (".rodata", 56, MMAPABLE | CONSTANT),
        (".rodata.custom", 4, MMAPABLE | CONSTANT),
        (".rodata.static", 4, CONSTANT),
        (".data", 8, MMAPABLE),
        (".data.custom", 4, MMAPABLE),
        (".data.hidden", 4, 0),
        (".bss", 16, MMAPABLE),
        (".rodata.str1.1", 5, CONSTANT),
        (".kconfig", 5, MMAPABLE | CONSTANT),
    ]
    assert {(m.type, m.key_size, m.max_entries, m.pinning, m.inner) for m in maps} == {("array", 4, 1, False, None)}


def test_map_definitions_are_in_the_order_of_the_section_not_of_btf():
    """libbpf sorts by the variables' offsets, and clang describes what is used first first."""
    source = """
    struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32); }
        zebra SEC(".maps"), apple SEC(".maps");
    SEC("xdp") int f(struct xdp_md *ctx) { return bpf_map_lookup_elem(&apple, &(__u32){0}) ? 1 : 2; }
    """
    bpf_object = object_of(source)
    offsets = {symbol.name: symbol.value for symbol in bpf_object.symbols}
    names = [definition.name for definition in map_definitions(bpf_object)]
    assert names == sorted(names, key=lambda name: offsets[name])


def test_map_definitions_without_debugging_information_still_has_global_data():
    bpf_object = object_of(PASS + "__u64 counter = 1;", "-g0")
    assert bpf_object.btf is None
    assert rows(map_definitions(bpf_object)) == [(".data", "array", 4, 8, 1, 0)]


def definition(members: str, name: str = "m", section: str = ".maps", prefix: str = "") -> str:
    return f'{prefix} struct {{ {members} }} {name} SEC("{section}") __attribute__((used));'


ARRAY = "__uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32);"


@pytest.mark.parametrize(("number", "pinned"), [("LIBBPF_PIN_NONE", False), ("LIBBPF_PIN_BY_NAME", True)])
def test_map_definitions_pinning_is_what_the_source_asks_for(number, pinned):
    (found,) = maps_of(definition(f"{ARRAY} __uint(pinning, {number});"))
    assert found.pinning is pinned


def test_map_definitions_type_that_is_not_known_yet_is_named_by_number():
    (found,) = maps_of(definition("__uint(type, 77); __uint(max_entries, 1);"))
    assert found.type == "type#77"


def test_map_definitions_numbers_of_64_bits_are_accepted():
    extra = "enum { extra_value = 0x100000000ULL } map_extra;"
    (found,) = maps_of(definition(f"{ARRAY} {extra}"))
    assert (found.max_entries, found.extra) == (1, 1 << 32)
    (found,) = maps_of(definition(f"{ARRAY} __uint(map_extra, 7);"))
    assert found.extra == 7


def test_map_definitions_map_of_maps_without_template_has_no_inner():
    """Its loader has to say what the inner maps are (bpf_map__set_inner_map_fd)."""
    members = (
        "__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32);"
    )
    (found,) = maps_of(definition(members))
    assert (found.type, found.inner) == ("array_of_maps", None)


INNER_POINTER = "__array(values, struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(pinning, 1); });"
OF_MAPS = "__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 1); __uint(key_size, 4);"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(definition("__uint(max_entries, 1);"), "map m: has no type", id="no-type"),
        pytest.param(
            definition(f"{ARRAY} __uint(colour, 1);"), "map m, colour: libbpf knows no such", id="unknown-member"
        ),
        pytest.param(definition(f"{ARRAY} __uint(key_size, 8);"), "map m, key_size: 8 bytes", id="two-key-sizes"),
        pytest.param(definition(f"{ARRAY} __uint(value_size, 8);"), "map m, value_size: 8 bytes", id="two-value-sizes"),
        pytest.param(definition(f"{ARRAY} __uint(pinning, 2);"), "map m, pinning: 2, expected", id="unknown-pinning"),
        pytest.param(definition("int type;"), "map m, type: expected a pointer", id="plain-int"),
        pytest.param(definition("int *type;"), "map m, type: expected a number", id="plain-pointer"),
        pytest.param(definition(f"{ARRAY} int map_extra;"), "map m, map_extra: expected a pointer", id="plain-extra"),
        pytest.param(definition("__uint(type, 2); int key;"), "map m, key: expected a pointer", id="plain-key"),
        pytest.param(definition("__uint(type, 2); void (*key)(void);"), "without a size", id="key-without-size"),
        pytest.param(
            definition("__uint(type, 2); char (*value)[70000][70000];"),
            "map m, value: 4900000000 bytes",
            id="huge-value",
        ),
        pytest.param(definition(ARRAY, prefix="static"), "map m: is static", id="static"),
        pytest.param('int m SEC(".maps");', "map m: is no structure", id="no-structure"),
        pytest.param(
            definition(f"{OF_MAPS} {INNER_POINTER}"), "map , pinning: libbpf knows no such member", id="pinned-inner"
        ),
        pytest.param(
            definition(f"{OF_MAPS} __array(values, int); "), "expected inner maps in a map of maps", id="inner-int"
        ),
        pytest.param(
            definition(f"{OF_MAPS} __array(values, int (void));"), "expected inner maps", id="programs-in-a-map-of-maps"
        ),
        pytest.param(
            definition(f"{ARRAY} __array(values, struct {{ {ARRAY} }});"), "expected inner maps", id="maps-in-an-array"
        ),
        pytest.param(
            definition(f"struct {{ {ARRAY} }} *values[0]; {OF_MAPS}"), "must be the last", id="values-not-last"
        ),
        pytest.param(definition(f"{OF_MAPS} int *values[2];"), "array of unknown length", id="values-counted"),
        pytest.param(definition(f"{OF_MAPS} int values;"), "array of unknown length", id="values-no-array"),
        pytest.param(
            definition(f"{OF_MAPS} __uint(value_size, 8); __array(values, struct {{ {ARRAY} }});"),
            "map m, values: 4 bytes",
            id="map-of-maps-value-size",
        ),
        pytest.param(
            definition(f"{OF_MAPS} __array(values, struct {{ {OF_MAPS} __array(values, struct {{ {ARRAY} }}); }});"),
            "map , values: expected inner maps",
            id="maps-of-maps-of-maps",
        ),
        pytest.param(
            'struct bpf_map_def { int type; } m SEC("maps");', "section maps: defines maps in the section", id="legacy"
        ),
    ],
)
def test_map_definitions_that_libbpf_refuses_raise_object_error(source, message):
    with pytest.raises(ObjectError, match=message):
        maps_of(source)


def test_map_definitions_without_btf_raise_object_error():
    with pytest.raises(ObjectError, match="no BTF that describes them") as caught:
        maps_of(definition(ARRAY), "-g0")
    assert caught.value.remedy == "compile with -g"


def test_map_definitions_variable_without_symbol_raises_object_error():
    bpf_object = object_of(PASS + definition(ARRAY))
    del bpf_object.global_symbols(bpf_object.section(".maps").index)["m"]
    with pytest.raises(ObjectError, match="there is no such symbol"):
        map_definitions(bpf_object)


def test_map_definitions_more_than_a_manifest_holds_raise_object_error(monkeypatch):
    monkeypatch.setattr(map_definitions_module, "MAX_MAPS", 1)
    with pytest.raises(ObjectError, match="2 maps, at most 1 allowed"):
        maps_of(definition(ARRAY, "one") + definition(ARRAY, "two"))


def test_map_definitions_several_maps_of_one_type_have_their_own_names():
    source = f'struct kind {{ {ARRAY} }}; struct kind one SEC(".maps"), two SEC(".maps");'
    assert [(m.name, m.type, m.max_entries) for m in maps_of(source)] == [("one", "array", 1), ("two", "array", 1)]


def test_map_definitions_of_an_object_without_maps_are_none():
    assert map_definitions(BpfObject(Assembly().image())) == ()


@pytest.mark.parametrize(
    ("section", "counts"),
    [
        (".data", True),
        (".data.rel", True),
        (".rodata.cst8", True),
        (".database", False),
        ("data", False),
        (".bss", False),  # not of zeros
    ],
)
def test_map_definitions_of_sections_by_name(section, counts):
    bpf_object = BpfObject(Assembly().data(section, bytes(8)).image())
    assert [m.name for m in map_definitions(bpf_object)] == ([section] if counts else [])


def test_map_types_are_numbered_as_in_the_kernel():
    names = "BPF_MAP_TYPE_LPM_TRIE, BPF_MAP_TYPE_RINGBUF, BPF_MAP_TYPE_USER_RINGBUF"
    data = BpfObject(clang(f"#include <linux/bpf.h>\nint kinds[] = {{{names}}};")).section(".data").data
    numbers = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
    assert [MAP_TYPES[number] for number in numbers] == ["lpm_trie", "ringbuf", "user_ringbuf"]
