import subprocess

import pytest

from tests.unit.cc_fixtures import CLANGS
from uxdp_bundle.lowering import LLVM_MAJOR
from uxdp_cc import flags, response_files
from uxdp_cc.argv import SEPARATE, default_output, parse_argv, stem, takes_argument
from uxdp_cc.errors import ClangUsageError, UsageError
from uxdp_cc.toolchain import find_toolchain


def parse(line: str):
    return parse_argv(line.split())


# --- what is to be made --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "action", "sources"),
    [
        ("-c nf.c", "compile", ["nf.c"]),
        ("nf.c -c", "compile", ["nf.c"]),
        ("--compile nf.c", "compile", ["nf.c"]),
        ("a.c b.c", "link", ["a.c", "b.c"]),
        ("-c a.c b.c", "compile", ["a.c", "b.c"]),
        ("-c -", "compile", ["-"]),
        ("-c -- -nf.c a.c", "compile", ["-nf.c", "a.c"]),
        ("-E nf.c", "clang", ["nf.c"]),
        ("-c -E nf.c", "clang", ["nf.c"]),
        ("-S -c nf.c", "clang", ["nf.c"]),
        ("-M nf.c", "clang", ["nf.c"]),
        ("-MM nf.c", "clang", ["nf.c"]),
        ("-emit-llvm -c nf.c", "clang", ["nf.c"]),
        ("-fsyntax-only nf.c", "clang", ["nf.c"]),
        ("-### -c nf.c", "clang", ["nf.c"]),
        ("-print-search-dirs", "clang", []),
        ("-mcpu=help", "clang", []),
        ("--version", "clang", []),
        ("-v", "clang", []),
        ("", "clang", []),
        ("-v -c nf.c", "compile", ["nf.c"]),
        # These change nothing about what is made.
        ("-P -c nf.c", "compile", ["nf.c"]),
        ("-MD -c nf.c", "compile", ["nf.c"]),
        ("--help -c nf.c", "help", ["nf.c"]),
        ("-S -help", "help", []),
        # The value of an option is no source, and no action.
        ("-c -include nf.h -Xclang -S -D E -MF -c nf.c", "compile", ["nf.c"]),
        ("-c --include nf.h -I inc nf.c", "compile", ["nf.c"]),
    ],
)
def test_parse_action_and_sources(line: str, action: str, sources: list[str]):
    invocation = parse(line)
    assert (invocation.action, list(invocation.sources)) == (action, sources)


@pytest.mark.parametrize(
    ("line", "output"),
    [
        ("-c nf.c", None),
        ("-c nf.c -o x.o", "x.o"),
        ("-c nf.c -ox.o", "x.o"),
        ("-c nf.c --output x.o", "x.o"),
        ("-c nf.c --output=x.o", "x.o"),
        ("-c nf.c -o -", "-"),
        ("-c nf.c -o-", "-"),
        ("-c nf.c -ofast", "fast"),  # clang reads it so too
        ("-c nf.c -o a -o b", "b"),
    ],
)
def test_parse_output(line: str, output: str | None):
    assert parse(line).output == output


@pytest.mark.parametrize(
    ("source", "output"),
    [("nf.c", "nf.uxdp"), ("dir/nf.bpf.c", "nf.bpf.uxdp"), ("/abs/nf", "nf.uxdp"), ("-", "-.uxdp")],
)
def test_default_output_is_named_as_clang_names_objects(source: str, output: str):
    assert default_output(parse_argv(["-c", source]), source) == output


def test_stem_removes_one_extension():
    assert [stem(name) for name in ("a.b.c", "x/.hidden", "x/noext", "x.d/y")] == ["a.b", "", "noext", "y"]


def test_parse_hands_other_arguments_on_in_their_order():
    line = "-O3 -I inc -DX=1 nf.c -Wall -c -o x -isystem sys -std=gnu11"
    assert parse(line).clang_args == tuple("-O3 -I inc -DX=1 -Wall -isystem sys -std=gnu11".split())
    assert parse(line).raw == tuple(line.split())


def test_parse_language_holds_for_the_sources_behind_it():
    invocation = parse("-c a.c -x c b.inc c.inc -xnone d.c --language ir e")
    assert invocation.languages == ("", "c", "c", "none", "ir")
    assert invocation.clang_args == ()


def test_parse_own_options_are_taken_out():
    invocation = parse(
        "--uxdp-key k.pem --uxdp-name=nf -c nf.c --uxdp-version 1.2 --uxdp-security-version=3 --uxdp-license MIT"
        " --uxdp-embed-sources --uxdp-unsigned -O1"
    )
    options = invocation.bundle
    assert (options.key, options.name, options.version, options.license) == ("k.pem", "nf", "1.2", "MIT")
    assert (options.security_version, options.embed_sources, options.unsigned) == (3, True, True)
    assert invocation.raw == ("-c", "nf.c", "-O1")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-c nf.c --uxdp-nonsense", "unknown option '--uxdp-nonsense'"),
        ("-c nf.c --uxdp-unsigned=yes", "unknown option"),
        ("-c nf.c --uxdp-name", "lacks its value"),
        ("-c nf.c --uxdp-security-version -1", "expected 0..2147483647"),
        ("-c nf.c --uxdp-security-version 2147483648", "expected 0..2147483647"),
        ("-target x86_64 -c nf.c", "-target x86_64: a bundle holds little-endian eBPF"),
        ("-target bpfeb -c nf.c", "expected bpf or bpfel"),
        ("--target=bpfeb -c nf.c", "--target=bpfeb"),
        ("-mcpu=probe -c nf.c", "-mcpu=probe: expected one of generic, v1, v2, v3, v4"),
        ("-mcpu=v5 -c nf.c", "-mcpu=v5"),
    ],
)
def test_parse_refuses_what_no_bundle_can_be(line: str, message: str):
    with pytest.raises(UsageError, match=message.replace(".", r"\.")) as caught:
        parse(line)
    assert not isinstance(caught.value, ClangUsageError)


@pytest.mark.parametrize("line", ["-c a.c b.c -o x.o", "-c nf.c -o", "-c nf.c -I", "nf.c -x"])
def test_parse_leaves_clangs_own_mistakes_to_clang(line: str):
    with pytest.raises(ClangUsageError):
        parse(line)


@pytest.mark.parametrize("option", ["-target bpf", "-target bpfel", "--target=bpf", "-mcpu=v1", "-mcpu=v4"])
def test_parse_accepts_targets_and_cpus_of_bundles(option: str):
    assert parse(f"{option} -c nf.c").action == "compile"


# --- the table of options, held against the clangs of this machine -------------------------------

# uxdp-cc takes these itself; and these end before any source is looked at, or need another target.
_TAKEN = {"-o", "--output", "-x", "--language"}
_IMMEDIATE = (
    "-help",
    "--help",
    "-print",
    "--print",
    "-dump",
    "--version",
    "--autocomplete",
    "-cc1",
    "-###",
    "-ccc-print",
)
# Thousands of switches, none of which ever took an argument.
_FLAGS = ("-W", "-R", "-fno-", "-mno-", "-fsanitize", "-m")


@pytest.mark.parametrize("clang", ["ziglang", *CLANGS])
def test_separate_options_are_those_of_clang(clang: str):
    """Give each option an argument that could be a source, and see which ones clang then misses as sources."""
    command = list(find_toolchain().command) if clang == "ziglang" else [clang]

    def said(*arguments: str) -> str:
        result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=60)
        return result.stdout + result.stderr

    completions = (
        line.partition("\t")[0] for prefix in ("-", "--") for line in said(f"--autocomplete={prefix}").split("\n")
    )
    known = {word for word in completions if word.startswith("-") and not word.endswith(("=", ","))}
    options = sorted(word for word in (known | SEPARATE) - _TAKEN if not word.startswith((*_IMMEDIATE, *_FLAGS)))
    taken = set()
    for start in range(0, len(options), 100):
        part = options[start : start + 100]
        words = [word for option in part for word in (option, f"/nonexistent{option}")]
        answer = said("-target", "bpf", "-###", "-c", *words)
        taken |= {option for option in part if f"no such file or directory: '/nonexistent{option}'" not in answer}
    assert len(known) > 1000
    assert {option for option in taken if not takes_argument(option)} == set()
    # The other way round options of other versions stay: an unknown option is clang's to refuse.
    assert len(SEPARATE & taken) > 70


# --- response files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("-c nf.c\n-O2", ["-c", "nf.c", "-O2"]),
        ("  a\t b\r\n\n c ", ["a", "b", "c"]),
        ('-DX="a b"', ["-DX=a b"]),
        ("'a b'c", ["a bc"]),
        (r"a\ b", ["a b"]),
        (r'"a\"b"', ['a"b']),
        (r"'a\'b'", ["a'b"]),  # not as a shell does it
        ("'a", ["a"]),
        ('""', []),
        ("a\\", ["a\\"]),
        ("\ufeff-c", ["-c"]),
    ],
)
def test_response_file_is_split_as_gnu_tools_do(text: str, tokens: list[str]):
    assert response_files.tokenize(text) == tokens


def test_response_files_nest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outer").write_text("-c @inner nf.c")
    (tmp_path / "inner").write_text("'-DX=1 2' --uxdp-unsigned")
    invocation = parse("@outer -O1")
    assert invocation.sources == ("nf.c",)
    assert invocation.clang_args == ("-DX=1 2", "-O1")
    assert invocation.bundle.unsigned


def test_response_file_that_is_missing_stays_a_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse("-c @missing @ @.").sources == ("@missing", "@", "@.")


def test_response_file_that_names_itself_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("@b")
    (tmp_path / "b").write_text("@a")
    with pytest.raises(UsageError, match="expands to itself"):
        parse("@a")


# --- what flags mean for a bundle ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "level"),
    [("", 2), ("-O0", 0), ("-O", 1), ("-Og", 1), ("-Os", 2), ("-Oz", 2), ("-O3", 3), ("-Ofast", 3), ("-O0 -O2", 2)],
)
def test_optimisation_level_is_that_of_the_last_option(line: str, level: int):
    assert flags.optimisation_level(line.split()) == level


@pytest.mark.parametrize(
    ("line", "cpu", "features"),
    [
        ("", "v3", ""),
        ("-mcpu=v1 -mcpu=v2", "v2", ""),
        ("-mcpu=v2 -Xclang -target-feature -Xclang +alu32", "v2", "+alu32"),
        (
            "-Xclang -target-feature -O2 -Xclang +alu32 -Xclang -target-feature -Xclang -dwarfris",
            "v3",
            "+alu32,-dwarfris",
        ),
        ("-Xclang -target-cpu -Xclang v1", "v1", ""),
    ],
)
def test_machine_is_what_the_flags_ask_for(line: str, cpu: str, features: str):
    assert (flags.cpu(line.split()), flags.features(line.split())) == (cpu, features)


def test_machine_by_frontend_option_is_checked_too():
    with pytest.raises(UsageError, match="-target-cpu probe"):
        flags.cpu("-Xclang -target-cpu -Xclang probe".split())


@pytest.mark.parametrize(
    ("line", "recorded"),
    [
        ("", "-O2 -mcpu=v3"),
        ("-O3 -mcpu=v2 -g", "-O3 -mcpu=v2 -g"),
        ("-DX -D Y=1 -UZ -std=c11 -fno-builtin -Wall", "-O2 -mcpu=v3 -DX -D Y=1 -UZ -std=c11 -fno-builtin -Wall"),
        ("-I inc -Iinc -isystem sys -idirafter x -iquotey --sysroot=r --sysroot r -include a.h", "-O2 -mcpu=v3"),
        ("-MD -MF x.d -MTx -MQ x -MP -Wp,-MD,x -Lx -lx -L x", "-O2 -mcpu=v3"),
        ("-DPATH=/home/me -D P=/home/me -fplugin=/x.so -DKEPT", "-O2 -mcpu=v3 -DKEPT"),
        ("-v -fcolor-diagnostics -fdiagnostics-color=always -save-temps -ftime-trace -H", "-O2 -mcpu=v3"),
        ("-Xclang -target-feature -Xclang +alu32", "-O2 -mcpu=v3 -Xclang -target-feature -Xclang +alu32"),
        (f"-DX={'x' * 2000}", "-O2 -mcpu=v3"),
    ],
)
def test_recorded_flags_say_what_is_made_and_not_where(line: str, recorded: str):
    assert " ".join(flags.recorded_flags(line.split())) == recorded


@pytest.mark.parametrize("flag", ["-g0", "-ggdb0", "-gdwarf-4", "-gdwarf-2", "-gno-embed-source"])
def test_embeds_source_needs_dwarf_5(flag: str):
    assert not flags.embeds_source(["-O2", flag])
    assert flags.embeds_source(["-O2", "-g", "-gdwarf-5"])


def test_the_newest_clang_is_as_new_as_llvmlite():
    assert find_toolchain().version.startswith(f"clang version {LLVM_MAJOR}.")
