"""IR that gets as far as the compiler, and what the compiler's own process does to the one that asked: nothing."""

import dataclasses
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from tests.hostile.test_ir import HEAD, bitcode
from uxdp_bundle import confined_child
from uxdp_bundle.container import bundle_from_bytes
from uxdp_bundle.errors import BindingError, LoweringError, UnsupportedFeatureError, UxdpError
from uxdp_runtime.compile import compiler, targets
from uxdp_runtime.compile.compiler import NativeObject, ProgramSource, compile_object
from uxdp_runtime.compile.program import CompiledProgram
from uxdp_runtime.native_module import FrameBatch, NativeModule
from uxdp_runtime.stores import Stores, control_library

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()

TARGET = targets.named_target("x86-64-v3").target
X = "%x = load volatile i64, ptr @cell\n"
CELL = '@cell = global i64 0, section ".data"\n'


@pytest.fixture
def minimal_object(minimal_image: bytes) -> bytes:
    """The object of a small program, which this IR is not the IR of: the compiler is asked all the same."""
    with bundle_from_bytes(minimal_image) as bundle:
        return bytes(bundle.object)


def compiled(ir: bytes, obj: bytes, entry: str = "minimal") -> NativeObject:
    """Compile IR as a program of one XDP function."""
    source = ProgramSource(
        ir=ir, object=obj, entry=entry, programs=(entry,), maps=(), num_cpus=1, values={}, constants={}
    )
    return compile_object(source, TARGET)


def in_use() -> tuple[int, int]:
    """Return how many descriptors and threads this process has."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def calls(*edges: str) -> str:
    """Return functions that call each other: "ab" is a function a that calls b."""
    return "\n".join(
        f"define internal i32 @{one}(i32 %x) noinline {{\n%r = call i32 @{other}(i32 %x)\nret i32 %r\n}}"
        for one, other in edges
    )


@pytest.mark.parametrize(
    ("ir", "fragment"),
    [
        pytest.param(
            lambda: bitcode("%r = call i32 @a(i32 1)", around=calls("aa")),
            "function a gets back to itself: a → a",
            id="recursion",
        ),
        pytest.param(
            lambda: bitcode("%r = call i32 @a(i32 1)", around=calls("ab", "bc", "ca")),
            "gets back to itself: ",
            id="mutual-recursion",
        ),
        pytest.param(
            lambda: bitcode(
                "%r = call i64 @body(i32 0, ptr null)",
                around=(
                    "define internal i64 @body(i32 %i, ptr %p) noinline {\n"
                    "%r = call i64 inttoptr (i64 181 to ptr)(i32 9, ptr @body, ptr null, i64 0)\nret i64 %r\n}"
                ),
            ),
            "function body gets back to itself",
            id="recursion-by-callback",
        ),
        pytest.param(
            lambda: bitcode("%a = alloca [40000 x i8]\nstore volatile i8 1, ptr %a"),
            "40000 bytes of stack, expected at most",
            id="large-stack",
        ),
        pytest.param(
            lambda: bitcode("%a = alloca [1099511627776 x [1099511627776 x i8]]\nstore volatile i8 1, ptr %a"),
            "bytes of stack, expected at most",
            id="stack-beyond-64-bits",
        ),
        pytest.param(
            lambda: bitcode(X + "%a = alloca i8, i64 %x\nstore volatile i8 1, ptr %a", around=CELL),
            "a size that is not constant",
            id="dynamic-stack",
        ),
        pytest.param(lambda: bitcode('call void asm sideeffect "nop", ""()'), "assembly", id="assembly"),
        pytest.param(lambda: b"BC\xc0\xde" + bytes(400), "the IR is not valid", id="no-bitcode"),
        pytest.param(
            lambda: bitcode("%r = call i32 @f(i32 1)", around="define internal i32 @f(i64 %x) {\nret i32 0\n}"),
            "by another type than its own",
            id="call-by-another-type",
        ),
        pytest.param(
            lambda: bitcode(
                "%r = call i32 @uxdp_program(ptr null)", around="define i32 @uxdp_program(ptr %p) {\nret i32 1\n}"
            ),
            "the rewritten IR is not valid",
            id="the-entry's-own-name",
        ),
    ],
)
def test_compile_what_no_verified_program_does_is_refused(minimal_object: bytes, ir, fragment: str) -> None:
    before = in_use()
    with pytest.raises(BindingError, match=fragment):
        compiled(ir(), minimal_object)
    assert in_use() == before


@pytest.mark.parametrize(
    "name",
    [
        "process_vm_readv",
        "syscall",
        "write",
        "uxdp_helper_map_update_elem",
        "uxdp_worker",
        "uxdp_kernel",
        "bpf_xdp_nothing",
    ],
)
def test_compile_kfunc_that_is_called_like_a_function_of_ours_is_no_such_function(
    minimal_object: bytes, name: str
) -> None:
    around = f'declare extern_weak i64 @{name}(ptr, i64) section ".ksyms"'
    with pytest.raises(UnsupportedFeatureError, match="kfunc without native implementation") as caught:
        compiled(bitcode(f"%r = call i64 @{name}(ptr %ctx, i64 1)", around=around), minimal_object)
    assert caught.value.name == name


def test_compile_variable_that_is_called_like_one_of_ours_is_the_bundle_s_own() -> None:
    source = (
        '@uxdp_worker = global i64 7, section ".data"\n@write = global i64 1, section ".data"\n'
        "define internal i64 @strlen(ptr %p) noinline {\nret i64 40\n}\n"
        '@text = internal constant [3 x i8] c"ab\\00"\n'
    )
    body = (
        "%a = load volatile i64, ptr @uxdp_worker\nstore volatile i64 %a, ptr @write\n"
        "%n = call i64 @strlen(ptr @text)\nstore volatile i64 %n, ptr @uxdp_worker\n"
    )
    module = llvm.parse_assembly(
        HEAD
        + '@_license = global [4 x i8] c"GPL\\00", section "license"\n'
        + source
        + (f'define i32 @minimal(ptr %ctx) section "xdp" {{\n{body}ret i32 2\n}}')
    )
    machine = llvm.Target.from_triple("bpfel").create_target_machine(cpu="v3", opt=2)
    obj = bytes(machine.emit_object(module))
    native = compiled(module.as_bitcode(), obj)
    assert b"uxdp.own.uxdp_worker" in native.data
    assert b"uxdp.own.write" in native.data


def run_limited(
    ir: bytes, folder: Path, *, cpu_seconds: int, memory: int = 4 << 30
) -> subprocess.CompletedProcess[str]:
    """Compile in a process with limits, which its child has too; print the error's type and text."""
    (folder / "hostile.bc").write_bytes(ir)
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.bundle_factory import Forgery\n"
        "from tests.hostile.test_compile import compiled\n"
        "from uxdp_bundle.errors import UxdpError\n"
        "obj = Forgery.of('minimal').content('object')\n"
        "import resource, time\n"
        f"cpu = int(time.process_time()) + {cpu_seconds}\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))\n"
        "try:\n    compiled(Path(sys.argv[1]).read_bytes(), obj); print('compiled')\n"
        "except UxdpError as error:\n    print(type(error).__name__, str(error)[:300].replace(chr(10), ' '))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(folder / "hostile.bc")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def chain(length: int) -> str:
    return (
        X
        + "%x0 = add i64 %x, 1\n"
        + "".join(f"%x{i + 1} = mul i64 %x{i}, %x{max(i - 1, 0)}\n" for i in range(length))
        + f"store volatile i64 %x{length}, ptr @cell"
    )


@pytest.mark.parametrize(
    "ir",
    [
        pytest.param(lambda: bitcode(chain(60_000), around=CELL), id="long-chain"),
        pytest.param(
            lambda: bitcode(
                X
                + "switch i64 %x, label %end [\n"
                + "".join(f"i64 {i * i}, label %b{i}\n" for i in range(60_000))
                + "]\n"
                + "".join(f"b{i}:\nstore volatile i64 {i}, ptr @cell\nbr label %end\n" for i in range(60_000))
                + "end:\n",
                around=CELL,
            ),
            id="giant-switch",
        ),
    ],
)
def test_compile_what_keeps_llvm_busy_is_ended(tmp_path: Path, ir) -> None:
    start = time.monotonic()
    done = run_limited(ir(), tmp_path, cpu_seconds=3)
    assert done.stdout.startswith(("LoweringError IR: LLVM could not", "LoweringError IR: LLVM did not"))
    assert done.stderr == ""
    assert time.monotonic() - start < 100


def test_compile_what_eats_memory_is_ended(tmp_path: Path) -> None:
    big = "@big = constant [3000000000 x i8] zeroinitializer\n" + CELL
    body = X + "%p = getelementptr i8, ptr @big, i64 %x\n%v = load volatile i8, ptr %p"
    done = run_limited(bitcode(body, around=big), tmp_path, cpu_seconds=60, memory=1 << 30)
    assert done.stdout.startswith("LoweringError IR: "), done
    assert done.stderr == ""


def test_compile_answer_that_is_too_large_is_cut_off(minimal_object: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined_child, "MAX_ANSWER_BYTES", 1 << 20)
    big = "@big = constant [3000000 x i8] zeroinitializer\n" + CELL
    body = X + "%p = getelementptr i8, ptr @big, i64 %x\n%v = load volatile i8, ptr %p"
    before = in_use()
    with pytest.raises(LoweringError, match="answers with more than 1 MiB"):
        compiled(bitcode(body, around=big), minimal_object)
    assert in_use() == before


def test_compile_that_takes_too_long_is_ended(minimal_object: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_TIMEOUT_SECONDS", 2)
    before = in_use()
    with pytest.raises(LoweringError, match="did not finish in 2 s"):
        compiled(bitcode(chain(60_000), around=CELL), minimal_object)
    assert in_use() == before


def test_compile_types_nested_too_deep_are_refused(tmp_path: Path) -> None:
    depth = 20_000
    text = "@deep = external global " + "[1 x " * depth + "i8" + "]" * depth
    done = run_limited((HEAD + text).encode(), tmp_path, cpu_seconds=20)
    assert done.stdout.startswith(("LoweringError ", "BindingError ")), done


def test_compile_child_of_a_busy_parent_leaves_nothing_behind(minimal_object: bytes) -> None:
    compiled(bitcode(), minimal_object)
    before, peak = in_use(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        with pytest.raises(UxdpError):
            compiled(b"no bitcode", minimal_object)
    assert in_use() == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 64 << 10


def test_compile_what_makes_llvm_end_its_process_is_an_error(minimal_object: bytes) -> None:
    # What only the BPF backend knows is nothing that code can be selected for: a fatal error.
    ir = bitcode(
        "%n = call i32 @llvm.bpf.btf.type.id(i32 0, i64 1)\nstore volatile i32 %n, ptr @cell",
        around="declare i32 @llvm.bpf.btf.type.id(i32, i64)\n" + CELL,
    )
    with pytest.raises((BindingError, UnsupportedFeatureError)):
        compiled(ir, minimal_object)


LYING = """
%e = getelementptr i8, ptr %ctx, i64 4
%d32 = load i32, ptr %ctx, align 4, !range !0
%e32 = load i32, ptr %e, align 4, !noundef !1
%d64 = zext nneg i32 %d32 to i64
%e64 = zext nneg i32 %e32 to i64
%data = inttoptr i64 %d64 to ptr
%end = inttoptr i64 %e64 to ptr
%behind = getelementptr inbounds nuw i8, ptr %data, i64 14
%fits = icmp ule ptr %behind, %end
call void @llvm.assume(i1 %fits)
call void @llvm.assume(i1 true) [ "dereferenceable"(ptr %data, i64 14) ]
br i1 %fits, label %long, label %short
short:
ret i32 1
long:
%last = getelementptr inbounds nuw i8, ptr %data, i64 13
%v = load volatile i8, ptr %last, align 1
"""


@pytest.mark.parametrize(("length", "verdict"), [pytest.param(13, 1, id="short"), pytest.param(14, 2, id="long")])
def test_compile_lie_about_the_frame_s_length_leaves_the_check(
    minimal_object: bytes, length: int, verdict: int
) -> None:
    """The object has the check, with or without the lie; so must native code."""
    ir = bitcode(LYING, around="declare void @llvm.assume(i1)\n!0 = !{i32 1, i32 65536}\n!1 = !{}\n")
    source = ProgramSource(
        ir=ir,
        object=minimal_object,
        entry="minimal",
        programs=("minimal",),
        maps=(),
        num_cpus=1,
        values={},
        constants={},
    )
    native = compile_object(source, targets.host_target(None))
    stores = Stores(minimal_object, (), 1, control_library())
    batch = FrameBatch(1)
    batch.put(0, bytes(length))
    NativeModule(native.data, stores, 0).run(batch, 1)
    assert batch.result(0).verdict == verdict


def test_compile_by_another_llvm_is_refused_by_name(minimal_object: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "LLVM_MAJOR", 21)
    with pytest.raises(
        UnsupportedFeatureError, match="llvmlite: it holds LLVM 22, and native code is made by 21"
    ) as caught:
        compiled(bitcode(), minimal_object)
    assert caught.value.remedy.startswith("pip install")


def test_compiled_program_cannot_be_made_without_the_kernel_s_verdict() -> None:
    with pytest.raises(TypeError, match="made by compile_program"):
        CompiledProgram(*[None] * (len(dataclasses.fields(CompiledProgram)) + 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot be derived from"):
        type("Forged", (CompiledProgram,), {})
