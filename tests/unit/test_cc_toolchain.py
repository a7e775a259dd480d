import shutil
import sys
from pathlib import Path

import pytest

from tests.unit import cc_fixtures
from tests.unit.cc_fixtures import CLANGS, command_line, fake_clang, run, without_ziglang
from uxdp_cc import toolchain
from uxdp_cc.errors import ToolchainError
from uxdp_cc.toolchain import LLVM_MAJOR, OLDEST_MAJOR, find_toolchain, system_headers

project = cc_fixtures.project


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH beside the shell's, for fakes; $UXDP_CLANG is unset."""
    path = tmp_path / "bin"
    path.mkdir()
    (path / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.delenv("UXDP_CLANG", raising=False)
    return path


def test_ziglang_is_preferred_over_path(folder: Path):
    fake_clang(folder, "clang", f"{LLVM_MAJOR}.1.0")
    found = find_toolchain()
    assert Path(found.command[0]).name == "zig"
    assert found.version.startswith("clang version 22.")
    assert Path(found.resource_dir, "include/stddef.h").is_file()


def test_variable_is_preferred_over_ziglang(folder: Path, monkeypatch: pytest.MonkeyPatch):
    clang = fake_clang(folder, "mine", "17.0.6", "/opt/llvm/lib/clang/17")
    monkeypatch.setenv("UXDP_CLANG", str(clang))
    found = find_toolchain()
    assert (found.command, found.version) == ((str(clang),), "clang version 17.0.6")
    assert (found.resource_dir, found.headers) == ("/opt/llvm/lib/clang/17", ())


@pytest.mark.parametrize("text", ["mine --flag 'a b'", "mine"])
def test_variable_may_be_a_name_on_path_with_arguments(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    fake_clang(folder, "mine", "17.0.6")
    monkeypatch.setenv("UXDP_CLANG", text)
    assert find_toolchain().command == (("mine", "--flag", "a b") if " " in text else ("mine",))


def test_variable_may_be_a_path_with_spaces(folder: Path, monkeypatch: pytest.MonkeyPatch):
    clang = fake_clang(folder, "my clang", "17.0.6")
    monkeypatch.setenv("UXDP_CLANG", str(clang))
    assert find_toolchain().command == (str(clang),)


@pytest.mark.parametrize(
    "text",
    ["/nonexistent/clang", "no-such-clang", "/bin/true", "/bin/cat", "/", "'unbalanced", "   ", "./\0"],
)
def test_variable_that_names_no_clang_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setattr(toolchain.os, "environ", {"UXDP_CLANG": text, "PATH": str(folder)})
    with pytest.raises(ToolchainError, match=r"^\$UXDP_CLANG is ") as caught:
        find_toolchain()
    assert f"clang {OLDEST_MAJOR}..{LLVM_MAJOR}" in caught.value.remedy


@pytest.mark.parametrize("version", [f"{LLVM_MAJOR + 1}.0.0", f"{OLDEST_MAJOR - 1}.0.1"])
def test_variable_that_names_another_generation_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str):
    monkeypatch.setenv("UXDP_CLANG", str(fake_clang(folder, "clang", version)))
    with pytest.raises(ToolchainError, match=rf"is clang version {version}.*expected clang 14\.\.22"):
        find_toolchain()


def test_path_gives_the_newest_that_is_not_too_new(folder: Path, monkeypatch: pytest.MonkeyPatch):
    without_ziglang(monkeypatch)
    fake_clang(folder, "clang", f"{LLVM_MAJOR + 1}.0.0")
    fake_clang(folder, "clang-14", "14.0.6")
    newest = fake_clang(folder, "clang-19", "19.1.7")
    broken = folder / "clang-20"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert find_toolchain().command == (str(newest),)


def test_path_gives_clang_if_that_is_newer_than_the_numbered(folder: Path, monkeypatch: pytest.MonkeyPatch):
    without_ziglang(monkeypatch)
    newest = fake_clang(folder, "clang", "21.1.0")
    fake_clang(folder, "clang-19", "19.1.7")
    assert find_toolchain().command == (str(newest),)


def test_path_is_asked_if_ziglang_is_too_new(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "site/ziglang"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    fake_clang(package, "zig", f"{LLVM_MAJOR + 1}.0.0")
    monkeypatch.delitem(sys.modules, "ziglang", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(ToolchainError, match=r"ziglang has clang version 23\.0\.0"):
        find_toolchain()
    fake_clang(folder, "clang-16", "16.0.6")
    assert find_toolchain().version == "clang version 16.0.6"


def test_no_clang_is_one_error_that_names_two_ways_to_one(folder: Path, monkeypatch: pytest.MonkeyPatch):
    without_ziglang(monkeypatch)
    with pytest.raises(
        ToolchainError, match=r"^no clang 14\.\.22: neither the ziglang package nor PATH has one$"
    ) as caught:
        find_toolchain()
    assert caught.value.remedy == "pip install 'uxdp[clang]', or apt-get install clang"


def test_no_clang_says_what_was_seen(folder: Path, monkeypatch: pytest.MonkeyPatch):
    without_ziglang(monkeypatch)
    fake_clang(folder, "clang", "11.0.1")
    with pytest.raises(ToolchainError, match=r"\(\S+/clang is clang version 11\.0\.1\)$"):
        find_toolchain()


def test_no_clang_ends_uxdp_cc_with_one_error(project, folder: Path, monkeypatch: pytest.MonkeyPatch):
    without_ziglang(monkeypatch)
    project.write("nf.c")
    for arguments in (["-c", "nf.c"], ["--version"], ["-c"]):
        result = project.cc(*arguments)
        assert (result.status, result.stdout) == (1, "")
        assert result.stderr.startswith("uxdp-cc: error: no clang 14..22: ")
        assert result.stderr.endswith("\n  → pip install 'uxdp[clang]', or apt-get install clang\n")
    assert project.files() == {"nf.c"}


def test_uxdp_cc_as_its_own_clang_is_refused_and_does_not_call_itself_on_and_on(project, folder: Path):
    wrapper = folder / "clang"
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(command_line())} "$@"\n')
    wrapper.chmod(0o755)
    project.write("nf.c")
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder), "UXDP_CLANG": str(wrapper)}
    result = run(command_line("-c", "nf.c"), project.path, env=environment)
    assert result.status == 1
    assert "which does not run as a clang" in result.stderr


@pytest.mark.parametrize("clang", CLANGS)
def test_debian_clangs_are_found_by_name(clang: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UXDP_CLANG", Path(clang).name)
    found = find_toolchain()
    major = clang.rpartition("-")[2]
    assert found.version.startswith(f"clang version {major}.")
    assert Path(found.resource_dir, "include/stddef.h").is_file()


# --- headers -------------------------------------------------------------------------------------


def test_system_headers_are_the_multiarch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "ppc64le")
    folder = tmp_path / "usr/include/powerpc64le-linux-gnu"
    folder.mkdir(parents=True)
    own = Path(toolchain.__file__).parent / "include"
    expected = ["-idirafter", str(folder), "-idirafter", str(own)]
    assert (own / "gnu" / "stubs-32.h").is_file()
    assert system_headers([f"--sysroot={tmp_path}"]) == expected
    assert system_headers(["--sysroot", str(tmp_path)]) == expected
    assert system_headers(["-isysroot", str(tmp_path)]) == expected
    assert system_headers([f"--sysroot={tmp_path}/usr"]) == []


@pytest.mark.parametrize("flag", ["-nostdinc", "-nostdlibinc", "--no-standard-includes"])
def test_system_headers_are_left_out_where_the_system_is(flag: str):
    assert system_headers([flag]) == []


def test_ziglang_moved_elsewhere_is_found_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    origin = Path(find_toolchain().resource_dir).parent
    copy = tmp_path / "elsewhere/ziglang"
    copy.mkdir(parents=True)
    for name in ("zig", "lib", "__init__.py"):
        (copy / name).symlink_to(origin / name)
    monkeypatch.delitem(sys.modules, "ziglang", raising=False)
    monkeypatch.syspath_prepend(str(copy.parent))
    monkeypatch.delenv("UXDP_CLANG", raising=False)
    assert find_toolchain().resource_dir == str(copy / "lib")
    assert shutil.which("zig", path=str(copy)) == find_toolchain().command[0]
