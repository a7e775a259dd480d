import json
import os
import struct
import subprocess
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from tests.unit.facts_fixtures import CASES, HEADER, PASS, SOURCES, compile_ir
from uxdp_bundle import confined_child, lowering, lowering_child
from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.errors import LoweringError, UnsupportedFeatureError
from uxdp_bundle.facts import object_facts
from uxdp_bundle.lowering import LLVM_MAJOR, RefusedIrError, lower, lower_as
from uxdp_bundle.manifest import Lowering
from uxdp_cc.toolchain import find_toolchain, system_headers

SIMPLE = HEADER + PASS


def compile_file(path: Path, folder: Path, *flags: str) -> bytes:
    """Compile a file as uxdp-cc does, with clang alone."""
    toolchain = find_toolchain()
    command = [*toolchain.command, "-target", "bpf", "-O2", "-g", "-mcpu=v3", *toolchain.headers, "-fno-ident"]
    command += ["-fdebug-compilation-dir=.", "-gembed-source", *system_headers(()), *flags]
    output = folder / f"output{len(list(folder.iterdir()))}"
    subprocess.run([*command, "-c", path.name, "-o", str(output)], cwd=path.parent, check=True, timeout=60)
    return output.read_bytes()


def everything_but_debugging(obj: BpfObject) -> list[object]:
    """Return what is loaded of an object, with symbols instead of their numbers."""
    found: list[object] = []
    for section in obj.sections:
        if section.flags & 2 or section.name in ("license", ".BTF.ext"):
            symbols = {
                place: (relocation.type, relocation.symbol.name, relocation.symbol.value)
                for place, relocation in obj.relocations.get(section.index, {}).items()
            }
            data = b"" if section.name == ".BTF.ext" else section.data
            found.append((section.name, section.type, section.flags, data, symbols))
    return found


def lines(obj: BpfObject, own: str) -> list[object]:
    """Return the line of every instruction, with its text if it is of the project's own file."""
    found: list[object] = []
    for section in obj.sections:
        for offset in range(0, section.size if section.executable else 0, 8):
            line = obj.line_at(section, offset)
            assert line is not None
            name = line.file.rpartition("/")[2]
            found.append((section.name, offset, name, line.line, line.column, line.text if name == own else ""))
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_lower_gives_the_object_that_clang_of_the_same_version_gives(name, tmp_path):
    """Code, relocations, maps, data, types and line information; only strings of system headers differ.

    clang gets the IR that was made defined: of its own, it may do other things where C leaves it the choice.
    """
    source = SOURCES[name]
    version = find_toolchain().version
    if f" {LLVM_MAJOR}." not in version:
        pytest.skip(f"{version} is not llvmlite's LLVM {LLVM_MAJOR}: pip install 'uxdp[clang]' and unset UXDP_CLANG")
    lowered = lower([compile_file(source, tmp_path, "-emit-llvm")], prepare=True)
    found = BpfObject(lowered.object)
    defined = tmp_path / "defined.bc"
    defined.write_bytes(lowered.ir)
    expected = BpfObject(compile_file(defined, tmp_path, "-Xclang", "-disable-llvm-passes"))
    assert found.btf.meaning() == BpfObject(compile_file(source, tmp_path)).btf.meaning()
    assert everything_but_debugging(found) == everything_but_debugging(expected)
    assert found.btf.meaning() == expected.btf.meaning()
    assert lines(found, source.name) == lines(expected, source.name)
    assert any(text for *_rest, text in lines(found, source.name))


@pytest.mark.parametrize("name", ["load_balancer", "map_types", "context_core"])
def test_lower_prepared_ir_again_gives_the_same_object(name):
    first = lower([compile_ir(SOURCES[name].read_text())], prepare=True)
    second = lower([first.ir])
    assert (second.object, second.ir, second.llvm) == (first.object, b"", first.llvm)


def test_lower_names_the_version_that_llvm_major_says():
    version = lower([compile_ir(SIMPLE)]).llvm
    assert version == ".".join(map(str, llvm.llvm_version_info))
    assert int(version.partition(".")[0]) == LLVM_MAJOR


def test_lower_several_modules_links_them_in_order():
    one = compile_ir(HEADER + "int helper(int x);\n" + 'SEC("xdp") int f(struct xdp_md *ctx) { return helper(1); }')
    two = compile_ir("#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nint helper(int x) { return x + 2; }")
    facts = object_facts(lower([one, two], prepare=True).object)
    assert [program.name for program in facts.programs] == ["f"]
    assert facts.kernel == ("bpf2bpf", "btf")


@pytest.mark.parametrize("cpu", lowering.CPUS)
def test_lower_for_every_cpu_gives_its_instructions(cpu):
    source = HEADER + 'SEC("xdp") int f(struct xdp_md *ctx) { return (int)ctx->rx_queue_index / 3 < 4; }'
    source = source.replace("/ 3", "/ (int)3" if cpu == "v4" else "+ 3")
    assert object_facts(lower([compile_ir(source, f"-mcpu={cpu}")], cpu=cpu).object).programs


def test_lower_as_a_manifest_says():
    ir = compile_ir(SOURCES["l2_swap"].read_text())
    for optimisation in (0, 2):
        parameters = Lowering("any", "v2", "", optimisation)
        assert lower_as(parameters, ir).object == lower([ir], cpu="v2", optimisation=optimisation).object
    assert lower([ir], optimisation=0).object != lower([ir], optimisation=2).object


def test_lower_features_change_the_code():
    ir = compile_ir(SOURCES["l2_swap"].read_text(), "-mcpu=v1")
    assert lower([ir], cpu="v1", features="+alu32").object != lower([ir], cpu="v1").object


# What the IR may not do.


def assembled(text: str) -> bytes:
    head = 'target datalayout = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"\ntarget triple = "bpf"\n'
    return llvm.parse_assembly(head + text, llvm.create_context()).as_bitcode()


FUNCTION = 'define i32 @f(ptr %0) section "xdp" {\n  ret i32 2\n}\n'


@pytest.mark.parametrize(
    ("modules", "kind", "message"),
    [
        pytest.param([b""], "bitcode", "not LLVM bitcode", id="empty"),
        pytest.param([b"BC\xc0\xde" + bytes(60)], "bitcode", "not LLVM bitcode", id="header-alone"),
        pytest.param([compile_ir(SIMPLE)[:-200]], "bitcode", "not LLVM bitcode", id="cut"),
        pytest.param([assembled(FUNCTION), assembled(FUNCTION)], "link", "f", id="two-of-a-name"),
        pytest.param([assembled('module asm "x"\n' + FUNCTION)], "module-asm", "module-level assembly", id="rule"),
        pytest.param([assembled("@x = external global i32\n")], "external", "'x'", id="external"),
    ],
)
@pytest.mark.parametrize("prepare", [False, True], ids=["bind", "build"])
def test_lower_refused_ir_raises_refused_ir_error(modules, kind, message, prepare):
    with pytest.raises(RefusedIrError, match=message) as caught:
        lower(modules, prepare=prepare)
    assert (caught.value.kind, caught.value.context, caught.value.exit_code) == (kind, "IR", 5)


@pytest.mark.parametrize("cpu", ["probe", "help", "v5", "", "native"])
def test_lower_for_an_unknown_cpu_raises_lowering_error(cpu):
    with pytest.raises(LoweringError, match="expected one of generic, v1, v2, v3, v4"):
        lower([b""], cpu=cpu)


def test_lower_what_the_backend_cannot_raises_lowering_error_with_its_reason():
    text = "define i64 @f(i64 %0) {\n  %2 = zext i64 %0 to i128\n  %3 = udiv i128 1, %2\n"
    text += "  %4 = trunc i128 %3 to i64\n  ret i64 %4\n}\n"
    with pytest.raises(LoweringError, match="__udivti3") as caught:
        lower([assembled(text)])
    assert "is not supported" in caught.value.log


def test_lower_that_needs_too_much_memory_raises_lowering_error():
    with pytest.raises(LoweringError, match=r"memory|signal"):
        lower([assembled('@x = global [8589934592 x i8] zeroinitializer, section ".data"\n')])


SECRET = "uxdp-test-secret-on-a-line-of-its-own"


def with_debug_info(file: Path) -> bytes:
    """Return IR whose debugging information says that its source is ``file``."""
    return assembled(f"""
define i32 @f(ptr %0) section "xdp" !dbg !4 {{
  ret i32 2, !dbg !7
}}
!llvm.dbg.cu = !{{!0}}
!llvm.module.flags = !{{!2, !3}}
!0 = distinct !DICompileUnit(language: DW_LANG_C11, file: !1, producer: "x", emissionKind: FullDebug)
!1 = !DIFile(filename: "{file.name}", directory: "{file.parent}")
!2 = !{{i32 2, !"Debug Info Version", i32 3}}
!3 = !{{i32 7, !"Dwarf Version", i32 5}}
!4 = distinct !DISubprogram(name: "f", file: !1, line: 1, type: !5, unit: !0, spFlags: DISPFlagDefinition)
!5 = !DISubroutineType(types: !6)
!6 = !{{}}
!7 = !DILocation(line: 1, column: 1, scope: !4)
""")


def test_lower_copies_no_line_of_a_file_on_this_machine(tmp_path):
    file = tmp_path / "secret.c"
    file.write_text(SECRET + "\n")
    ir = with_debug_info(file)
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    # The BPF backend does copy it, where it can.
    machine = llvm.Target.from_triple("bpfel").create_target_machine(cpu="v3", opt=2)
    assert SECRET.encode() in machine.emit_object(llvm.parse_bitcode(ir, llvm.create_context()))
    for prepare in (False, True):
        lowered = lower([ir], prepare=prepare)
        assert SECRET.encode() not in lowered.object + lowered.ir + lowered.warnings.encode()


# The child and what it gets of the parent. Other scripts stand in for it.


def answer(reply: object, data: bytes = b"") -> str:
    """Return a script that answers."""
    encoded = json.dumps(reply).encode()
    return f"import sys; sys.stdout.buffer.write({struct.pack('<I', len(encoded)) + encoded + data!r})"


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Let a script be the child that lowers."""

    def use(script: str) -> None:
        path = tmp_path / "child.py"
        path.write_text(script)
        monkeypatch.setattr(lowering, "_CHILD", path)

    return use


SOUND = {"lengths": [3, 2], "llvm": "22.1.0"}


def test_lower_returns_what_the_child_answers(child):
    child(answer(SOUND, b"objir") + "; sys.stderr.write('warned')")
    found = lower([b""])
    assert (found.object, found.ir, found.llvm, found.warnings) == (b"obj", b"ir", "22.1.0", "warned")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("", id="nothing"),
        pytest.param("print(1)", id="no-reply"),
        pytest.param(answer([]), id="no-object"),
        pytest.param(answer({}), id="no-fields"),
        pytest.param(answer(SOUND, b"obji"), id="cut"),
        pytest.param(answer(SOUND, b"objir!"), id="too-much"),
        pytest.param(answer({"lengths": [0, 5], "llvm": "22.1.0"}, b"objir"), id="no-bytes"),
        pytest.param(answer({"lengths": [6, -1], "llvm": "22.1.0"}, b"objir"), id="negative"),
        pytest.param(answer({"lengths": ["3", 2], "llvm": "22.1.0"}, b"objir"), id="length-of-text"),
        pytest.param(answer({"lengths": [3, 2], "llvm": 22}, b"objir"), id="version-of-number"),
        pytest.param(answer({"lengths": [5], "llvm": "22.1.0"}, b"objir"), id="one-length"),
        pytest.param(answer({"refused": "no"}), id="refused-of-text"),
        pytest.param(answer({"refused": {"kind": 1, "message": "no"}}), id="refused-of-numbers"),
    ],
)
def test_lower_unusable_answer_raises_lowering_error(script, child):
    child(script)
    with pytest.raises(LoweringError, match="no usable answer"):
        lower([b""])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        pytest.param("import os; os.abort()", "signal 6", id="abort"),
        pytest.param(
            "import sys; sys.exit('LLVM ERROR: bad\\nmore')", "LLVM ERROR: bad.*exit status 1", id="fatal-error"
        ),
        pytest.param("import sys; sys.exit('x\\nerror: call to y\\nz')", "error: call to y", id="diagnostic"),
        pytest.param("raise SystemExit(3)", "no message.*exit status 3", id="silent"),
        pytest.param(
            "import resource, signal\nresource.setrlimit(resource.RLIMIT_CPU, (1, 2))\nwhile True: pass",
            "signal 24",
            id="processor-time",
        ),
    ],
)
def test_lower_child_that_dies_raises_lowering_error(script, message, child):
    child(script)
    with pytest.raises(LoweringError, match=message):
        lower([b""])


def test_lower_llvmlite_that_does_not_load_raises_unsupported_feature_error(monkeypatch, tmp_path):
    (tmp_path / "llvmlite").mkdir()
    (tmp_path / "llvmlite" / "__init__.py").write_text("raise OSError('libLLVM: wrong\\nclass')")
    monkeypatch.setattr(lowering, "llvmlite_folder", lambda: tmp_path)
    with pytest.raises(UnsupportedFeatureError, match="it cannot be loaded: libLLVM: wrong class") as caught:
        lower([b""])
    assert "pip install" in caught.value.remedy


def test_lower_child_that_says_too_much_is_cut_off(child, monkeypatch):
    monkeypatch.setattr(confined_child, "MAX_ANSWER_BYTES", 1 << 20)
    child("import sys\nwhile True: sys.stdout.write('x' * 65536)")
    with pytest.raises(LoweringError, match="answers with more than 1 MiB"):
        lower([b""])


def test_lower_child_that_prints_too_much_keeps_the_end(child):
    child("import sys; sys.stderr.write('x' * (8 << 20) + 'the end'); sys.exit(3)")
    with pytest.raises(LoweringError) as caught:
        lower([b""])
    assert len(caught.value.log) == 16 << 10
    assert caught.value.log.endswith("the end")


def test_lower_child_that_closes_its_output_and_stays_is_ended(child, monkeypatch):
    child("import os, time\nos.close(1); os.close(2); time.sleep(60)")
    monkeypatch.setattr(lowering, "_TIMEOUT_SECONDS", 2)
    with pytest.raises(LoweringError, match="did not finish in 2 s"):
        lower([b""])


def test_lower_child_that_hangs_raises_lowering_error(child, monkeypatch):
    child("import time; time.sleep(60)")
    monkeypatch.setattr(lowering, "_TIMEOUT_SECONDS", 1)
    with pytest.raises(LoweringError, match="did not finish in 1 s"):
        lower([b""])


def test_lower_child_knows_nothing_of_its_parent(child, monkeypatch, tmp_path):
    monkeypatch.setenv("UXDP_SIGNING_KEY_PASSPHRASE", SECRET)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("LD_PRELOAD", "")
    held = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(held, True)
    probe = """
import json, os, struct, sys
seen = {"env": dict(os.environ), "cwd": os.getcwd(), "fds": os.listdir("/proc/self/fd"), "argv": sys.argv[1:]}
reply = json.dumps({"refused": {"kind": "seen", "message": json.dumps(seen)}}).encode()
sys.stdout.buffer.write(struct.pack("<I", len(reply)) + reply)
"""
    child(probe)
    try:
        with pytest.raises(RefusedIrError) as caught:
            lower([b""])
    finally:
        os.close(held)
    seen = json.loads(caught.value.message)
    assert set(seen["env"]) <= {"LC_CTYPE", "LD_LIBRARY_PATH"}
    assert SECRET not in caught.value.message
    assert seen["cwd"] == "/"
    assert len(seen["fds"]) == 4  # standard input, output, error, and the folder of descriptors itself
    assert seen["argv"] == [str(CASES.parents[1]), str(Path(llvm.__file__).parents[2])]


def test_lower_without_llvmlite_raises_unsupported_feature_error(monkeypatch):
    monkeypatch.setattr(confined_child.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UnsupportedFeatureError, match="llvmlite: not installed") as caught:
        lower([b""])
    assert "pip install" in caught.value.remedy


# The child's own steps, in this process.


@pytest.mark.parametrize(
    ("modules", "prepare"),
    [
        ([compile_ir(SIMPLE)], True),
        ([compile_ir(SIMPLE)], False),
        ([b"none"], False),
        ([assembled(FUNCTION), assembled(FUNCTION)], False),
        ([assembled('module asm "x"\n' + FUNCTION)], False),
    ],
    ids=["build", "bind", "no-bitcode", "two-of-a-name", "rule"],
)
def test_lowering_child_main_answers_as_lower_sees_it(modules, prepare, monkeypatch):
    import io
    from types import SimpleNamespace

    from uxdp_bundle import sandbox

    confined: list[dict[str, int]] = []
    monkeypatch.setattr(sandbox, "confine", lambda **limits: confined.append(limits))
    # A child has an LLVM context of its own; in this one other tests' types have taken the names.
    context = llvm.create_context()
    monkeypatch.setattr("llvmlite.binding.module.get_global_context", lambda: context)
    request = {"inputs": list(map(len, modules)), "cpu": "v3", "features": "", "optimisation": 2, "prepare": prepare}
    encoded = json.dumps(request).encode()
    given = io.BytesIO(struct.pack("<I", len(encoded)) + encoded + b"".join(modules))
    written = io.BytesIO()
    monkeypatch.setattr(lowering_child.sys, "stdin", SimpleNamespace(buffer=given))
    monkeypatch.setattr(lowering_child.sys, "stdout", SimpleNamespace(buffer=written))
    monkeypatch.setattr(lowering_child.sys, "argv", ["lowering_child.py"])
    lowering_child.main()
    data = written.getvalue()
    (length,) = struct.unpack_from("<I", data)
    reply = json.loads(data[4 : 4 + length])
    assert [sorted(limits) for limits in confined] == [["cpu_seconds", "memory_bytes"]]
    try:
        expected = lower(modules, prepare=prepare)
    except RefusedIrError as error:
        assert reply["refused"]["kind"] == error.kind
        assert reply["lengths"] == [0, 0]
    else:
        assert (reply["lengths"], reply["llvm"]) == ([len(expected.object), len(expected.ir)], expected.llvm)
        assert data[4 + length :] == expected.object + expected.ir


def test_lowering_child_refuses_ir_that_is_not_valid():
    from types import SimpleNamespace

    def verify() -> None:
        raise RuntimeError("broken")

    module = SimpleNamespace(verify=verify)
    fake = SimpleNamespace(parse_bitcode=lambda _data: module)
    request = {"inputs": [0], "prepare": False}
    reply, *rest = lowering_child._lower(fake, (None, None, None), request, b"")
    assert reply == {"refused": {"kind": "invalid", "message": "the IR is not valid: broken"}}
    assert rest == [b"", b""]


def test_lowering_does_not_import_llvm_into_this_process():
    code = "import sys, uxdp_bundle.binding; print([n for n in ('llvmlite', 'elftools', 'rich') if n in sys.modules])"
    import sys

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
