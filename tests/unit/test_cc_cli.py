"""uxdp-cc beside the clang it wraps: what it writes, what it says, how it ends."""

import errno
import os
import pty
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit import cc_fixtures
from tests.unit.cc_fixtures import CALLEE, CALLER, DROP, bound, clang_line, command_line, run
from uxdp_bundle import keys
from uxdp_bundle.binding import Binding
from uxdp_bundle.container import bundle_from_bytes
from uxdp_bundle.signature import parse_envelopes
from uxdp_cc.toolchain import find_toolchain

project = cc_fixtures.project

BROKEN = "int x = y;\n"
WARNS = DROP.replace("return ctx->data <", "int unused;\n\treturn ctx->data <")


# --- where bundles go ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "outputs"),
    [
        ("-c nf.c", "nf.uxdp"),
        ("-c sub/nf.bpf.c", "nf.bpf.uxdp"),
        ("nf.c", "nf.uxdp"),
        ("-c nf.c -o x.o", "x.o"),
        ("-c nf.c -osub/x.o", "sub/x.o"),
        ("-o x.o -c nf.c", "x.o"),
        ("-c nf.c sub/nf.bpf.c", "nf.uxdp nf.bpf.uxdp"),
    ],
)
def test_bundle_is_written_where_clang_writes_an_object(project, line: str, outputs: str):
    project.write("nf.c")
    project.write("sub/nf.bpf.c")
    before = project.files()
    result = project.cc(*line.split())
    assert (result.status, result.stdout, result.stderr) == (0, "", "")
    assert project.files() - before == set(outputs.split())
    for output in outputs.split():
        assert bound((project.path / output).read_bytes()) is Binding.EQUAL


def test_output_has_the_mode_that_the_umask_leaves(project):
    project.write("nf.c")
    before = os.umask(0o027)
    try:
        project.cc("-c", "nf.c")
    finally:
        os.umask(before)
    assert stat.S_IMODE((project.path / "nf.uxdp").stat().st_mode) == 0o640


@pytest.mark.parametrize("option", [["-o", "-"], ["-o-"]])
def test_output_dash_is_standard_output(project, option: list[str]):
    project.write("nf.c")
    result = subprocess.run(command_line("-c", "nf.c", *option), cwd=project.path, capture_output=True, check=True)
    assert bound(result.stdout) is Binding.EQUAL
    assert project.files() == {"nf.c"}


def test_source_dash_is_standard_input(project):
    command = command_line("--uxdp-embed-sources", "-x", "c", "-c", "-", "-o", "piped.uxdp")
    assert run(command, project.path, input=DROP).status == 0
    with project.bundle("piped.uxdp") as bundle:
        assert bundle.manifest.name == "piped"
        assert [source.path for source in bundle.manifest.build.sources] == ["<stdin>"]
        assert bundle.member("source", "<stdin>") == DROP.encode()
    assert bound((project.path / "piped.uxdp").read_bytes()) is Binding.EQUAL
    # A second run of clang, for the object or for a line number, sees the same input.
    assembly = DROP.replace("return ctx->data <", 'asm volatile("r0 = r0");\n\treturn ctx->data <')
    result = run(command, project.path, input=assembly)
    assert (result.status, "carries no IR" in result.stderr) == (0, True)
    result = run(command, project.path, input=f'{DROP}\nasm(".globl foo");\n')
    assert (result.status, result.stderr.partition(" error")[0]) == (1, "<stdin>:12:")


def test_source_may_be_a_device(project):
    source = project.write("nf.c")
    with source.open() as file:
        subprocess.run(command_line("-xc", "-c", "/dev/stdin"), cwd=project.path, stdin=file, check=True)
    assert project.files() == {"nf.c", "stdin.uxdp"}


@pytest.mark.parametrize("make", ["-E -o nf.i", "-S -emit-llvm -o nf.ll", "-c -emit-llvm -o nf.bc"])
def test_preprocessed_source_and_ir_are_sources_too(project, make: str):
    project.write("nf.c", f'#include "own.h"\n{DROP}')
    project.write("own.h", "")
    assert project.clang(*make.split(), "nf.c").status == 0
    name = make.split()[-1]
    result = project.cc("-Wall", "-Iinc", "-c", name)
    assert result == project.clang("-Wall", "-Iinc", "-c", name, "-o", "x.o")
    with project.bundle("nf.uxdp") as bundle:
        assert [source.path for source in bundle.manifest.build.sources] == [name]
    assert bound((project.path / "nf.uxdp").read_bytes()) is Binding.EQUAL


def test_language_holds_for_the_sources_behind_it(project):
    project.write("a.inc", CALLER)
    project.write("b.c", CALLEE)
    result = project.cc("-x", "c", "a.inc", "-x", "none", "b.c", "-o", "nf.uxdp")
    assert (result.status, result.stderr) == (0, "")


def test_several_sources_are_one_bundle(project):
    project.write("a.c", CALLER)
    project.write("sub/b.c", CALLEE)
    assert project.cc("a.c", "sub/b.c", "-o", "nf.uxdp").status == 0
    assert project.files() == {"a.c", "sub/b.c", "nf.uxdp"}
    with project.bundle("nf.uxdp") as bundle:
        assert bundle.manifest.name == "nf"
    assert project.cc("a.c", "sub/b.c", "-omy nf.uxdp").status == 0
    with project.bundle("my nf.uxdp") as bundle:
        assert bundle.manifest.name == "my_nf"
    result = project.cc("a.c", "-o", "nf.uxdp")
    assert result.status == 1
    assert result.stderr == "a.c: error: function 'verdict_of' is declared, but defined nowhere\n"


def test_response_file_holds_arguments(project):
    project.write("nf.c", f"{DROP}\n#ifndef TEXT\n#error no text\n#endif\n")
    project.write("args", "-c 'nf.c'\n-DTEXT=\"a b\" --uxdp-name other\\ ")
    result = project.cc("@args", "-o", "x.o")
    assert (result.status, result.stderr) == (1, "uxdp-cc: error: --uxdp-name: 'other ', expected " + keys_pattern())
    project.write("args", "-c 'nf.c'\n-DTEXT=\"a b\" --uxdp-name other")
    assert project.cc("@args", "-o", "x.o").status == 0
    with project.bundle("x.o") as bundle:
        assert bundle.manifest.name == "other"


def keys_pattern() -> str:
    from uxdp_bundle.manifest import NAME_PATTERN

    return f"{NAME_PATTERN.pattern}\n"


# --- what clang does and says, it does and says here ---------------------------------------------

CLANGS_OWN = [
    "-E nf.c",
    "-E -dM nf.c",
    "-E -P -x c /dev/null",
    "-M nf.c",
    "-MM nf.c",
    "-fsyntax-only -Wall nf.c",
    "-fsyntax-only broken.c",
    "-c missing.c",
    "-c nf.c missing.c",
    "-c @missing",
    "-c nf.c -o",
    "-c nf.c broken.c -o x.o",
    "-c nf.c -fno-such-option",
    "-c nf.c broken.c -fno-such-option",
    "-c -x nonsense nf.c",
    "-c -",
    "-c broken.c",
    "-c -Wall -Werror warns.c",
    "-c -Wall broken.c warns.c",
    "-c -DX -DX=2 broken.c",
    "-c -std=c99 -Wpedantic broken.c",
    "-c -ferror-limit=1 -fno-caret-diagnostics broken.c",
    "-c -fcolor-diagnostics broken.c",
    "-c -fdiagnostics-format=msvc broken.c",
    "broken.c warns.c",
]
WITH_OUTPUT = [
    "-c -Wall warns.c -o x.o",
    "-c -Wall -fcolor-diagnostics warns.c -o x.o",
    "-c -lfoo nf.c -o x.o",
    "-c -Wl,-x nf.c -o x.o",
    "-c nf.c -H -o x.o",
    "-c -w warns.c -o x.o",
]


@pytest.mark.parametrize("line", [*CLANGS_OWN, *WITH_OUTPUT])
def test_status_and_both_outputs_are_clangs(project, line: str):
    for name, text in (("nf.c", DROP), ("broken.c", BROKEN), ("warns.c", WARNS)):
        project.write(name, text)
    expected = project.clang(*line.split())
    for name in project.files() - {"nf.c", "broken.c", "warns.c"}:
        (project.path / name).unlink()
    made_by_clang = {"warns.uxdp"} if line.endswith("broken.c warns.c") and "-c" in line else set()
    assert project.cc(*line.split()) == expected
    assert project.files() - {"nf.c", "broken.c", "warns.c", "x.o"} == made_by_clang


@pytest.mark.parametrize(
    "line", ["--version", "-v", "-dumpmachine", "-print-target-triple", "-print-search-dirs", "-c", "", "-o x.o", "-O3"]
)
def test_without_a_source_it_is_clang_with_nothing_in_front(project, line: str):
    assert project.cc(*line.split()) == run([*find_toolchain().command, *line.split()], project.path)
    assert project.files() == set()


@pytest.mark.parametrize("line", ["-emit-llvm -c nf.c -o nf.bc", "-S nf.c -o nf.s", "-E nf.c -o nf.i", "-MMD -E nf.c"])
def test_other_outputs_are_clangs_own(project, line: str):
    project.write("nf.c")
    assert project.cc(*line.split()) == project.clang(*line.split())
    assert not [name for name in project.files() if name.endswith(".uxdp")]
    assert len(project.files()) == 2


def test_command_line_that_clang_shows_has_the_defaults(project):
    project.write("nf.c")
    shown = project.cc("-###", "-c", "nf.c", "-mcpu=v2")
    assert (shown.status, project.files()) == (0, {"nf.c"})
    for words in ('"-triple" "bpf"', '"-O2"', '"-target-cpu" "v2"', '"-debug-info-kind=', '"-idirafter"'):
        assert words in shown.stderr
    for words in (f'map={project.path}=."', '"-fdebug-compilation-dir=."'):
        assert words in shown.stderr


def test_verbose_reports_and_compiles(project):
    project.write("nf.c")
    alone = run(command_line("-v"), project.path)
    assert alone == run([*find_toolchain().command, "-v"], project.path)
    assert "clang version" in project.cc("-v", "-c", "nf.c").stderr
    assert "nf.uxdp" in project.files()


def test_diagnostics_are_coloured_on_a_terminal(project):
    """Both write to a terminal; what arrives must be the same, escape sequences and all."""
    project.write("broken.c", BROKEN)
    seen = [terminal_output([*command, "-c", "broken.c"], project.path) for command in (clang_line(), command_line())]
    assert b"\x1b[" in seen[0]
    assert seen[1] == seen[0]


def terminal_output(command: list[str], cwd: Path) -> bytes:
    """Run a command on a terminal of its own; return what it wrote there."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(command, cwd=cwd, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    seen = b""
    try:
        while part := os.read(controller, 4096):
            seen += part
    except OSError:  # EIO: the other end is closed
        pass
    os.close(controller)
    assert process.wait(60) != 0
    return seen


def test_pass_through_leaves_no_process_between(project):
    """uxdp-cc becomes clang, so that signals and the status are nobody's to translate."""
    fake = project.path / "fake"
    fake.write_text(
        "#!/bin/sh\ncase $* in *-print-resource-dir*) echo 'clang version 19.0.0' >&2;; *) kill -9 $$;; esac\n"
    )
    fake.chmod(0o755)
    project.write("nf.c")
    environment = {**os.environ, "UXDP_CLANG": str(fake)}
    assert run(command_line("-E", "nf.c"), project.path, env=environment).status == -signal.SIGKILL
    # Where uxdp-cc has to go on after clang, the status is what a shell makes of it.
    assert run(command_line("-c", "nf.c"), project.path, env=environment).status == 128 + signal.SIGKILL


def test_help_is_about_uxdp_cc(project):
    result = project.cc("--help")
    assert (result.status, result.stderr) == (0, "")
    for words in ("--uxdp-key FILE", "--uxdp-embed-sources", "$UXDP_CLANG", "make CLANG=uxdp-cc"):
        assert words in result.stdout


# --- failures leave nothing ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("-c broken.c", 1),
        ("-c broken.c -o existing", 1),
        ("-c -Wall -Werror warns.c -o existing", 1),
        ("-c missing.c -o existing", 1),
        ("-c nf.c -o existing --uxdp-key missing.pem", 1),
        ("-c nf.c -o existing --uxdp-version /", 1),
        ("-c nf.c -o existing -target x86_64", 1),
        ("-c nf.c -o existing -target bpfeb", 1),
        ("-c nf.c -o existing -mcpu=probe", 1),
        ("-c nf.c -o missing/folder/x.o", 1),
        ("-c nf.c -o sub", 1),
        ("broken.c nf.c -o existing", 1),
    ],
)
def test_failure_leaves_no_output_and_an_existing_one_untouched(project, line: str, status: int):
    for name, text in (("nf.c", DROP), ("broken.c", BROKEN), ("warns.c", WARNS), ("sub/x", ""), ("existing", "before")):
        project.write(name, text)
    os.utime(project.path / "existing", ns=(1, 1))
    before = project.files()
    result = project.cc(*line.split())
    assert result.status == status
    assert "error: " in result.stderr
    assert project.files() == before
    assert (project.path / "existing").read_text() == "before"
    assert (project.path / "existing").stat().st_mtime_ns == 1


def test_output_that_cannot_be_written_is_said(project):
    project.write("nf.c")
    result = project.cc("-c", "nf.c", "-o", "missing/x.o")
    assert result.stderr == "missing/x.o: error: cannot be written: No such file or directory\n"


def test_output_that_is_read_only_is_not_replaced(project, monkeypatch: pytest.MonkeyPatch):
    project.write("nf.c")
    project.write("x.o", "before")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write anything
    result = project.cc("-c", "nf.c", "-o", "x.o")
    assert result.stderr == "x.o: error: cannot be written: Permission denied\n"
    assert (project.path / "x.o").read_text() == "before"


def test_output_that_is_no_regular_file_is_written_to(project):
    """-o /dev/null is how build systems ask whether something compiles: it must stay a device."""
    project.write("nf.c")
    before = Path("/dev/null").stat()
    assert project.cc("-c", "nf.c", "-o", "/dev/null").status == 0
    assert Path("/dev/null").stat().st_rdev == before.st_rdev
    os.mkfifo(project.path / "pipe")
    reader = os.open(project.path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        process = subprocess.Popen(command_line("-c", "nf.c", "-o", "pipe"), cwd=project.path)
        image = b""
        while process.poll() is None or image == b"":
            try:
                image += os.read(reader, 1 << 16)
            except BlockingIOError:
                time.sleep(0.01)
        while part := os.read(reader, 1 << 16):
            image += part
    finally:
        os.close(reader)
    assert process.returncode == 0
    assert bound(image) is Binding.EQUAL


def test_closed_standard_output_is_an_error_and_no_traceback(project):
    project.write("nf.c")
    with subprocess.Popen(
        command_line("-c", "nf.c", "-o", "-"),
        cwd=project.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        _, said = process.stdout, process.stderr.read()
    assert process.returncode != 0
    assert said == "-: error: cannot be written: Broken pipe\n"


def test_one_of_several_that_fails_does_not_keep_the_others_from_being_made(project):
    project.write("a.c", BROKEN)
    project.write("b.c")
    project.write("c.c", CALLEE)  # no program
    result = project.cc("-c", "a.c", "b.c", "c.c")
    assert result.status == 1
    assert "a.c:1:9: error:" in result.stderr
    assert "c.c:1: error: no XDP program" in result.stderr
    assert project.files() == {"a.c", "b.c", "c.c", "b.uxdp"}


def test_folder_that_is_gone_is_an_error_and_no_traceback(project):
    script = f"mkdir gone && cd gone && rmdir ../gone && {' '.join(command_line('-c', 'nf.c'))}"
    result = run(["sh", "-c", script], project.path)
    assert result.status == 1
    assert "error: " in result.stderr
    assert "Traceback" not in result.stderr


def test_temporary_folder_that_is_full_is_an_error_and_no_traceback(project, monkeypatch: pytest.MonkeyPatch):
    def full(**_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    project.write("nf.c")
    monkeypatch.setattr("uxdp_cc.build.tempfile.TemporaryDirectory", full)
    result = project.cc("-c", "nf.c")
    assert (result.status, result.stderr) == (1, "uxdp-cc: error: [Errno 28] No space left on device\n")


# --- signals -------------------------------------------------------------------------------------

SLOW_CLANG = """\
#!{python}
import os, sys, time
if "-print-resource-dir" in sys.argv:
    sys.stderr.write("clang version 19.0.0\\n")
    sys.exit()
open(sys.argv[sys.argv.index("-o") + 1], "w").close()
open("started", "w").close()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_it_without_temporary_files(project, tmp_path: Path, number: signal.Signals):
    fake = tmp_path / "slow"
    fake.write_text(SLOW_CLANG.format(python=sys.executable))
    fake.chmod(0o755)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    project.write("nf.c")
    project.write("nf.uxdp", "before")
    environment = {**os.environ, "UXDP_CLANG": str(fake), "TMPDIR": str(temporary)}
    process = subprocess.Popen(command_line("-c", "nf.c"), cwd=project.path, env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not (project.path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert list(temporary.iterdir()) != []
    process.send_signal(number)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == -number
    assert said == b""
    assert list(temporary.iterdir()) == []
    assert project.files() == {"nf.c", "nf.uxdp", "started"}
    assert (project.path / "nf.uxdp").read_text() == "before"


def test_signal_at_any_time_leaves_nothing(project, tmp_path: Path):
    """Whatever it is doing: probing, compiling, lowering, signing, writing."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    project.write("nf.c")
    environment = {**os.environ, "TMPDIR": str(temporary)}
    endings = set()
    for delay_ms in range(40, 300, 26):
        process = subprocess.Popen(
            command_line("-c", "nf.c"), cwd=project.path, env=environment, stderr=subprocess.PIPE
        )
        time.sleep(delay_ms / 1000)
        process.terminate()
        process.communicate(timeout=30)
        endings.add(process.returncode)
        assert list(temporary.iterdir()) == []
        assert project.files() <= {"nf.c", "nf.uxdp"}
        if "nf.uxdp" in project.files():
            with project.bundle("nf.uxdp"):
                (project.path / "nf.uxdp").unlink()
    assert endings <= {0, -signal.SIGTERM}


def test_ignored_signal_stays_ignored(project, tmp_path: Path):
    project.write("nf.c")
    script = f"trap '' HUP; {' '.join(command_line('-c', 'nf.c'))} & sleep 0.1; kill -HUP $!; wait $!"
    assert run(["sh", "-c", script], project.path).status == 0


# --- signing -------------------------------------------------------------------------------------


def signers(project, name: str = "nf.uxdp") -> list[keys.PublicKey]:
    """Return whose signatures a bundle carries, of the keys that the tests know."""
    with project.bundle(name) as bundle:
        envelopes = parse_envelopes(bundle.signatures, bundle.bundle_id, bundle.manifest.name)
        return [keys.PublicKey.parse(signature.keyid) for signature in envelopes]


def test_development_key_is_made_and_said_once(project):
    path = keys.development_key_path()
    path.unlink()
    project.write("nf.c")
    project.write("other.c")
    first = project.cc("-c", "nf.c", "other.c")
    key = keys.load_signing_key(path).public
    assert first.stderr == (
        f"uxdp-cc: note: no signing key was given; made a development key, {key.text}, which only you trust\n"
    )
    assert project.cc("-c", "nf.c").stderr == ""
    assert signers(project) == signers(project, "other.uxdp") == [key]


@pytest.mark.parametrize(
    ("how", "passphrase"),
    [
        *(("option", None), ("option-joined", "correct horse"), ("option-wins", None)),
        *(("variable-path", None), ("variable-pem", "correct horse"), ("variable-pem", None)),
    ],
)
def test_key_comes_from_option_or_variable(
    project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, passphrase: str | None
):
    project.write("nf.c")
    key = keys.generate_key()
    path = tmp_path / "key.pem"
    keys.write_secret_key(path, key, passphrase)
    if passphrase:
        monkeypatch.setenv("UXDP_SIGNING_KEY_PASSPHRASE", passphrase)
    option: list[str] = []
    if how == "option":
        option = ["--uxdp-key", str(path)]
    elif how == "option-joined":
        option = [f"--uxdp-key={path}"]
    elif how == "variable-path":
        monkeypatch.setenv("UXDP_SIGNING_KEY", str(path))
    elif how == "variable-pem":
        monkeypatch.setenv("UXDP_SIGNING_KEY", path.read_text())
    else:
        monkeypatch.setenv("UXDP_SIGNING_KEY", "/nonexistent")
        option = ["--uxdp-key", str(path)]
    result = project.cc(*option, "-c", "nf.c")
    assert (result.status, result.stderr) == (0, "")
    assert signers(project) == [key.public]


def test_key_that_cannot_be_used_is_an_error(project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    project.write("nf.c")
    path = tmp_path / "key.pem"
    keys.write_secret_key(path, keys.generate_key(), "secret")
    result = project.cc("--uxdp-key", path, "-c", "nf.c")
    assert result.stderr.startswith(f"{path}: error: is encrypted and no passphrase was given\n  → ")
    monkeypatch.setenv("UXDP_SIGNING_KEY_PASSPHRASE", "wrong")
    assert f"{path}: error: cannot be decrypted" in project.cc("--uxdp-key", path, "-c", "nf.c").stderr
    path.chmod(0o644)
    assert f"{path}: error: " in project.cc("--uxdp-key", path, "-c", "nf.c").stderr
    monkeypatch.setenv("UXDP_SIGNING_KEY", "-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n")
    assert "$UXDP_SIGNING_KEY: error: holds a damaged secret key" in project.cc("-c", "nf.c").stderr
    assert project.files() == {"nf.c"}


def test_unsigned_is_unsigned_and_has_the_same_identity(project, monkeypatch: pytest.MonkeyPatch):
    project.write("nf.c")
    monkeypatch.setenv("UXDP_SIGNING_KEY", "/nonexistent")
    assert project.cc("--uxdp-unsigned", "-c", "nf.c").status == 0
    monkeypatch.delenv("UXDP_SIGNING_KEY")
    assert project.cc("-c", "nf.c", "-o", "signed.uxdp").status == 0
    with project.bundle("nf.uxdp") as unsigned, project.bundle("signed.uxdp") as signed:
        assert (unsigned.signatures, signed.signatures != b"") == (b"", True)
        assert unsigned.bundle_id == signed.bundle_id


def test_own_options_fill_the_manifest(project):
    project.write("nf.c")
    line = "--uxdp-name lb --uxdp-version=2.1 --uxdp-security-version 4 --uxdp-license MIT --uxdp-embed-sources -c nf.c"
    assert project.cc(*line.split()).status == 0
    with bundle_from_bytes((project.path / "nf.uxdp").read_bytes()) as bundle:
        manifest = bundle.manifest
        assert (manifest.name, manifest.version, manifest.security_version, manifest.license) == ("lb", "2.1", 4, "MIT")
        assert bundle.member("source", "nf.c") == DROP.encode()
