"""Widening the accesses to xdp_md: what is found, what is refused, and that pointers may be anywhere."""

import ctypes

import llvmlite.binding as llvm
import pytest

from uxdp_runtime import abi
from uxdp_runtime.compile.context import ContextError, widen_context
from uxdp_runtime.compile.intrinsics import lower_intrinsics, relax
from uxdp_runtime.compile.ir_text import parse_module
from uxdp_runtime.compile.loader import LoadedObject

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()

HEAD = """
target datalayout = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"
target triple = "bpf"
%struct.xdp_md = type { i32, i32, i32, i32, i32, i32 }
%struct.loop = type { i32, ptr }
"""

# Each returns the frame's length, or what its name says, from a frame of at least 15 bytes.
DIRECT = """
define i32 @prog(ptr %0) {
  %2 = load i32, ptr %0, align 4
  %3 = zext i32 %2 to i64
  %4 = inttoptr i64 %3 to ptr
  %5 = getelementptr inbounds i8, ptr %0, i64 4
  %6 = load i32, ptr %5, align 4
  %7 = zext nneg i32 %6 to i64
  %8 = inttoptr i64 %7 to ptr
  %9 = getelementptr inbounds i8, ptr %4, i64 15
  %10 = icmp ugt ptr %9, %8
  br i1 %10, label %short, label %long
short:
  ret i32 0
long:
  %11 = getelementptr inbounds i8, ptr %4, i64 14
  %12 = load i8, ptr %11, align 1
  %13 = zext i8 %12 to i32
  ret i32 %13
}
"""
LENGTH = """
define i32 @prog(ptr %0) {
  %2 = getelementptr inbounds %struct.xdp_md, ptr %0, i32 0, i32 1
  %3 = load i32, ptr %2, align 4
  %4 = load i32, ptr %0, align 4
  %5 = sub i32 %3, %4
  ret i32 %5
}
"""
PHI = """
define i32 @prog(ptr %0) {
  %2 = getelementptr i8, ptr %0, i64 16
  %3 = load i32, ptr %2, align 4
  %4 = icmp eq i32 %3, 0
  br i1 %4, label %one, label %other
one:
  %5 = load i32, ptr %0, align 4
  br label %join
other:
  %6 = load volatile i32, ptr %0, align 4
  br label %join
join:
  %7 = phi i32 [ %5, %one ], [ %6, %other ]
  br label %loop
loop:
  %8 = phi i32 [ %7, %join ], [ %8, %loop ]
  %9 = phi i64 [ 0, %join ], [ %10, %loop ]
  %10 = add i64 %9, 1
  %11 = icmp ult i64 %10, 3
  br i1 %11, label %loop, label %end
end:
  %12 = select i1 %4, i32 %8, i32 %7
  %13 = freeze i32 %12
  %14 = zext i32 %13 to i64
  %15 = inttoptr i64 %14 to ptr
  %16 = getelementptr i8, ptr %15, i64 14
  %17 = load i8, ptr %16, align 1
  %18 = zext i8 %17 to i32
  ret i32 %18
}
"""
SUBPROGRAM = """
define internal i32 @byte(i32 %which, ptr %context) {
  %1 = load i32, ptr %context, align 4
  %2 = zext i32 %1 to i64
  %3 = inttoptr i64 %2 to ptr
  %4 = zext i32 %which to i64
  %5 = getelementptr i8, ptr %3, i64 %4
  %6 = load i8, ptr %5, align 1
  %7 = zext i8 %6 to i32
  ret i32 %7
}
define internal ptr @same(ptr %p) {
  ret ptr %p
}
define i32 @prog(ptr %0) {
  %2 = call ptr @same(ptr %0)
  %3 = call i32 @byte(i32 noundef 14, ptr noundef nonnull %2)
  ret i32 %3
}
"""
# Attributes with brackets, of the result and of the parameters, at the call and at the definition.
ATTRIBUTES = """
define internal range(i32 0, 256) i32 @byte(ptr captures(none) %0, ptr nocapture readonly captures(none) %1) {
  %3 = load i32, ptr %1, align 4
  %4 = zext i32 %3 to i64
  %5 = inttoptr i64 %4 to ptr
  %6 = getelementptr i8, ptr %5, i64 14
  %7 = load i8, ptr %6, align 1
  %8 = zext i8 %7 to i32
  store i32 %8, ptr %0, align 4
  ret i32 %8
}
define i32 @prog(ptr %0) {
  %2 = alloca i32, align 4
  %3 = call noundef range(i32 0, 256) i32 @byte(ptr captures(none) initializes((0, 4)) %2, ptr %0)
  ret i32 %3
}
"""
# As clang up to 18 addresses fields, and what a macro such as barrier_var() makes of a pointer.
FIELDS_BY_TYPE = """
%struct.pair = type { i8, [3 x %struct.loop] }
define internal i32 @byte(ptr %pair) {
  %1 = getelementptr inbounds %struct.pair, ptr %pair, i64 0, i32 1, i64 2, i32 1
  %2 = load ptr, ptr %1, align 8
  %3 = load i32, ptr %2, align 4
  %4 = zext i32 %3 to i64
  %5 = inttoptr i64 %4 to ptr
  %6 = getelementptr i8, ptr %5, i64 14
  %7 = load i8, ptr %6, align 1
  %8 = zext i8 %7 to i32
  ret i32 %8
}
define i32 @prog(ptr %0) {
  %2 = alloca %struct.pair, align 8
  %3 = call ptr asm sideeffect "", "=r,0"(ptr %0)
  %4 = getelementptr inbounds %struct.pair, ptr %2, i64 0, i32 1
  %5 = getelementptr inbounds [3 x %struct.loop], ptr %4, i64 0, i64 2, i32 1
  store ptr %3, ptr %5, align 8
  %6 = call i32 @byte(ptr nonnull %2)
  ret i32 %6
}
"""
CALLBACK = """
define internal i64 @body(i32 %index, ptr %loop) {
  %1 = getelementptr inbounds %struct.loop, ptr %loop, i64 0, i32 1
  %2 = getelementptr inbounds i8, ptr %loop, i64 8
  %3 = load ptr, ptr %2, align 8
  %4 = load i32, ptr %3, align 4
  %5 = zext i32 %4 to i64
  %6 = inttoptr i64 %5 to ptr
  %7 = getelementptr i8, ptr %6, i64 14
  %8 = load i8, ptr %7, align 1
  %9 = zext i8 %8 to i32
  store i32 %9, ptr %loop, align 4
  ret i64 1
}
define i32 @prog(ptr %0) {
  %2 = alloca %struct.loop, align 8
  %3 = alloca %struct.loop, align 8
  %4 = getelementptr inbounds i8, ptr %2, i64 8
  store ptr %0, ptr %4, align 8
  call void @llvm.memcpy.p0.p0.i64(ptr align 8 %3, ptr align 8 %2, i64 16, i1 false)
  %5 = call i64 inttoptr (i64 181 to ptr)(i32 noundef 1, ptr noundef @body, ptr noundef nonnull %3, i64 noundef 0)
  %6 = load i32, ptr %3, align 4
  ret i32 %6
}
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
"""
CORE = """
define i32 @prog(ptr %0) {
  %2 = add i64 4, 0
  %3 = getelementptr i8, ptr %0, i64 %2
  %4 = tail call ptr @llvm.bpf.passthrough.p0.p0(i32 0, ptr %3)
  %5 = load i32, ptr %4, align 4
  %6 = call i32 @llvm.bpf.passthrough.i32.i32(i32 1, i32 %5)
  %7 = zext i32 %6 to i64
  %8 = inttoptr i64 %7 to ptr
  %9 = getelementptr i8, ptr %8, i64 -1
  %10 = load i8, ptr %9, align 1
  %11 = zext i8 %10 to i32
  ret i32 %11
}
declare ptr @llvm.bpf.passthrough.p0.p0(i32, ptr)
declare i32 @llvm.bpf.passthrough.i32.i32(i32, i32)
"""
FIELDS = """
define i32 @prog(ptr %0) {
  %2 = getelementptr i8, ptr %0, i64 12
  %3 = load i32, ptr %2, align 4
  %4 = getelementptr i32, ptr %2, i64 1
  %5 = load i32, ptr %4, align 4
  %6 = mul i32 %3, 1000
  %7 = add i32 %6, %5
  ret i32 %7
}
"""


def _widened(body: str) -> tuple[str, set[str]]:
    module = parse_module(str(llvm.parse_assembly(HEAD + body)))
    fields = widen_context(module, ["prog"])
    lower_intrinsics(module)
    target = llvm.Target.from_default_triple()
    relax(module, llvm.get_process_triple(), str(target.create_target_machine().target_data))
    return str(module), fields


def _native(body: str) -> LoadedObject:
    """Compile a widened program, with bpf_loop as a plain call of its callback."""
    text, _fields = _widened(body)
    text = text.replace(
        "call i64 inttoptr (i64 181 to ptr)(i32 noundef 1, ptr noundef @body, ptr noundef nonnull %v3, i64 noundef 0)",
        "call i64 @body(i32 0, ptr %v3)",
    )
    module = llvm.parse_assembly(text)
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2, reloc="pic", codemodel="small")
    symbols = {"memcpy": ctypes.cast(ctypes.CDLL(None).memcpy, ctypes.c_void_p).value or 0}
    return LoadedObject(machine.emit_object(module), symbols)


def _pages(address: int) -> int:
    """Map two pages at an address of our choice; they stay until the process ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    # PROT_READ | PROT_WRITE; MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
    return int(libc.mmap(address, 8192, 3, 0x32, -1, 0))


@pytest.fixture(
    scope="module", params=[0x5_4000_0000, 0xFFFF_F000, 0x4000_0000], ids=["above-4g", "across-4g", "below-4g"]
)
def frame(request: pytest.FixtureRequest) -> abi.Frame:
    """A frame of 200 bytes; the one across 4 GiB begins 8 bytes below the boundary."""
    base = _pages(request.param)
    start = base + 4096 - 8
    ctypes.memmove(start, bytes(range(200)), 200)
    return abi.Frame(data=start, data_end=start + 200, data_meta=start, ingress_ifindex=7, rx_queue_index=3)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(DIRECT, 14, id="direct"),
        pytest.param(LENGTH, 200, id="length-by-32-bit-subtraction"),
        pytest.param(PHI, 14, id="phi-select-loop-volatile"),
        pytest.param(SUBPROGRAM, 14, id="subprogram"),
        pytest.param(ATTRIBUTES, 14, id="attributes-with-brackets"),
        pytest.param(FIELDS_BY_TYPE, 14, id="fields-by-type-and-barrier"),
        pytest.param(CALLBACK, 14, id="callback-through-copied-struct"),
        pytest.param(CORE, 199, id="core-and-passthrough"),
        pytest.param(FIELDS, 7003, id="ifindex-and-queue"),
    ],
)
def test_widen_context_anywhere_in_memory_reads_the_frame(frame: abi.Frame, body: str, expected: int) -> None:
    loaded = _native(body)
    program = loaded.function("prog", ctypes.c_uint32, ctypes.c_void_p)
    assert program(ctypes.addressof(frame)) == expected


def test_widen_context_reports_the_fields_that_are_read() -> None:
    assert _widened(DIRECT)[1] == {"data", "data_end"}
    assert _widened(FIELDS)[1] == {"ingress_ifindex", "rx_queue_index"}


@pytest.mark.parametrize(
    ("body", "fragment"),
    [
        pytest.param(
            "define i32 @prog(ptr %0) {\n  %2 = load i64, ptr %0, align 8\n  %3 = trunc i64 %2 to i32\n  ret i32 %3\n}",
            "i64 at offset 0",
            id="wide-load",
        ),
        pytest.param(
            "define i32 @prog(ptr %0) {\n  %2 = getelementptr i8, ptr %0, i64 2\n"
            "  %3 = load i32, ptr %2, align 4\n  ret i32 %3\n}",
            "offset 2",
            id="odd-offset",
        ),
        pytest.param(
            "@g = external global i32\ndefine i32 @prog(ptr %0) {\n  %2 = load i32, ptr %0, align 4\n"
            "  %3 = icmp eq i32 %2, 0\n  %4 = select i1 %3, ptr %0, ptr @g\n  %5 = load i32, ptr %4, align 4\n"
            "  ret i32 %5\n}",
            "may or may not",
            id="context-or-something-else",
        ),
        pytest.param(
            "@g = external global i32\ndefine i32 @prog(ptr %0) {\n  %2 = load i32, ptr @g, align 4\n"
            "  %3 = zext i32 %2 to i64\n  %4 = inttoptr i64 %3 to ptr\n  %5 = load i32, ptr %4, align 4\n"
            "  ret i32 %5\n}",
            "pointer made of 32 bits",
            id="pointer-from-nowhere",
        ),
        pytest.param(
            "define i32 @prog(ptr %0, i64 %1) {\n  %3 = alloca [4 x ptr]\n"
            "  %4 = getelementptr [4 x ptr], ptr %3, i64 0, i64 %1\n  store ptr %0, ptr %4\n  ret i32 0\n}",
            "cannot be followed",
            id="stored-at-a-variable-place",
        ),
        pytest.param(
            "define i32 @prog(ptr %0, i64 %1) {\n  %3 = alloca [4 x ptr]\n  store ptr %0, ptr %3\n"
            "  %4 = getelementptr [4 x ptr], ptr %3, i64 0, i64 %1\n  %5 = load ptr, ptr %4\n"
            "  %6 = load i32, ptr %5\n  ret i32 %6\n}",
            "may or may not",
            id="loaded-from-a-variable-place",
        ),
        pytest.param(
            "@g = external global ptr\ndefine i32 @prog(ptr %0) {\n  store ptr %0, ptr @g\n  ret i32 0\n}",
            "cannot be followed",
            id="stored-in-global-data",
        ),
        pytest.param(
            "define i32 @prog(ptr %0) {\n  %2 = ptrtoint ptr %0 to i64\n  %3 = inttoptr i64 %2 to ptr\n"
            "  %4 = load i32, ptr %3\n  ret i32 %4\n}",
            "cannot be followed",
            id="made-a-number",
        ),
        pytest.param(
            "define i32 @prog(ptr %0, ptr %1) {\n  %3 = call i32 %1(ptr %0)\n  ret i32 %3\n}",
            "cannot be followed",
            id="passed-to-who-knows-whom",
        ),
        pytest.param(
            "define i32 @prog(ptr %0, ptr %1) {\n  %3 = call i64 inttoptr (i64 113 to ptr)(ptr %1, i32 8, ptr %0)\n"
            "  ret i32 0\n}",
            "cannot be followed",
            id="read-as-the-kernel's-memory",
        ),
    ],
)
def test_widen_context_what_the_rules_do_not_explain_is_refused(body: str, fragment: str) -> None:
    with pytest.raises(ContextError, match=fragment):
        _widened(body)
