"""Kernel symbols are numbers and nothing else; placeholders of type ids are told apart by relocation and type."""

import pytest

from uxdp_runtime.compile.ir_text import parse_module
from uxdp_runtime.compile.late_values import (
    KernelMemoryError,
    define,
    is_late,
    load_late,
    rewrite_kernel_symbols,
    type_ids,
)

SYMBOLS = {"plain": False, "typed": True}
DECLARED = '@plain = external global i8, section ".ksyms"\n@typed = extern_weak global i32, section ".ksyms"\n'


def rewritten(instruction: str) -> str:
    module = parse_module(f"{DECLARED}define i64 @f(ptr %0) {{\n  {instruction}\n  ret i64 0\n}}")
    rewrite_kernel_symbols(module, SYMBOLS)
    return str(module)


@pytest.mark.parametrize(
    "instruction",
    [
        "%2 = icmp eq ptr @typed, null",
        "%2 = icmp ne ptr null, @plain",
        "%2 = ptrtoint ptr @plain to i64",
        "%2 = add i64 ptrtoint (ptr @plain to i64), 3",
    ],
)
def test_address_is_a_number(instruction: str) -> None:
    name = "plain" if "plain" in instruction else "typed"
    text = rewritten(instruction)
    assert f'@"uxdp.value.ksym:{name}"' in text
    assert f'@"uxdp.value.ksym:{name}" = extern_weak global i8' in text
    assert '".ksyms"' not in text


@pytest.mark.parametrize(
    "instruction",
    [
        "%2 = load i64, ptr @plain, align 8",
        "store ptr @plain, ptr %0, align 8",
        "%2 = ptrtoint ptr @typed to i64",
        "%2 = add i64 ptrtoint (ptr @typed to i64), 3",
        "%2 = icmp eq ptr @plain, @typed",
        "%2 = call i64 inttoptr (i64 113 to ptr)(ptr %0, i32 8, ptr @plain)",
        "%2 = getelementptr i8, ptr @plain, i64 ptrtoint (ptr @plain to i64)",
    ],
)
def test_what_is_at_the_address_is_out_of_reach(instruction: str) -> None:
    with pytest.raises(KernelMemoryError, match="is the kernel's") as caught:
        rewritten(instruction)
    assert (caught.value.name in SYMBOLS, caught.value.function) == (True, "f")


def test_late_load_is_a_symbol_of_the_value() -> None:
    module = parse_module(
        "@CONFIG_HZ = external global i32\ndefine i64 @f() {\n  %1 = load i32, ptr @CONFIG_HZ, align 4\n"
        '  %2 = load i64, ptr @"llvm.btf_type_id.0$7", align 8\n  ret i64 %2\n}'
    )
    load_late(module, {"CONFIG_HZ": "CONFIG_HZ", "llvm.btf_type_id.0$7": "type_id:7:task_struct"})
    text = str(module)
    assert '= ptrtoint ptr @"uxdp.value.CONFIG_HZ" to i64\n  %v1 = trunc i64' in text
    assert '%v2 = ptrtoint ptr @"uxdp.value.type_id:7:task_struct" to i64' in text


def test_type_ids_are_those_of_the_metadata() -> None:
    text = (
        '@"llvm.btf_type_id.0$6" = external global i64, !llvm.preserve.access.index !7 #1\n'
        '@"llvm.btf_type_id.1$7" = external global i64, !llvm.preserve.access.index !8 #1\n'
        '!7 = distinct !DICompositeType(tag: DW_TAG_structure_type, name: "one", file: !3, line: 1, size: 32)\n'
        '!8 = !DIDerivedType(tag: DW_TAG_typedef, name: "other", file: !3, line: 2, baseType: !9)\n'
    )
    assert type_ids(text) == {"llvm.btf_type_id.0$6": "type_id:6:one", "llvm.btf_type_id.1$7": "type_id:7:other"}


def test_define_takes_what_is_known() -> None:
    symbols = ["uxdp.value.CONFIG_HZ", "uxdp.value.ksym:x", "memcpy"]
    assert define(symbols, {"CONFIG_HZ": 250, "other": 1}) == {"uxdp.value.CONFIG_HZ": 250}


def test_is_late_is_not_what_code_is_made_for() -> None:
    assert [is_late(name) for name in ("CONFIG_HZ", "ksym:x", "type_id:7:t", "llvm.t:0:4$0:1", "kfunc:f")] == [
        *(True, True, True, False, False)
    ]
