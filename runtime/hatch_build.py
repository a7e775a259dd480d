"""The build hook of the native library: its C sources become LLVM bitcode, once for each machine.

Network functions are linked with this bitcode when they are compiled, on the user's machine, by llvmlite; whoever
installs the wheel needs no compiler. clang comes with PyPI's ziglang, which is a requirement of the build. No header of
the building machine is read, and no path of it is written: the same sources give the same outputs everywhere.

The bitcode is what clang makes of the C, not optimised: maps' definitions become constants only when it is linked, and
what was optimised for any map is harder to simplify for one. It names no CPU either; the one that compiles for a user's
machine decides. The control plane's functions work on maps of any definition, so they are compiled here, to an object
for any CPU of the machine. In an editable installation the files lie beside the sources and are rebuilt when those are
newer.

Reference: https://hatch.pypa.io/latest/plugins/build-hook/custom/
"""

import importlib.util
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MACHINES: Final = ("x86_64", "aarch64")
NATIVE: Final = Path(__file__).parent / "uxdp_runtime" / "native"
OUTPUTS: Final = ("uxdp-{machine}.bc", "control-{machine}.o", "ports-{machine}.o")
# What is compiled here, for any CPU of the machine: the source of each object, and how much it matters how fast it is.
_COMPILED: Final = (("control.c", "-O2"), ("ports/af_xdp.c", "-O3"))
# Our own BPF programs, by the name of their source in native/bpf/.
BPF_PROGRAMS: Final = ("ask", "bench_maps", "bench_restore", "inject", "redirect", "redirect_metadata")
BPF_OUTPUT: Final = "{program}.bpf.o"
# Those that also run natively, and the IR that they are compiled from then.
BPF_WITH_IR: Final = ("bench_maps",)
BPF_IR_OUTPUT: Final = "{program}.bpf.bc"
_FLAGS: Final = (
    *("-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-nostdlibinc"),
    # Programs of any origin are linked with this; types say nothing about what their pointers point to.
    *("-fno-strict-aliasing", "-fPIC", "-fomit-frame-pointer"),
    *("-fno-stack-protector", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables"),
)
_BPF_FLAGS: Final = (
    *("-target", "bpf", "-mcpu=v3", "-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-nostdlibinc"),
)
_UNOPTIMISED: Final = ("-O3", "-Xclang", "-disable-llvm-passes", "-emit-llvm")
_CPU_ATTRIBUTE: Final = re.compile(r' "(?:target-cpu|target-features|tune-cpu|min-legal-vector-width)"="[^"]*"')


class NativeLibraryHook(BuildHookInterface[Any]):
    """Builds ``uxdp_runtime/native/uxdp-MACHINE.bc`` and ``control-MACHINE.o`` and puts them into the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build what is out of date, and register the outputs, which git ignores."""
        for machine in MACHINES:
            build_native(machine)
        for program in BPF_PROGRAMS:
            build_bpf(program)
        names = [name.format(machine="*", program="*") for name in (*OUTPUTS, BPF_OUTPUT, BPF_IR_OUTPUT)]
        build_data["artifacts"] += [f"/runtime/uxdp_runtime/native/{name}" for name in names]


def build_native(machine: str, folder: Path = NATIVE) -> tuple[Path, ...]:
    """Build one machine's bitcode and objects, unless they are newer than all they are made of; return them.

    :param machine: ``x86_64`` or ``aarch64``
    :param folder: where to put them
    :raises RuntimeError: there is no ziglang, or clang refuses a source
    """
    bitcode, *objects = (folder / name.format(machine=machine) for name in OUTPUTS)
    newest = _newest()
    target = ("-target", f"{machine}-unknown-linux-gnu")
    if not bitcode.exists() or bitcode.stat().st_mtime < newest:
        text = _clang(*target, *_FLAGS, *_UNOPTIMISED, "-S", "uxdp.c", "-o", "-")
        neutral = _CPU_ATTRIBUTE.sub("", text.decode())
        _replace(bitcode, _clang(*target, "-x", "ir", *_UNOPTIMISED, "-c", "-", "-o", "-", stdin=neutral.encode()))
    for output, (source, speed) in zip(objects, _COMPILED, strict=True):
        if not output.exists() or output.stat().st_mtime < newest:
            _replace(output, _clang(*target, *_FLAGS, speed, "-c", source, "-o", "-"))
    return bitcode, *objects


def build_bpf(program: str, folder: Path = NATIVE) -> Path:
    """Build one of our own BPF programs, unless its object is newer than all that it is made of; return the object.

    :param program: name of a source in native/bpf/, without its ending
    :param folder: where to put it
    :raises RuntimeError: there is no ziglang, or clang refuses the source
    """
    output = folder / BPF_OUTPUT.format(program=program)
    if not output.exists() or output.stat().st_mtime < _newest():
        # The BTF of the object names the source as it is given here.
        flags = (*_BPF_FLAGS, f"-ffile-prefix-map={NATIVE}=.", "-fdebug-compilation-dir=.")
        _replace(output, _clang(*flags, "-c", f"bpf/{program}.bpf.c", "-o", "-"))
        if program in BPF_WITH_IR:
            ir = _clang(*flags, "-emit-llvm", "-c", f"bpf/{program}.bpf.c", "-o", "-")
            _replace(folder / BPF_IR_OUTPUT.format(program=program), ir)
    return output


def _newest() -> float:
    """Return when the last of the sources was changed."""
    return max(source.stat().st_mtime for source in (Path(__file__), *NATIVE.rglob("*.[ch]")))


def _replace(path: Path, data: bytes) -> None:
    """Replace a file at once: another build, or a reader, may be at it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(data)
    partial = Path(file.name)
    partial.chmod(0o644)
    partial.replace(path)


def _clang(*arguments: str, stdin: bytes | None = None) -> bytes:
    found = importlib.util.find_spec("ziglang")
    if found is None or found.origin is None:
        raise RuntimeError("the native library is compiled with ziglang, which is not installed: pip install ziglang")
    zig = Path(found.origin).parent
    command = [str(zig / "zig"), "clang", "-resource-dir", str(zig / "lib"), *arguments]
    run = subprocess.run(command, cwd=NATIVE, input=stdin, capture_output=True)
    if run.returncode:
        raise RuntimeError(f"clang refuses the native library:\n{run.stderr.decode(errors='replace')}")
    return run.stdout
