"""The child process that runs LLVM on IR: started by lowering, confined before it reads a byte of IR.

    argv: the folders that hold uxdp_bundle and llvmlite
    stdin: u32 length of a JSON request, the request, the bitcode modules one after the other
    stdout: u32 length of a JSON reply, the reply, the object, the IR (only if the request says "prepare")

LLVM reports fatal errors by ending the process and on stderr; the parent makes a LoweringError of that.
"""

import json
import struct
import sys
from typing import Any, NamedTuple

MEMORY_BYTES = 2 << 30
CPU_SECONDS = 10
NO_LLVM = 77  # confined_child.NO_LLVM


def main() -> None:
    """Answer one request."""
    sys.path += sys.argv[1:]  # last, so that they shadow nothing
    try:
        import llvmlite.binding as llvm
    except (ImportError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(NO_LLVM)
    from uxdp_bundle import assembly_ir, defined_ir, ir_rules, may_goto, portable_ir, sandbox

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    sandbox.confine(memory_bytes=MEMORY_BYTES, cpu_seconds=CPU_SECONDS)
    data = sys.stdin.buffer.read()
    (length,) = struct.unpack_from("<I", data)
    request = json.loads(data[4 : 4 + length])
    parts = _Parts(assembly_ir, defined_ir, ir_rules, may_goto, portable_ir)
    reply, lowered, ir = _lower(llvm, parts, request, data[4 + length :])
    reply["llvm"] = ".".join(map(str, llvm.llvm_version_info))
    reply["lengths"] = [len(lowered), len(ir)]
    encoded = json.dumps(reply).encode()
    sys.stdout.buffer.write(struct.pack("<I", len(encoded)) + encoded + lowered + ir)
    sys.stdout.buffer.flush()


class _Parts(NamedTuple):
    """The modules that work on IR; they are imported once LLVM is known to be there."""

    assembly_ir: Any
    defined_ir: Any
    ir_rules: Any
    may_goto: Any
    portable_ir: Any


def _lower(llvm: Any, parts: _Parts, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    modules = []
    position = 0
    for length in request["inputs"]:
        try:
            modules.append(llvm.parse_bitcode(data[position : position + length]))
        except RuntimeError as error:
            return _refused("bitcode", f"not LLVM bitcode: {error}")
        position += length
    module, *others = modules
    try:
        for other in others:
            module.link_in(other)
    except RuntimeError as error:
        return _refused("link", str(error))
    not_plain = ""
    if request["prepare"]:
        text, not_plain = parts.assembly_ir.with_plain_assembly(parts.portable_ir.portable(str(module)))
        module = llvm.parse_assembly(text)
    try:
        module.verify()
    except RuntimeError as error:
        return _refused("invalid", f"the IR is not valid: {error}")
    violation = parts.ir_rules.find_violation(module)
    if violation is not None:
        because = f": {not_plain}" if not_plain and violation.kind == "inline-asm" else ""
        return _refused(violation.kind, violation.message + because)
    text = str(module)
    try:
        defined = parts.defined_ir.defined(text)
        if defined != text:
            module = llvm.parse_assembly(defined)
            module.verify()
    except parts.defined_ir.UndefinedIrError as error:
        return _refused(error.kind, error.message)
    except RuntimeError as error:
        return _refused("invalid", f"the IR is not valid once it is defined: {error}")
    ir = b""
    if request["prepare"]:
        ir = module.as_bitcode()
        module = llvm.parse_bitcode(ir)  # what is lowered is what whoever binds will read
    machine = llvm.Target.from_triple("bpfel").create_target_machine(
        cpu=request["cpu"], features=request["features"], opt=request["optimisation"]
    )
    try:
        # Without a may_goto it is this module that is lowered, as it is.
        lowered = parts.may_goto.lower(
            module, lambda text: machine.emit_object(module if text is None else llvm.parse_assembly(text))
        )
    except parts.may_goto.MayGotoError as error:
        return _refused("may-goto", f"may_goto cannot be lowered: {error}")
    return {}, lowered, ir


def _refused(kind: str, message: str) -> tuple[dict[str, Any], bytes, bytes]:
    return {"refused": {"kind": kind, "message": message}}, b"", b""


if __name__ == "__main__":
    main()
