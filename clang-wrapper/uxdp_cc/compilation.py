"""Run clang: on each source of a build for its IR, and again where something else than the IR is wanted."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from .declarations import find_declaration
from .dependencies import STDIN, PathMap, asks_for_own_headers, parse_headers, path_map, without_rules
from .errors import CompileError, SourceError, ToolchainError
from .flags import embeds_source
from .interruption import Ended, held
from .toolchain import Toolchain, system_headers

# For cpu v4 LLVM makes tables of switches, by which no program jumps before Linux 6.19 and libbpf 1.7.
DEFAULT_FLAGS: Final = ("-target", "bpf", "-O2", "-g", "-mcpu=v3", "-fno-jump-tables")
# Nothing of the building machine in the output.
_REPRODUCIBLE: Final = ("-fno-ident", "-fdebug-compilation-dir=.")
_STDIN_COPY: Final = "stdin"
_PREPROCESSED: Final = (".i", ".ii")
_PREPROCESSED_LANGUAGES: Final = ("cpp-output", "c-cpp-output", "c++-cpp-output")


def clang_command(
    toolchain: Toolchain, arguments: Sequence[str], mapping: PathMap, own: Sequence[str] = ()
) -> list[str]:
    """Return the clang command line with uxdp-cc's defaults in front, so that the user's arguments win.

    clang warns of arguments that it does not use, such as search paths for a bitcode file; not of these.

    :param own: further arguments that the user did not write
    """
    defaults = [*DEFAULT_FLAGS, *_REPRODUCIBLE, *mapping.flags(), *toolchain.headers, *own]
    given = list(arguments)
    end = given.index("--") if "--" in given else len(given)
    return [
        *toolchain.command,
        *_unwarned(defaults),
        *given[:end],
        *_unwarned(system_headers(given)),  # behind the user's own -idirafter
        *given[end:],
    ]


def _unwarned(arguments: Sequence[str]) -> list[str]:
    return ["--start-no-unused-arguments", *arguments, "--end-no-unused-arguments"] if arguments else []


@dataclass(frozen=True, slots=True)
class Source:
    """One source: its path, or - for standard input, and the arguments that hold for it alone, such as its -x."""

    path: str
    arguments: tuple[str, ...] = ()

    @property
    def operand(self) -> tuple[str, ...]:
        """clang's arguments that name this source: behind -- a name may begin with a dash."""
        return ("--", self.path) if self.path.startswith("-") and self.path != STDIN else (self.path,)

    @property
    def is_preprocessed(self) -> bool:
        """Whether what it once included is no longer read."""
        if "-x" in self.arguments:
            return self.arguments[self.arguments.index("-x") + 1] in _PREPROCESSED_LANGUAGES
        return self.path.endswith(_PREPROCESSED)


class Compilation:
    """Runs clang on one build's sources, in a folder for temporary files.

    ``diagnostics`` is what it said, if ``capture`` kept that; ``read`` are the files it read.
    """

    def __init__(
        self,
        toolchain: Toolchain,
        sources: Sequence[Source],
        clang_args: Sequence[str],
        *,
        cwd: Path,
        folder: Path,
        capture: bool,
    ) -> None:
        self.sources = tuple(sources)
        self.mapping = path_map(toolchain, [source.path for source in sources], clang_args, cwd)
        # Without -x clang refuses standard input before it reads any.
        piped = any(source.path == STDIN and "-x" in (*clang_args, *source.arguments) for source in sources)
        self.stdin = sys.stdin.buffer.read() if piped else b""
        (folder / _STDIN_COPY).write_bytes(self.stdin)
        self.diagnostics = ""
        self.read: list[str] = []
        self._toolchain = toolchain
        self._clang_args = tuple(clang_args)
        self._cwd = cwd
        self._folder = folder
        self._capture = capture

    def bitcode(self) -> list[bytes]:
        """Compile every source to bitcode, and note which files that read.

        :raises CompileError: of the first that failed; the others were compiled too, as clang does
        """
        modules = []
        failure: CompileError | None = None
        for index, source in enumerate(self.sources):
            try:
                modules.append(self._bitcode(index, source))
            except CompileError as error:
                failure = failure or error
        if failure is not None:
            failure.diagnostics = self.diagnostics
            raise failure
        return modules

    def object_by_clang(self, source: Source) -> bytes:
        """Let clang's own backend make the object of one source.

        Its warnings were reported when the source was compiled to bitcode.
        """
        output = self._folder / "clang.o"
        arguments = without_rules((*self._clang_args, *source.arguments))
        self._run(source, [*arguments, "-w", "-c", "-o", str(output)])
        return output.read_bytes()

    def find_declaration(self, kind: str, name: str | None = None) -> str | None:
        """Return file:line of a declaration at file scope, from clang's syntax tree."""
        for source in self.sources:
            arguments = without_rules((*self._clang_args, *source.arguments))
            arguments += ["-w", "-fsyntax-only", "-Xclang", "-ast-dump=json", *source.operand]
            command = clang_command(self._toolchain, arguments, self.mapping)
            with (
                self._standard_input(source) as stdin,
                subprocess.Popen(
                    command, cwd=self._cwd, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                ) as process,
            ):
                found = find_declaration(process.stdout or (), kind, name)
                process.kill()
            if found is not None:
                return f"{found[0]}:{found[1]}"
        return None

    def place(self, where: str) -> str:
        """Return a place of debug information, file:line, with the file spelled as clang was given it."""
        name, colon, line = where.rpartition(":")
        if not (colon and line.isdecimal()):
            return where
        wanted = self.mapping.name(name)
        for given in (*(source.path for source in self.sources), *self.read):
            if wanted is not None and self.mapping.name(given) == wanted:
                return f"{given}:{line}"
        return where

    def _bitcode(self, index: int, source: Source) -> bytes:
        output = self._folder / f"{index}.bc"
        embed = ["-gembed-source"] if embeds_source(self._clang_args) else []
        arguments = [*self._clang_args, *source.arguments, "-emit-llvm", "-c", "-o", str(output)]
        headers = self._folder / f"{index}.headers"
        if asks_for_own_headers(self._clang_args):
            # The list of headers would have clang put the system's into that rule too.
            self._run(source, arguments, embed)
            arguments = [*without_rules((*self._clang_args, *source.arguments)), "-w", "-M", "-MF", os.devnull]
            self._run(source, arguments, headers=headers)
        else:
            self._run(source, arguments, embed, headers)
        if not source.is_preprocessed:
            self.read += parse_headers(os.fsdecode(headers.read_bytes()) if headers.is_file() else "")
        try:
            return output.read_bytes()
        except FileNotFoundError as cause:
            raise SourceError("clang makes no IR of it", context=source.path, remedy="name a source, or IR") from cause

    def _run(
        self,
        source: Source,
        arguments: Sequence[str],
        own: Sequence[str] = (),
        headers: Path | None = None,
    ) -> None:
        command = clang_command(self._toolchain, [*arguments, *source.operand], self.mapping, own)
        environment = dict(os.environ)
        if headers is not None:
            environment |= {"CC_PRINT_HEADERS": "1", "CC_PRINT_HEADERS_FILE": str(headers)}
        process = None
        try:
            with self._standard_input(source) as stdin:
                with held():
                    process = subprocess.Popen(
                        command,
                        cwd=self._cwd,
                        env=environment,
                        stdin=stdin,
                        stderr=subprocess.PIPE if self._capture else None,
                    )
                said = process.communicate()[1]
        except OSError as cause:
            raise ToolchainError(f"{command[0]} does not start: {cause.strerror}") from cause
        except (Ended, KeyboardInterrupt):
            if process is not None:
                process.kill()
                process.wait()
            raise
        if said:
            self.diagnostics += said.decode(errors="replace")
        if process.returncode != 0:
            raise CompileError(process.returncode, self.diagnostics)

    def _standard_input(self, source: Source) -> AbstractContextManager[IO[bytes] | None]:
        """Return what was read from standard input once, for a source that is read from there; else inherit it."""
        return (self._folder / _STDIN_COPY).open("rb") if source.path == STDIN else nullcontext()
