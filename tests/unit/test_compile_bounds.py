"""Accesses to slots and constants stay inside of them: checked when they must be, and only then."""

import ctypes
import faulthandler
import os
import signal

import llvmlite.binding as llvm
import pytest

from uxdp_bundle.defined_ir import defined
from uxdp_runtime.compile.bounds import keep_inside
from uxdp_runtime.compile.ir_text import parse_module
from uxdp_runtime.compile.loader import LoadedObject
from uxdp_runtime.compile.memory import settle_memory

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()

TABLE = '@table = internal constant [8 x i8] c"abcdefgh", align 1\n@other = internal constant [8 x i8] c"ABCDEFGH"\n'
AT = "%p = getelementptr [8 x i8], ptr @table, i64 0, i64 %x\n%v = load i8, ptr %p\n%r = zext i8 %v to i64\nret i64 %r"
SLOT = (
    "%a = alloca [4 x i16]\n%b = alloca i64\nstore i64 -1, ptr %b\nstore i64 0, ptr %a\n"
    "%p = getelementptr i16, ptr %a, i64 %x\nstore i16 7, ptr %p\n%r = load i64, ptr %b\nret i64 %r"
)
LOOP = (
    "%a = alloca [4 x i8]\nbr label %loop\nloop:\n%p = phi ptr [ %a, %0 ], [ %n, %loop ]\n"
    "%i = phi i64 [ 0, %0 ], [ %j, %loop ]\nstore i8 1, ptr %p\n%n = getelementptr i8, ptr %p, i64 1\n"
    "%j = add i64 %i, 1\n%c = icmp ult i64 %j, %x\nbr i1 %c, label %loop, label %end\nend:\n"
    "%v = load i32, ptr %a\n%r = zext i32 %v to i64\nret i64 %r"
)


def bounded(body: str, around: str = TABLE) -> str:
    """Return a function of a number that keeps inside, as LLVM prints it."""
    text = str(llvm.parse_assembly(f"{around}define i64 @f(i64 %x) {{\n{body}\n}}"))
    module = parse_module(defined(text))
    keep_inside(module)
    settle_memory(module)
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    return str(parsed)


def optimised(text: str) -> llvm.ModuleRef:
    module = llvm.parse_assembly(text)
    machine = llvm.Target.from_default_triple().create_target_machine(opt=3, reloc="pic", codemodel="small")
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    return module


def run(text: str, number: int) -> int:
    """Run a function in a process of its own; return its result, or minus the signal that ended it."""
    machine = llvm.Target.from_default_triple().create_target_machine(opt=3, reloc="pic", codemodel="small")
    libc = ctypes.CDLL(None)
    symbols = {name: ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0 for name in ("memset", "memcpy")}
    function = LoadedObject(machine.emit_object(optimised(text)), symbols).function(
        "f", ctypes.c_uint64, ctypes.c_uint64
    )
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        os.write(writer, function(number & (1 << 64) - 1).to_bytes(8, "little"))
        os._exit(0)
    os.close(writer)
    answer = os.read(reader, 8)
    os.close(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status < 0 else int.from_bytes(answer, "little")


@pytest.mark.parametrize(
    ("body", "number", "expected"),
    [
        pytest.param(AT, 0, ord("a"), id="first-constant"),
        pytest.param(AT, 7, ord("h"), id="last-constant"),
        pytest.param(AT, 8, -signal.SIGSEGV, id="behind-the-constants"),
        pytest.param(AT, -1, -signal.SIGSEGV, id="before-the-constants"),
        pytest.param(SLOT, 3, (1 << 64) - 1, id="last-of-a-slot"),
        pytest.param(SLOT, 4, -signal.SIGSEGV, id="behind-a-slot"),
        pytest.param(SLOT, -1, -signal.SIGSEGV, id="before-a-slot"),
        pytest.param(LOOP, 4, 0x01010101, id="loop-to-the-end"),
        pytest.param(LOOP, 5, -signal.SIGSEGV, id="loop-beyond-the-end"),
    ],
)
def test_keep_inside_variable_offset_outside_faults(body: str, number: int, expected: int) -> None:
    assert run(bounded(body), number) == expected


@pytest.mark.parametrize(
    "access",
    [
        pytest.param("%v = load i8, ptr getelementptr (i8, ptr @table, i64 8)", id="constant-expression"),
        pytest.param("%p = getelementptr i8, ptr @table, i64 5\n%v = load i32, ptr %p", id="across-the-end"),
        pytest.param("%a = alloca i32\n%p = getelementptr i8, ptr %a, i64 -8\nstore i64 1, ptr %p", id="before-a-slot"),
        pytest.param("%a = alloca i32\nstore i64 1, ptr %a", id="wider-than-its-slot"),
        pytest.param(
            "%a = alloca { i8, [2 x i32] }\n%p = getelementptr { i8, [2 x i32] }, ptr %a, i64 0, i32 1, i64 2\n"
            "store i32 1, ptr %p",
            id="behind-a-member",
        ),
        pytest.param(
            "%a = alloca [8 x i8]\ncall void @llvm.memcpy.p0.p0.i64(ptr %a, ptr @table, i64 9, i1 false)",
            id="block-of-nine",
        ),
    ],
)
def test_keep_inside_constant_offset_outside_is_a_trap(access: str) -> None:
    text = bounded(f"{access}\nret i64 0", TABLE + "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)\n")
    assert text.count("call void @llvm.trap()") >= 1
    assert run(text, 0) == -signal.SIGILL


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(AT.replace("i64 %x", "i64 %m", 1).join(("%m = and i64 %x, 7\n", "")), id="masked"),
        pytest.param(
            "%c = icmp ult i64 %x, 8\nbr i1 %c, label %in, label %out\nin:\n" + AT + "\nout:\nret i64 0", id="compared"
        ),
    ],
)
def test_keep_inside_check_that_is_always_true_costs_nothing(body: str) -> None:
    text = bounded(body)
    assert "icmp ule i64" in text
    assert "select" not in str(optimised(text))
    assert "-4096" not in str(optimised(text))


def test_keep_inside_what_is_inside_stays_as_it_is() -> None:
    body = (
        "%a = alloca { i8, [2 x i32] }\n%p = getelementptr { i8, [2 x i32] }, ptr %a, i64 0, i32 1, i64 1\n"
        "store i32 1, ptr %p\n%v = load i8, ptr getelementptr (i8, ptr @table, i64 7)\nret i64 0"
    )
    text = bounded(body)
    assert "trap" not in text
    assert "select" not in text


def test_keep_inside_pointers_into_several_are_left_alone() -> None:
    body = (
        "%c = icmp ult i64 %x, 8\n%p = select i1 %c, ptr @table, ptr @other\n"
        "%q = getelementptr i8, ptr %p, i64 %x\n%v = load i8, ptr %q\nret i64 0"
    )
    assert "-4096" not in bounded(body)
