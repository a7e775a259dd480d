import base64
import csv
import hashlib
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from hatch_uxdp import build_hook
from tests.site_factory import entry_of, make_bundle
from uxdp_bundle import keys
from uxdp_bundle.container import bundle_from_bytes
from uxdp_bundle.signature import parse_envelopes
from uxdp_bundle.wheel_index import INDEX_PATH, parse_index
from uxdp_cc.errors import CompileError

PYPROJECT = """\
[build-system]
requires = ["hatchling", "uxdp"]
build-backend = "hatchling.build"

[project]
name = "My.NF"
version = "1.2"
{project}

{tables}
[tool.hatch.build.targets.wheel.hooks.uxdp]
sources = ["**/*.c"]
{hook}
"""
INFO = "my_nf-1.2.dist-info"


@pytest.fixture
def requests(monkeypatch):
    """Replace the compiler: every source gives a small bundle that depends on its content."""
    requests = []
    chosen = object()

    def build(request, toolchain):
        assert toolchain is chosen
        requests.append(request)
        (source,) = request.sources
        content = (request.cwd / source).read_bytes()
        if b"broken" in content:
            diagnostics = f"{source}:1:1: error: unknown type name 'broken'\n"
            raise CompileError(1, diagnostics)
        image = make_bundle(request.name, request.version, request.license or "GPL", source, content)
        notices = ("this is a notice",) if b"notice" in content else ()
        return SimpleNamespace(
            bundle=image, diagnostics="nf.c:1: warning: odd\n" * (b"odd" in content), notices=notices
        )

    monkeypatch.setattr(build_hook, "find_toolchain", lambda: chosen)
    monkeypatch.setattr(build_hook, "build", build)
    return requests


@pytest.fixture(autouse=True)
def configuration(tmp_path, monkeypatch):
    """A user of the test's own, without keys."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.delenv("UXDP_SIGNING_KEY", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    return tmp_path / "config/uxdp"


@pytest.fixture
def project(tmp_path):
    """Write a project: ``project(files, hook=…, tables=…)`` returns its root."""

    def write(files, *, hook='sign = "off"', tables="", project="", name="project"):
        root = tmp_path / name
        root.mkdir()
        (root / "pyproject.toml").write_text(PYPROJECT.format(project=project, tables=tables, hook=hook))
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content)
        return root

    return write


def build_wheel(root, version="standard"):
    (wheel,) = WheelBuilder(str(root)).build(directory=str(root.parent / "dist"), versions=[version])
    with zipfile.ZipFile(wheel) as archive:
        return Path(wheel), {name: archive.read(name) for name in archive.namelist()}


def build_sdist(root):
    (sdist,) = SdistBuilder(str(root)).build(directory=str(root.parent / "dist"), versions=["standard"])
    return Path(sdist)


def fails(root, capsys, version="standard"):
    """Build a wheel that must fail without a traceback; return what stderr says."""
    before = sorted(str(path) for path in root.rglob("*"))
    with pytest.raises(SystemExit) as caught:
        build_wheel(root, version)
    assert caught.value.code == 1
    assert sorted(str(path) for path in root.rglob("*")) == before
    assert list((root.parent / "tmp").iterdir()) == []
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def index_of(files):
    return parse_index(files[f"{INFO}/{INDEX_PATH}"], what="index")


def check_record(files):
    for path, digest, size in csv.reader(io.StringIO(files[f"{INFO}/RECORD"].decode())):
        if path != f"{INFO}/RECORD":
            data = files[path]
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (digest, size) == (f"sha256={expected}", str(len(data)))


def test_wheel_of_a_project_without_package_holds_bundle_index_and_sbom(project, requests, tmp_path):
    root = project({"nf.c": "int x;", "README.md": "hello"}, project='license = "MIT"')
    wheel, files = build_wheel(root)
    assert wheel.name == "my_nf-1.2-py3-none-any.whl"
    assert set(files) == {
        "my_nf/nf.uxdp",
        f"{INFO}/METADATA",
        f"{INFO}/WHEEL",
        f"{INFO}/RECORD",
        f"{INFO}/sboms/uxdp.cdx.json",
        f"{INFO}/{INDEX_PATH}",
    }
    assert b"Tag: py3-none-any\n" in files[f"{INFO}/WHEEL"]
    assert b"Root-Is-Purelib: true\n" in files[f"{INFO}/WHEEL"]
    assert index_of(files) == (entry_of(files["my_nf/nf.uxdp"], "my_nf/nf.uxdp"),)
    check_record(files)
    (request,) = requests
    assert (request.sources, request.name, request.version) == (("nf.c",), "nf", "1.2")
    assert (request.license, request.security_version, request.cwd) == ("MIT", 0, root)
    assert sorted(path.name for path in root.iterdir()) == ["README.md", "nf.c", "pyproject.toml"]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_wheel_project_without_license_leaves_it_to_the_source(project, requests):
    build_wheel(project({"nf.c": ""}))
    assert requests[0].license is None


def test_wheel_flags_of_the_table_reach_the_compiler(project, requests):
    hook = 'include-dirs = ["include"]\ndefines = ["A=1"]\ncflags = ["-Wall"]\nsign = "off"'
    build_wheel(project({"nf.c": "", "include/nf.h": ""}, hook=hook))
    assert requests[0].clang_args == ("-Iinclude", "-DA=1", "-Wall")


def test_wheel_package_with_sources_puts_bundles_beside_them_and_the_others_in_the_projects_folder(project, requests):
    files = {"my_nf/__init__.py": "", "my_nf/bpf/a.c": "", "my_nf/b.c": "", "c.c": ""}
    _, files = build_wheel(project(files))
    bundles = {name for name in files if name.endswith(".uxdp")}
    assert bundles == {"my_nf/bpf/a.uxdp", "my_nf/b.uxdp", "my_nf/c.uxdp"}
    assert {entry.path for entry in index_of(files)} == bundles
    assert "my_nf/__init__.py" in files
    assert "my_nf/b.c" in files
    assert [request.name for request in requests] == ["a", "b", "c"]


def test_wheel_package_below_src_loses_the_prefix_in_the_index_too(project, requests):
    files = {"src/tool/__init__.py": "", "src/tool/nf.c": ""}
    tables = '[tool.hatch.build.targets.wheel]\npackages = ["src/tool"]'
    _, files = build_wheel(project(files, tables=tables))
    assert [entry.path for entry in index_of(files)] == ["tool/nf.uxdp"]
    assert "tool/nf.uxdp" in files
    check_record(files)


def test_wheel_stale_live_bundle_is_not_what_ships(project, requests):
    root = project({"my_nf/__init__.py": "", "my_nf/nf.c": "new", "my_nf/nf.uxdp": "stale"})
    _, files = build_wheel(root)
    assert index_of(files) == (entry_of(files["my_nf/nf.uxdp"], "my_nf/nf.uxdp"),)
    assert (root / "my_nf/nf.uxdp").read_text() == "stale"


def test_wheel_package_that_would_move_the_index_is_refused(project, requests, capsys):
    files = {"uxdp/tool/__init__.py": "", "uxdp/tool/nf.c": ""}
    tables = '[tool.hatch.build.targets.wheel]\npackages = ["uxdp/tool"]'
    assert "tool.hatch.build.targets.wheel.sources: moves uxdp/index.json" in fails(
        project(files, tables=tables), capsys
    )


def test_wheel_twice_in_other_folders_at_other_times_is_byte_identical(project, requests, monkeypatch):
    files = {"nf.c": "", "b.c": ""}
    first, _ = build_wheel(project(files, name="one"))
    data = first.read_bytes()
    root = project(files, name="two")
    os.utime(root / "nf.c", (1, 1))
    second, _ = build_wheel(root)
    assert second.read_bytes() == data


def test_wheel_from_the_sdist_equals_the_wheel_from_the_tree(project, requests, tmp_path):
    files = {"my_nf/__init__.py": "", "my_nf/nf.c": "", "include/nf.h": "", "top.c": ""}
    root = project(files, hook='include-dirs = ["include"]\nsign = "off"')
    from_tree = build_wheel(root)[0].read_bytes()
    requests.clear()
    with tarfile.open(build_sdist(root)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert names >= set(files) | {"pyproject.toml", "PKG-INFO"}
    assert not requests, "a source distribution compiles nothing"
    assert build_wheel(tmp_path / "unpacked/my_nf-1.2")[0].read_bytes() == from_tree


def test_sdist_with_a_hook_for_all_targets_compiles_nothing(project, requests):
    root = project({"nf.c": ""}, tables='[tool.hatch.build.hooks.uxdp]\nsources = ["nf.c"]\n')
    build_sdist(root)
    assert not requests


def test_sdist_with_a_hook_for_all_targets_names_its_key_in_errors(project, requests, capsys):
    root = project({"nf.c": ""}, tables='[tool.hatch.build.hooks.uxdp]\nsources = "nf.c"\n')
    with pytest.raises(SystemExit):
        build_sdist(root)
    assert capsys.readouterr().err.startswith("uxdp: tool.hatch.build.hooks.uxdp.sources: a string, expected")


def test_other_target_is_refused(project, requests, capsys):
    root = project({"nf.c": ""})
    config = {"sources": ["nf.c"]}
    builder = WheelBuilder(str(root))
    hook = build_hook.UxdpBuildHook(str(root), config, builder.config, builder.metadata, "", "binary", builder.app)
    with pytest.raises(SystemExit):
        hook.initialize("standard", {})
    assert "bundles can only be built into a wheel" in capsys.readouterr().err


def test_hatchling_without_sboms_is_refused_with_the_version_to_ask_for(project, requests, monkeypatch, capsys):
    monkeypatch.setattr(WheelBuilder, "get_default_build_data", lambda self: {"infer_tag": False, "pure_python": True})
    error = fails(project({"nf.c": ""}), capsys)
    assert "build-system.requires: hatchling: this version cannot" in error
    assert '"hatchling>=1.29"' in error


def test_sbom_is_cyclonedx_with_digests_and_tools_and_no_time(project, requests):
    _, files = build_wheel(project({"nf.c": "int x;", "b.c": ""}, project='license = "MIT"'))
    bom = json.loads(files[f"{INFO}/sboms/uxdp.cdx.json"])
    assert (bom["bomFormat"], bom["specVersion"], bom["version"]) == ("CycloneDX", "1.6", 1)
    assert "serialNumber" not in bom
    assert "timestamp" not in bom["metadata"]
    root = bom["metadata"]["component"]
    assert (root["purl"], root["licenses"]) == ("pkg:pypi/my-nf@1.2", [{"expression": "MIT"}])
    tools = [(tool["name"], tool["version"]) for tool in bom["metadata"]["tools"]["components"]]
    assert tools == [("clang", "22.1.0"), ("LLVM", "22.1.0")]
    assert [component["name"] for component in bom["components"]] == ["b", "nf"]
    component = bom["components"][1]
    entry = entry_of(files["my_nf/nf.uxdp"], "x")
    assert component["hashes"] == [{"alg": "SHA-256", "content": entry.sha256}]
    assert {"name": "uxdp:bundle-id", "value": entry.bundle_id} in component["properties"]
    (source,) = component["components"]
    assert source["name"] == "nf.c"
    assert source["hashes"][0]["content"] == hashlib.sha256(b"int x;").hexdigest()
    references = {component["bom-ref"] for component in bom["components"]}
    assert set(bom["dependencies"][0]["dependsOn"]) == references


def test_failing_compile_fails_the_build_with_clangs_message(project, requests, capsys):
    error = fails(project({"a.c": "", "nf.c": "broken"}), capsys)
    assert error.startswith("nf.c:1:1: error: unknown type name 'broken'\n")
    assert error.endswith("uxdp: nf.c: clang failed with exit status 1\n")


def test_warnings_and_notices_of_the_compiler_are_shown(project, requests, capsys):
    build_wheel(project({"nf.c": "odd notice"}))
    assert capsys.readouterr().err == "nf.c:1: warning: odd\nthis is a notice\n"


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("sources = []", None),
        ('sing = "off"', "wheel.hooks.uxdp.sing: unknown key"),
        ('sign = "no"', "wheel.hooks.uxdp.sign: 'no', expected one of"),
        ('include-dirs = ["none"]', "wheel.hooks.uxdp.include-dirs[0]: 'none' is no directory"),
    ],
    ids=["toml", "unknown-key", "bad-value", "missing-folder"],
)
def test_bad_table_fails_the_build_with_the_full_key(project, requests, capsys, hook, message):
    root = project({"nf.c": ""}, hook=hook)
    if message is None:  # hatchling itself refuses a key that stands twice
        with pytest.raises(ValueError, match="overwrite"):
            build_wheel(root)
        return
    assert f"uxdp: tool.hatch.build.targets.{message}" in fails(root, capsys)
    assert not requests


def test_no_source_fails_the_build(project, requests, capsys):
    error = fails(project({"README.md": ""}), capsys)
    assert "sources[0]: '**/*.c' matches no file" in error
    assert "relative to pyproject.toml" in error


def signers(files):
    with bundle_from_bytes(files["my_nf/nf.uxdp"]) as bundle:
        return parse_envelopes(bundle.signatures, bundle.bundle_id, bundle.manifest.name)


def signed_by(files, key):
    with bundle_from_bytes(files["my_nf/nf.uxdp"]) as bundle:
        return parse_envelopes(bundle.signatures, bundle.bundle_id, bundle.manifest.name)[0].keyid == key.public.text


def test_sign_off_leaves_the_bundle_unsigned_and_makes_no_key(project, requests, configuration):
    _, files = build_wheel(project({"nf.c": ""}, hook='sign = "off"'))
    assert signers(files) == ()
    assert not configuration.exists()


def test_sign_auto_without_key_uses_the_development_key_and_says_so(project, requests, configuration, capsys):
    _, files = build_wheel(project({"nf.c": ""}, hook=""))
    error = capsys.readouterr().err
    key, _ = keys.development_key(create=False)
    assert signed_by(files, key)
    assert "UXDP_SIGNING_KEY is not set: signed with the development key " + key.public.text in error
    assert str(configuration / "development.pem") in error


@pytest.mark.parametrize("mode", ["auto", "require"])
@pytest.mark.parametrize("form", ["path", "pem"])
def test_sign_with_key_of_the_environment(project, requests, configuration, monkeypatch, tmp_path, mode, form, capsys):
    key = keys.generate_key()
    keys.write_secret_key(tmp_path / "key.pem", key)
    value = str(tmp_path / "key.pem") if form == "path" else (tmp_path / "key.pem").read_text()
    monkeypatch.setenv("RELEASE_KEY", value)
    _, files = build_wheel(project({"nf.c": ""}, hook=f'sign = "{mode}"\nkey-env = "RELEASE_KEY"'))
    assert signed_by(files, key)
    assert not configuration.exists()
    assert capsys.readouterr().err == ""
    assert index_of(files) == (entry_of(files["my_nf/nf.uxdp"], "my_nf/nf.uxdp"),)


def test_sign_require_without_key_fails_before_compiling(project, requests, capsys):
    error = fails(project({"nf.c": ""}, hook='sign = "require"\nkey-env = "RELEASE_KEY"'), capsys)
    assert 'wheel.hooks.uxdp.sign: "require", and the environment variable RELEASE_KEY is not set' in error
    assert not requests


def test_sign_with_bad_key_file_fails_with_its_error(project, requests, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("UXDP_SIGNING_KEY", str(tmp_path / "missing.pem"))
    assert "missing.pem: cannot be read" in fails(project({"nf.c": ""}, hook=""), capsys)


def test_editable_writes_live_files_beside_the_sources_and_their_paths_in_the_index(project, requests, tmp_path):
    root = project({"my_nf/__init__.py": "", "my_nf/a.c": "", "nf.c": ""})
    _, files = build_wheel(root, "editable")
    assert not [name for name in files if name.endswith(".uxdp") or "sboms" in name]
    live = [root / "my_nf/a.uxdp", root / "nf.uxdp"]
    assert index_of(files) == tuple(entry_of(path.read_bytes(), str(path), editable=True) for path in live)
    assert [oct(path.stat().st_mode & 0o777) for path in live] == ["0o644", "0o644"]
    assert sorted(path.name for path in root.iterdir()) == ["my_nf", "nf.c", "nf.uxdp", "pyproject.toml"]
    assert list((tmp_path / "tmp").iterdir()) == []
    check_record(files)


def test_editable_of_a_project_without_package_works(project, requests):
    root = project({"nf.c": ""})
    wheel, files = build_wheel(root, "editable")
    assert wheel.name == "my_nf-1.2-py2.py3-none-any.whl"
    assert [entry.path for entry in index_of(files)] == [str(root / "nf.uxdp")]


def test_editable_in_a_linked_folder_has_the_resolved_path(project, requests, tmp_path):
    root = project({"nf.c": ""})
    (tmp_path / "link").symlink_to(root)
    _, files = build_wheel(tmp_path / "link", "editable")
    assert [entry.path for entry in index_of(files)] == [str(root / "nf.uxdp")]


def test_editable_failing_compile_keeps_the_old_live_file(project, requests, capsys):
    root = project({"nf.c": "broken", "nf.uxdp": "old"})
    assert "unknown type name" in fails(root, capsys, "editable")
    assert (root / "nf.uxdp").read_text() == "old"


def test_editable_live_file_that_cannot_be_written_is_one_message(project, requests, capsys):
    root = project({"nf.c": "", "nf.uxdp/inside": ""})
    assert "uxdp: " in fails(root, capsys, "editable")


@pytest.mark.parametrize("order", ["custom-first", "uxdp-first"])
def test_hook_beside_one_for_an_extension_module_leaves_the_tag_to_it(project, requests, order):
    table = '[tool.hatch.build.targets.wheel.hooks.custom]\npath = "tag.py"\n'
    where = {"tables": table} if order == "custom-first" else {"hook": f'sign = "off"\n{table}'}
    custom = (
        "from hatchling.builders.hooks.plugin.interface import BuildHookInterface\n"
        "class Tag(BuildHookInterface):\n"
        "    def initialize(self, version, build_data):\n"
        "        build_data.update(pure_python=False, infer_tag=True)\n"
    )
    wheel, _ = build_wheel(project({"nf.c": "", "tag.py": custom}, **where))
    assert not wheel.name.endswith("none-any.whl")
