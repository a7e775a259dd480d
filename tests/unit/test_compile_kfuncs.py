"""Calls of kfuncs become native calls; weak ones are there or not; nothing else passes for a kfunc."""

import llvmlite.binding as llvm
import pytest

from uxdp_runtime.compile.calls import UnsupportedCallError
from uxdp_runtime.compile.ir_text import parse_module
from uxdp_runtime.compile.kfuncs import PRESENT, rewrite_kfuncs, weak_kfuncs

NATIVE = {"uxdp_kfunc_known": "i32 (ptr, i32)", "uxdp_kfunc_flag": "i32 (ptr)"}
WEAK = """
declare extern_weak i32 @bpf_known(ptr, i32) section ".ksyms"
define i32 @nf(ptr %c) {
  %there = icmp ne ptr @bpf_known, null
  br i1 %there, label %yes, label %no
yes:
  %r = call i32 @bpf_known(ptr %c, i32 3)
  ret i32 %r
no:
  ret i32 7
}
"""


def rewritten(text: str, values: dict[str, int] | None = None) -> tuple[str, frozenset[str]]:
    module = parse_module(str(llvm.parse_assembly(text)))
    called = rewrite_kfuncs(module, NATIVE, values or {})
    llvm.parse_assembly(str(module)).verify()
    return str(module), called


def test_call_becomes_a_native_call_with_converted_types() -> None:
    text, called = rewritten(
        'declare i64 @bpf_known(ptr, i64) section ".ksyms"\n'
        "define i64 @nf(ptr %c, i64 %n) {\n  %r = call i64 @bpf_known(ptr %c, i64 %n)\n  ret i64 %r\n}\n"
    )
    assert called == {"uxdp_kfunc_known"}
    assert "call i32 @uxdp_kfunc_known(ptr %a0, i32 " in text
    assert "@bpf_known" not in text


def test_bool_result_is_the_lowest_bit() -> None:
    text, _called = rewritten(
        'declare i1 @bpf_flag(ptr) section ".ksyms"\n'
        "define i1 @nf(ptr %c) {\n  %r = call zeroext i1 @bpf_flag(ptr %c)\n  ret i1 %r\n}\n".replace("zeroext ", "")
    )
    assert "trunc i32 %r to i1" in text


def test_weak_kfunc_is_there_unless_the_kernel_says_otherwise() -> None:
    text, called = rewritten(WEAK)
    assert called == {"uxdp_kfunc_known"}
    assert "icmp ne ptr inttoptr (i64 1 to ptr), null" in text
    assert weak_kfuncs(parse_module(str(llvm.parse_assembly(WEAK)))) == ["bpf_known"]


def test_weak_kfunc_that_the_kernel_has_not_got_is_not_there() -> None:
    text, called = rewritten(WEAK, {PRESENT + "bpf_known": 0})
    assert called == frozenset()
    assert "icmp ne ptr null, null" in text
    assert "uxdp_kfunc" not in text


def test_weak_kfunc_that_only_the_kernel_has_is_refused() -> None:
    text = WEAK.replace("bpf_known", "bpf_xdp_ct_lookup")
    with pytest.raises(UnsupportedCallError) as caught:
        rewritten(text, {PRESENT + "bpf_xdp_ct_lookup": 1})
    assert (caught.value.name, caught.value.function) == ("bpf_xdp_ct_lookup", "nf")
    assert "connection tracking" in caught.value.reason


def test_function_of_the_bundle_with_a_kfuncs_name_is_no_kfunc() -> None:
    text, called = rewritten(
        "define i32 @bpf_known(ptr %c, i32 %n) {\n  ret i32 %n\n}\n"
        "define i32 @nf(ptr %c) {\n  %r = call i32 @bpf_known(ptr %c, i32 3)\n  ret i32 %r\n}\n"
    )
    assert called == frozenset()
    assert "call i32 @bpf_known(" in text


def test_declaration_in_no_section_is_no_kfunc() -> None:
    text, called = rewritten(
        "declare i32 @bpf_known(ptr, i32)\n"
        "define i32 @nf(ptr %c) {\n  %r = call i32 @bpf_known(ptr %c, i32 3)\n  ret i32 %r\n}\n"
    )
    assert called == frozenset()
    assert "declare i32 @bpf_known(ptr, i32)" in text


def test_address_of_a_kfunc_keeps_its_declaration_which_is_refused_later() -> None:
    text, called = rewritten(
        'declare i32 @bpf_known(ptr, i32) section ".ksyms"\n'
        "define void @nf(ptr %c) {\n  store ptr @bpf_known, ptr %c\n  ret void\n}\n"
    )
    assert called == frozenset()
    assert 'declare i32 @bpf_known(ptr, i32) section ".ksyms"' in text
