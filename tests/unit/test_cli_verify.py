"""``uxdp verify`` without a kernel: arguments, what is printed, exit codes. See test_verify_in_kernel for the rest."""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.bundle_factory import PUBLISHER, build_case, signed_case
from tests.isolated_user import IsolatedUser
from tests.site_factory import Site
from uxdp_bundle.btf import SourceLine
from uxdp_bundle.errors import InstalledError
from uxdp_runtime import verify as verify_module
from uxdp_runtime.cli import main
from uxdp_runtime.cli.bundle_argument import resolve_bundle
from uxdp_runtime.errors import MissingCapabilityError, VerifierError

LOG = "".join(f"{index}: (b7) r{index % 10} = {index}\n" for index in range(40)) + "R0 !read_ok\nprocessed 40 insns\n"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, arguments)], prog_name="uxdp")


@pytest.fixture
def bundle(tmp_path: Path, isolated_user: IsolatedUser) -> Path:
    """A bundle whose publisher is trusted."""
    isolated_user.trust(f'[[keys]]\nkey = "{PUBLISHER.public.text}"\nnames = ["*"]\n')
    path = tmp_path / "settings.uxdp"
    path.write_bytes(signed_case("loading/settings"))
    return path


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Let a kernel accept everything; the list has the arguments of each call."""
    calls: list[dict[str, Any]] = []
    code = SimpleNamespace(instructions=(1, 2, 3))
    program = SimpleNamespace(
        name="settings",
        section="xdp",
        tag="0123456789abcdef",
        processed_instructions=42,
        verification_time_us=17,
        jited_bytes=99,
        maps=("copies", ".rodata"),
        log="processed 42 insns\n",
        code=code,
    )
    info = SimpleNamespace(key_size=4, value_size=32, max_entries=1, flags=0)

    @contextmanager
    def accept(_bound: object, **arguments: Any) -> Iterator[object]:
        calls.append(arguments)
        yield SimpleNamespace(
            programs={"settings": program},
            maps={"copies": SimpleNamespace(type="array", info=info)},
            params={"limit": b"\1\0\0\0"},
            reverified=False,
        )

    monkeypatch.setattr(verify_module, "verify", accept)
    return calls


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refused(_bound: object, **_arguments: Any) -> None:
        raise error

    monkeypatch.setattr(verify_module, "verify", refused)


def refusal(log: str = LOG) -> VerifierError:
    source = SourceLine("nf.c", 7, 1, "return data[100];")
    return VerifierError(
        errno.EACCES, "settings", "R0 !read_ok", log=log, instruction=39, source=source, context="settings.uxdp"
    )


def test_verify_help_has_an_example_and_needs_no_kernel() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "sudo uxdp verify load_balancer.uxdp" in result.stdout
    assert "CAP_BPF" in result.stdout


def test_verify_accepted_prints_tag_instructions_time_and_maps(bundle: Path, verified: list[dict[str, Any]]) -> None:
    result = run(bundle)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{bundle}: verified: the kernel accepts 1 program\n")
    row = next(line for line in result.stdout.splitlines() if "0123456789abcdef" in line)
    assert row.split() == ["settings", "0123456789abcdef", "42", "17", "µs", "copies,", ".rodata"]
    assert "processed 42 insns" not in result.stdout
    assert "processed 42 insns" in run(bundle, "--log").stdout
    assert verified[0] == {"programs": None, "params": {}}


def test_verify_json_is_one_document(bundle: Path, verified: list[dict[str, Any]]) -> None:
    result = run(bundle, "--json", "--program", "settings", "--param", "limit=1")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["programs"] == [
        {
            "name": "settings",
            "section": "xdp",
            "tag": "0123456789abcdef",
            "instructions": 3,
            "instructions_processed": 42,
            "verification_time_us": 17,
            "jited_bytes": 99,
            "maps": ["copies", ".rodata"],
            "log": "processed 42 insns\n",
        }
    ]
    assert document["maps"] == [
        {"name": "copies", "type": "array", "key_size": 4, "value_size": 32, "max_entries": 1, "flags": 0}
    ]
    assert (document["name"], document["binding"], document["reverified"]) == ("settings", "equal", False)
    assert document["params"] == {"limit": "01000000"}
    assert verified == [{"programs": ("settings",), "params": {"limit": 1}}]


def test_verify_params_are_read_by_the_constants_types(bundle: Path, verified: list[dict[str, Any]]) -> None:
    arguments = ["limit=0x10", "offset=-3", "enabled=false", "label=61626300"]
    assert run(bundle, *(f"--param={argument}" for argument in arguments)).exit_code == 0
    assert verified[0]["params"] == {"limit": 16, "offset": -3, "enabled": 0, "label": b"abc\0"}


@pytest.mark.parametrize(
    ("param", "says"),
    [
        ("limit", "expected NAME=VALUE"),
        ("nothing=1", "the bundle's constants are: enabled, label"),
        ("limit=many", "'many', expected an integer"),
        ("label=xyz", "in hex"),
    ],
)
def test_verify_wrong_param_is_wrong_usage(bundle: Path, verified: list[dict[str, Any]], param: str, says: str) -> None:
    result = run(bundle, "--param", param)
    assert result.exit_code == 2
    assert says in result.stderr
    assert not verified


def test_verify_unsigned_is_refused_before_anything_is_loaded(tmp_path: Path, verified: list[dict[str, Any]]) -> None:
    path = tmp_path / "nf.uxdp"
    path.write_bytes(build_case("minimal"))
    result = run(path)
    assert result.exit_code == 4
    assert not verified
    result = run(path, "--insecure-unsigned")
    assert result.exit_code == 0
    assert "INSECURE" in result.stderr
    assert len(verified) == 1


def test_verify_refused_shows_instruction_line_and_end_of_log(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, refusal())
    result = run(bundle)
    assert result.exit_code == 9
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0] == "… 27 lines before these of the verifier's log"
    assert lines[1].startswith("27: (b7)")
    assert "nf.c:7:  return data[100];" in lines
    assert lines[lines.index("nf.c:7:  return data[100];") + 1] == "  39: (b7) r9 = 39"
    assert lines[-2] == (
        "uxdp: error: settings.uxdp: the kernel's verifier refused program settings at instruction 39, nf.c:7: "
        "R0 !read_ok"
    )
    assert lines[-1] == "  → add --log to see the whole log"


def test_verify_refused_with_log_shows_all_of_it(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, refusal(LOG + "\x1b[2Jforged\n"))
    result = run(bundle, "--log")
    assert result.stderr.startswith(LOG)
    assert "\\x1b[2Jforged" in result.stderr
    assert "add --log" not in result.stderr


def test_verify_refused_as_json_has_the_whole_log(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, refusal())
    result = run(bundle, "--json")
    assert result.exit_code == 9
    error = json.loads(result.stdout)["error"]
    assert (error["type"], error["exit_code"]) == ("VerifierError", 9)
    assert (error["program"], error["instruction"], error["source"]) == ("settings", 39, "nf.c:7")
    assert (error["reason"], error["log"]) == ("R0 !read_ok", LOG)
    assert result.stderr == ""


def test_verify_without_capabilities_exits_with_8(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, MissingCapabilityError(["CAP_BPF"], "missing", remedy="run it as root"))
    result = run(bundle)
    assert result.exit_code == 8
    assert result.stderr == "uxdp: error: CAP_BPF: missing\n  → run it as root\n"


# --- BUNDLE --------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site directory on sys.path, in which the current folder is not."""
    site = Site(tmp_path / "site")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(str(site.directory))
    return site


def test_resolve_bundle_name_is_an_installed_function(site: Site) -> None:
    path = site.install("my-firewall", name="firewall")
    assert resolve_bundle("firewall") == str(path)


def test_resolve_bundle_existing_file_wins_over_a_name(site: Site) -> None:
    site.install("my-firewall", name="firewall")
    Path("firewall").touch()
    assert resolve_bundle("firewall") == "firewall"


@pytest.mark.parametrize("argument", ["./firewall", "build/firewall", "/nonexistent/firewall"])
def test_resolve_bundle_with_a_slash_is_a_path(site: Site, argument: str) -> None:
    site.install("my-firewall", name="firewall")
    assert resolve_bundle(argument) == argument


def test_resolve_bundle_neither_says_that_both_were_tried(site: Site) -> None:
    site.install("my-firewall", name="firewall")
    with pytest.raises(InstalledError) as caught:
        resolve_bundle("nothing")
    assert "no file 'nothing' here" in caught.value.message
    assert "no installed network function 'nothing', installed are: firewall" in caught.value.message
    assert caught.value.exit_code == 7


def test_resolve_bundle_defective_installation_says_what_is_wrong(site: Site) -> None:
    path = site.install("my-firewall", name="firewall")
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(InstalledError, match="RECORD says"):
        resolve_bundle("firewall")
