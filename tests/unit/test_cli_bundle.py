import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.bundle_factory import PUBLISHER, Forgery, build_case, signed_case
from uxdp_bundle.manifest import parse_manifest, to_json
from uxdp_runtime.cli import main

TRUST = f'[[keys]]\nkey = "{PUBLISHER.public.text}"\nnames = ["*"]\n'


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def run_json(*arguments: object, exit_code: int = 0) -> dict:
    result = run(*arguments, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bundle(here) -> str:
    (here / "nf.uxdp").write_bytes(signed_case("many_facts"))
    return "nf.uxdp"


def write(here: Path, name: str, forged: Forgery) -> str:
    (here / name).write_bytes(forged.image())
    return name


# inspect


def test_inspect_shows_what_the_manifest_says(bundle, isolated_user):
    isolated_user.trust(TRUST)
    result = run("inspect", bundle)
    assert (result.exit_code, result.stderr) == (0, "")
    for text in (
        *("many_facts 0", "license ", "bundle id ", "built by clang version", "lowered by LLVM 22."),
        *("first", "second", "on_cpu", "xdp.frags", "loop", "map_lookup_elem", "bpf_xdp_metadata_rx_timestamp"),
        *(
            "flows",
            "lru_hash",
            "pinned",
            "burst_limit",
            "64",
            "object",
            "shim",
            "counted",
            "publisher",
            "trust: trusted",
        ),
    ):
        assert text in result.stdout, text


def test_inspect_of_untrusted_bundle_says_so_and_what_to_do(bundle):
    result = run("inspect", bundle)
    assert result.exit_code == 0
    assert "trust: NOT trusted" in result.stdout
    assert f"uxdp trust add {PUBLISHER.public}" in result.stdout


def test_inspect_of_unsigned_bundle_says_so(here):
    (here / "nf.uxdp").write_bytes(Forgery.of("minimal").image(keys=()))
    result = run("inspect", "nf.uxdp")
    assert "it is not signed" in result.stdout
    assert "Maps" not in result.stdout
    assert "Signatures" not in result.stdout


def test_inspect_json_is_the_manifest_and_the_verdict(bundle, isolated_user):
    isolated_user.trust(TRUST)
    shown = run_json("inspect", bundle)
    image = Path(bundle).read_bytes()
    manifest = Forgery(image).manifest
    assert list(shown) == ["bundle", "bundle_id", "manifest", "trust"]
    assert shown["manifest"] == manifest
    assert shown["bundle"] == "nf.uxdp"
    assert len(shown["bundle_id"]) == 64
    assert run_json("inspect", bundle) == shown


def test_inspect_manifest_in_json_can_be_read_as_a_manifest(bundle):
    shown = run_json("inspect", bundle)["manifest"]
    encoded = json.dumps(shown, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    assert to_json(parse_manifest(encoded)) == shown


@pytest.mark.parametrize("field", ["version", "license", "compiler"])
def test_inspect_names_that_look_like_markup_stay_what_they_are(field, here):
    forged = Forgery.of("many_facts")
    forged.manifest["license"] = "[red]GPL[/red]"
    forged.manifest["programs"][0]["section"] = "[bold]xdp[/bold]"
    result = run("inspect", write(here, "nf.uxdp", forged))
    assert "[red]GPL[/red]" in result.stdout
    assert "[bold]xdp[/bold]" in result.stdout


@pytest.mark.parametrize("text", ["\x1b[31mred", "two\nlines", "‮backwards", "\u200bhidden"])
def test_inspect_names_with_control_characters_are_no_manifest(text, here):
    forged = Forgery.of("many_facts")
    forged.manifest["programs"][0]["section"] = text
    result = run("inspect", write(here, "nf.uxdp", forged))
    assert result.exit_code == 3
    assert text not in result.output


@pytest.mark.parametrize("command", ["inspect", "bind", "extract"])
@pytest.mark.parametrize(
    ("content", "exit_code"), [(None, 1), (b"", 3), (b"\x7fELF", 3)], ids=["missing", "empty", "no-bundle"]
)
def test_command_on_no_bundle_fails_with_its_code(command, content, exit_code, here):
    if content is not None:
        (here / "nf.uxdp").write_bytes(content)
    result = run(command, "nf.uxdp")
    assert result.exit_code == exit_code
    assert result.stderr.startswith("uxdp: error: nf.uxdp")
    assert list(here.iterdir()) == ([here / "nf.uxdp"] if content is not None else [])


# bind


def test_bind_of_trusted_bundle_says_what_was_shown(bundle, isolated_user):
    isolated_user.trust(TRUST)
    result = run("bind", bundle)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "nf.uxdp: bound (equal): the IR lowers to exactly this object\n"


def test_bind_json_names_the_programs(bundle, isolated_user):
    isolated_user.trust(TRUST)
    shown = run_json("bind", bundle)
    assert shown.pop("bundle_id") == run_json("inspect", bundle)["bundle_id"]
    assert shown == {
        "bundle": "nf.uxdp",
        "name": "many_facts",
        "binding": "equal",
        "insecure": False,
        "programs": ["first", "second", "on_cpu"],
        "context_accesses": 4,
    }


def test_bind_of_untrusted_bundle_is_refused_unless_told_otherwise(bundle):
    assert run("bind", bundle).exit_code == 4
    result = run("bind", bundle, "--insecure-unsigned")
    assert result.exit_code == 0
    assert "INSECURE" in result.stderr
    assert run_json("bind", bundle, "--insecure-unsigned")["insecure"] is True


def test_bind_of_a_bundle_whose_ir_is_another_exits_with_5(here, isolated_user):
    isolated_user.trust(TRUST)
    forged = Forgery.of("minimal")
    forged.store_compressed("ir", Forgery.of("minimal_twin").content("ir"))
    result = run("bind", write(here, "nf.uxdp", forged))
    assert result.exit_code == 5
    assert "section xdp differs" in result.stderr
    assert "build it again" in result.stderr
    error = run_json("bind", "nf.uxdp", exit_code=5)["error"]
    assert (error["type"], error["exit_code"]) == ("BindingError", 5)


def test_bind_made_by_another_llvm_says_that_the_kernel_must_verify(here, isolated_user):
    isolated_user.trust(TRUST)
    forged = Forgery(build_case("minimal", clang_args=("-mcpu=v2",)))
    forged.manifest["build"]["lowering"] |= {"llvm": "21.1.0", "cpu": "v1"}
    forged.manifest["requirements"] |= {"llvm": 21, "mcpu": "v1"}
    result = run("bind", write(here, "nf.uxdp", forged))
    assert result.exit_code == 0
    assert "must-reverify" in result.stdout


# extract


def test_extract_writes_every_member_and_says_which(bundle, here):
    result = run("extract", bundle)
    folder = here / "many_facts-0"
    names = ["manifest.json", "signatures.jsonl", "many_facts.o", "many_facts.bc", "many_facts.shim.btf"]
    assert result.exit_code == 0
    assert result.stdout.split() == [f"many_facts-0/{name}" for name in names]
    forged = Forgery(Path(bundle).read_bytes())
    assert (folder / "many_facts.o").read_bytes() == forged.content("object")
    assert (folder / "many_facts.bc").read_bytes() == forged.content("ir")
    assert (folder / "many_facts.shim.btf").read_bytes() == forged.content("shim")
    assert json.loads((folder / "manifest.json").read_bytes()) == forged.manifest
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_extract_of_unsigned_bundle_writes_no_signatures(here):
    (here / "nf.uxdp").write_bytes(Forgery.of("minimal").image(keys=()))
    assert run("extract", "nf.uxdp", "-o", "out").exit_code == 0
    assert not (here / "out" / "signatures.jsonl").exists()


def test_extract_sources_go_into_folders_below(here):
    forged = Forgery.of("minimal")
    forged.add("source", b"int x;\n", "deep/er/nf.c")
    assert run("extract", write(here, "nf.uxdp", forged), "-o", "out").exit_code == 0
    assert (here / "out/source/deep/er/nf.c").read_bytes() == b"int x;\n"


def test_extract_one_member_to_a_file_or_stdout(bundle, here):
    content = Forgery(Path(bundle).read_bytes()).content("ir")
    assert run("extract", bundle, "ir").exit_code == 0
    assert (here / "many_facts.bc").read_bytes() == content
    assert run("extract", bundle, "ir", "-o", "sub/other.bc").exit_code == 0
    assert (here / "sub/other.bc").read_bytes() == content
    result = run("extract", bundle, "ir", "-o", "-")
    assert (result.exit_code, result.stdout_bytes) == (0, content)


def test_extract_one_member_by_role_and_name(here):
    forged = Forgery.of("minimal")
    forged.add("source", b"one", "a/one.c")
    forged.add("source", b"two", "two.c")
    write(here, "nf.uxdp", forged)
    assert run("extract", "nf.uxdp", "source:two.c", "-o", "-").stdout == "two"
    assert run("extract", "nf.uxdp", "source", "-o", "-").stdout == "one"
    assert run("extract", "nf.uxdp", "source:a/one.c").exit_code == 0
    assert (here / "source/a/one.c").read_text() == "one"


@pytest.mark.parametrize("member", ["sbom", "source:none.c", "object:other", ""])
def test_extract_member_that_is_not_there_exits_with_3(member, bundle):
    result = run("extract", bundle, member, "-o", "-")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "no member of role" in result.stderr


def test_extract_all_to_stdout_is_a_usage_error(bundle):
    result = run("extract", bundle, "-o", "-")
    assert result.exit_code == 2
    assert "needs MEMBER" in result.stderr


def test_extract_existing_file_is_kept_unless_forced(bundle, here):
    (here / "kept").write_text("mine")
    result = run("extract", bundle, "object", "-o", "kept")
    assert result.exit_code == 1
    assert "exists" in result.stderr
    assert "--force" in result.stderr
    assert (here / "kept").read_text() == "mine"
    assert run("extract", bundle, "object", "-o", "kept", "--force").exit_code == 0
    assert (here / "kept").read_bytes()[:4] == b"\x7fELF"


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["new", "forced"])
def test_extract_writes_through_no_symbolic_link_to_a_file(force, bundle, here):
    victim = here / "victim"
    victim.write_text("mine")
    (here / "out").mkdir()
    (here / "out/many_facts.o").symlink_to(victim)
    result = run("extract", bundle, "-o", "out", *force)
    assert victim.read_text() == "mine"
    assert result.exit_code == (0 if force else 1)
    if force:
        assert not (here / "out/many_facts.o").is_symlink()


def test_extract_follows_no_symbolic_link_to_a_folder(here):
    forged = Forgery.of("minimal")
    forged.add("source", b"x", "a/nf.c")
    (here / "elsewhere").mkdir()
    (here / "out").mkdir()
    (here / "out/source").symlink_to(here / "elsewhere")
    result = run("extract", write(here, "nf.uxdp", forged), "-o", "out", "--force")
    assert result.exit_code == 1
    assert "is a symbolic link, expected a folder" in result.stderr
    assert list((here / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["../nf.c", "/etc/nf.c", "a/../../nf.c", "a/..", "..", "./nf.c", "a\\..\\b", "a\0b"])
def test_extract_member_name_that_leads_out_is_no_manifest(name, here):
    forged = Forgery.of("minimal")
    forged.add("source", b"x", name)
    before = {write(here, "nf.uxdp", forged)}
    result = run("extract", "nf.uxdp", "-o", "out")
    assert result.exit_code == 3
    assert {path.name for path in here.iterdir()} == before


def test_extract_into_a_file_says_so(bundle, here):
    (here / "out").write_text("mine")
    result = run("extract", bundle, "-o", "out")
    assert result.exit_code == 1
    assert "out: is a file, expected a folder" in result.stderr


def test_extract_where_nothing_can_be_made_says_so(bundle):
    result = run("extract", bundle, "-o", "/proc/uxdp")
    assert (result.exit_code, "uxdp: error: /proc/uxdp" in result.stderr) == (1, True)


def test_extract_what_cannot_be_written_says_so(bundle, here):
    result = run("extract", bundle, "object", "-o", "x" * 300)
    assert (result.exit_code, "File name too long" in result.stderr) == (1, True)


def test_extract_to_a_reader_that_has_gone_is_quiet(bundle):
    read, write_end = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "uxdp_runtime", "extract", bundle, "object", "-o", "-"]
    result = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, check=False)
    os.close(write_end)
    assert (result.returncode, result.stderr) == (141, b"")


# diff


def test_diff_of_the_same_bundle_is_none(bundle, here):
    (here / "unsigned.uxdp").write_bytes(build_case("many_facts"))
    result = run("diff", bundle, "unsigned.uxdp")
    assert (result.exit_code, result.stdout) == (0, "the bundles are the same\n")
    assert run_json("diff", bundle, "unsigned.uxdp")["changes"] == []


def changed(change) -> Forgery:
    forged = Forgery.of("many_facts")
    change(forged)
    return forged


def change_program(forged: Forgery) -> None:
    program = forged.manifest["programs"][0]
    program["helpers"] = [*program["helpers"][1:], "bpf_redirect"]
    program["instructions"] += 1


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        pytest.param(lambda f: f.manifest.update(version="2"), ["~ version: 0 → 2"], id="version"),
        pytest.param(lambda f: f.manifest.update(name="other"), ["~ name: many_facts → other"], id="name"),
        pytest.param(lambda f: f.manifest.update(security_version=7), ["~ security_version: 0 → 7"], id="security"),
        pytest.param(
            lambda f: f.manifest["maps"][0].update(max_entries=5),
            ["~ map max_entries flows: 1024 → 5"],
            id="map",
        ),
        pytest.param(
            lambda f: f.manifest["params"].__delitem__(0),
            ["- constant burst_limit: type=__u32 size=4 default=64"],
            id="constant-gone",
        ),
        pytest.param(
            lambda f: f.manifest["requirements"]["kernel"].append("kfunc:x"),
            ["~ requirements kernel: +kfunc:x"],
            id="requirement",
        ),
        pytest.param(lambda f: f.manifest["xdp_md"].pop(0), ["~ xdp_md: -data"], id="field"),
        pytest.param(lambda f: f.manifest["critical"].append("maps"), ["~ critical: +maps"], id="critical"),
        pytest.param(lambda f: f.manifest["build"].update(compiler="gcc"), ["~ compiler: clang"], id="compiler"),
        pytest.param(lambda f: f.manifest["build"]["flags"].reverse(), ["~ flags: "], id="order-of-flags"),
        pytest.param(lambda f: f.manifest["build"].update(lowering=None), ["- lowering: llvm="], id="lowering-gone"),
        pytest.param(lambda f: f.manifest["build"]["sources"].pop(), ["- source many_facts.c: "], id="source-gone"),
        pytest.param(lambda f: f.add("sbom", b"{}", "sbom.json"), ["+ member sbom sbom.json: "], id="member-added"),
        pytest.param(lambda f: f.store("shim", b"x"), ["~ member shim sha256 shim: "], id="member-changed"),
        pytest.param(
            lambda f: f.manifest["members"][2].update(media_type="text/plain"),
            ["~ member shim media_type shim: application/vnd.uxdp.btf-shim → text/plain"],
            id="media-type",
        ),
        pytest.param(
            lambda f: f.manifest["programs"].pop(),
            ["- program on_cpu: section=xdp/cpumap flags=cpumap helpers=none kfuncs=none instructions="],
            id="program-gone",
        ),
        pytest.param(
            change_program,
            ["~ program helpers first: -bpf_ktime_get_ns +bpf_redirect", "~ program instructions first: "],
            id="helpers",
        ),
        pytest.param(
            lambda f: f.manifest["programs"].reverse(), ["the same things in another order"], id="order-of-programs"
        ),
    ],
)
def test_diff_shows_what_changed(change, lines, bundle, here):
    result = run("diff", bundle, write(here, "new.uxdp", changed(change)))
    assert result.exit_code == 1
    shown = result.stdout.splitlines()
    assert len(shown) == len(lines)
    assert all(line.startswith(start) for line, start in zip(shown, lines, strict=True)), shown


def test_diff_json_has_both_sides_of_each_change(bundle, here):
    new = write(here, "new.uxdp", changed(change_program))
    shown = run_json("diff", bundle, new, exit_code=1)
    assert shown["old"]["bundle"] == bundle
    assert shown["old"]["bundle_id"] != shown["new"]["bundle_id"]
    helpers, instructions = shown["changes"]
    assert (helpers["what"], helpers["name"]) == ("program helpers", "first")
    assert set(helpers["new"]) - set(helpers["old"]) == {"bpf_redirect"}
    assert instructions["new"] == instructions["old"] + 1


def test_diff_of_two_real_bundles(here):
    for name in ("minimal", "minimal_twin"):
        (here / f"{name}.uxdp").write_bytes(signed_case(name))
    result = run("diff", "minimal.uxdp", "minimal_twin.uxdp")
    assert result.exit_code == 1
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [
        *("~ name", "- source minimal.c", "+ source minimal_twin.c"),
        *("~ member ir sha256 ir", "~ member object sha256 object"),
    ]


def test_diff_with_a_missing_bundle_exits_with_1(bundle):
    result = run("diff", bundle, "missing.uxdp")
    assert (result.exit_code, "missing.uxdp" in result.stderr) == (1, True)


# The commands start quickly: what they do not need is not imported.


@pytest.mark.parametrize("command", [("bind", "--insecure-unsigned"), ("inspect", "--json"), ("diff",)])
def test_command_imports_nothing_that_it_does_not_need(command, bundle):
    arguments = [command[0], bundle, *([bundle] if command[0] == "diff" else []), *command[1:]]
    code = (
        "import sys\nfrom uxdp_runtime.cli import main\n"
        f"main.main({arguments!r}, standalone_mode=False)\n"
        "print([n for n in ('llvmlite', 'rich', 'elftools', 'tomlkit', 'packaging') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_service_imports_nothing_that_it_does_not_need():
    code = (
        "import sys\nimport uxdp_runtime.cli.serve\n"
        "import uxdp_runtime.serve.kernel_service, uxdp_runtime.serve.operation, uxdp_runtime.serve.service\n"
        "print([n for n in ('llvmlite', 'rich', 'dpkt', 'prometheus_client') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
