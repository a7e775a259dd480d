"""The child process that compiles a bound bundle's IR to a native object; confined before it reads a byte of IR.

    argv: the folder that holds llvmlite
    stdin: u32 length of a JSON request, the request, the native library's bitcode, the bundle's IR
    stdout: u32 length of a JSON reply, the reply, the object

Compile errors come back as {"refused": {...}}; LLVM's fatal errors end the process.
"""

import json
import re
import struct
import sys
from typing import Any

MEMORY_BYTES = 4 << 30
CPU_SECONDS = 60
NO_LLVM = 77  # confined_child.NO_LLVM


def main() -> None:
    """Answer one request."""
    # -S left out site-packages: name the folders that are needed. They go last, so that they shadow nothing.
    sys.path += sys.argv[1:]
    try:
        import llvmlite.binding as llvm
    except (ImportError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(NO_LLVM)
    from uxdp_bundle import ir_promises, sandbox
    from uxdp_runtime.compile import calls, context, definitions, late_values, rewriting

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    sandbox.confine(memory_bytes=MEMORY_BYTES, cpu_seconds=CPU_SECONDS)
    data = sys.stdin.buffer.read()
    (length,) = struct.unpack_from("<I", data)
    request = json.loads(data[4 : 4 + length])
    start = 4 + length
    native = data[start : start + request["native_bytes"]]
    ir = data[start + request["native_bytes"] :]
    lowered = b""
    reply: dict[str, Any] = {}
    try:
        lowered = _compile(llvm, rewriting, request, native, ir)
    except calls.UnsupportedCallError as error:
        reply = {"refused": {"kind": "call", "name": error.name, "message": error.reason, "function": error.function}}
    except context.ContextError as error:
        reply = {"refused": {"kind": "context", "name": "xdp_md", "message": str(error), "function": error.function}}
    except definitions.AddressInDataError as error:
        message = "a constant that holds an address, which libbpf leaves out"
        reply = {"refused": {"kind": "extern", "name": error.name, "message": message, "function": ""}}
    except late_values.KernelMemoryError as error:
        reply = {"refused": {"kind": "extern", "name": error.name, "message": str(error), "function": error.function}}
    except ir_promises.UndefinedIrError as error:
        reply = {"refused": {"kind": "undefined", "name": "", "message": error.message, "function": ""}}
    except rewriting.RefusedError as error:
        reply = {"refused": {"kind": error.kind, "name": error.name, "message": str(error), "function": ""}}
    else:
        reply["values"] = request["values"]
    reply["llvm"] = ".".join(map(str, llvm.llvm_version_info))
    encoded = json.dumps(reply).encode()
    sys.stdout.buffer.write(struct.pack("<I", len(encoded)) + encoded + lowered)
    sys.stdout.buffer.flush()


_HELPER = re.compile(r"^(define .* @uxdp_helper_\w+\(.*\) )[^()]*\{$", re.MULTILINE)


def _compile(llvm: Any, rewriting: Any, request: dict[str, Any], native: bytes, ir: bytes) -> bytes:
    major = llvm.llvm_version_info[0]
    if major != request["llvm_major"]:
        raise rewriting.RefusedError(
            "llvm", f"it holds LLVM {major}, and native code is made by {request['llvm_major']}"
        )
    library = llvm.parse_bitcode(native)
    if not request["inlining"]:
        library = llvm.parse_assembly(_HELPER.sub(r"\g<1>noinline nounwind {", str(library)))
    target = request["target"]
    machine = llvm.Target.from_triple(library.triple).create_target_machine(
        cpu=target["cpu"], features=target["features"], opt=3, reloc="pic", codemodel="small"
    )
    if ir:
        text = rewriting.native_text(llvm, request, library, ir)
        if request.get("dump"):
            sys.stderr.write(text)
        try:
            program = llvm.parse_assembly(text)
            program.verify()
            library.link_in(program)
        except RuntimeError as error:
            raise rewriting.RefusedError("rewrite", f"the rewritten IR is not valid: {error}") from error
        rewriting.check_externals(library, request)
    exported = set(request["exported"])
    if not request["inlining"]:
        exported |= {function.name for function in library.functions if function.name.startswith("uxdp_helper_")}
    for function in library.functions:
        if not function.is_declaration and function.name not in exported:
            function.linkage = "internal"
    for variable in library.global_variables:
        if variable.name in ("llvm.used", "llvm.compiler.used") or variable.name in exported:
            continue
        if not variable.is_declaration:
            variable.linkage = "internal"
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = True
    tuning.slp_vectorization = True
    builder = llvm.create_pass_builder(machine, tuning)
    # Most of the library is not used; the pipeline would clean it up before it notices.
    unused = llvm.create_new_module_pass_manager()
    unused.add_global_dead_code_eliminate_pass()
    unused.run(library, builder)
    builder.getModulePassManager().run(library, builder)
    if request.get("dump"):
        sys.stderr.write(str(library))
    return bytes(machine.emit_object(library))


if __name__ == "__main__":
    main()
