import random
import struct

import pytest

from tests.unit import facts_fixtures
from tests.unit.facts_fixtures import EXIT, HEADER, PASS, SOURCES, Assembly, call_relocated, clang, facts_of
from uxdp_bundle import facts as facts_module
from uxdp_bundle.errors import ObjectError
from uxdp_bundle.facts import ObjectFacts, object_facts


def of_case(name: str) -> ObjectFacts:
    return object_facts(clang(SOURCES[name].read_text()))


def program(section: str, name: str = "f", body: str = "return XDP_PASS;") -> str:
    return f'SEC("{section}") int {name}(struct xdp_md *ctx) {{ {body} }}\n'


@pytest.mark.parametrize(
    ("section", "flags"),
    [
        ("xdp", ()),
        ("xdp.frags", ("frags",)),
        ("xdp/devmap", ("devmap",)),
        ("xdp.frags/devmap", ("devmap", "frags")),
        ("xdp/cpumap", ("cpumap",)),
        ("xdp.frags/cpumap", ("cpumap", "frags")),
        ("?xdp", ("manual",)),
        ("?xdp.frags", ("frags", "manual")),
        ("?xdp.frags/devmap", ("devmap", "frags", "manual")),
        # names that libbpf does not know, and that bpftool and iproute2 load as plain XDP
        ("xdp_foo", ()),
        ("xdp_devmap/foo", ()),
        ("xdp/foo", ()),
        ("xdp/devmap/foo", ()),
        ("xdp1", ()),
        ("xdp-foo", ()),
        ("xdp.fragsfoo", ()),
        ("xdpfilter", ()),
        ("?xdp_foo", ("manual",)),
    ],
)
def test_object_facts_section_of_xdp_program_gives_its_flags(section, flags):
    facts = facts_of(program(section))
    assert [(found.name, found.section, found.flags) for found in facts.programs] == [("f", section, flags)]
    assert facts.other_programs == ()
    assert set(facts.kernel) == {"btf", *flags} - {"manual"}


@pytest.mark.parametrize("section", ["tc", "classifier", "socket", "prog", "kprobe/xdp", "??xdp", " xdp", "XDP"])
def test_object_facts_section_of_other_program_is_reported(section):
    facts = facts_of(program(section))
    assert facts.programs == ()
    (finding,) = facts.other_programs
    assert finding.message == f"f is in section {section!r}"
    assert finding.where == f"./<stdin>:{HEADER.count(chr(10)) + 1}"


def test_object_facts_function_without_section_is_no_program():
    facts = facts_of("int f(struct xdp_md *ctx) { return XDP_PASS; }")
    assert (facts.programs, facts.other_programs) == ((), ())


def test_object_facts_programs_beside_others_are_told_apart():
    facts = facts_of(program("xdp", "one") + program("tc", "two") + program("xdp", "three"))
    assert [found.name for found in facts.programs] == ["one", "three"]
    assert [finding.message for finding in facts.other_programs] == ["two is in section 'tc'"]


@pytest.mark.parametrize("section", ["xdp", "tc"])
def test_object_facts_static_program_raises_object_error(section):
    source = PASS + f'static SEC("{section}") int f(struct xdp_md *ctx) {{ return XDP_PASS; }}'
    with pytest.raises(ObjectError, match=f"f is static, which libbpf refuses in section '{section}'") as caught:
        facts_of(source)
    assert caught.value.context.startswith("./<stdin>:")


def test_object_facts_too_many_programs_raise_object_error(monkeypatch):
    monkeypatch.setattr(facts_module, "MAX_PROGRAMS", 1)
    with pytest.raises(ObjectError, match="2 XDP programs, at most 1 allowed"):
        facts_of(program("xdp", "one") + program("xdp", "two"))


def test_object_facts_helpers_are_those_of_everything_that_is_reached():
    programs = {found.name: found for found in of_case("helpers_reached").programs}
    assert programs["direct"].helpers == ("bpf_ktime_get_ns",)
    assert programs["through_subprograms"].helpers == ("bpf_get_prandom_u32",)
    assert programs["through_callbacks"].helpers == (
        *("bpf_get_smp_processor_id", "bpf_jiffies64", "bpf_loop"),
        *("bpf_map_lookup_elem", "bpf_timer_init", "bpf_timer_set_callback"),
    )


def test_object_facts_kfuncs_are_required_unless_they_are_weak():
    facts = of_case("helpers_reached")
    programs = {found.name: found.kfuncs for found in facts.programs}
    assert programs["through_subprograms"] == ("bpf_dynptr_from_xdp", "bpf_dynptr_size")
    assert programs["direct"] == ()
    assert facts.kernel == ("bpf2bpf", "btf", "kfunc:bpf_dynptr_from_xdp", "map:array")


def test_object_facts_instructions_count_each_reached_function_once():
    assembly = Assembly().function("f", call_relocated(), call_relocated(), EXIT).subprogram("g", EXIT, EXIT)
    (found,) = assembly.relocate(0, "g").relocate(1, "g").facts().programs
    assert found.instructions == 5


def test_object_facts_tail_call_is_a_helper_like_any_other():
    facts = of_case("map_types")
    assert {found.name: found.helpers for found in facts.programs} == {
        "elsewhere": (),
        "jump": ("bpf_map_lookup_elem", "bpf_tail_call"),
    }
    assert {"map:array_of_maps", "map:prog_array", "map:hash"} < set(facts.kernel)


def test_object_facts_forbidden_helpers_are_found_with_their_line_once():
    source = """
    static __attribute__((noinline)) int g(void *x) { return bpf_skb_load_bytes(x, 0, x, 1); }
    SEC("xdp") int one(struct xdp_md *ctx) { return g(ctx); }
    SEC("xdp") int two(struct xdp_md *ctx) { return g(ctx) + bpf_get_socket_cookie(ctx); }
    """
    facts = facts_of(source)
    assert [finding.message for finding in facts.forbidden] == [
        "XDP programs may not call bpf_skb_load_bytes",
        "XDP programs may not call bpf_get_socket_cookie",
    ]
    first = HEADER.count("\n") + 2
    assert [finding.where for finding in facts.forbidden] == [f"./<stdin>:{first}", f"./<stdin>:{first + 2}"]


def test_object_facts_forbidden_helper_that_no_program_reaches_is_none():
    source = PASS + 'SEC("tc") int f(struct __sk_buff *skb) { return bpf_skb_load_bytes(skb, 0, skb, 1); }'
    assert facts_of(source).forbidden == ()


def test_object_facts_unknown_helper_is_named_by_number():
    facts = facts_of(program("xdp", body="return ((int (*)(void))4711)();"))
    assert facts.programs[0].helpers == ("helper#4711",)


def test_object_facts_params_are_the_constants_that_loaders_can_set():
    params = {param.name: (param.type, param.size, param.default) for param in of_case("data_sections").params}
    assert params == {
        "boxes": ("struct box[2]", 12, "010002030400050000000000"),
        "colour": ("enum colour", 4, -2),
        "custom_constant": ("__u32", 4, 3),
        "enabled": ("_Bool", 1, 1),
        "large": ("__u64", 8, (1 << 64) - 1),
        "name": ("char[8]", 8, b"eth0".ljust(8, b"\0").hex()),
        "negative": ("__s8", 1, -5),
        "pointer": ("struct box *", 8, "00" * 8),
    }
    assert list(params) == sorted(params)


def test_object_facts_param_of_an_enumeration_without_negative_values_is_unsigned():
    source = PASS + "enum e { E = 0xffffffff }; const volatile enum e e = E; const volatile __int128 wide = -1;"
    assert [param.default for param in facts_of(source).params] == [0xFFFFFFFF, "ff" * 16]


def test_object_facts_param_that_leaves_its_section_raises_object_error(monkeypatch):
    source = HEADER + PASS + "const volatile __u32 one = 1;"
    image = bytearray(clang(source))
    symbol = struct.pack("<QQ", 0, 4)  # value and size of the one symbol of four bytes at 0
    places = [place for place in range(len(image)) if image[place : place + 16] == symbol]
    assert places
    for place in places:
        struct.pack_into("<Q", image, place, 2)
    with pytest.raises(ObjectError, match=r"constant one: reaches outside of \.rodata"):
        object_facts(bytes(image))


def test_object_facts_params_without_size_are_left_out():
    assert facts_of(PASS + "const volatile struct {} empty; const volatile __u8 none[0];").params == ()


def test_object_facts_params_without_debugging_information_are_none():
    assert facts_of(PASS + "const volatile __u32 one = 1;", "-g0").params == ()


def test_object_facts_requirements_name_what_the_kernel_must_have():
    assert of_case("data_sections").kernel == ("btf", "global_data", "kconfig", "map:array")
    assert of_case("context_core").kernel == ("bpf2bpf", "btf", "core")
    assert of_case("context_subprograms").kernel == ("bpf2bpf", "btf", "frags")
    assert facts_of(PASS, "-g0").kernel == ()


def test_object_facts_license_and_fields_of_xdp_md():
    facts = of_case("context_direct")
    assert facts.license == "Dual MIT/GPL"
    assert facts.xdp_md == (*("data", "data_end", "data_meta", "egress_ifindex", "ingress_ifindex", "rx_queue_index"),)


def test_object_facts_are_the_same_for_a_memoryview():
    data = clang(HEADER + PASS)
    assert object_facts(memoryview(data)) == object_facts(data)


def test_object_facts_unreachable_callback_of_another_program_is_not_followed():
    source = """
    static long each(__u32 index, void *data) { return bpf_get_prandom_u32(); }
    SEC("xdp") int one(struct xdp_md *ctx) { return bpf_loop(1, each, 0, 0); }
    SEC("xdp") int two(struct xdp_md *ctx) { return XDP_PASS; }
    """
    assert {found.name: found.helpers for found in facts_of(source).programs} == {
        "one": ("bpf_get_prandom_u32", "bpf_loop"),
        "two": (),
    }


def calling(count: int) -> Assembly:
    """Return a program that calls ``count`` functions."""
    calls = [facts_fixtures.instruction(0x85, src=1, imm=number - 1) for number in range(count)]
    assembly = Assembly().function("f", *calls, EXIT)
    for number in range(count):
        assembly.subprogram(f"g{number}", EXIT).relocate(number, "g0")
    return assembly


def test_object_facts_functions_are_at_most_what_the_verifier_allows():
    (found,) = calling(255).facts().programs
    assert found.instructions == 2 * 255 + 1
    with pytest.raises(ObjectError, match="function f: reaches more than 256 functions"):
        calling(256).facts()


@pytest.mark.parametrize("name", ["context_core", "helpers_reached", "data_sections", "load_balancer"])
def test_object_facts_of_damaged_objects_raise_object_error_or_nothing(name):
    original = clang(SOURCES[name].read_text())
    chance = random.Random(name)
    refused = 0
    for _round in range(150):
        damaged = bytearray(original)
        for _place in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        try:
            object_facts(bytes(damaged))
        except ObjectError as error:
            assert str(error)
            refused += 1
    assert refused > 10
