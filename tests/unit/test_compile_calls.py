"""Helper calls become native calls; tail calls become branches that keep the phis right."""

import ctypes

import llvmlite.binding as llvm
import pytest

from uxdp_runtime.compile.calls import UnsupportedCallError, rewrite_calls
from uxdp_runtime.compile.definitions import constant_loads, rewrite_globals, substitute_values
from uxdp_runtime.compile.intrinsics import lower_intrinsics, relax
from uxdp_runtime.compile.ir_text import parse_module
from uxdp_runtime.compile.loader import LoadedObject, NativeObjectError

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()

HEAD = 'target datalayout = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"\ntarget triple = "bpf"\n'
# What native/ would define: csum_diff returns its seed, redirect its flags, map_lookup_elem the key; tail call targets
# are given by the index: below 2 a program, above none.
NATIVE = {
    "uxdp_helper_csum_diff": "i64 (ptr, i64, ptr, i64, i64)",
    "uxdp_helper_redirect": "i64 (i64, i64)",
    "uxdp_helper_map_lookup_elem": "ptr (ptr, ptr)",
    "uxdp_tail_target": "i64 (ptr, ptr, i64)",
}
NATIVE_IR = """
define i64 @uxdp_helper_csum_diff(ptr %a, i64 %b, ptr %c, i64 %d, i64 %e) {
  ret i64 %e
}
define i64 @uxdp_helper_redirect(i64 %a, i64 %b) {
  ret i64 %b
}
define ptr @uxdp_helper_map_lookup_elem(ptr %a, ptr %b) {
  ret ptr %b
}
define i64 @uxdp_tail_target(ptr %a, ptr %b, i64 %c) {
  %t = icmp ult i64 %c, 2
  %r = select i1 %t, i64 %c, i64 -2
  ret i64 %r
}
"""


def _run(body: str, entries: list[str], *arguments: int) -> int:
    module = parse_module(str(llvm.parse_assembly(HEAD + body)))
    lower_intrinsics(module)
    rewrite_calls(module, NATIVE, entries)
    library = llvm.parse_assembly(NATIVE_IR)
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2, reloc="pic", codemodel="small")
    relax(module, llvm.get_process_triple(), str(machine.target_data))
    program = llvm.parse_assembly(str(module))
    program.verify()
    program.link_in(library)
    program.verify()
    loaded = LoadedObject(machine.emit_object(program), {})
    return loaded.function(entries[0], ctypes.c_uint32, *[ctypes.c_uint64] * len(arguments))(*arguments)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        pytest.param(
            "%r = call i32 inttoptr (i64 23 to ptr)(i32 noundef 1, i64 noundef 4294967298)\n  ret i32 %r",
            2,
            id="result-truncated-argument-extended",
        ),
        pytest.param(
            "%w = call i64 inttoptr (i64 28 to ptr)(ptr null, i32 0, ptr null, i32 0, i32 -1)\n"
            "  %h = lshr i64 %w, 32\n  %r = trunc i64 %h to i32\n  ret i32 %r",
            0,
            id="32-bit-arguments-zero-extended-as-registers-are",
        ),
        pytest.param(
            "%p = tail call ptr inttoptr (i64 1 to ptr)(ptr noundef @map, ptr noundef nonnull %k) #0\n"
            "  %r = load i32, ptr %p\n  ret i32 %r",
            77,
            id="pointers-stay-pointers",
        ),
        pytest.param(
            "%w = call i64 (ptr, i32, ...) inttoptr (i64 28 to ptr)(ptr null, i32 0, ptr %k, i64 0, i32 33)\n"
            "  %r = trunc i64 %w to i32\n  ret i32 %r",
            33,
            id="variadic-as-libbpf-declares-trace-printk",
        ),
    ],
)
def test_rewrite_calls_converts_as_bpf_registers_do(call: str, expected: int) -> None:
    body = (
        "@map = global i64 0\ndefine i32 @prog() {\n  %k = alloca i32\n  store i32 77, ptr %k\n  " + call + "\n}\n"
        "attributes #0 = { nounwind }\n"
    )
    assert _run(body, ["prog"]) == expected


TAIL = """
@table = global i64 0
define i32 @first(ptr %0, i32 %1) {
  %3 = icmp eq i32 %1, 9
  br i1 %3, label %4, label %6
4:
  %5 = call i64 inttoptr (i64 12 to ptr)(ptr %0, ptr @table, i64 7)
  br label %8
6:
  %7 = call i64 inttoptr (i64 12 to ptr)(ptr %0, ptr @table, i32 %1)
  br label %8
8:
  %9 = phi i32 [ 100, %4 ], [ 200, %6 ]
  ret i32 %9
}
define i32 @second(ptr %0) {
  ret i32 42
}
"""


@pytest.mark.parametrize(
    ("index", "expected"),
    [pytest.param(1, 42, id="taken"), pytest.param(5, 200, id="no-target"), pytest.param(9, 100, id="other-branch")],
)
def test_rewrite_calls_tail_call_branches_or_falls_through(index: int, expected: int) -> None:
    assert _run(TAIL, ["first", "second"], 0, index) == expected


def test_rewrite_calls_unknown_helper_is_refused_by_name() -> None:
    module = parse_module(
        str(
            llvm.parse_assembly(
                HEAD + "define i32 @prog() {\n  %r = call i32 inttoptr (i64 69 to ptr)()\n  ret i32 %r\n}"
            )
        )
    )
    with pytest.raises(UnsupportedCallError) as refused:
        rewrite_calls(module, NATIVE, ["prog"])
    assert (refused.value.name, refused.value.function) == ("bpf_fib_lookup", "prog")


def test_rewrite_calls_a_call_that_is_not_understood_is_refused() -> None:
    body = (
        "define i32 @prog(<2 x i32> %0) {\n  %r = call <2 x i32> inttoptr (i64 23 to ptr)(<2 x i32> %0)\n  ret i32 0\n}"
    )
    module = parse_module(str(llvm.parse_assembly(HEAD + body)))
    with pytest.raises(UnsupportedCallError, match="called as %r = call <2 x i32>") as refused:
        rewrite_calls(module, NATIVE, ["prog"])
    assert (refused.value.name, refused.value.function) == ("bpf_redirect", "prog")


def test_rewrite_globals_makes_data_external_and_constants_new() -> None:
    body = (
        "@port = constant i32 80, align 4\n@total = global i64 7, align 8\n"
        '@_license = global [4 x i8] c"GPL\\00", section "license"\n'
        "define i32 @prog() {\n  %t = load i64, ptr @total\n  %n = add i64 %t, 1\n  store i64 %n, ptr @total\n"
        "  %r = load volatile i32, ptr @port\n  ret i32 %r\n}"
    )
    module = parse_module(str(llvm.parse_assembly(HEAD + body)))
    constant_loads(module)
    rewrite_globals(module, [], variables={"total": ".data"}, constants={"port": (443).to_bytes(4, "little")})
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2, reloc="pic", codemodel="small")
    relax(module, llvm.get_process_triple(), str(machine.target_data))
    assert "volatile" not in str(module)
    assert "license" not in str(module)
    memory = ctypes.c_uint64(7)
    data = machine.emit_object(llvm.parse_assembly(str(module)))
    loaded = LoadedObject(data, {"total": ctypes.addressof(memory)})
    assert loaded.function("prog", ctypes.c_uint32)() == 443
    assert memory.value == 8
    with pytest.raises(NativeObjectError, match="nobody defines 'total'"):
        LoadedObject(data, {})


def test_substitute_values_replaces_placeholders() -> None:
    body = (
        '@"llvm.xdp_md:0:4$0:1" = external global i64\n@other = global i64 5\ndefine i64 @prog() {\n'
        '  %1 = load i64, ptr @"llvm.xdp_md:0:4$0:1"\n  %2 = load i64, ptr @other\n'
        "  %3 = add i64 %1, %2\n  ret i64 %3\n}"
    )
    module = parse_module(str(llvm.parse_assembly(HEAD + body)))
    substitute_values(module, {"llvm.xdp_md:0:4$0:1": 4})
    assert "%v1 = add i64 4, 0" in str(module)
    assert "load i64, ptr @other" in str(module)


def test_loaded_object_truncated_anywhere_raises_typed_error() -> None:
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2, reloc="pic", codemodel="small")
    data = machine.emit_object(llvm.parse_assembly("define i32 @prog() {\n  ret i32 3\n}"))
    for length in range(0, len(data), 7):
        with pytest.raises(NativeObjectError):
            LoadedObject(data[:length], {})
