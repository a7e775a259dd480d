"""IR made defined: every promise goes, everything undefined gets BPF's meaning, and LLVM still accepts it."""

import ctypes
import time

import llvmlite.binding as llvm
import pytest

from uxdp_bundle.defined_ir import defined
from uxdp_bundle.ir_promises import UndefinedIrError
from uxdp_bundle.ir_syntax import end_of_type, split_arguments, type_bytes
from uxdp_runtime.compile.loader import LoadedObject

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()

LAYOUT = 'target datalayout = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"\n'


def printed(text: str) -> str:
    """Return IR as LLVM prints it."""
    module = llvm.parse_assembly(LAYOUT + text)
    module.verify()
    return str(module)


def made(text: str) -> str:
    """Return IR made defined, as LLVM prints it; making it defined once more must change nothing."""
    first = printed_again(defined(printed(text)))
    assert defined(first) == first
    return first


def printed_again(text: str) -> str:
    module = llvm.parse_assembly(text)
    module.verify()
    return str(module)


def native(text: str) -> LoadedObject:
    """Compile IR for this machine at O3, as programs are."""
    module = llvm.parse_assembly(text)
    machine = llvm.Target.from_default_triple().create_target_machine(opt=3, reloc="pic", codemodel="small")
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    return LoadedObject(machine.emit_object(module), {})


# Each is a function of two numbers that tests its first one and says 1 if the test passes, 2 if it does not. The lie,
# which the test contradicts, makes the test needless: with it LLVM answers 1 whatever the number is.
LIES = {
    "assume": (
        "%c = icmp ult i64 %x, 8\ncall void @llvm.assume(i1 %c)\n%r = select i1 %c, i64 1, i64 2\nret i64 %r",
        "declare void @llvm.assume(i1)",
    ),
    "assume-bundle": (
        '%p = inttoptr i64 %x to ptr\ntail call void @llvm.assume(i1 true) [ "align"(ptr %p, i64 16) ]\n'
        "%a = and i64 %x, 15\n%c = icmp eq i64 %a, 0\n%r = select i1 %c, i64 1, i64 2\nret i64 %r",
        "declare void @llvm.assume(i1)",
    ),
    "nuw": ("%a = add nuw i64 %x, 14\n%c = icmp uge i64 %a, 14\n%r = select i1 %c, i64 1, i64 2\nret i64 %r", ""),
    "nsw": (
        "%a = add nsw i64 %x, 9223372036854775807\n%c = icmp sgt i64 %a, %x\n%r = select i1 %c, i64 1, i64 2\n"
        "ret i64 %r",
        "",
    ),
    "exact": (
        "%a = lshr exact i64 %x, 3\n%b = shl i64 %a, 3\n%c = icmp eq i64 %b, %x\n%r = select i1 %c, i64 1, i64 2\n"
        "ret i64 %r",
        "",
    ),
    "disjoint": (
        "%a = or disjoint i64 %x, 8\n%b = sub i64 %a, %x\n%c = icmp eq i64 %b, 8\n%r = select i1 %c, i64 1, i64 2\n"
        "ret i64 %r",
        "",
    ),
    "nneg": (
        "%t = trunc i64 %x to i32\n%a = zext nneg i32 %t to i64\n%c = icmp ult i64 %a, 2147483648\n"
        "%r = select i1 %c, i64 1, i64 2\nret i64 %r",
        "",
    ),
    "trunc-nuw": (
        "%t = trunc nuw i64 %x to i8\n%a = zext i8 %t to i64\n%c = icmp eq i64 %a, %x\n"
        "%r = select i1 %c, i64 1, i64 2\nret i64 %r",
        "",
    ),
    "inbounds": (
        "%p = inttoptr i64 %x to ptr\n%q = getelementptr inbounds nuw i8, ptr %p, i64 14\n%c = icmp uge ptr %q, %p\n"
        "%r = select i1 %c, i64 1, i64 2\nret i64 %r",
        "",
    ),
    "parameter-range": (
        "%r = call i64 @f(i64 %x)\nret i64 %r",
        "define internal i64 @f(i64 range(i64 0, 8) %x) noinline {\n%c = icmp ult i64 %x, 8\n"
        "%r = select i1 %c, i64 1, i64 2\nret i64 %r\n}",
    ),
    "result-range": (
        "%a = call range(i64 0, 8) i64 @f(i64 %x)\n%c = icmp ult i64 %a, 8\n%r = select i1 %c, i64 1, i64 2\n"
        "ret i64 %r",
        "define internal i64 @f(i64 %x) noinline optnone {\nret i64 %x\n}",
    ),
    "nonnull": (
        "%p = inttoptr i64 0 to ptr\n%r = call i64 @f(ptr %p)\nret i64 %r",
        "define internal i64 @f(ptr nonnull align 16 dereferenceable(64) %p) noinline {\n%c = icmp ne ptr %p, null\n"
        "%r = select i1 %c, i64 1, i64 2\nret i64 %r\n}",
    ),
    "metadata-range": (
        "store volatile i64 %x, ptr @cell\n%a = load i64, ptr @cell, !range !0, !noundef !1\n%c = icmp ult i64 %a, 8\n"
        "%r = select i1 %c, i64 1, i64 2\nret i64 %r",
        "@cell = internal global i64 0\n!0 = !{i64 0, i64 8}\n!1 = !{}",
    ),
    "invariant-load": (
        "%a = load i64, ptr @cell, !invariant.load !1\nstore i64 %x, ptr @cell\n"
        "%b = load i64, ptr @cell, !invariant.load !1\n%c = icmp eq i64 %a, %b\n%r = select i1 %c, i64 1, i64 2\n"
        "ret i64 %r",
        "@cell = internal global i64 0\n!1 = !{}",
    ),
    "memory-none": (
        "%a = load i64, ptr @cell\ncall void @f(i64 %x)\n%b = load i64, ptr @cell\n%c = icmp eq i64 %a, %b\n"
        "%r = select i1 %c, i64 1, i64 2\nret i64 %r",
        "@cell = internal global i64 0\n"
        "define internal void @f(i64 %x) noinline optnone memory(none) willreturn nounwind {\n"
        "store i64 %x, ptr @cell\nret void\n}",
    ),
    "unreachable": (
        "%c = icmp ult i64 %x, 8\nbr i1 %c, label %yes, label %no\nyes:\nret i64 1\nno:\nunreachable",
        "",
    ),
    "poison": ("%c = icmp ult i64 %x, 8\n%r = select i1 %c, i64 1, i64 poison\nret i64 %r", ""),
    "tail-with-a-slot": (
        "%p = alloca i64\nstore i64 1, ptr %p\ntail call void @f(ptr %p, i64 %x)\n%r = load i64, ptr %p\nret i64 %r",
        "define internal void @f(ptr %p, i64 %x) noinline optnone {\n%c = icmp ult i64 %x, 8\n"
        "%r = select i1 %c, i64 1, i64 2\nstore i64 %r, ptr %p\nret void\n}",
    ),
    "noalias": (
        "%r = call i64 @f(ptr @cell, ptr @cell, i64 %x)\nret i64 %r",
        "@cell = internal global i64 0\n"
        "define internal i64 @f(ptr noalias %p, ptr noalias %q, i64 %x) noinline {\nstore i64 5, ptr %p\n"
        "store i64 %x, ptr %q\n%a = load i64, ptr %p\n%c = icmp eq i64 %a, 5\n%r = select i1 %c, i64 1, i64 2\n"
        "ret i64 %r\n}",
    ),
    "is-constant": (
        "%c = icmp ult i64 %x, 8\n%k = call i1 @llvm.is.constant.i64(i64 5)\n%b = or i1 %c, %k\n"
        "%r = select i1 %b, i64 1, i64 2\nret i64 %r",
        "declare i1 @llvm.is.constant.i64(i64)",
    ),
    "invariant-start": (
        "store i64 7, ptr @cell\n%i = call ptr @llvm.invariant.start.p0(i64 8, ptr @cell)\nstore i64 %x, ptr @cell\n"
        "%a = load i64, ptr @cell\n%c = icmp eq i64 %a, 7\n%r = select i1 %c, i64 1, i64 2\nret i64 %r",
        "@cell = internal global i64 0\ndeclare ptr @llvm.invariant.start.p0(i64, ptr)",
    ),
}
# What the truthful program says of a number that breaks the promise; unreachable and poison are zero.
BROKEN = 1 << 63 | 0x8000_0F0F
ANSWERS = {"unreachable": 0, "poison": 0, "nuw": 2, "inbounds": 2}
NUMBERS = {"nuw": (1 << 64) - 1, "inbounds": (1 << 64) - 1, "nsw": 1}


@pytest.mark.parametrize("name", LIES)
def test_defined_lie_is_removed_and_the_check_stays(name: str) -> None:
    body, around = LIES[name]
    text = made(f"define i64 @check(i64 %x, i64 %y) {{\n{body}\n}}\n{around}")
    check = native(text).function("check", ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)
    assert check(NUMBERS.get(name, BROKEN), 0) == ANSWERS.get(name, 2)


@pytest.mark.parametrize("name", ["assume", "nuw", "parameter-range", "unreachable", "inbounds", "nonnull"])
def test_lie_that_stays_would_drop_the_check(name: str) -> None:
    """So the test above shows something."""
    body, around = LIES[name]
    text = printed(f"define i64 @check(i64 %x, i64 %y) {{\n{body}\n}}\n{around}")
    check = native(text).function("check", ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)
    assert check(NUMBERS.get(name, BROKEN), 0) == 1


MASK = (1 << 64) - 1


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


def _expected(opcode: str, bits: int, x: int, y: int) -> int:
    """Compute what BPF's instruction gives."""
    limit = (1 << bits) - 1
    if opcode in ("shl", "lshr", "ashr"):
        amount = y % bits
        value = {"shl": x << amount, "lshr": x >> amount, "ashr": _signed(x, bits) >> amount}[opcode]
        return value & limit
    if y == 0:
        return x if opcode.endswith("rem") else 0
    if opcode[0] == "u":
        return (x // y if opcode == "udiv" else x % y) & limit
    a, b = _signed(x, bits), _signed(y, bits)
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return (quotient if opcode == "sdiv" else a - b * quotient) & limit


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
@pytest.mark.parametrize("opcode", ["shl", "lshr", "ashr", "udiv", "urem", "sdiv", "srem"])
def test_defined_arithmetic_has_the_results_of_bpf(opcode: str, bits: int) -> None:
    values = sorted({0, 1, 2, 7, bits - 1, bits, bits + 3, (1 << bits) - 1, (1 << bits - 1) - 1, 1 << bits - 1})
    values = [value for value in values if value < 1 << bits]
    constants = "\n".join(
        f"define i{bits} @by{number}(i{bits} %x) {{\n%r = {opcode} i{bits} %x, {number}\nret i{bits} %r\n}}"
        for number in values
    )
    by_number = f"define i{bits} @by(i{bits} %x, i{bits} %y) {{\n%r = {opcode} i{bits} %x, %y\nret i{bits} %r\n}}\n"
    loaded = native(made(by_number + constants))
    kind = {8: ctypes.c_uint8, 16: ctypes.c_uint16, 32: ctypes.c_uint32, 64: ctypes.c_uint64}[bits]
    by = loaded.function("by", kind, kind, kind)
    for y in values:
        by_constant = loaded.function(f"by{y}", kind, kind)
        for x in values:
            assert by(x, y) == _expected(opcode, bits, x, y), (x, y)
            assert by_constant(x) == _expected(opcode, bits, x, y), (x, y)


def test_defined_shift_that_is_masked_already_stays() -> None:
    text = printed("define i64 @f(i64 %x, i64 %y) {\n%m = and i64 %y, 63\n%r = shl i64 %x, %m\nret i64 %r\n}")
    assert defined(text) == text


def test_defined_mask_that_is_too_wide_is_narrowed() -> None:
    text = made("define i64 @f(i64 %x, i64 %y) {\n%m = and i64 %y, 64\n%r = shl i64 %x, %m\nret i64 %r\n}")
    assert text.count(" and i64 ") == 2


def test_defined_bool_in_memory_is_a_byte() -> None:
    text = made(
        "@flag = internal global i1 false\n@other = internal global i8 2\n"
        "define i64 @check(i64 %x, i64 %y) {\n%b = load i1, ptr @other\n%c = icmp ult i64 %x, 8\n"
        "store i1 %c, ptr @flag\nstore i1 true, ptr @flag\n%r = zext i1 %b to i64\nret i64 %r\n}"
    )
    assert "load i1" not in text
    assert "store i1" not in text
    assert native(text).function("check", ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)(1, 0) == 0


def test_defined_keeps_what_debuggers_and_core_need() -> None:
    text = made(
        '@"llvm.s:0:4$0:1" = external global i64, !llvm.preserve.access.index !3\n'
        "define i32 @f(ptr noundef %p) #0 !dbg !4 {\n"
        '  %1 = load i64, ptr @"llvm.s:0:4$0:1", align 8, !dbg !7, !tbaa !8\n'
        "  %2 = getelementptr inbounds i8, ptr %p, i64 %1, !dbg !7\n"
        "    #dbg_value(i32 poison, !10, !DIExpression(), !7)\n"
        "  ret i32 0, !dbg !7\n}\n"
        'attributes #0 = { mustprogress nofree norecurse nosync nounwind memory(read) "target-cpu"="v3" }\n'
        "!llvm.dbg.cu = !{!0}\n!llvm.module.flags = !{!2}\n"
        "!0 = distinct !DICompileUnit(language: DW_LANG_C11, file: !1, emissionKind: FullDebug)\n"
        '!1 = !DIFile(filename: "a.c", directory: ".")\n'
        '!2 = !{i32 2, !"Debug Info Version", i32 3}\n'
        '!3 = !DICompositeType(tag: DW_TAG_structure_type, name: "s", file: !1, line: 1, size: 32)\n'
        '!4 = distinct !DISubprogram(name: "f", file: !1, line: 2, type: !5, unit: !0, spFlags: DISPFlagDefinition)\n'
        "!5 = !DISubroutineType(types: !6)\n!6 = !{null}\n!7 = !DILocation(line: 3, scope: !4)\n"
        '!8 = !{!9, !9, i64 0}\n!9 = !{!"long", !11, i64 0}\n!11 = !{!"root"}\n'
        '!10 = !DILocalVariable(name: "v", scope: !4, file: !1, line: 3, type: !12)\n'
        '!12 = !DIBasicType(name: "int", size: 32, encoding: DW_ATE_signed)\n'
    )
    assert text.count("!llvm.preserve.access.index !") == 1
    assert "load i64" in text and "!dbg" in text and "#dbg_value(i32 poison" in text
    assert "define i32 @f(ptr %p) #0 !dbg" in text
    assert '#0 = { nounwind "target-cpu"="v3" }' in text
    assert "tbaa" not in text and "inbounds" not in text


def test_defined_leaves_strings_alone() -> None:
    text = made('@s = constant [35 x i8] c"undef poison nuw  add nsw exact   \\00"\n@u = global i32 undef\n')
    assert 'c"undef poison nuw  add nsw exact   \\00"' in text
    assert "@u = global i32 0" in text


def test_defined_slots_live_as_long_as_their_function_if_they_fit() -> None:
    def slots(size: int) -> str:
        return made(
            f"define void @f() {{\n%a = alloca [{size} x i8]\ncall void @llvm.lifetime.start.p0(ptr %a)\n"
            "store volatile i8 1, ptr %a\ncall void @llvm.lifetime.end.p0(ptr %a)\nret void\n}\n"
            "declare void @llvm.lifetime.start.p0(ptr)\ndeclare void @llvm.lifetime.end.p0(ptr)"
        )

    assert "call void @llvm.lifetime" not in slots(384)
    assert slots(385).count("call void @llvm.lifetime") == 2


@pytest.mark.parametrize(
    ("body", "around", "kind"),
    [
        pytest.param(
            "%r = call i64 @g(i32 1)",
            "define internal i64 @g(i64 %x) {\nret i64 %x\n}",
            "call",
            id="call-by-another-type",
        ),
        pytest.param(
            "%r = call i64 @g(i64 1)",
            "define internal void @g(i64 %x) {\nret void\n}",
            "call",
            id="call-with-another-result",
        ),
        pytest.param(
            "call void @g(ptr byval(i64) @cell)",
            "@cell = global i64 0\ndefine internal void @g(ptr byval(i64) %p) {\nret void\n}",
            "by-value",
            id="by-value",
        ),
        pytest.param(
            'call void @g() [ "kcfi"(i32 5) ]', "define internal void @g() {\nret void\n}", "call", id="operand-bundle"
        ),
        pytest.param("", "define internal void @g(...) {\nret void\n}", "variadic", id="variadic"),
        pytest.param(
            "%v = insertelement <2 x i64> zeroinitializer, i64 1, i64 %x", "", "undefined", id="element-anywhere"
        ),
        pytest.param(
            "%v = insertelement <2 x i64> zeroinitializer, i64 1, i64 2", "", "undefined", id="element-outside"
        ),
        pytest.param("%v = shl <2 x i64> splat (i64 1), splat (i64 64)", "", "undefined", id="wide-vector-shift"),
        pytest.param("%v = udiv <2 x i64> splat (i64 1), zeroinitializer", "", "undefined", id="vector-by-zero"),
        pytest.param("%v = load i3, ptr @cell", "@cell = global i8 0", "undefined", id="three-bits"),
        pytest.param(
            "%v = call i64 @llvm.ushl.sat.i64(i64 1, i64 %x)",
            "declare i64 @llvm.ushl.sat.i64(i64, i64)",
            "undefined",
            id="saturating-shift",
        ),
        pytest.param(
            "%a = inttoptr i64 %x to ptr\nindirectbr ptr %a, [label %next]\nnext:", "", "instruction", id="indirectbr"
        ),
    ],
)
def test_defined_what_has_no_meaning_is_refused(body: str, around: str, kind: str) -> None:
    text = printed(f"define i64 @f(i64 %x) {{\n{body}\nret i64 0\n}}\n{around}")
    with pytest.raises(UndefinedIrError) as refused:
        defined(text)
    assert refused.value.kind == kind


def test_defined_conventions_are_all_c() -> None:
    text = made(
        "define i64 @f(i64 %x) {\n%r = call fastcc signext i8 @g(i8 signext 1)\n%s = sext i8 %r to i64\nret i64 %s\n}\n"
        "define internal fastcc signext i8 @g(i8 signext %x) {\nret i8 %x\n}"
    )
    assert "fastcc" not in text
    assert "signext" not in text


def test_defined_varying_arguments_of_a_helper_are_those_of_the_call() -> None:
    text = made(
        '@s = internal constant [2 x i8] c"x\\00"\ndefine i64 @f(i64 %x) {\n'
        "%r = call i64 (ptr, i32, ...) inttoptr (i64 6 to ptr)(ptr nonnull @s, i32 noundef 2, i64 noundef %x)\n"
        "ret i64 %r\n}"
    )
    assert "call i64 inttoptr (i64 6 to ptr)(ptr @s, i32 2, i64 %x)" in text


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("%v{} = add nuw nsw i64 %x, {}", id="short-lines"),
        pytest.param("%v{} = shl i64 %x, %x ; {}", id="shifts"),
    ],
)
def test_defined_is_linear_in_the_text(line: str) -> None:
    lines = "\n".join(line.format(number, number) for number in range(60_000))
    text = printed(f"define i64 @f(i64 %x) {{\n{lines}\nret i64 %x\n}}")
    start = time.process_time()
    defined(text)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "define void @f(" + ", ".join(f"i64 %a{n}" for n in range(100_000)) + ") {\nret void\n}", id="parameters"
        ),
        pytest.param('@g = global [3 x i8] c"abc"\n' + "; " + "uxdp." * 500_000, id="comment"),
        pytest.param("@g = global [200000 x i8] [" + ", ".join(["i8 undef"] * 200_000) + "]", id="one-long-line"),
        pytest.param(
            "define void @f() {\n" + "".join(f"%uxdp{'x' * n}.1 = add i1 0, 0\n" for n in range(900)) + "ret void\n}",
            id="taken-names",
        ),
    ],
)
def test_defined_long_lines_take_seconds(text: str) -> None:
    start = time.process_time()
    defined(printed(text))
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("i1", (1, 1)),
        ("i48", (8, 8)),
        ("ptr", (8, 8)),
        ("[3 x i16]", (6, 2)),
        ("{ i8, i64 }", (16, 8)),
        ("<{ i8, i64 }>", (9, 1)),
        ("%struct.s", (24, 8)),
        ("<4 x i32>", (16, 16)),
        ("[2 x { i8, [3 x i32] }]", (32, 4)),
    ],
)
def test_type_bytes_is_what_llvm_says(kind: str, expected: tuple[int, int]) -> None:
    types = {"%struct.s": "{ i32, %struct.t }", "%struct.t": "{ i64, i8 }"}
    assert type_bytes(kind, types) == expected


def test_type_bytes_of_what_has_no_size_raises() -> None:
    with pytest.raises(ValueError, match="deep"):
        type_bytes("[1 x " * 100 + "i8" + "]" * 100, {})
    with pytest.raises(ValueError, match="no size"):
        type_bytes("metadata", {})


def test_split_arguments_keeps_brackets_and_strings_together() -> None:
    assert split_arguments('i32 1, { i8, i8 } %x, ptr @"a, b"') == ["i32 1", "{ i8, i8 } %x", 'ptr @"a, b"']
    assert split_arguments("") == []
    assert end_of_type("{ i8, [2 x i8] } %x", 0) == 16
