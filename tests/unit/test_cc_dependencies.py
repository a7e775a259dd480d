import hashlib
import os
from pathlib import Path

import pytest

from tests.unit import cc_fixtures
from tests.unit.cc_fixtures import CLANGS
from uxdp_bundle.errors import FileAccessError
from uxdp_cc import dependencies
from uxdp_cc.declarations import find_declaration
from uxdp_cc.dependencies import path_map, project_files, rule_names
from uxdp_cc.toolchain import Toolchain

project = cc_fixtures.project

TOOLCHAIN = Toolchain(("clang",), "clang version 19.1.7", "/home/me/project/.venv/clang")
HERE = Path("/home/me/project")


def mapping(*sources: str, args: str = "", cwd: Path = HERE):
    return path_map(TOOLCHAIN, sources or ("nf.c",), args.split(), cwd)


# --- names without the building machine ----------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("nf.c", "nf.c"),
        ("./nf.c", "nf.c"),
        ("sub/../nf.h", "nf.h"),
        ("../shared/nf.h", "__/shared/nf.h"),
        ("../../nf.h", "__/__/nf.h"),
        ("/home/me/project/sub/nf.c", "sub/nf.c"),
        ("/home/me/project/../other/nf.h", "__/other/nf.h"),
        # The clang's own headers, even if its folder is inside of the project; the system's; anything else's.
        ("/home/me/project/.venv/clang/include/stddef.h", None),
        ("/usr/include/linux/bpf.h", None),
        ("/home/me/project2/nf.h", None),
        ("/home/me/nf.h", None),
    ],
)
def test_name_is_relative_to_the_project(path: str, name: str | None):
    assert mapping().name(path) == name


def test_name_of_a_source_elsewhere_is_relative_to_its_folder():
    there = mapping(
        "/src/bpf/nf.c", args="-I/src/include -isystem /opt/libbpf/src/ -include /x/config.h -I/usr/include/x"
    )
    assert there.name("/src/bpf/nf.c") == "nf.c"
    assert there.name("/src/bpf/sub/nf.h") == "sub/nf.h"
    assert there.name("/src/include/nf.h") == "include/nf.h"
    assert there.name("/opt/libbpf/src/bpf_helpers.h") == "src/bpf_helpers.h"
    assert there.name("/x/config.h") == "x/config.h"
    assert there.name("/usr/include/x/y.h") is None


def test_name_of_the_compilers_own_header_is_none_even_if_its_folder_is_searched():
    """Makefiles ask clang for the folders it searches, and hand them back."""
    assert (
        mapping(args=f"-idirafter {TOOLCHAIN.resource_dir}/include").name(f"{TOOLCHAIN.resource_dir}/include/x.h")
        is None
    )


def test_name_of_several_sources_elsewhere_is_relative_to_what_they_share():
    there = mapping("/src/a/nf.c", "/src/b/nf.c")
    assert [there.name(path) for path in ("/src/a/nf.c", "/src/b/nf.c")] == ["a/nf.c", "b/nf.c"]
    apart = mapping("/one/nf.c", "/other/x.c")
    assert [apart.name(path) for path in ("/one/nf.c", "/other/x.c")] == ["nf.c", "x.c"]


def test_flags_go_from_the_shortest_prefix_to_the_longest():
    """Old clangs take the longest prefix that fits, new ones the last."""
    assert mapping(args="-I/home/me/shared").flags() == [
        "-ffile-prefix-map=./=",
        "-ffile-prefix-map=/home/me/shared=shared",
        "-ffile-prefix-map=/home/me/project=.",
        "-ffile-prefix-map=/home/me/project/=",
        "-ffile-prefix-map=/home/me/project/.venv/clang=/clang",
    ]


def test_root_folder_maps_nothing():
    assert mapping("/nf.c", "nf.c", cwd=Path("/"), args="-I/").prefixes == (
        ("./", ""),
        (TOOLCHAIN.resource_dir, "/clang"),
    )
    assert mapping("nf.c", cwd=Path("/")).name("nf.c") == "nf.c"


# --- the files that were read --------------------------------------------------------------------


def test_project_files_are_read_once_each(tmp_path: Path):
    (tmp_path / "nf.c").write_bytes(b"source")
    (tmp_path / "nf.h").write_bytes(b"header")
    here = path_map(TOOLCHAIN, ("nf.c",), (), tmp_path)
    names = ["nf.c", "./nf.h", f"{tmp_path}/nf.h", "missing.h", "/usr/include/stdio.h", "-"]
    files = project_files(names, here, tmp_path, b"piped")
    assert files == {"nf.c": b"source", "nf.h": b"header", "<stdin>": b"piped"}
    assert [(record.path, record.sha256) for record in dependencies.digests(files)] == [
        ("<stdin>", hashlib.sha256(b"piped").hexdigest()),
        ("nf.c", hashlib.sha256(b"source").hexdigest()),
        ("nf.h", hashlib.sha256(b"header").hexdigest()),
    ]


def test_project_files_that_cannot_be_read_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "nf.c").touch()

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(FileAccessError, match=r"nf\.c: Permission denied"):
        project_files(["nf.c"], path_map(TOOLCHAIN, (), (), tmp_path), tmp_path)


# --- rules for make ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "output", "named", "names"),
    [
        ("-O2", "x.o", True, ""),
        ("-MP -MF x.d", "x.o", True, ""),  # clang says that they are unused
        ("-MD", "x.o", True, "-MF x.d -MQ x.o"),
        ("-MMD", "./out/x.y.o", True, "-MF ./out/x.y.d -MQ ./out/x.y.o"),
        ("-MD", "nf.uxdp", False, "-MF nf.d -MQ nf.uxdp"),
        ("-MD -MFdeps", "x.o", True, "-MQ x.o"),
        ("-MD -MT all", "x.o", True, "-MF x.d"),
        ("-Wp,-MD,deps", "x.o", True, "-MQ x.o"),
        ("-Wp,-MMD", "x.o", True, "-MF x.d -MQ x.o"),
        ("--write-dependencies", "-", True, "-MF -.d -MQ -"),
    ],
)
def test_rule_names_are_those_clang_derives(line: str, output: str, named: bool, names: str):
    assert " ".join(rule_names(line.split(), output, "dir/nf.c", named=named)) == names


def test_rules_are_not_written_twice():
    line = "-MD -MMD -MF x -MT y -MQz -MP -MG -Wp,-MD,x --write-dependencies -DX=1 -c"
    assert dependencies.without_rules(line.split()) == ["-DX=1", "-c"]


RULES = [
    "-MD -c nf.c -o nf.o",
    "-MMD -c nf.c -o nf.o",
    "-MD -c nf.c -o out/nf.o",
    "-MD -MF deps/x.d -c nf.c -o nf.o",
    "-MMD -MP -c nf.c -o nf.o",
    "-MD -MT target -c nf.c -o nf.o",
    "-MD -MT a$b -MQ a$b -c nf.c -o nf.o",
    "-MD -c nf.c -o a$b#c.o",
    "-MMD -MFx.d -MTx -c nf.c -o nf.o",
    "-Wp,-MD,x.d -c nf.c -o nf.o",
    "-Wp,-MMD,x.d -MP -c nf.c -o nf.o",
    "-MD -MF - -c nf.c -o nf.o",
    "-MG -MMD -c nf.c -o nf.o",
    "-MF x.d -c nf.c -o nf.o",
    "-H -MD -c nf.c -o nf.o",
    "-MMD -c broken.c -o nf.o",
]


@pytest.mark.parametrize("line", RULES)
def test_rules_for_make_are_what_clang_writes(project, line: str):
    project.write("nf.c", f'#include "my header.h"\n{cc_fixtures.DROP}')
    project.write("my header.h", "#include <stddef.h>\n")
    project.write("broken.c", '#include "my header.h"\nint x = y;\n')
    results = []
    for run in (project.clang, project.cc):
        for folder in ("out", "deps"):
            (project.path / folder).mkdir(exist_ok=True)
        result = run(*line.split())
        made = {name: (project.path / name).read_bytes() for name in project.files() if name.endswith(".d")}
        for name in project.files() - {"nf.c", "broken.c", "my header.h"}:
            (project.path / name).unlink()
        results.append((made, result))
    by_clang, by_us = results
    assert by_us == by_clang


@pytest.mark.parametrize("clang", CLANGS)
def test_rules_for_make_are_what_clang_writes_with_debians(project, clang: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UXDP_CLANG", clang)
    test_rules_for_make_are_what_clang_writes(project, RULES[0])


def test_rules_of_several_sources_have_a_file_each(project):
    project.write("a.c", cc_fixtures.CALLER)
    project.write("sub/b.c", cc_fixtures.CALLEE)
    assert project.cc("-MMD", "a.c", "sub/b.c").status == 0
    assert project.files() == {"a.c", "sub/b.c", "a.uxdp", "a.d", "b.d"}
    assert (project.path / "b.d").read_text() == "a.uxdp: sub/b.c\n"


def test_rule_of_the_default_output_names_the_bundle(project):
    project.write("sub/nf.c")
    assert project.cc("-MMD", "-c", "sub/nf.c").status == 0
    assert (project.path / "nf.d").read_text() == "nf.uxdp: sub/nf.c\n"


@pytest.mark.parametrize("option", ["", "-MD", "-MMD", "-MMD -MF /dev/null", "-Wp,-MMD,x.d", "-MF x.d"])
def test_files_that_were_read_are_noted_whatever_rules_are_asked_for(project, option: str):
    project.write("nf.c", f'#include "sub/own.h"\n#include <vendored.h>\n{cc_fixtures.DROP}')
    project.write("sub/own.h", '#include "deeper.h"\n')
    project.write("sub/deeper.h", "")
    project.write("vendor/vendored.h", "")
    project.write("forced.h", "")
    line = f"-isystem vendor -include forced.h -c nf.c {option}"
    assert project.cc(*line.split()).status == 0
    with project.bundle("nf.uxdp") as bundle:
        names = [source.path for source in bundle.manifest.build.sources]
    assert names == ["forced.h", "nf.c", "sub/deeper.h", "sub/own.h", "vendor/vendored.h"]


# --- lines of declarations -----------------------------------------------------------------------


def test_declaration_is_found_where_clang_last_said_it_was():
    tree = b"""\
{
  "kind": "TranslationUnitDecl",
  "inner": [
    {
      "kind": "VarDecl",
      "loc": {
        "offset": 4,
        "file": "a.h",
        "line": 3,
        "includedFrom": {
          "file": "nf.c"
        }
      },
      "range": {
        "end": {
          "line": 7
        }
      },
      "name": "other",
      "type": {
        "name": "wanted"
      }
    },
    {
      "kind": "VarDecl",
      "loc": {
        "col": 9
      },
      "name": "wanted"
    },
    {
      "kind": "FileScopeAsmDecl",
      "loc": {
        "spellingLoc": {
          "file": "b.h",
          "line": 1
        },
        "expansionLoc": {
          "file": "nf.c",
          "line": 12
        }
      }
    }
  ]
}
""".splitlines(keepends=True)
    assert find_declaration(tree, "VarDecl", "wanted") == ("a.h", 7)
    assert find_declaration(tree, "FileScopeAsmDecl") == ("nf.c", 12)
    assert find_declaration(tree, "VarDecl", "nowhere") is None


def test_file_names_that_are_not_utf8_are_compared_as_bytes(tmp_path: Path):
    name = os.fsdecode(b"n\xff.h")
    (tmp_path / name).write_bytes(b"x")
    assert list(project_files([name], path_map(TOOLCHAIN, (), (), tmp_path), tmp_path)) == [name]
