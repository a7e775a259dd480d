import pytest

from tests.unit.facts_fixtures import (
    ADD_K,
    ATOMIC_DW,
    CALLX,
    EXIT,
    GOTOX,
    HEADER,
    JA,
    JA32,
    JEQ_K,
    LD_ABS,
    LDX_DW,
    MOV_K,
    PASS,
    SOURCES,
    ST_DW,
    STX_W,
    SUB_K,
    Assembly,
    address,
    call_helper,
    call_relocated,
    clang,
    facts_of,
    instruction,
    load,
    move,
    spill,
)
from uxdp_bundle import context_access
from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.errors import ObjectError
from uxdp_bundle.facts import object_facts
from uxdp_bundle.instructions import Code

KTIME = 5
LOOP = 181


def accesses(assembly: Assembly) -> list[tuple[str, int, str]]:
    """Return (section, slot, field) of every access."""
    return [(access.section, access.offset // 8, access.field) for access in assembly.facts().accesses]


def program(*code: bytes) -> Assembly:
    return Assembly().function("f", *code)


@pytest.mark.parametrize(
    ("offset", "field"),
    list(enumerate(context_access.XDP_MD_FIELDS)),
    ids=context_access.XDP_MD_FIELDS,
)
def test_context_accesses_direct_load_is_found(offset, field):
    assert accesses(program(load(2, 1, 4 * offset), EXIT)) == [("xdp", 0, field)]


@pytest.mark.parametrize(
    ("code", "slot"),
    [
        pytest.param([move(6, 1), call_helper(KTIME), load(0, 6, 4)], 2, id="held-over-a-call"),
        pytest.param([spill(10, -8, 1), call_helper(KTIME), load(1, 10, -8, LDX_DW), load(0, 1, 4)], 3, id="spilled"),
        pytest.param(
            [move(2, 10), instruction(ADD_K, 2, imm=-16), spill(2, 8, 1), load(3, 10, -8, LDX_DW), load(0, 3, 4)],
            4,
            id="stack-through-another-pointer",
        ),
        pytest.param([instruction(ADD_K, 1, imm=4), load(0, 1, 0)], 1, id="moved-forward"),
        pytest.param([instruction(ADD_K, 1, imm=8), instruction(SUB_K, 1, imm=8), load(0, 1, 4)], 2, id="and-back"),
        pytest.param([instruction(JA, offset=1), EXIT, load(0, 1, 4)], 2, id="goto"),
        pytest.param([instruction(JA32, imm=1), EXIT, load(0, 1, 4)], 2, id="goto-far"),
        pytest.param([instruction(JEQ_K, 2, offset=1), EXIT, load(0, 1, 4)], 2, id="branch-taken"),
        pytest.param([instruction(JEQ_K, 2, offset=1), load(0, 1, 4)], 1, id="branch-not-taken"),
        pytest.param([instruction(0xE5, offset=1), load(0, 1, 4)], 1, id="may-goto"),
        pytest.param([instruction(0x81, 0, 1, 4)], 0, id="sign-extending-load"),
        pytest.param([address(2), load(0, 1, 4)], 2, id="behind-ld-imm64"),
        pytest.param([instruction(CALLX, 9), load(0, 6, 4)], None, id="callx-keeps-r6"),
        pytest.param([move(6, 1), instruction(CALLX, 9), load(0, 6, 4)], 2, id="callx-keeps-r6-with-context"),
        pytest.param(
            [spill(10, -8, 1), instruction(ATOMIC_DW, 10, 2, -16, 0), load(1, 10, -8, LDX_DW), load(0, 1, 4)],
            3,
            id="atomic-add-elsewhere",
        ),
        pytest.param(
            [move(3, 1), instruction(ATOMIC_DW, 10, 2, -16, 0xE1), load(0, 3, 4)], 2, id="exchange-of-another-register"
        ),
    ],
)
def test_context_accesses_pointer_is_followed(code, slot):
    expected = [] if slot is None else [("xdp", slot, "data_end")]
    assert accesses(program(*code, EXIT)) == expected


@pytest.mark.parametrize(
    "code",
    [
        pytest.param([call_helper(KTIME), load(0, 1, 4)], id="argument-after-a-call"),
        pytest.param([instruction(0xBC, 2, 1), load(0, 2, 4)], id="low-half"),
        pytest.param([instruction(0xBF, 2, 1, 8), load(0, 2, 4)], id="sign-extended-byte"),
        pytest.param([instruction(0x4F, 1, 2), load(0, 1, 4)], id="or"),
        pytest.param([load(1, 1, 0), load(0, 1, 4)], id="overwritten-by-a-load"),
        pytest.param([instruction(ADD_K, 1, imm=24), load(0, 1, 0)], id="moved-out"),
        pytest.param([instruction(STX_W, 10, 1, -8), load(2, 10, -8, LDX_DW), load(0, 2, 4)], id="half-a-spill"),
        pytest.param([spill(10, -12, 1), load(2, 10, -12, LDX_DW), load(0, 2, 4)], id="unaligned-spill"),
        pytest.param(
            [spill(10, -8, 1), instruction(STX_W, 10, 3, -4), load(2, 10, -8, LDX_DW), load(0, 2, 4)],
            id="spill-half-overwritten",
        ),
        pytest.param(
            [spill(10, -8, 1), instruction(ST_DW, 10, offset=-8), load(2, 10, -8, LDX_DW), load(0, 2, 4)],
            id="spill-overwritten-by-a-constant",
        ),
        pytest.param([spill(10, -8, 1), load(2, 10, -8), load(0, 2, 4)], id="half-a-fill"),
        pytest.param([address(1), load(0, 1, 4)], id="ld-imm64"),
        pytest.param([instruction(LD_ABS), load(0, 1, 4)], id="ld-abs"),
        pytest.param([move(0, 1), instruction(ATOMIC_DW, 10, 2, -8, 0xF1), load(2, 0, 4)], id="compare-exchange"),
        pytest.param([move(2, 1), instruction(ATOMIC_DW, 10, 2, -8, 0xE1), load(0, 2, 4)], id="exchange"),
        pytest.param([move(2, 1), instruction(ATOMIC_DW, 2, 10, -8, 0x100), load(0, 2, 4)], id="load-acquire"),
    ],
)
def test_context_accesses_what_is_no_longer_the_context_is_not_taken_for_it(code):
    assert [access[2] for access in accesses(program(*code, EXIT))] in ([], ["data"])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        pytest.param([load(2, 1, 24)], "4 bytes at offset 24", id="behind-the-end"),
        pytest.param([load(2, 1, -4)], "4 bytes at offset -4", id="in-front"),
        pytest.param([load(2, 1, 2)], "4 bytes at offset 2", id="odd-offset"),
        pytest.param([load(2, 1, 0, LDX_DW)], "8 bytes at offset 0", id="whole-word"),
        pytest.param([load(2, 1, 4, 0x69)], "2 bytes at offset 4", id="half-a-field"),
        pytest.param([load(2, 1, 4, 0x71)], "1 bytes at offset 4", id="byte"),
    ],
)
def test_context_accesses_load_of_no_field_raises_object_error(code, message):
    with pytest.raises(ObjectError, match=message) as caught:
        program(*code, EXIT).facts()
    assert caught.value.context == "section xdp, instruction 0"


def test_context_accesses_load_of_no_field_names_the_line():
    source = PASS + 'SEC("xdp")\nint f(struct xdp_md *ctx)\n{\n\treturn *(volatile __u16 *)&ctx->rx_queue_index;\n}\n'
    with pytest.raises(ObjectError, match="reads 2 bytes at offset 16") as caught:
        facts_of(source)
    assert caught.value.context == f"./<stdin>:{HEADER.count(chr(10)) + 5}"


# r1 is the context on one way and something else on the other; the same instruction may not read both. Ways meet where
# they jump to.
MEET = instruction(JA)
JOINED = [instruction(JEQ_K, 2, offset=2), move(1, 3), MEET]


def test_context_accesses_join_with_something_else_still_counts():
    assert accesses(program(*JOINED, load(0, 1, 4), EXIT)) == [("xdp", 3, "data_end")]


def test_context_accesses_impossible_load_after_a_join_is_of_something_else():
    assert accesses(program(*JOINED, load(0, 1, 0, LDX_DW), EXIT)) == []


def test_context_accesses_join_of_the_same_pointer_is_certain():
    code = [instruction(JEQ_K, 2, offset=2), instruction(MOV_K, 4), MEET, load(0, 1, 2), EXIT]
    with pytest.raises(ObjectError, match="offset 2"):
        program(*code).facts()


def test_context_accesses_join_in_a_stack_slot_still_counts():
    code = [instruction(JEQ_K, 2, offset=2), spill(10, -8, 1), MEET, load(3, 10, -8, LDX_DW), load(0, 3, 4), EXIT]
    assert accesses(program(*code)) == [("xdp", 4, "data_end")]


# r2 points to one of two stack slots.
ONE_OF_TWO = [
    move(2, 10),
    instruction(ADD_K, 2, imm=-8),
    instruction(JEQ_K, 3, offset=2),
    instruction(ADD_K, 2, imm=-8),
    MEET,
]


def test_context_accesses_store_through_one_of_two_pointers_may_be_in_either():
    code = [load(4, 10, -8, LDX_DW), load(0, 4, 4), load(4, 10, -16, LDX_DW), load(0, 4, 8), EXIT]
    assert accesses(program(*ONE_OF_TWO, spill(2, 0, 1), *code)) == [("xdp", 7, "data_end"), ("xdp", 9, "data_meta")]


def test_context_accesses_store_through_one_of_two_pointers_may_leave_what_was_there():
    code = [spill(10, -8, 1), *ONE_OF_TWO, spill(2, 0, 5), load(4, 10, -8, LDX_DW), load(0, 4, 4), EXIT]
    assert accesses(program(*code)) == [("xdp", 8, "data_end")]
    # but it need not be there any more
    code[-2] = load(0, 4, 0, LDX_DW)
    assert accesses(program(*code)) == []


def test_context_accesses_store_through_the_context_or_a_stack_pointer_is_to_the_stack():
    code = [
        *(move(2, 10), instruction(ADD_K, 2, imm=-8), instruction(JEQ_K, 3, offset=2), move(2, 1), MEET),
        *(spill(2, 0, 1), load(4, 10, -8, LDX_DW), load(0, 4, 4), EXIT),
    ]
    assert accesses(program(*code)) == [("xdp", 7, "data_end")]


def test_context_accesses_loop_that_moves_a_pointer_ends():
    code = [instruction(ADD_K, 1, imm=4), load(0, 1, 0), instruction(JEQ_K, 0, offset=-3), EXIT]
    fields = {field for _section, _slot, field in accesses(program(*code))}
    assert fields == set(context_access.XDP_MD_FIELDS[1:])


def test_context_accesses_subprogram_reads_its_argument():
    assembly = program(move(2, 1), call_relocated(), EXIT).subprogram("g", load(0, 2, 16), EXIT)
    assert accesses(assembly.relocate(1, "g")) == [(".text", 0, "rx_queue_index")]


def test_context_accesses_subprogram_returns_it():
    assembly = program(call_relocated(), load(0, 0, 12), EXIT).subprogram("g", move(0, 1), EXIT)
    assert accesses(assembly.relocate(0, "g")) == [("xdp", 1, "ingress_ifindex")]


def test_context_accesses_subprogram_that_overwrites_a_slot_of_its_caller_is_believed():
    assembly = program(
        spill(10, -8, 1), move(1, 10), call_relocated(), load(2, 10, -8, LDX_DW), load(0, 2, 1, LDX_DW), EXIT
    ).subprogram("g", instruction(ST_DW, 1, offset=-8), EXIT)
    assert accesses(assembly.relocate(2, "g")) == []


def test_context_accesses_code_behind_a_subprogram_that_never_returns_is_dead():
    assembly = program(move(6, 1), call_relocated(), load(0, 6, 0), EXIT).subprogram("g", instruction(JA, offset=-1))
    assert accesses(assembly.relocate(1, "g")) == []


def test_context_accesses_same_subprogram_with_and_without_the_context():
    assembly = program(
        move(6, 1), instruction(MOV_K, 1), call_relocated(), move(1, 6), call_relocated(), EXIT
    ).subprogram("g", load(0, 1, 4), EXIT)
    assert accesses(assembly.relocate(2, "g").relocate(4, "g")) == [(".text", 0, "data_end")]


def test_context_accesses_recursion_raises_object_error():
    assembly = program(call_relocated(), EXIT).subprogram("g", move(6, 1), call_relocated(), EXIT)
    with pytest.raises(ObjectError, match="nest deeper than 8 frames"):
        assembly.relocate(0, "g").relocate(1, "g", ".text").facts()


def callback(*body: bytes) -> Assembly:
    """Return a program that hands {context, 0, 0} to a callback of bpf_loop."""
    return (
        program(
            spill(10, -24, 1),
            move(3, 10),
            instruction(ADD_K, 3, imm=-24),
            address(2),
            call_helper(LOOP),
            EXIT,
        )
        .subprogram("g", *body, EXIT)
        .relocate(3, "g")
    )


def test_context_accesses_callback_finds_it_in_memory():
    assert accesses(callback(load(1, 2, 0, LDX_DW), load(0, 1, 4))) == [(".text", 1, "data_end")]


def test_context_accesses_callback_of_a_later_round_finds_what_an_earlier_one_left():
    body = [load(1, 2, 8, LDX_DW), load(0, 1, 4), load(1, 2, 0, LDX_DW), spill(2, 8, 1)]
    assert accesses(callback(*body)) == [(".text", 1, "data_end")]


def test_context_accesses_callback_that_never_returns_leaves_the_stack_alone():
    assert accesses(callback(instruction(JA, offset=-1))) == []


def test_context_accesses_helper_without_callback_runs_none():
    assembly = program(address(2), move(3, 1), call_helper(KTIME), EXIT).subprogram("g", load(0, 3, 4), EXIT)
    assert accesses(assembly.relocate(0, "g")) == []


def test_context_accesses_jump_table_leads_to_all_its_targets():
    table = b"".join(slot.to_bytes(8, "little") for slot in (8 * 4, 8 * 6))
    code = [address(2), load(3, 2, 0, LDX_DW), instruction(GOTOX, 3)]
    code += [load(0, 1, 4), EXIT, load(0, 1, 8), EXIT]
    assembly = program(*code).data(".jumptables", table, "table").relocate(0, "table")
    assert accesses(assembly) == [("xdp", 4, "data_end"), ("xdp", 6, "data_meta")]
    assert "jump_tables" in assembly.facts().kernel


@pytest.mark.parametrize(
    ("code", "message"),
    [
        pytest.param([load(0, 1, 0)], "control leaves the function at instruction 1", id="no-exit"),
        pytest.param([instruction(JA, offset=7), EXIT], "control leaves", id="jump-behind-the-end"),
        pytest.param([instruction(JA, offset=-2), EXIT], "control leaves", id="jump-in-front"),
        pytest.param([instruction(LD_ABS - 8)], "control leaves", id="cut-ld-imm64"),
        pytest.param(
            [instruction(JA, offset=1), instruction(0x18, 2), call_helper(KTIME), EXIT],
            "a jump leads into ld_imm64",
            id="jump-into-ld-imm64",
        ),
    ],
)
def test_context_accesses_impossible_control_flow_raises_object_error(code, message):
    with pytest.raises(ObjectError, match=message):
        program(*code).facts()


def test_context_accesses_endless_work_raises_object_error(monkeypatch):
    monkeypatch.setattr(context_access, "_MAX_WORK", 20)
    with pytest.raises(ObjectError, match="too many paths"):
        program(*[move(6, 1)] * 30, EXIT).facts()


def test_context_accesses_core_records_name_the_field_not_the_offset():
    facts = object_facts(clang(SOURCES["context_core"].read_text()))
    found = [(access.section, access.field) for access in facts.accesses]
    # In the instructions data_end is at 4 and data at 8, but ingress_ifindex and rx_queue_index at 0.
    assert sorted(found) == sorted(
        [(".text", "rx_queue_index"), ("xdp", "data_end"), ("xdp", "data"), ("xdp", "ingress_ifindex")]
    )
    assert "core" in facts.kernel


@pytest.mark.parametrize(
    "declaration",
    [
        pytest.param("struct xdp_md { __u32 colour; }", id="no-such-field"),
        pytest.param("struct other { __u32 data; }", id="another-structure"),
        pytest.param("struct xdp_md { struct { __u32 data; } deep; }", id="nested"),
    ],
)
def test_context_accesses_core_record_of_no_field_raises_object_error(declaration):
    member = "deep.data" if "deep" in declaration else declaration.split()[4].rstrip(";")
    structure = declaration.split(" {")[0]
    source = (
        f"typedef unsigned int __u32;\n{declaration} __attribute__((preserve_access_index));\n"
        f'__attribute__((section("xdp"), used)) int f({structure} *ctx) {{ return ctx->{member}; }}\n'
    )
    with pytest.raises(ObjectError, match="expected one of its u32 fields"):
        object_facts(clang(source))


def test_context_accesses_of_the_old_btf_ext_header_without_core_records():
    bpf_object = BpfObject(program(load(0, 1, 4), EXIT).image())
    code = Code(bpf_object)
    found = context_access.context_accesses(bpf_object, code, code.functions[1])
    assert [access.field for access in found] == ["data_end"]


# What each function of the cases reads, in the order of its instructions, counted by hand from the C source.
BY_HAND = {
    "context_direct": {
        "each_field": ["data", "data_end", "data_meta", "ingress_ifindex", "rx_queue_index"],
        "on_the_way_out": ["egress_ifindex", "ingress_ifindex"],
        "on_another_cpu": ["rx_queue_index"],
        "read_twice": ["rx_queue_index", "rx_queue_index"],
    },
    "context_spilled": {
        "many_values": ["data", "data_end", "rx_queue_index"],
        "around_a_loop": ["ingress_ifindex", "rx_queue_index"],
        "either_way": [
            *("data", "data", "data_end", "data_meta", "ingress_ifindex", "rx_queue_index"),
        ],
    },
    "context_subprograms": {
        "queue_of": ["rx_queue_index"],
        "sum_of": ["ingress_ifindex"],
        "after_a_call": [],
        "through_memory": ["data", "data_end"],
        "fill": [],
        "global_one": ["ingress_ifindex"],
        "of_a_packet": [],
        "arguments": [],
        "results": ["data", "data_meta"],
        "memory": [],
        "filled_by_another": ["rx_queue_index"],
        "global": [],
        "classify": [],
    },
    "context_callbacks": {
        "each_index": ["rx_queue_index"],
        "each_element": ["ingress_ifindex"],
        "moves_on": ["data", "data_end"],
        "loop": [],
        "elements": ["data", "data_meta"],
        "rounds": [],
        "one_of_two": ["data", "data_end", "rx_queue_index"],
    },
    "context_core": {
        "queue_of": ["rx_queue_index"],
        "relocated": ["data", "data_end"],
        "flavored": ["ingress_ifindex"],
    },
    "l2_swap": {"l2_swap": ["data", "data_end"]},
    "firewall": {"firewall": ["data", "data_end"]},
    "icmp_echo": {"icmp_echo": ["data", "data_end"]},
    "flow_meter": {"flow_meter": ["data", "data_end"]},
    "payload_hash": {"payload_hash": ["data", "data_end"]},
    "load_balancer": {"load_balancer": ["data", "data", "data_end", "data_end"]},
}


@pytest.mark.parametrize("name", BY_HAND)
def test_context_accesses_of_case_are_those_of_its_source(name):
    obj = clang(SOURCES[name].read_text())
    bpf_object = BpfObject(obj)
    found: dict[str, list[str]] = {}
    functions = [f for fs in Code(bpf_object).functions.values() for f in fs]
    for function in functions:
        section = bpf_object.sections[function.section].name
        inside = range(function.start * 8, function.end * 8)
        found[function.name] = sorted(
            access.field
            for access in object_facts(obj).accesses
            if access.section == section and access.offset in inside
        )
    assert found == BY_HAND[name]
