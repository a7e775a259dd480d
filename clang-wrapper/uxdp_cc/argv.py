"""Read a clang command line: what to compile, where to, and what to hand on unchanged.

clang stays the judge of its options. This only finds the sources, the output, and the few options that uxdp-cc must
know; all others pass through in their order. SEPARATE names the options whose value is an argument of its own, because
that argument must not be taken for a source; ``test_cc_argv.py`` asks the clangs at hand whether the table is right.

Source: clang's Options.td and Driver.cpp, getFinalPhase; "Clang command line argument reference"
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from uxdp_bundle.lowering import CPUS

from . import response_files
from .errors import ClangUsageError, UsageError

SEPARATE: Final = frozenset(
    "-A -B -D -F -G -I -L -MF -MJ -MQ -MT -T -Tbss -Tdata -Ttext -U -V -Xanalyzer -Xarch_device -Xarch_host -Xassembler"
    " -Xclang -Xclangas -Xcuda-fatbinary -Xcuda-ptxas -Xlinker -Xoffload-linker -Xopenmp-target -Xpreprocessor"
    " -arch -arcmt-migrate-report-output -b -ccc-arcmt-migrate -ccc-gcc-name -ccc-install-dir -ccc-objcmt-migrate"
    " -cxx-isystem -darwin-target-variant -darwin-target-variant-triple -dependency-dot -dependency-file -dsym-dir"
    " -dumpdir -e -fdebug-compilation-dir -fexperimental-openacc-macro-override -filelist -fmodules-user-build-path"
    " -framework -ftrapv-handler -fxray-instruction-threshold -gen-cdb-fragment-path -hlsl-entry -iapinotes-modules"
    " -idirafter -iframework -iframeworkwithsysroot -imacros -imultilib -include -include-pch -iprefix -iquote"
    " -isysroot -isystem -isystem-after -ivfsoverlay -iwithprefix -iwithprefixbefore -iwithsysroot -l -meabi -mllvm"
    " -mmlir -module-dependency-dir -mthread-model -resource-dir -rpath -serialize-diagnostics -stdlib++-isystem"
    " -target -u -undefined -validator-version -vfsoverlay -working-directory -x -z"
    " --analyzer-output --assert --config --define-macro --dyld-prefix --for-linker --force-link --imacros --include"
    " --include-directory --include-directory-after --include-prefix --include-with-prefix"
    " --include-with-prefix-after --include-with-prefix-before --language --library-directory"
    " --no-system-header-prefix --param --prefix --resource --rtlib --serialize-diagnostics --std --stdlib --sysroot"
    " --system-header-prefix --undefine-macro --vfsoverlay".split()
)
# Options with a joined value and a separate argument besides.
_JOINED_AND_SEPARATE: Final = ("-Xarch_", "-Xopenmp-target=", "-Xoffload-linker")
# clang does something else than making an object, or nothing: it gets the command line and does it.
_OTHER_ACTIONS: Final = frozenset(
    "-E -S -M -MM -fsyntax-only -### -dumpversion -dumpmachine -help-hidden -fdriver-only -verify-pch -module-file-info"
    " -extract-api -rewrite-objc -rewrite-legacy-objc -cc1 -cc1as -cc1gen-reproducer -mcpu=help -mcpu=? -mtune=help"
    " -ccc-print-phases -ccc-print-bindings"
    " --preprocess --dependencies --user-dependencies --assemble --analyze --precompile --migrate --version"
    " --help-hidden".split()
)
_OTHER_ACTION_PREFIXES: Final = ("-print-", "--print-", "--autocomplete=", "-emit-")
_TARGETS: Final = ("bpf", "bpfel")

_OUR_FLAGS: Final = {"unsigned": "unsigned", "embed-sources": "embed_sources"}
_OUR_VALUES: Final = {
    "key": "key",
    "name": "name",
    "version": "version",
    "security-version": "security_version",
    "license": "license",
}


@dataclass(frozen=True, slots=True)
class BundleOptions:
    """The --uxdp-… options; None where the default depends on the source or the environment."""

    key: str | None = None
    name: str | None = None
    version: str = "0"
    security_version: int = 0
    license: str | None = None
    unsigned: bool = False
    embed_sources: bool = False


@dataclass(frozen=True, slots=True)
class Invocation:
    """One command line, understood.

    ``action`` is ``compile`` (-c: one bundle per source), ``link`` (one bundle of all sources), ``clang`` (clang does
    it all) or ``help``. ``languages`` are the -x in force at each source, "" for none. ``clang_args`` are all
    arguments but sources, -o, -c, -x and --uxdp-…, in their order; ``raw`` are all but --uxdp-….
    """

    action: str
    sources: tuple[str, ...]
    languages: tuple[str, ...]
    output: str | None
    clang_args: tuple[str, ...]
    raw: tuple[str, ...]
    bundle: BundleOptions = field(default_factory=BundleOptions)


def parse_argv(arguments: Sequence[str]) -> Invocation:
    """Understand a command line.

    :param arguments: without the program's name
    :raises ClangUsageError: clang refuses it too
    :raises UsageError: a target, CPU or --uxdp-… option that cannot be, or a response file that cannot be read
    """
    reader = _Reader(response_files.expand(arguments))
    reader.read()
    action = reader.action
    if action in ("compile", "link") and not reader.sources:
        action = "clang"  # -v alone, or nothing: clang says what it says
    if action == "compile" and len(reader.sources) > 1 and reader.output is not None:
        raise ClangUsageError("cannot specify -o when generating multiple output files")
    return Invocation(
        action,
        tuple(reader.sources),
        tuple(reader.languages),
        reader.output,
        tuple(reader.passed),
        tuple(without_ours(reader.words)),
        _bundle_options(reader.options),
    )


def default_output(invocation: Invocation, source: str) -> str:
    """Return the path of a source's bundle: as clang would name the object, with .uxdp."""
    return invocation.output if invocation.output is not None else f"{stem(source)}.uxdp"


def stem(path: str) -> str:
    """Return a file's name without its last extension, as clang derives names of outputs."""
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] if "." in name else name


def without_ours(arguments: Sequence[str]) -> list[str]:
    """Return a command line without --uxdp-…."""
    kept = []
    words = iter(arguments)
    for word in words:
        if not word.startswith("--uxdp-"):
            kept.append(word)
        elif word[len("--uxdp-") :] in _OUR_VALUES:
            next(words, None)
    return kept


def takes_argument(option: str) -> bool:
    """Return whether the argument behind an option is its value."""
    return option in SEPARATE or option.startswith(_JOINED_AND_SEPARATE)


def paired(clang_args: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each option with the argument that is its value, None if it has none of its own."""
    words = iter(clang_args)
    for word in words:
        yield word, next(words, "") if takes_argument(word) else None


class _Reader:
    """Goes through the words of a command line once, sorting them."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self._rest = iter(words)
        self._language = ""
        self.action = "link"
        self.output: str | None = None
        self.sources: list[str] = []
        self.languages: list[str] = []
        self.passed: list[str] = []
        self.options: dict[str, str | int | bool] = {}

    def read(self) -> None:
        for word in self._rest:
            if word == "--":
                for source in self._rest:
                    self._source(source)
            elif word.startswith("--uxdp-"):
                self._ours(word)
            elif word == "-" or not word.startswith("-"):
                self._source(word)
            elif not (self._own_action(word) or self._output(word) or self._said_language(word)):
                self._option(word)

    def _source(self, name: str) -> None:
        self.sources.append(name)
        self.languages.append(self._language)

    def _value(self, option: str) -> str:
        found = next(self._rest, None)
        if found is None:
            raise ClangUsageError(f"argument to '{option}' is missing (expected 1 value)")
        return found

    def _own_action(self, word: str) -> bool:
        """Take the word if it says what is to be made; -E, -S and the like win over -c wherever they stand."""
        if word in ("--help", "-help"):
            self.action = "help"
        elif word in ("-c", "--compile"):
            self.action = "compile" if self.action == "link" else self.action
        elif word in _OTHER_ACTIONS or word.startswith(_OTHER_ACTION_PREFIXES):
            self.action = "clang" if self.action != "help" else self.action
        else:
            return False
        return True

    def _output(self, word: str) -> bool:
        if word in ("-o", "--output"):
            self.output = self._value(word)
        elif word.startswith("--output="):
            self.output = word[len("--output=") :]
        elif word.startswith("-o") and word != "-object" and not word.startswith(("-objcmt-", "-object-file-name")):
            self.output = word[2:]
        else:
            return False
        return True

    def _said_language(self, word: str) -> bool:
        if word in ("-x", "--language"):
            self._language = self._value(word)
        elif word.startswith("--language="):
            self._language = word[len("--language=") :]
        elif word.startswith("-x"):
            self._language = word[2:]
        else:
            return False
        return True

    def _option(self, word: str) -> None:
        self.passed.append(word)
        if takes_argument(word):
            value = self._value(word)
            self.passed.append(value)
            if word == "-target":
                _check_target(f"-target {value}", value)
        elif word.startswith("--target="):
            _check_target(word, word.partition("=")[2])
        elif word.startswith("-mcpu="):
            _check_cpu(word[len("-mcpu=") :])

    def _ours(self, word: str) -> None:
        name, separator, text = word[len("--uxdp-") :].partition("=")
        if name in _OUR_FLAGS and not separator:
            self.options[_OUR_FLAGS[name]] = True
        elif name in _OUR_VALUES:
            value = text if separator else next(self._rest, None)
            if value is None:
                raise UsageError(f"{word} lacks its value", remedy="uxdp-cc --help lists the --uxdp-… options")
            self.options[_OUR_VALUES[name]] = value
        else:
            raise UsageError(f"unknown option {word!r}", remedy="uxdp-cc --help lists the --uxdp-… options")


def _bundle_options(options: dict[str, str | int | bool]) -> BundleOptions:
    security_version = str(options.get("security_version", "0"))
    if not re.fullmatch(r"[0-9]{1,10}", security_version) or int(security_version) >= 1 << 31:
        raise UsageError(f"--uxdp-security-version: {security_version!r}, expected 0..{(1 << 31) - 1}")
    options["security_version"] = int(security_version)
    return BundleOptions(**options)  # type: ignore[arg-type]


def _check_target(option: str, target: str) -> None:
    if target not in _TARGETS:
        raise UsageError(
            f"{option}: a bundle holds little-endian eBPF, expected {' or '.join(_TARGETS)}",
            remedy="leave it out: bpf is the default",
        )


def _check_cpu(name: str) -> None:
    if name not in CPUS:
        raise UsageError(
            f"-mcpu={name}: expected one of {', '.join(CPUS)}",
            remedy="'probe' would make the bundle depend on the building machine; v3 is the default"
            if name == "probe"
            else "v3 is the default",
        )
