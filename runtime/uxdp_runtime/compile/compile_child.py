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
    from uxdp_bundle import defined_ir, ir_promises, ir_rules, sandbox
    from uxdp_runtime.compile import (
        bounds,
        calls,
        context,
        definitions,
        intrinsics,
        ir_text,
        limits,
        lookahead,
        memory,
        names,
        small_copies,
    )

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
        modules = (
            ir_rules,
            defined_ir,
            bounds,
            calls,
            context,
            definitions,
            intrinsics,
            ir_text,
            limits,
            lookahead,
            memory,
            names,
            small_copies,
        )
        lowered = _compile(llvm, request, native, ir, modules)
    except calls.UnsupportedCallError as error:
        reply = {"refused": {"kind": "call", "name": error.name, "message": error.reason, "function": error.function}}
    except context.ContextError as error:
        reply = {"refused": {"kind": "context", "name": "xdp_md", "message": str(error), "function": error.function}}
    except definitions.AddressInDataError as error:
        message = "a constant that holds an address, which libbpf leaves out"
        reply = {"refused": {"kind": "extern", "name": error.name, "message": message, "function": ""}}
    except ir_promises.UndefinedIrError as error:
        reply = {"refused": {"kind": "undefined", "name": "", "message": error.message, "function": ""}}
    except _RefusedError as error:
        reply = {"refused": {"kind": error.kind, "name": error.name, "message": str(error), "function": ""}}
    else:
        reply["values"] = request["values"]
    reply["llvm"] = ".".join(map(str, llvm.llvm_version_info))
    encoded = json.dumps(reply).encode()
    sys.stdout.buffer.write(struct.pack("<I", len(encoded)) + encoded + lowered)
    sys.stdout.buffer.flush()


_ASSUMED = re.compile(r"llvm\..*:\d+:(\d+)\$.*")


_HELPER = re.compile(r"^(define .* @uxdp_helper_\w+\(.*\) )[^()]*\{$", re.MULTILINE)


class _RefusedError(Exception):
    def __init__(self, kind: str, message: str, name: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.name = name


def _compile(llvm: Any, request: dict[str, Any], native: bytes, ir: bytes, modules: tuple[Any, ...]) -> bytes:
    major = llvm.llvm_version_info[0]
    if major != request["llvm_major"]:
        raise _RefusedError("llvm", f"it holds LLVM {major}, and native code is made by {request['llvm_major']}")
    library = llvm.parse_bitcode(native)
    if not request["inlining"]:
        library = llvm.parse_assembly(_HELPER.sub(r"\g<1>noinline nounwind {", str(library)))
    target = request["target"]
    machine = llvm.Target.from_triple(library.triple).create_target_machine(
        cpu=target["cpu"], features=target["features"], opt=3, reloc="pic", codemodel="small"
    )
    if ir:
        text = _native_text(llvm, request, library, ir, modules)
        if request.get("dump"):
            sys.stderr.write(text)
        try:
            program = llvm.parse_assembly(text)
            program.verify()
            library.link_in(program)
        except RuntimeError as error:
            raise _RefusedError("rewrite", f"the rewritten IR is not valid: {error}") from error
        _check_externals(library, request)
    exported = set(request["exported"])
    if not request["inlining"]:
        exported |= {function.name for function in library.functions if function.name.startswith("uxdp_helper_")}
    for function in library.functions:
        if not function.is_declaration and function.name not in exported:
            function.linkage = "internal"
    for variable in library.global_variables:
        if variable.name in ("llvm.used", "llvm.compiler.used"):
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


# What the loader resolves besides libc and the variables: the worker, and by prefix the maps' memory.
_OWN = "uxdp.own."  # compile.names.OWN: importing it has to wait until the path is known
_EXTERNALS = frozenset(("uxdp_worker", "uxdp_program", "uxdp.num_cpus"))
_EXTERNAL_PREFIXES = ("llvm.", "uxdp.store.", "uxdp.cpu_store.")


def _check_externals(library: Any, request: dict[str, Any]) -> None:
    """Refuse what nobody will define: kfuncs, and externs that libbpf has not resolved to a number."""
    for kind, values in (("kfunc", library.functions), ("extern", library.global_variables)):
        for value in values:
            name = value.name
            if (
                not value.is_declaration
                or name in _EXTERNALS
                or name.removeprefix(_OWN) in request["variables"]
                or name in request["libc"]
            ):
                continue
            if name.startswith("llvm.") and "$" in name:
                raise _RefusedError("extern", "the CO-RE relocation was not resolved", name)
            if not name.startswith(_EXTERNAL_PREFIXES):
                raise _RefusedError("extern", f"{kind} without native implementation", name.removeprefix(_OWN))


def _answer(name: str, answer: bool) -> str:
    return f"define zeroext i1 @{name}() alwaysinline {{\n  ret i1 {str(answer).lower()}\n}}"


def _native_text(llvm: Any, request: dict[str, Any], library: Any, ir: bytes, modules: tuple[Any, ...]) -> str:
    ir_rules, defined_ir, bounds, calls, context, definitions, intrinsics, ir_text, limits, *others = modules
    lookahead, memory, names, small_copies = others
    from uxdp_bundle.manifest import MapDefinition

    try:
        bundle = llvm.parse_bitcode(ir)
        bundle.verify()
    except RuntimeError as error:
        raise _RefusedError("bitcode", f"the IR is not valid: {error}") from error
    violation = None if request["from_c"] else ir_rules.find_violation(bundle)
    if violation is not None:
        raise _RefusedError(violation.kind, violation.message)
    text = str(bundle)
    module = ir_text.parse_module(text if request["from_c"] else defined_ir.defined(text))
    if not request["from_c"]:
        limits.check_limits(module)
        bounds.keep_inside(module)
        memory.settle_memory(module)
    maps = [
        definitions.NativeMap(MapDefinition(**{**item, "inner": None}), number, request["num_cpus"])
        for number, item in enumerate(request["maps"])
    ]
    values = request["values"]
    if values is None:
        # llvm.TYPE:KIND:ANSWER$ACCESS names the answer for the types that the source was compiled with.
        placeholders = [variable.name for variable in bundle.global_variables]
        values = {name: int(match[1]) for name in placeholders if (match := _ASSUMED.fullmatch(name))}
    request["values"] = values
    definitions.substitute_values(module, values)
    definitions.constant_loads(module)
    if not request["from_c"]:
        context.widen_context(module, request["programs"])
        intrinsics.lower_intrinsics(module)
    signatures = {
        name: str(function.global_value_type)
        for function in library.functions
        if (name := function.name).startswith("uxdp_") and not function.is_declaration
    }
    called = calls.rewrite_calls(module, signatures, request["programs"])
    definitions.rewrite_globals(
        module,
        maps,
        variables=request["variables"],
        constants={name: bytes.fromhex(value) for name, value in request["constants"].items()},
    )
    intrinsics.relax(module, library.triple, library.data_layout, aligned=request["from_c"])
    small_copies.expand_small_copies(module)
    for function in module.functions:
        # Only what is exported keeps its name and its section: "xdp" and ".text" mean nothing natively.
        function.header = re.sub(
            r' section "[^"]*"', "", function.header.replace("define dso_local ", "define internal ")
        )
    entry = request["entry"]
    module.items += [
        _answer("uxdp_redirects", bool(called & {"uxdp_helper_redirect", "uxdp_helper_redirect_map"})),
        _answer("uxdp_makes_tail_calls", "uxdp_tail_target" in called),
    ]
    if request["lookahead"]:
        lookahead.add_lookahead(module, entry, {native.definition.name: native for native in maps})
    module.items.append(
        f"define i32 @uxdp_program(ptr %frame) alwaysinline {{\n  %r = call i32 @{entry}(ptr %frame)\n  ret i32 %r\n}}"
    )
    own = (value.name for value in (*bundle.functions, *bundle.global_variables))
    names.separate_names(module, {name for name in own if not name.startswith("llvm.")})
    return str(module)


if __name__ == "__main__":
    main()
