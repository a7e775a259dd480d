"""What clang's flags mean for a bundle: how its object is lowered, and what its manifest says of them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from uxdp_bundle.lowering import CPUS
from uxdp_bundle.manifest import MAX_TEXT

from .argv import paired
from .errors import UsageError

DEFAULT_CPU: Final = "v3"
_LEVELS: Final = {"-O0": 0, "-O": 1, "-O1": 1, "-Og": 1, "-O2": 2, "-Os": 2, "-Oz": 2}
# Options with a separate value that belong into a manifest with it.
_RECORDED_PAIRS: Final = frozenset(("-D", "-U", "-Xclang", "-mllvm", "--define-macro", "--undefine-macro", "--std"))
# Options that name a place, or say how clang reports rather than what it makes.
_UNRECORDED: Final = (
    *("-I", "-M", "-L", "-l", "-B", "-F", "-Wp,", "-Wl,", "-Wa,", "-isystem", "-idirafter", "-iquote", "-include"),
    *("--sysroot", "--include", "--write-", "--print-missing", "--prefix", "--config", "-resource-dir"),
    *("-fcolor-", "-fno-color-", "-fdiagnostics-", "-fno-diagnostics-", "-fansi-", "-fcaret-", "-fno-caret-"),
    *("-ferror-limit", "-fmessage-length", "-fshow-", "-fno-show-", "-ftime-", "-save-", "--save-"),
    *("-fdebug-prefix-map", "-ffile-prefix-map", "-fmacro-prefix-map", "-fdebug-compilation-dir", "-working-directory"),
)
_NO_EMBEDDED_SOURCE: Final = frozenset(("-g0", "-ggdb0", "-gno-embed-source", "-gdwarf-2", "-gdwarf-3", "-gdwarf-4"))
_UNRECORDED_WORDS: Final = frozenset(("-v", "--verbose", "-H", "-Q", "-pipe", "-time", "-Qunused-arguments"))


def optimisation_level(clang_args: Sequence[str]) -> int:
    """Return the code generator's level, 0..3, that the last -O option asks for; -O2 is uxdp-cc's default."""
    level = 2
    for argument in clang_args:
        if argument.startswith("-O"):
            level = _LEVELS.get(argument, 3)
    return level


def cpu(clang_args: Sequence[str]) -> str:
    """Return the BPF instruction set version that is asked for; v3 is uxdp-cc's default.

    :raises UsageError: ``-Xclang -target-cpu`` names one that bundles cannot have
    """
    chosen = DEFAULT_CPU
    for argument in clang_args:
        if argument.startswith("-mcpu="):
            chosen = argument[len("-mcpu=") :]
    chosen = (_frontend_values(clang_args, "-target-cpu") or [chosen])[-1]
    if chosen not in CPUS:
        raise UsageError(f"-target-cpu {chosen}: expected one of {', '.join(CPUS)}")
    return chosen


def features(clang_args: Sequence[str]) -> str:
    """Return the subtarget features that ``-Xclang -target-feature -Xclang +alu32`` and the like ask for."""
    return ",".join(_frontend_values(clang_args, "-target-feature"))


def backend_options(clang_args: Sequence[str]) -> tuple[str, ...]:
    """Return the values of -mllvm, which reach clang's optimiser, but not the backend that makes the object."""
    return tuple(value for option, value in paired(clang_args) if option == "-mllvm" and value is not None)


def recorded_flags(clang_args: Sequence[str]) -> tuple[str, ...]:
    """Return the flags that belong into a manifest: those that say what is made, not where nor how it is reported.

    Left out are search paths, dependency output, whatever else names a place on the building machine, and words that
    a manifest cannot hold.
    """
    recorded: list[str] = []
    for option, value in paired(clang_args):
        if value is None:
            kept = option not in _UNRECORDED_WORDS and not option.startswith(_UNRECORDED)
        else:
            kept = option in _RECORDED_PAIRS
        words = (option,) if value is None else (option, value)
        if kept and all("/" not in word and word.isprintable() and len(word) <= MAX_TEXT for word in words):
            recorded += words
    given_level = any(flag.startswith("-O") for flag in recorded)
    given_cpu = any(flag.startswith("-mcpu=") for flag in recorded)
    return (*(() if given_level else ("-O2",)), *(() if given_cpu else (f"-mcpu={DEFAULT_CPU}",)), *recorded)


def embeds_source(clang_args: Sequence[str]) -> bool:
    """Whether -gembed-source can be added: it needs debug information in DWARF 5, clang's default."""
    return not any(
        argument in ("-g0", "-ggdb0", "-gno-embed-source")
        or argument.startswith(("-gdwarf-2", "-gdwarf-3", "-gdwarf-4"))
        for argument in clang_args
    )


def _frontend_values(clang_args: Sequence[str], option: str) -> list[str]:
    """Return what follows ``option`` among the values of -Xclang."""
    values = [value for name, value in paired(clang_args) if name == "-Xclang" and value is not None]
    return [following for value, following in pairwise(values) if value == option]
