"""Lower IR to an eBPF object with llvmlite's BPF backend, in a confined child process.

The object of a bundle is made from its IR by this one backend, whatever clang produced the IR. So that the IR is what
the kernel verified can be shown by lowering it again and comparing bytes (see binding). LLVM's parsers are not built
for hostile input and report fatal errors by ending the process: every run is a process of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .confined_child import llvmlite_folder, run_child
from .errors import LoweringError
from .manifest import Lowering

# The LLVM inside of the llvmlite that pyproject.toml asks for; a test compares. Importing llvmlite to ask costs 35 ms.
LLVM_MAJOR: Final = 22
# Other names ("probe", "help") would make the object depend on the machine, or print a list.
CPUS: Final = ("generic", "v1", "v2", "v3", "v4")
_CHILD: Final = Path(__file__).with_name("lowering_child.py")
# The child limits its CPU time to 10 s; this is for a machine so loaded that it does not get them.
_TIMEOUT_SECONDS = 60


class RefusedIrError(LoweringError):
    """The IR holds something that a bundle's IR must not hold; ``kind`` says what (see ir_rules)."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message, context="IR")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class LoweredObject:
    """The result: the object, the IR that gives it (empty unless prepared), the LLVM version and its warnings."""

    object: bytes
    ir: bytes
    llvm: str
    warnings: str


def lower(
    modules: Sequence[bytes],
    *,
    cpu: str = "v3",
    features: str = "",
    optimisation: int = 2,
    prepare: bool = False,
) -> LoweredObject:
    """Lower one or several bitcode modules to one eBPF object.

    :param modules: LLVM bitcode; several are linked in their order
    :param prepare: first make the IR independent of the machine it was built on, and return it
    :param cpu: as clang's -mcpu for BPF: generic, v1, v2, v3, v4
    :param features: subtarget features, such as ``+alu32``, comma separated
    :param optimisation: code generator's level, 0..3
    :raises RefusedIrError: the IR breaks a rule
    :raises LoweringError: LLVM refused it, died, or needed more memory or time than it may
    """
    if cpu not in CPUS:
        raise LoweringError(f"CPU {cpu!r}, expected one of {', '.join(CPUS)}", context="IR")
    request = {
        "inputs": [len(module) for module in modules],
        "cpu": cpu,
        "features": features,
        "optimisation": optimisation,
        "prepare": prepare,
    }
    folders = (Path(__file__).parent.parent, llvmlite_folder())
    reply, data, log = run_child(_CHILD, request, modules, folders=folders, timeout_seconds=_TIMEOUT_SECONDS)
    return _parse_reply(reply, data, log)


def lower_as(manifest: Lowering, ir: bytes) -> LoweredObject:
    """Lower IR as a manifest says that its object was lowered."""
    return lower([ir], cpu=manifest.cpu, features=manifest.features, optimisation=manifest.optimisation)


def _parse_reply(reply: dict[str, Any], data: bytes, log: str) -> LoweredObject:
    """Check the shape of what a child answers that may be in the hands of the IR."""
    refused, lengths, llvm = reply.get("refused"), reply.get("lengths"), reply.get("llvm")
    match refused, lengths:
        case {"kind": str(kind), "message": str(message)}, _:
            raise RefusedIrError(kind, message)
        case None, [int(lowered_length), int(ir_length)] if isinstance(llvm, str):
            if lowered_length > 0 and ir_length >= 0 and lowered_length + ir_length == len(data):
                return LoweredObject(data[:lowered_length], data[lowered_length:], llvm, log)
    raise LoweringError("the LLVM process gave no usable answer", log=log, context="IR")
