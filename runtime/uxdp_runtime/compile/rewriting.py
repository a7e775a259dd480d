"""From a bundle's IR to the text of a module that can be linked with the native library: all rewriting, in order.

Runs in the confined child alone. Each step is a module of its own; here is what they are given, and what is refused.
"""

import re
from typing import Any, Final

from uxdp_bundle import defined_ir, ir_rules
from uxdp_bundle.manifest import MapDefinition

from . import (
    asking,
    bounds,
    calls,
    context,
    coverage,
    definitions,
    exceptions,
    intrinsics,
    ir_text,
    kfuncs,
    late_values,
    limits,
    lookahead,
    loop_limits,
    memory,
    names,
    shared_calls,
    shared_time,
    small_copies,
    timers,
)
from .unreached import drop_unreached

# llvm.TYPE:KIND:ANSWER$ACCESS names a CO-RE relocation's answer for the types that the source was compiled with.
_ASSUMED: Final = re.compile(r"llvm\..*:\d+:(\d+)\$.*")
# What the loader resolves besides libc and the variables: the worker, and by prefix the maps' memory.
_EXTERNALS: Final = frozenset(
    ("uxdp_worker", asking.KERNEL, "uxdp_program", "uxdp_pool", "uxdp_declared", "uxdp.num_cpus")
)
_VALUE_WITH_PROGRAM: Final = 8
_EXTERNAL_PREFIXES: Final = ("llvm.", "uxdp.store.", "uxdp.cpu_store.", late_values.SYMBOL)

_REDIRECTS: Final = frozenset(("uxdp_helper_redirect", "uxdp_helper_redirect_map"))
# What is given an address that nobody has checked: it may be of the program's own memory, or of none.
_READS_ANYWHERE: Final = re.compile("uxdp_(?:helper_probe_read_|kfunc_probe_read_|kfunc_str|kfunc_iter_bits_new)")
# What moves one of a frame's ends, or looks whether memory is of the frame.
_ASKS_FOR_ROOM: Final = re.compile(rf"uxdp_helper_xdp_adjust_|{_READS_ANYWHERE.pattern}|uxdp_(?:helper|kfunc)_dynptr_")
# What takes a dynptr, or such an address: either may be of the frame at hand.
_ASKS_FOR_FRAME: Final = re.compile(rf"{_READS_ANYWHERE.pattern}|uxdp_(?:helper|kfunc)_dynptr_")


class RefusedError(Exception):
    """IR that is not compiled; ``kind`` says why, for the parent process, and ``name`` what it is about."""

    def __init__(self, kind: str, message: str, name: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.name = name


def native_text(llvm: Any, request: dict[str, Any], library: Any, ir: bytes) -> str:
    """Return the text of the rewritten module.

    :param llvm: llvmlite.binding
    :param request: what the parent asks for (compiler.compile_object); ``values`` is filled in with what was used
    :param library: the native library, parsed
    :raises RefusedError: the IR is no bundle's, or not valid
    """
    try:
        bundle = llvm.parse_bitcode(ir)
        bundle.verify()
    except RuntimeError as error:
        raise RefusedError("bitcode", f"the IR is not valid: {error}") from error
    violation = None if request["from_c"] else ir_rules.find_violation(bundle)
    if violation is not None:
        raise RefusedError(violation.kind, violation.message)
    if request["coverage"]:
        coverage.split_critical_edges(llvm, bundle)
    text = str(bundle)
    module = ir_text.parse_module(text if request["from_c"] else defined_ir.defined(text))
    if not request["from_c"]:
        loop_limits.limit_loops(module)
        limits.check_limits(module)
        drop_unreached(module, [*request["programs"], *request["handlers"].values()])
        exceptions.rewrite_exceptions(module, request["programs"], request["handlers"])
        if request["coverage"]:
            coverage.instrument(module, request["entry"], request["programs"])
        bounds.keep_inside(module)
        memory.settle_memory(module)
    maps = [
        definitions.NativeMap(_definition(item), number, request["num_cpus"])
        for number, item in enumerate(request["maps"])
    ]
    signatures = {
        name: str(function.global_value_type)
        for function in library.functions
        if (name := function.name).startswith("uxdp_") and not function.is_declaration
    }
    values = request["values"]
    if values is None:
        placeholders = [variable.name for variable in bundle.global_variables]
        values = {name: int(match[1]) for name in placeholders if (match := _ASSUMED.fullmatch(name))}
        values |= {kfuncs.PRESENT + name: 1 for name in kfuncs.weak_kfuncs(module)}
    type_ids = late_values.type_ids(text)
    if request["late"]:
        late_values.load_late(module, type_ids | {name: name for name in request["kconfig"]})
    request["values"] = values
    known = {name: values[value] for name, value in type_ids.items() if value in values}
    definitions.substitute_values(module, {**values, **known})
    late_values.rewrite_kernel_symbols(module, request["ksyms"])
    definitions.constant_loads(module)
    if not request["from_c"]:
        context.widen_context(module, request["programs"])
        intrinsics.lower_intrinsics(module)
    templates = {one.definition.name: one.definition.inner for one in maps if one.definition.inner is not None}
    declared = {one.definition.name: one.definition for one in maps}
    nested = calls.NestedMaps(templates, declared, definitions.num_cpus_operand(request["num_cpus"]))
    has_timers = timers.prepare_timers(module, {native.definition.name: native for native in maps})
    called = kfuncs.rewrite_kfuncs(module, signatures, values, has_inner=bool(templates))
    called |= calls.rewrite_calls(module, signatures, request["programs"], nested)
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
        _answer("uxdp_redirects", bool(called & _REDIRECTS)),
        _answer("uxdp_asks_for_room", any(_ASKS_FOR_ROOM.match(name) for name in called)),
        _answer("uxdp_has_inner_maps", bool(templates)),
        _answer("uxdp_asks_for_frame", any(name in _REDIRECTS or _ASKS_FOR_FRAME.match(name) for name in called)),
        _answer("uxdp_asks_for_memory", any(_READS_ANYWHERE.match(name) for name in called)),
        _answer("uxdp_has_timers", has_timers),
        _answer("uxdp_shares_time", not has_timers and shared_time.shares_time(module, entry, called)),
        _answer("uxdp_makes_tail_calls", "uxdp_tail_target" in called),
        _answer("uxdp_asks_kernel", any(name.replace(calls.PREFIX, "bpf_", 1) in asking.HELPERS for name in called)),
    ]
    by_name = {native.definition.name: native for native in maps}
    onward = request["onward"] if any(_names_programs(native.definition) for native in maps) else []
    module.items += [_answer("uxdp_has_onward", bool(onward)), _onward(request["programs"], onward)]
    if request["lookahead"]:
        lookahead.add_lookahead(module, entry, by_name)
    shared_calls.share_calls(module, by_name)
    module.items.append(
        f"define i32 @uxdp_program(ptr %frame) alwaysinline {{\n  %r = call i32 @{entry}(ptr %frame)\n  ret i32 %r\n}}"
    )
    own = (value.name for value in (*bundle.functions, *bundle.global_variables))
    names.separate_names(module, {name for name in own if not name.startswith("llvm.")})
    return str(module)


def _definition(item: dict[str, Any]) -> MapDefinition:
    inner = item["inner"]
    return MapDefinition(**{**item, "inner": None if inner is None else _definition(inner)})


def _names_programs(definition: MapDefinition) -> bool:
    """Whether a map's values have a program: struct bpf_devmap_val, struct bpf_cpumap_val."""
    return definition.type in ("devmap", "devmap_hash", "cpumap") and definition.value_size == _VALUE_WITH_PROGRAM


def _onward(programs: list[str], onward: list[str]) -> str:
    """Return the function that runs the program of a number, if it is for values of maps."""
    numbers = [programs.index(name) + 1 for name in onward]
    cases = "\n".join(f"    i32 {number}, label %p{number}" for number in numbers)
    blocks = "\n".join(
        f"p{number}:\n  %r{number} = call i32 @{name}(ptr %frame)\n  ret i32 %r{number}"
        for number, name in zip(numbers, onward, strict=True)
    )
    return (
        "define i32 @uxdp_onward(ptr %frame, i32 %number) noinline {\n"
        f"  switch i32 %number, label %none [\n{cases}\n  ]\n{blocks}\nnone:\n  ret i32 0\n}}"
    )


def check_externals(library: Any, request: dict[str, Any]) -> None:
    """Refuse what nobody will define: kfuncs, and externs that libbpf has not resolved to a number.

    :param library: the native library with the program linked in
    :raises RefusedError: there is such a thing
    """
    for kind, values in (("kfunc", library.functions), ("extern", library.global_variables)):
        for value in values:
            name = value.name
            if (
                not value.is_declaration
                or name in _EXTERNALS
                or name.removeprefix(names.OWN) in request["variables"]
                or name in request["libc"]
            ):
                continue
            if name.startswith("llvm.") and "$" in name:
                raise RefusedError("extern", "the CO-RE relocation was not resolved", name)
            if not name.startswith(_EXTERNAL_PREFIXES):
                raise RefusedError("extern", f"{kind} without native implementation", name.removeprefix(names.OWN))


def _answer(name: str, answer: bool) -> str:
    return f"define zeroext i1 @{name}() alwaysinline {{\n  ret i1 {str(answer).lower()}\n}}"
