"""IR that is no IR, that breaks the rules, or that is too much for LLVM; in bundles that are signed correctly."""

import json
import random

import llvmlite.binding as llvm
import pytest

from tests.bundle_factory import Forgery
from tests.hostile.workbench import NAME, Workbench, assert_one_error, run_uxdp
from uxdp_bundle.errors import BindingError, LoweringError
from uxdp_bundle.lowering import RefusedIrError, lower

LAYOUT = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"
HEAD = f'target datalayout = "{LAYOUT}"\ntarget triple = "bpf"\n'
PROGRAM = """
@_license = global [13 x i8] c"Dual MIT/GPL\\00", section "license"
define i32 @minimal(ptr %ctx) section "xdp" {{
{body}
  ret i32 2
}}
"""
X = "%x = load volatile i64, ptr %ctx\n"


def bitcode(body: str = "", *, around: str = "", head: str = HEAD) -> bytes:
    """Return a module with one XDP program."""
    module = llvm.parse_assembly(head + PROGRAM.format(body=body) + around)
    return module.as_bitcode()


def with_ir(ir: bytes) -> bytes:
    """Return the minimal bundle, signed, with other IR."""
    forged = Forgery.of("minimal")
    forged.store_compressed("ir", ir)
    return forged.image()


def real_ir() -> bytes:
    return Forgery.of("minimal").content("ir")


@pytest.mark.parametrize(
    ("ir", "kind"),
    [
        pytest.param(lambda: b"\0", "bitcode", id="one-byte"),
        pytest.param(lambda: b"define i32 @minimal() { ret i32 2 }", "bitcode", id="text"),
        pytest.param(lambda: bytes(10_000), "bitcode", id="zeros"),
        pytest.param(lambda: random.Random(1).randbytes(10_000), "bitcode", id="noise"),
        pytest.param(lambda: b"BC\xc0\xde" + random.Random(2).randbytes(4000), "bitcode", id="noise-with-magic"),
        pytest.param(lambda: real_ir()[: len(real_ir()) // 2], "bitcode", id="cut-off"),
        pytest.param(lambda: b"\xde\xc0\x17\x0b" + bytes(40), "bitcode", id="wrapper-of-nothing"),
        pytest.param(lambda: bitcode(around='module asm ".globl x"'), "module-asm", id="module-asm"),
        pytest.param(
            lambda: bitcode(around='module asm ""\nmodule asm "x"'), "module-asm", id="module-asm-of-two-lines"
        ),
        pytest.param(lambda: bitcode('call void asm sideeffect "exit", ""()'), "inline-asm", id="inline-asm"),
        pytest.param(
            lambda: bitcode('call void asm sideeffect alignstack "r0 = 1", "~{r0}"()'),
            "inline-asm",
            id="inline-asm-flags",
        ),
        pytest.param(
            lambda: bitcode(
                around="define internal void @c() { ret void }\n@llvm.global_ctors = appending global "
                "[1 x { i32, ptr, ptr }] [{ i32, ptr, ptr } { i32 1, ptr @c, ptr null }]"
            ),
            "constructors",
            id="constructor",
        ),
        pytest.param(
            lambda: bitcode(
                around="define internal void @c() { ret void }\n@llvm.global_dtors = appending global "
                "[1 x { i32, ptr, ptr }] [{ i32, ptr, ptr } { i32 1, ptr @c, ptr null }]"
            ),
            "constructors",
            id="destructor",
        ),
        pytest.param(
            lambda: bitcode(around="@i = ifunc i32 (), ptr @r\ndefine internal ptr @r() { ret ptr null }"),
            "ifunc",
            id="ifunc",
        ),
        pytest.param(
            lambda: bitcode(around='@"a b" = ifunc i32 (), ptr @r\ndefine internal ptr @r() { ret ptr null }'),
            "ifunc",
            id="ifunc-with-a-space-in-its-name",
        ),
        pytest.param(lambda: bitcode(around="@a = alias i32 (ptr), ptr @minimal"), "alias", id="alias"),
        pytest.param(
            lambda: bitcode("call void @f()", around="declare void @f()"), "external", id="undeclared-external-function"
        ),
        pytest.param(
            lambda: bitcode("%v = load i32, ptr @v", around="@v = external global i32"),
            "external",
            id="external-variable",
        ),
        pytest.param(
            lambda: bitcode("%v = load i32, ptr @v", around="@v = extern_weak global i32"),
            "external",
            id="weak-variable",
        ),
        pytest.param(
            lambda: bitcode("call void @f()", around='declare void @f() section ".text"'),
            "external",
            id="external-in-text",
        ),
        pytest.param(
            lambda: bitcode("%v = load i32, ptr @v", around="@v = thread_local global i32 0"),
            "thread-local",
            id="thread-local",
        ),
        pytest.param(
            lambda: bitcode("%t = call i64 @llvm.readcyclecounter()", around="declare i64 @llvm.readcyclecounter()"),
            "intrinsic",
            id="strange-intrinsic",
        ),
        pytest.param(
            lambda: bitcode("call void @llvm.x86.sse2.pause()", around="declare void @llvm.x86.sse2.pause()"),
            "intrinsic",
            id="intrinsic-of-another-target",
        ),
        pytest.param(
            lambda: bitcode(X + "call void @llvm.va_start.p0(ptr %ctx)", around="declare void @llvm.va_start.p0(ptr)"),
            "invalid",
            id="no-variable-arguments",
        ),
        pytest.param(lambda: bitcode(head='target triple = "x86_64-linux-gnu"\n'), "triple", id="triple-x86"),
        pytest.param(lambda: bitcode(head=HEAD.replace("bpf", "bpfeb")), "triple", id="triple-big-endian"),
        pytest.param(lambda: bitcode(head=""), "triple", id="no-triple"),
        pytest.param(lambda: bitcode(head=HEAD.replace("p:64:64", "p:32:32")), "data-layout", id="small-pointers"),
        pytest.param(lambda: bitcode(head=HEAD.replace("e-m", "E-m")), "data-layout", id="big-endian-layout"),
        pytest.param(lambda: bitcode(head='target triple = "bpf"\n'), "data-layout", id="no-layout"),
    ],
)
def test_ir_that_breaks_a_rule_is_refused(bench: Workbench, ir, kind):
    error = bench.refuses(with_ir(ir()), RefusedIrError, "IR: ", step="bind", command=None)
    assert error.kind == kind


def test_ir_that_is_no_bitcode_is_refused_by_the_command(bench: Workbench):
    # LLVM's message has two lines.
    bench.refuses(with_ir(b"BC\xc0\xde" + bytes(40)), RefusedIrError, "IR: not LLVM bitcode", step="bind")


def test_ir_that_breaks_a_rule_is_refused_by_the_command(bench: Workbench):
    ir = bitcode(around='module asm ".globl \x1b[2J"')
    bench.refuses(with_ir(ir), RefusedIrError, "IR: module-level assembly", step="bind")


def vectors(count: int) -> str:
    return f"%v = load <{count} x i64>, ptr %ctx\n%w = mul <{count} x i64> %v, %v\nstore <{count} x i64> %w, ptr %ctx\n"


# What LLVM 22 makes of each differs (an error, an abort, a crash); what uxdp makes of it does not.
@pytest.mark.parametrize(
    "ir",
    [
        pytest.param(
            lambda: bitcode(X + "%f = uitofp i64 %x to double\nstore double %f, ptr %ctx"), id="floating-point"
        ),
        pytest.param(
            lambda: bitcode(
                X + "call void @llvm.memcpy.p0.p0.i64(ptr %ctx, ptr null, i64 %x, i1 0)",
                around="declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)",
            ),
            id="memcpy-of-any-size",
        ),
        pytest.param(lambda: bitcode(X + "%a = alloca i8, i64 %x\nstore volatile i8 1, ptr %a"), id="dynamic-stack"),
        pytest.param(lambda: bitcode("%a = alloca [4096 x i8]\nstore volatile i8 1, ptr %a"), id="large-stack"),
        pytest.param(
            lambda: bitcode("%y = load i4096, ptr %ctx\n%z = udiv i4096 %y, 7\nstore i4096 %z, ptr %ctx"),
            id="huge-division",
        ),
        pytest.param(
            lambda: bitcode("%y = load i8192, ptr %ctx\n%z = mul i8192 %y, %y\nstore i8192 %z, ptr %ctx"),
            id="huge-multiplication",
        ),
        pytest.param(
            lambda: bitcode(
                "call void @f(i64 1, i64 2, i64 3, i64 4, i64 5, i64 6)",
                around="define internal void @f(i64 %a, i64 %b, i64 %c, i64 %d, i64 %e, i64 %f) noinline optnone {\n"
                "store volatile i64 %f, ptr null\nret void\n}",
            ),
            id="six-arguments",
        ),
        pytest.param(
            lambda: bitcode("%r = call i64 %ctx()\nstore i64 %r, ptr %ctx"), id="indirect-call-of-the-context"
        ),
        pytest.param(lambda: bitcode("fence seq_cst"), id="fence"),
        pytest.param(
            lambda: bitcode(around="@big = global [18446744073709551615 x i8] zeroinitializer"),
            id="global-of-2-to-the-64",
        ),
        pytest.param(
            lambda: bitcode(
                around="@big = global { [2147483648 x i8], i8 } { [2147483648 x i8] zeroinitializer, i8 1 }"
            ),
            id="data-of-2-gib",
        ),
    ],
)
def test_ir_that_llvm_cannot_lower_is_refused(bench: Workbench, ir):
    bench.put(with_ir(ir()))
    with pytest.raises(BindingError) as caught:
        bench.take("bind")
    # Nobody would load what some of these lower to, but it is an object: then it is not this one.
    assert type(caught.value) is LoweringError or "lowers the IR to another object" in str(caught.value)
    bench.refuses_in_shell(caught.value, "bind")


@pytest.mark.parametrize(
    "ir",
    [
        pytest.param(
            lambda: bitcode(
                "%x0 = load volatile i64, ptr %ctx\n"
                + "".join(f"%x{i + 1} = add i64 %x{i}, %x{i}\n" for i in range(40_000))
                + "store i64 %x40000, ptr %ctx"
            ),
            id="long-chain",
        ),
        pytest.param(lambda: bitcode(vectors(65536)), id="wide-vectors"),
    ],
)
def test_ir_that_keeps_llvm_busy_is_ended(bench: Workbench, ir):
    # The child's own limit is higher; this one, inherited from the shell, keeps the test short.
    bench.put(with_ir(ir()))
    done = run_uxdp("bind", NAME, folder=bench.folder, limit_cpu_seconds=2)
    assert_one_error(done, LoweringError.exit_code, "LLVM could not")


def test_ir_that_makes_llvm_talk_gives_one_line(bench: Workbench):
    body = "".join(f"%a{i} = alloca [600 x i8]\nstore volatile i8 1, ptr %a{i}\n" for i in range(200))
    bench.put(with_ir(bitcode(body)))
    done = run_uxdp("bind", NAME, "--json", folder=bench.folder)
    error = json.loads(done.stdout)["error"]
    assert (error["type"], error["exit_code"], done.returncode) == ("LoweringError", 5, 5)
    assert len(error["message"]) < 500
    assert done.stderr == ""


def test_damaged_bitcode_gives_typed_errors_alone():
    # Each run is a process, so these are few; the fuzzer has more.
    source, noise = real_ir(), random.Random(3)
    for _ in range(12):
        damaged = bytearray(source)
        for _ in range(noise.choice([1, 4, 32])):
            damaged[noise.randrange(8, len(damaged))] ^= 1 << noise.randrange(8)
        try:
            lower([bytes(damaged)])
        except LoweringError as error:
            assert str(error)


def test_bitcode_with_something_appended_is_not_bound(bench: Workbench):
    # LLVM ignores what follows a module, but the bundle's owner signed it: so it binds, and gives the same object.
    bench.put(with_ir(real_ir() + b"\0" * 4))
    bound = bench.take("bind")
    assert bound.binding.value == "equal"
