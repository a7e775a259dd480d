"""What uxdp-cc makes of sources: the same bundle everywhere and always, and early refusals that name the line."""

import json
import os
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from tests.unit import cc_fixtures
from tests.unit.cc_fixtures import CLANGS, DROP, bound, command_line, run
from uxdp_bundle.binding import Binding
from uxdp_bundle.container import Bundle, bundle_from_bytes
from uxdp_bundle.errors import FileAccessError, LoweringError
from uxdp_cc.build import BuildRequest, build
from uxdp_cc.errors import CompileError, SourceError, ToolchainError, UsageError
from uxdp_cc.toolchain import Toolchain, find_toolchain

project = cc_fixtures.project

EXAMPLES = Path(__file__).parents[2] / "examples"
# A header of the project, one of the compiler's own, and a line number and file name in the code.
SOURCE = f"""\
#include <stddef.h>
#include "own.h"
{DROP}
SEC("xdp")
int sized(struct xdp_md *ctx)
{{
	size_t size = OWN(ctx->rx_queue_index);

	bpf_printk("%s", __FILE__);
	return size > 2 ? XDP_PASS : XDP_DROP;
}}
"""
HEADER = "#define OWN(x) own(x)\nstatic __attribute__((noinline)) int own(int x)\n{\n\treturn x * 7;\n}\n"


def image_of(folder: Path, source: str = "nf.c", *clang_args: str, **options) -> bytes:
    return build(BuildRequest((source,), clang_args, cwd=folder, **options)).bundle


def checkout(folder: Path) -> Path:
    """Write the same project into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nf.c").write_text(SOURCE)
    (folder / "own.h").write_text(HEADER)
    return folder


def everything_in(bundle: Bundle) -> bytes:
    """Return all that a bundle holds, unpacked; of the IR its text, for bitcode does not align strings to bytes."""
    parts = [bundle.manifest_bytes, bytes(bundle.object)]
    for member in bundle.manifest.members:
        parts.append(bundle.member(member.role, member.name))
    parts.append(str(llvm.parse_bitcode(bundle.member("ir"))).encode())
    return b"\0".join(parts)


# --- the same bundle, everywhere and always ------------------------------------------------------


@pytest.fixture(params=["ziglang", *dict.fromkeys([*CLANGS[:1], *CLANGS[-1:]])])
def clang(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The packaged clang, and the oldest and the newest other one of this machine."""
    monkeypatch.delenv("UXDP_CLANG", raising=False)
    if request.param != "ziglang":
        monkeypatch.setenv("UXDP_CLANG", request.param)
    return str(request.param)


def test_build_in_other_folders_and_at_other_times_gives_the_same_bundle(
    clang: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = image_of(checkout(tmp_path / "one"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "one"))
    monkeypatch.setattr("tempfile.tempdir", None)
    os.utime(checkout(tmp_path / "two/longer name") / "nf.c", (1, 1))
    assert image_of(tmp_path / "two/longer name") == first
    assert bound(first) is Binding.EQUAL


def test_build_of_an_absolute_path_gives_the_same_bundle(clang: str, tmp_path: Path):
    here = checkout(tmp_path / "here")
    relative = image_of(here)
    assert image_of(here, str(here / "nf.c")) == relative
    elsewhere = tmp_path / "build"
    elsewhere.mkdir()
    assert image_of(elsewhere, str(here / "nf.c")) == relative


def test_build_names_no_place_of_the_building_machine(clang: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = tmp_path / "home/me"
    here = checkout(home / "work/nf")
    shared = home / "shared/include"
    shared.mkdir(parents=True)
    (shared / "shared.h").write_text("static __attribute__((noinline)) int shared(int x)\n{\n\treturn x * 3;\n}\n")
    (here / "nf.c").write_text(f'#include "shared.h"\n{SOURCE.replace("OWN(", "shared(")}')
    monkeypatch.setenv("HOME", str(home))
    build_folder = home / "work/build"
    build_folder.mkdir()
    for cwd, source in ((here, "nf.c"), (here, str(here / "nf.c")), (build_folder, str(here / "nf.c"))):
        image = image_of(cwd, source, f"-I{shared}", f"-DSHARED={shared}/x", embed_sources=True)
        with bundle_from_bytes(image) as bundle:
            content = everything_in(bundle)
            assert [file.path for file in bundle.manifest.build.sources] == ["include/shared.h", "nf.c", "own.h"]
        for place in (str(tmp_path), str(home), sys.prefix, "site-packages", os.path.expanduser("~"), "uxdp-cc-"):
            assert place.encode() not in content, place
        assert b"include/shared.h" in content


def test_build_does_not_depend_on_where_the_clang_is(tmp_path: Path):
    here = checkout(tmp_path / "here")
    expected = image_of(here)
    origin = Path(find_toolchain().resource_dir).parent
    # As in a virtual environment that lies inside of the project.
    copy = here / ".venv/lib/ziglang"
    copy.mkdir(parents=True)
    for name in ("zig", "lib"):
        (copy / name).symlink_to(origin / name)
    moved = Toolchain(
        (str(copy / "zig"), "clang"), find_toolchain().version, str(copy / "lib"), ("-resource-dir", str(copy / "lib"))
    )
    assert build(BuildRequest(("nf.c",), cwd=here), moved).bundle == expected


def test_build_in_the_root_folder_has_the_sources_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here = checkout(tmp_path / "here")
    output = build(BuildRequest((str(here / "nf.c"),), cwd=Path("/")))
    assert [source.path for source in output.manifest.build.sources] == ["nf.c", "own.h"]


def test_example_binds_with_every_clang(clang: str):
    """All examples, and that they load: tests/privileged/test_cc_objects_load.py."""
    image = image_of(EXAMPLES / "load_balancer", "load_balancer.c", "-Wall", "-Wextra", "-Werror")
    assert bound(image) is Binding.EQUAL


@pytest.mark.parametrize(
    "line",
    [
        *("-g0", "-gdwarf-4", "-g1", "-gno-embed-source"),
        *("-O0", "-O1", "-Os", "-O3"),
        *("-mcpu=v1", "-mcpu=v2", "-mcpu=v4", "-mcpu=generic"),
        *("-mcpu=v2 -Xclang -target-feature -Xclang +alu32", "-fno-builtin -std=gnu11 -fno-stack-protector -fPIC"),
        *("-target bpfel", "-D__TARGET_ARCH_x86 -Wno-unused-value -fno-jump-tables"),
    ],
)
def test_every_flag_gives_a_bundle_that_binds(tmp_path: Path, line: str):
    here = checkout(tmp_path)
    image = image_of(here, "nf.c", *line.split())
    assert bound(image) is Binding.EQUAL
    with bundle_from_bytes(image) as bundle:
        assert [program.name for program in bundle.manifest.programs] == ["drop", "sized"]


def test_features_of_the_machine_reach_the_lowering(tmp_path: Path):
    here = checkout(tmp_path)
    plain = build(BuildRequest(("nf.c",), ("-mcpu=v2",), cwd=here))
    alu32 = build(BuildRequest(("nf.c",), tuple("-mcpu=v2 -Xclang -target-feature -Xclang +alu32".split()), cwd=here))
    assert alu32.manifest.build.lowering.features == "+alu32"
    assert plain.manifest.members[0].sha256 != alu32.manifest.members[0].sha256


def test_options_of_the_backend_that_do_not_reach_it_are_said(tmp_path: Path):
    output = build(BuildRequest(("nf.c",), ("-mllvm", "-bpf-stack-size=1024"), cwd=checkout(tmp_path)))
    assert output.notices == (
        "-mllvm -bpf-stack-size=1024: reaches clang's optimiser, not the backend that makes the object",
    )


# --- what the manifest says ----------------------------------------------------------------------


def test_manifest_records_flags_and_sources_without_places(tmp_path: Path):
    here = checkout(tmp_path / "here")
    (tmp_path / "headers").mkdir()
    (tmp_path / "headers/more.h").touch()
    (here / "nf.c").write_text(f"#include <more.h>\n{SOURCE}")
    line = f"-O3 -I../headers -I{tmp_path} -DLIMIT=3 -Wall -MD -MF {tmp_path}/x.d -D__TARGET_ARCH_x86"
    manifest = build(BuildRequest(("nf.c",), tuple(line.split()), cwd=here)).manifest
    assert manifest.build.flags == ("-mcpu=v3", "-O3", "-DLIMIT=3", "-Wall", "-D__TARGET_ARCH_x86")
    assert [source.path for source in manifest.build.sources] == ["__/headers/more.h", "nf.c", "own.h"]
    assert manifest.build.compiler == find_toolchain().version
    assert (manifest.build.lowering.optimisation, manifest.build.lowering.cpu) == (3, "v3")
    assert (manifest.name, manifest.version, manifest.security_version, manifest.license) == ("nf", "0", 0, "GPL")
    assert manifest.requirements.mcpu == "v3"


def test_manifest_says_what_the_request_says(tmp_path: Path):
    options = {"name": "other", "version": "1.2", "security_version": 7, "license": "Dual MIT/GPL"}
    manifest = build(BuildRequest(("nf.c",), cwd=checkout(tmp_path), **options)).manifest
    assert {key: getattr(manifest, key) for key in options} == options


def test_sources_are_embedded_on_request(tmp_path: Path):
    with bundle_from_bytes(image_of(checkout(tmp_path), embed_sources=True)) as bundle:
        names = [member.name for member in bundle.manifest.members if member.role == "source"]
        assert names == ["nf.c", "own.h"]
        assert bundle.member("source", "nf.c") == SOURCE.encode()
        assert bundle.member("source", "own.h") == HEADER.encode()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("nf.c", "nf"),
        ("xdp.bpf.c", "xdp.bpf"),
        ("a b+c.c", "a_b_c"),
        ("é.c", "nf"),
        (f"{'n' * 80}.c", "n" * 64),
    ],
)
def test_default_name_is_the_stem_made_to_fit(tmp_path: Path, source: str, name: str):
    (tmp_path / source).write_text(DROP)
    assert build(BuildRequest((source,), cwd=tmp_path)).manifest.name == name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a b"}, "--uxdp-name: 'a b'"),
        ({"name": ""}, "--uxdp-name: ''"),
        ({"version": ""}, "--uxdp-version: ''"),
        ({"version": "1/2"}, "--uxdp-version: '1/2'"),
        ({"license": "x" * 1025}, "--uxdp-license"),
        ({"license": "a\nb"}, "--uxdp-license"),
        ({"sources": ()}, "no input files"),
        ({"clang_args": ("-Xclang", "-target-cpu", "-Xclang", "probe")}, "-target-cpu probe"),
    ],
)
def test_request_that_no_manifest_can_hold_is_refused(tmp_path: Path, options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        build(BuildRequest(**{"sources": ("nf.c",), "cwd": checkout(tmp_path)} | options))


# --- several sources -----------------------------------------------------------------------------


def test_several_sources_are_linked_as_ir(project):
    project.write("a.c", cc_fixtures.CALLER)
    project.write("sub/b.c", cc_fixtures.CALLEE)
    image = build(BuildRequest(("a.c", "sub/b.c"), cwd=project.path)).bundle
    assert bound(image) is Binding.EQUAL
    with bundle_from_bytes(image) as bundle:
        (program,) = bundle.manifest.programs
        assert program.name == "choose"
        assert [source.path for source in bundle.manifest.build.sources] == ["a.c", "sub/b.c"]
        assert "bpf2bpf" in bundle.manifest.requirements.kernel


def test_what_no_source_defines_is_named(project):
    project.write("a.c", cc_fixtures.CALLER)
    with pytest.raises(SourceError, match=r"^a\.c: function 'verdict_of' is declared, but defined nowhere"):
        build(BuildRequest(("a.c",), cwd=project.path))


def test_what_two_sources_define_is_named(project):
    project.write("a.c")
    project.write("b.c")
    with pytest.raises(SourceError, match=r"^a\.c, b\.c: .*(drop|_license)"):
        build(BuildRequest(("a.c", "b.c"), cwd=project.path))


# --- early refusals ------------------------------------------------------------------------------

NO_PROGRAM = '#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nint x;\nchar _license[] SEC("license") = "GPL";\n'
OTHER_PROGRAM = DROP.replace('SEC("xdp")', 'SEC("tc")').replace("xdp_md", "__sk_buff")
FORBIDDEN = DROP.replace("return ctx->data <", "bpf_get_stackid(ctx, ctx, 0);\n\treturn ctx->data <")
FORBIDDEN_BELOW = f"""\
#include "below.h"
{DROP.replace("return ctx->data <", "return below(ctx) || ctx->data <")}
"""
BELOW = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
static __attribute__((noinline)) int below(struct xdp_md *ctx)
{
	int first = bpf_get_socket_cookie(ctx);

	return first + bpf_skb_pull_data((void *)ctx, 0);
}
"""
LEGACY = f"""\
{DROP}
struct bpf_map_def {{
	unsigned int type, key_size, value_size, max_entries;
}};
struct bpf_map_def SEC("maps") table = {{1, 4, 4, 1}};
"""
MODULE_ASM = f'{DROP}\n#include "asm.h"\n'
MODULE_ASM_MACRO = f'{DROP}\n#define GLOBAL(x) asm(".globl " x)\n\nGLOBAL("foo");\n'
NO_STRUCTURE = f'{DROP}\nint table SEC(".maps");\n'


@pytest.mark.parametrize(
    ("source", "place", "message"),
    [
        pytest.param(NO_PROGRAM, "nf.c:1", "no XDP program", id="no-program"),
        pytest.param(OTHER_PROGRAM, "nf.c:7", "no XDP program: drop is in section 'tc'", id="other-program"),
        pytest.param(FORBIDDEN, "nf.c:7", "XDP programs may not call bpf_get_stackid", id="forbidden-helper"),
        pytest.param(
            FORBIDDEN_BELOW,
            "sub/below.h:5",
            "XDP programs may not call bpf_get_socket_cookie; "
            "XDP programs may not call bpf_skb_pull_data at sub/below.h:7",
            id="forbidden-helpers-in-a-subprogram",
        ),
        pytest.param(LEGACY, "nf.c:15", "section maps: defines maps in the section 'maps'", id="legacy-maps"),
        pytest.param(MODULE_ASM, "sub/asm.h:3", "module-level assembly", id="module-asm-in-a-header"),
        pytest.param(MODULE_ASM_MACRO, "nf.c:14", "module-level assembly", id="module-asm-by-a-macro"),
        pytest.param(NO_STRUCTURE, "nf.c:12", "map table: is no structure", id="map-of-another-type"),
    ],
)
def test_source_that_cannot_be_a_network_function_is_refused_with_its_line(
    project, source: str, place: str, message: str
):
    project.write("sub/below.h", BELOW)
    project.write("sub/asm.h", '\n\nasm(".globl foo");\n')
    project.write("nf.c", source)
    project.write("nf.uxdp", "what was there before")
    before = project.files()
    result = project.cc("-Isub", "-c", "nf.c")
    assert result.status == 1
    assert result.stderr.startswith(f"{place}: error: {message}")
    assert result.stdout == ""
    assert project.files() == before
    assert (project.path / "nf.uxdp").read_text() == "what was there before"


def test_refusal_spells_the_file_as_the_command_line_does(project):
    source = project.write("nf.c", FORBIDDEN)
    elsewhere = project.path / "build"
    elsewhere.mkdir()
    for path in (str(source), "../nf.c", "./../nf.c"):
        with pytest.raises(SourceError) as caught:
            build(BuildRequest((path,), cwd=elsewhere))
        assert caught.value.context == f"{path}:7"


def test_refusal_without_debug_information_names_the_instruction(project):
    project.write("nf.c", FORBIDDEN)
    with pytest.raises(SourceError, match=r"^section xdp, instruction \d+: XDP programs may not call"):
        build(BuildRequest(("nf.c",), ("-g0",), cwd=project.path))


# --- inline assembly -----------------------------------------------------------------------------

INLINE_ASM = DROP.replace("return ctx->data <", 'asm volatile("r0 = r0");\n\treturn ctx->data <')
BARRIER = DROP.replace("return ctx->data <", 'asm volatile("" ::: "memory");\n\treturn ctx->data <')


def test_inline_assembly_gives_a_bundle_without_ir_and_says_why(project):
    project.write("nf.c", f"{INLINE_ASM}\n#warning said once\n")
    result = project.cc("-c", "nf.c")
    assert result.status == 0
    assert result.stderr.count("said once [-W#warnings]") == 1
    assert result.stderr.endswith(
        "uxdp-cc: warning: nf.c: BPF inline assembly 'r0 = r0': r0 is read, and nothing was written to it: "
        "clang makes the object, and the bundle carries no IR; it runs in the kernel and on the bytecode path\n"
    )
    image = (project.path / "nf.uxdp").read_bytes()
    assert bound(image) is Binding.NO_IR
    with bundle_from_bytes(image) as bundle:
        assert bundle.find("ir") is None
        assert bundle.manifest.build.lowering is None
        assert bundle.manifest.requirements.llvm == 0


def test_inline_assembly_builds_reproducibly_and_writes_rules(project, tmp_path: Path):
    (tmp_path / "uxdp").mkdir()
    images = []
    for folder in ("one", "two/longer"):
        source = project.write(f"{folder}/nf.c", INLINE_ASM)
        images.append(image_of(source.parent))
        images.append(image_of(tmp_path / "uxdp", str(source)))
        for image in images:
            assert str(project.path).encode() not in image
    assert images[:2] == images[2:]
    assert project.cc("-MMD", "-c", "one/nf.c", "-o", "nf.o").status == 0
    assert (project.path / "nf.d").read_text() == "nf.o: one/nf.c\n"


def test_empty_assembly_keeps_the_ir(project):
    project.write("nf.c", BARRIER)
    output = build(BuildRequest(("nf.c",), cwd=project.path))
    assert output.notices == ()
    assert bound(output.bundle) is Binding.EQUAL


def test_inline_assembly_that_clang_refuses_is_clangs_error(project):
    project.write("nf.c", INLINE_ASM.replace("r0 = r0", "nonsense"))
    assert project.cc("-c", "nf.c") == project.clang("-c", "nf.c", "-o", "nf.o")
    assert "nf.uxdp" not in project.files()


def test_inline_assembly_cannot_be_linked(project):
    project.write("a.c", INLINE_ASM)
    project.write("b.c", cc_fixtures.CALLEE)
    with pytest.raises(SourceError, match=r"a\.c, b\.c: .*'r0 = r0': r0 is read, .*; it cannot be linked as IR"):
        build(BuildRequest(("a.c", "b.c"), cwd=project.path))


# --- what fails otherwise ------------------------------------------------------------------------

TOO_MUCH_STACK = DROP.replace(
    "return ctx->data <", "volatile char big[1000];\n\tbig[ctx->data] = 1;\n\treturn ctx->data <"
)


def test_what_clangs_backend_refuses_is_clangs_error(project):
    project.write("nf.c", TOO_MUCH_STACK)
    expected = project.clang("-c", "nf.c", "-o", "nf.o")
    assert expected.status != 0
    assert project.cc("-c", "nf.c") == expected


def test_what_only_llvmlite_refuses_is_an_error_with_its_log(project, monkeypatch: pytest.MonkeyPatch):
    project.write("nf.c")

    def refuse(*_arguments: object, **_options: object) -> None:
        raise LoweringError("LLVM could not lower it", log="error: no such thing\n", context="IR")

    monkeypatch.setattr("uxdp_cc.build.lower", refuse)
    result = project.cc("-c", "nf.c")
    assert (result.status, result.stderr) == (1, "IR: error: LLVM could not lower it\nerror: no such thing\n")
    assert "nf.uxdp" not in project.files()


def test_diagnostics_are_captured_for_a_caller_who_wants_them(project, capfd: pytest.CaptureFixture[str]):
    project.write("nf.c", f"{DROP}\n#warning odd\n")
    assert "nf.c:12:2: warning: odd" in build(BuildRequest(("nf.c",), cwd=project.path)).diagnostics
    project.write("nf.c", "int x = y;\n")
    with pytest.raises(CompileError) as caught:
        build(BuildRequest(("nf.c",), cwd=project.path))
    assert caught.value.status == 1
    assert "nf.c:1:9: error: use of undeclared identifier 'y'" in caught.value.diagnostics
    assert capfd.readouterr() == ("", "")


def test_sources_that_fail_are_all_reported(project):
    project.write("a.c", "int a = x;\n")
    project.write("b.c", "int b = y;\n")
    with pytest.raises(CompileError) as caught:
        build(BuildRequest(("a.c", "b.c"), cwd=project.path))
    assert "a.c:1:9" in caught.value.diagnostics
    assert "b.c:1:9" in caught.value.diagnostics


@pytest.mark.parametrize(("name", "content"), [("nf.o", b"\x7fELF"), ("nf.h", b"int x;\n"), ("nf.s", b"r0 = 0\n")])
def test_what_clang_makes_no_ir_of_is_refused(project, name: str, content: bytes):
    (project.path / name).write_bytes(content)
    with pytest.raises((SourceError, CompileError)):
        build(BuildRequest((name,), cwd=project.path))


def test_clang_that_vanishes_is_an_error(project):
    project.write("nf.c")
    with pytest.raises(ToolchainError, match="/nonexistent/clang does not start: No such file"):
        build(BuildRequest(("nf.c",), cwd=project.path), Toolchain(("/nonexistent/clang",), "clang version 19.0.0"))


def test_names_that_no_manifest_can_hold_are_an_error(project):
    (project.path / os.fsdecode(b"n\xff.c")).write_text(DROP)
    with pytest.raises((SourceError, FileAccessError), match="not UTF-8"):
        build(BuildRequest((os.fsdecode(b"n\xff.c"),), cwd=project.path))


def test_temporary_files_are_gone_afterwards(project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    for text in (DROP, "int x = y;\n", NO_PROGRAM, INLINE_ASM, MODULE_ASM_MACRO):
        project.write("nf.c", text)
        project.cc("-c", "nf.c")
        assert list(temporary.iterdir()) == []


# --- projects as they are ------------------------------------------------------------------------


def test_kernel_samples_style_is_clangs_own_output(project):
    project.write("nf.c")
    line = "-S -target bpf -Wno-visibility -Wall -Wno-unused-value -Wno-pointer-sign -emit-llvm -c -g -O2 -o nf.ll nf.c"
    assert project.cc(*line.split()).status == 0
    assert (project.path / "nf.ll").read_text().startswith("; ModuleID = 'nf.c'")
    # What an llc -march=bpf would make an object of, uxdp-cc makes a bundle of.
    assert project.cc("-c", "nf.ll", "-o", "nf.uxdp").status == 0
    assert bound((project.path / "nf.uxdp").read_bytes()) is Binding.EQUAL


def test_libbpf_bootstrap_style_finds_the_system_headers(project):
    """Its Makefile asks clang for the folders it searches, and hands them back as -idirafter."""
    project.write("src/nf.bpf.c", f'#include <stddef.h>\n#include "nf.h"\n{DROP}')
    project.write("headers/nf.h", "")
    searched = project.cc("-v", "-E", "-x", "c", "/dev/null").stderr
    listing = searched.partition("search starts here:\n#include <...> search starts here:\n")[2]
    folders = [line.strip() for line in listing.partition("End of search list.")[0].splitlines()]
    assert any(folder.endswith("-linux-gnu") for folder in folders)
    line = ["-g", "-O2", "-target", "bpf", "-D__TARGET_ARCH_x86", "-Iheaders", "-include", "nf.h"]
    line += [word for folder in folders for word in ("-idirafter", folder)]
    result = project.cc(*line, "-c", "src/nf.bpf.c", "-o", "nf.bpf.o")
    assert (result.status, result.stderr) == (0, "")
    with project.bundle("nf.bpf.o") as bundle:
        assert bundle.manifest.name == "nf.bpf"
        assert json.dumps(bundle.manifest.build.flags).count("/") == 0
        assert [source.path for source in bundle.manifest.build.sources] == ["headers/nf.h", "src/nf.bpf.c"]


def test_process_of_its_own_gives_the_same_bundle(project, tmp_path: Path):
    project.write("nf.c")
    result = run(command_line("--uxdp-unsigned", "-c", "nf.c"), project.path)
    assert (result.status, result.stdout, result.stderr) == (0, "", "")
    assert (project.path / "nf.uxdp").read_bytes() == image_of(project.path)


def test_headers_that_include_the_c_librarys_need_no_multilib_package(clang: str, tmp_path: Path):
    (tmp_path / "nf.c").write_text(
        "#include <linux/bpf.h>\n#include <linux/icmp.h>\n#include <bpf/bpf_helpers.h>\n"
        'SEC("xdp") int nf(struct xdp_md *ctx) { return sizeof(struct icmphdr) == 8 ? XDP_PASS : XDP_DROP; }\n'
        'char _license[] SEC("license") = "GPL";\n'
    )
    assert bound(image_of(tmp_path)) is Binding.EQUAL


def test_large_tables_of_constants_are_no_params(tmp_path: Path):
    (tmp_path / "nf.c").write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        "const volatile __u8 table[200000] = {1};\nconst volatile __u32 port = 80;\n"
        'SEC("xdp") int nf(struct xdp_md *ctx) { return table[ctx->rx_queue_index % 200000] + port; }\n'
        'char _license[] SEC("license") = "GPL";\n'
    )
    output = build(BuildRequest(sources=("nf.c",), cwd=tmp_path))
    assert [(param.name, param.default) for param in output.manifest.params] == [("port", 80)]
