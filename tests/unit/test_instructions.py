import pytest

from tests.elf_forge import STB_LOCAL
from tests.unit.facts_fixtures import (
    CALL,
    EXIT,
    PASS,
    SOURCES,
    Assembly,
    address,
    call_helper,
    call_relocated,
    clang,
    instruction,
    load,
    object_of,
)
from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.errors import ObjectError
from uxdp_bundle.instructions import Call, Code, Function, Instruction


def code_of(assembly: Assembly) -> Code:
    return Code(BpfObject(assembly.image()))


def functions_of(code: Code) -> dict[str, Function]:
    return {function.name: function for functions in code.functions.values() for function in functions}


def calls_of(assembly: Assembly, name: str = "f") -> dict[int, Call]:
    code = code_of(assembly)
    return code.calls(functions_of(code)[name])


def test_code_instruction_is_decoded():
    code = code_of(Assembly().function("f", instruction(0x61, 2, 1, -4, -7), EXIT))
    assert code.sections[1] == [Instruction(0x61, 2, 1, -4, -7), Instruction(0x95, 0, 0, 0, 0)]


@pytest.mark.parametrize(("opcode", "size"), [(0x61, 4), (0x69, 2), (0x71, 1), (0x79, 8)])
def test_instruction_size_is_that_of_the_access(opcode, size):
    assert Instruction(opcode, 0, 0, 0, 0).size == size


def test_code_functions_lie_in_the_order_of_their_code():
    code = code_of(Assembly().function("one", EXIT).function("two", call_helper(5), EXIT))
    assert code.functions[1] == [Function("one", 1, 0, 1, "STB_GLOBAL"), Function("two", 1, 1, 3, "STB_GLOBAL")]


def test_code_calls_of_a_helper():
    assert calls_of(Assembly().function("f", call_helper(5), EXIT)) == {0: Call(helper=5)}


def test_code_calls_of_a_static_function_in_the_same_section_need_no_relocation():
    assembly = Assembly().function("f", instruction(CALL, src=1, imm=1), EXIT).function("g", EXIT, bind=STB_LOCAL)
    assert calls_of(assembly)[0].function.name == "g"


def test_code_calls_through_a_section_count_from_its_start():
    source = (
        PASS
        + """
    static __attribute__((noinline)) int one(int x) { return x * 3 + bpf_get_prandom_u32(); }
    static __attribute__((noinline)) int two(int x) { return x * 5 + bpf_get_prandom_u32(); }
    SEC("xdp") int f(struct xdp_md *ctx) { return two(one(ctx->rx_queue_index)); }
    """
    )
    code = Code(object_of(source))
    names = [call.function.name for call in code.calls(functions_of(code)["f"]).values()]
    assert names == ["one", "two"]


def test_code_calls_of_kfuncs_know_whether_the_program_can_do_without():
    code = Code(BpfObject(clang(SOURCES["helpers_reached"].read_text())))
    kfuncs = {call.kfunc: call.weak for call in code.calls(functions_of(code)["middle"]).values() if call.kfunc}
    assert kfuncs == {"bpf_dynptr_from_xdp": False, "bpf_dynptr_size": True}


def test_code_calls_address_of_a_function_is_a_callback():
    assembly = Assembly().function("f", address(2), EXIT).subprogram("g", EXIT).relocate(0, "g")
    assert calls_of(assembly)[0].function.name == "g"


def test_code_calls_address_of_anything_else_is_no_callback():
    assembly = Assembly().function("f", address(2), EXIT).data(".data", bytes(8), "d").relocate(0, "d")
    assert calls_of(assembly) == {}


def test_code_calls_what_looks_like_a_call_inside_of_ld_imm64_is_none():
    assert calls_of(Assembly().function("f", instruction(0x18, 2), call_helper(5), EXIT)) == {}


@pytest.mark.parametrize(
    ("assembly", "message"),
    [
        pytest.param(
            Assembly().function("f", instruction(CALL, src=2), EXIT), "call with source register 2", id="resolved-kfunc"
        ),
        pytest.param(
            Assembly().function("f", call_helper(1), EXIT).data(".data", bytes(8), "d").relocate(0, "d"),
            "call with source register 0",
            id="helper-with-relocation",
        ),
        pytest.param(
            Assembly().function("f", call_relocated(), EXIT).data(".data", bytes(8), "d").relocate(0, "d"),
            r"section \.data: no function begins at instruction 0",
            id="call-of-data",
        ),
        pytest.param(
            Assembly().function("f", instruction(CALL, src=1, imm=0), EXIT),
            "section xdp: no function begins at instruction 1",
            id="call-into-itself",
        ),
        pytest.param(
            Assembly().function("f", address(1), EXIT).function("g", EXIT, EXIT).relocate(0, "g"), "", id="sound"
        ),
    ],
)
def test_code_calls_that_lead_nowhere_raise_object_error(assembly, message):
    if not message:
        assert calls_of(assembly)
        return
    with pytest.raises(ObjectError, match=message):
        calls_of(assembly)


def test_code_at_a_special_section_raises_object_error():
    with pytest.raises(ObjectError, match="section #0xfff1"):
        code_of(Assembly().function("f", EXIT)).at(0xFFF1, 0)


@pytest.mark.parametrize(
    ("value", "size", "message"),
    [
        pytest.param(4, 8, "bytes 4..12 of 16", id="odd-start"),
        pytest.param(0, 4, "bytes 0..4 of 16", id="odd-size"),
        pytest.param(0, 0, "bytes 0..0 of 16", id="empty"),
        pytest.param(8, 16, "bytes 8..24 of 16", id="behind-the-end"),
        pytest.param(0, 16, "functions f and g overlap", id="overlap"),
    ],
)
def test_code_impossible_function_raises_object_error(value, size, message):
    assembly = Assembly().function("f", EXIT, EXIT)
    assembly._symbols.append(("g", "xdp", value, size, 2, 1))
    with pytest.raises(ObjectError, match=message):
        code_of(assembly)


def test_code_reachable_follows_calls_and_callbacks_once():
    assembly = (
        Assembly()
        .function("f", call_relocated(), call_relocated(), address(2), EXIT)
        .subprogram("g", call_relocated(), EXIT)
        .subprogram("h", call_relocated(), EXIT)
        .subprogram("unused", EXIT)
    )
    for slot, name, section in (
        (0, "g", "xdp"),
        (1, "g", "xdp"),
        (2, "h", "xdp"),
        (0, "h", ".text"),
        (2, "g", ".text"),
    ):
        assembly.relocate(slot, name, section)
    code = code_of(assembly)
    assert [function.name for function in code.reachable(functions_of(code)["f"])] == ["f", "g", "h"]


def test_code_reachable_includes_the_handler_of_exceptions():
    source = """
    __attribute__((noinline)) int handler(__u64 cookie) { return bpf_get_prandom_u32(); }
    extern void bpf_throw(__u64 cookie) __ksym;
    SEC("xdp") __attribute__((btf_decl_tag("exception_callback:handler"))) int f(struct xdp_md *ctx)
    {
        if (ctx->rx_queue_index)
            bpf_throw(0);
        return XDP_PASS;
    }
    """
    code = Code(object_of(source))
    assert [function.name for function in code.reachable(functions_of(code)["f"])] == ["f", "handler"]


def test_code_where_names_the_line_or_else_the_instruction():
    code = code_of(Assembly().function("f", EXIT))
    assert code.where(functions_of(code)["f"], 0) == "section xdp, instruction 0"


TABLE = b"".join(offset.to_bytes(8, "little") for offset in (16, 24, 16))


def jumping(table: bytes, **fields: int) -> Assembly:
    return Assembly().function("f", address(1), EXIT, EXIT).data(".jumptables", table, "table").relocate(0, "table")


def test_code_jump_targets_are_those_of_the_tables():
    code = code_of(jumping(TABLE))
    assert code.jump_targets(functions_of(code)["f"]) == [2, 3]


def test_code_jump_targets_of_other_relocations_are_none():
    assembly = Assembly().function("f", address(1), load(1, 1, 0), EXIT).extern("e").relocate(0, "e")
    code = code_of(assembly)
    assert code.jump_targets(functions_of(code)["f"]) == []


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param(b"", "0 bytes at 0", id="empty"),
        pytest.param(TABLE[:-1], "23 bytes at 0", id="cut"),
        pytest.param((4).to_bytes(8, "little"), "leads to byte 4", id="odd"),
        pytest.param((32).to_bytes(8, "little"), "leads to byte 32", id="behind-the-function"),
    ],
)
def test_code_jump_targets_of_an_impossible_table_raise_object_error(table, message):
    code = code_of(jumping(table))
    with pytest.raises(ObjectError, match=message):
        code.jump_targets(functions_of(code)["f"])
