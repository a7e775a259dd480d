"""Find every instruction that reads a field of xdp_md.

The verifier guarantees that the context is read only through an unmodified pointer at a constant offset. So the
pointer can be followed: through moves, spills to the stack, arguments of subprograms, and structures on the stack that
are handed to callbacks (bpf_loop). The analysis answers "may this register hold the context here?": joins unite, and
what is read through such a register is a context access, because the verifier lets one instruction access only one
type of memory.

A state maps registers and stack slots to the set of pointers (to the context, into a stack, to a callback) that they
may hold. What is absent from it holds something else; ``_OTHER`` in a set says that it may hold something else.

References: kernel/bpf/verifier.c, check_ctx_access and check_stack_write; net/core/filter.c, xdp_is_valid_access
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from .bpf_object import BpfObject
from .btf import Kind
from .errors import ObjectError
from .helpers import helper_name
from .instructions import (
    ADD64_K,
    ALU,
    ALU64,
    ATOMIC_CMPXCHG,
    ATOMIC_FETCH,
    ATOMIC_LOAD_ACQUIRE,
    CALL,
    CALLX,
    EXIT,
    GOTOX,
    JA,
    JA32,
    JMP,
    JMP32,
    LD_IMM64,
    LDX,
    MODE_ATOMIC,
    MODE_MASK,
    MOV64_X,
    ST,
    STX,
    STX_DW,
    SUB64_K,
    Code,
    Function,
    Instruction,
)

# struct xdp_md of include/uapi/linux/bpf.h: every field is a u32.
XDP_MD_FIELDS: Final = ("data", "data_end", "data_meta", "ingress_ifindex", "rx_queue_index", "egress_ifindex")
_FIELD_BYTES = 4
_SLOT_BYTES = 8
_STACK_BYTES = 512
_FRAME_POINTER = 10
_MAX_FRAMES = 8  # MAX_CALL_FRAMES of include/linux/bpf_verifier.h
# Instructions followed, and values looked at, per object: some seconds. Real programs need some thousands.
_MAX_WORK = 4_000_000
_BPF_CORE_FIELD_BYTE_OFFSET = 0
# The access string of a structure's member: of the first structure, the member with this index.
_MEMBER_PATH: Final = re.compile(r"0:([0-9]{1,5})")

# The register of the callback's first argument that the caller hands through, by helper: (callback, argument) registers
# of the call, and the callback's register that receives the argument.
_CALLBACKS: Final = {
    "bpf_loop": (2, 3, 2),  # callback(index, ctx)
    "bpf_for_each_map_elem": (2, 3, 4),  # callback(map, key, value, ctx)
    "bpf_user_ringbuf_drain": (2, 3, 2),  # callback(dynptr, ctx)
    "bpf_find_vma": (3, 4, 3),  # callback(task, vma, ctx)
}


class _Context(NamedTuple):
    """The context pointer, moved by ``offset`` bytes."""

    offset: int


class _Stack(NamedTuple):
    """A pointer into the stack of a frame, ``offset`` <= 0 from its top."""

    frame: int
    offset: int


class _Callback(NamedTuple):
    """The address of a function."""

    function: Function


class _Other(NamedTuple):
    """Anything else."""


class _Slot(NamedTuple):
    """Eight aligned bytes of a frame's stack: pointers are spilled to nothing else."""

    frame: int
    offset: int


_Value = _Context | _Stack | _Callback | _Other
_Values = frozenset[_Value]
# A register's number or a stack slot -> what it may hold.
_State = dict[int | _Slot, _Values]
_OTHER: Final = _Other()
_CONTEXT: Final[_Values] = frozenset({_Context(0)})
_NOTHING: Final[_Values] = frozenset()


@dataclass(frozen=True, slots=True, order=True)
class ContextAccess:
    """One load from xdp_md: the instruction at byte ``offset`` of ELF section ``section`` reads ``field``."""

    section: str
    offset: int
    field: str


def context_accesses(bpf_object: BpfObject, code: Code, entries: list[Function]) -> list[ContextAccess]:
    """Return every access to the context by the programs ``entries`` and what they call, sorted.

    :raises ObjectError: an access that the verifier refuses too (odd offset, not 4 bytes), or too many paths
    """
    analysis = _Analysis(code, _relocated_fields(bpf_object))
    for entry in entries:
        analysis.run(entry, {1: _CONTEXT}, 0)
    for place, error in analysis.impossible.items():
        # Ways that no packet takes are followed too; a load that can be of something else will be.
        if place not in analysis.other_loads:
            raise error
    return sorted(analysis.accesses)


def _relocated_fields(bpf_object: BpfObject) -> dict[tuple[str, int], str]:
    """Return what loaders will make of instructions with CO-RE records: (section, byte offset) -> field of xdp_md.

    The offset in such an instruction is that of the structure as the program declares it, which may hold fewer fields
    than the kernel's. The value is empty for an instruction that is relocated by anything else.
    """
    btf, extension = bpf_object.btf, bpf_object.btf_ext
    found: dict[tuple[str, int], str] = {}
    if btf is None or extension is None:
        return found
    for section, records in extension.core_relocations.items():
        for offset, type_id, path, kind in records:
            structure = btf.resolve(type_id)
            # libbpf takes "xdp_md___flavor" for a variant of xdp_md.
            is_context = structure.kind is Kind.STRUCT and structure.name.partition("___")[0] == "xdp_md"
            index = _MEMBER_PATH.fullmatch(btf.text(path))
            number = int(index[1]) if index is not None else structure.vlen
            is_field = is_context and kind == _BPF_CORE_FIELD_BYTE_OFFSET and number < structure.vlen
            found[section, offset] = btf.member_name(structure, number) if is_field else ""
    return found


class _Analysis:
    def __init__(self, code: Code, relocated: dict[tuple[str, int], str]) -> None:
        self._code = code
        self._relocated = relocated
        self._done: dict[tuple[Function, int, frozenset[tuple[int | _Slot, _Values]]], _State | None] = {}
        self._work = 0
        self.accesses: set[ContextAccess] = set()
        # By section and slot: loads that are none of a field, and loads that may be of something else.
        self.impossible: dict[tuple[int, int], ObjectError] = {}
        self.other_loads: set[tuple[int, int]] = set()

    def run(self, function: Function, entry: _State, frame: int) -> _State | None:
        """Analyse one function from its entry state.

        :returns: what R0 and the stacks of its callers may hold when it returns; None if it never does
        """
        key = (function, frame, frozenset(entry.items()))
        if key in self._done:
            return self._done[key]
        if frame >= _MAX_FRAMES:
            raise ObjectError(f"calls nest deeper than {_MAX_FRAMES} frames", context=f"function {function.name}")
        states: dict[int, _State] = {function.start: {**entry, _FRAME_POINTER: frozenset({_Stack(frame, 0)})}}
        work = [function.start]
        result: _State | None = None
        while work:
            slot = work.pop()
            state = dict(states[slot])
            for successor in self._block(function, slot, state, frame):
                self._charge(_size(state), function)
                if successor is None:
                    left = {where: held for where, held in state.items() if _survives(where, frame)}
                    if result is None:
                        result = left
                    else:
                        _join(result, left)
                elif successor not in states:
                    states[successor] = dict(state)
                    work.append(successor)
                elif _join(states[successor], state):
                    work.append(successor)
        self._done[key] = result
        return result

    def _charge(self, work: int, function: Function) -> None:
        self._work += work
        if self._work > _MAX_WORK:
            raise ObjectError("too many paths to follow the context", context=f"function {function.name}")

    def _block(self, function: Function, slot: int, state: _State, frame: int) -> Iterator[int | None]:
        """Step ``state`` through straight code; then yield the successors, None for exit."""
        instructions = self._code.sections[function.section]
        calls = self._code.calls(function)
        while True:
            if not function.start <= slot < function.end:
                raise ObjectError(
                    f"control leaves the function at instruction {slot}", context=f"function {function.name}"
                )
            instruction = instructions[slot]
            # Each value of a register takes a step of its own.
            self._charge(1 + len(state.get(instruction.dst, ())) + len(state.get(instruction.src, ())), function)
            code = instruction.code
            if code == EXIT:
                yield None
                return
            if code in (JA, JA32):
                yield slot + 1 + (instruction.offset if code == JA else instruction.imm)
                return
            if code == GOTOX:
                yield from self._code.jump_targets(function)
                return
            if code == CALL:
                call = calls.get(slot)
                if call is None:
                    raise ObjectError("a jump leads into ld_imm64", context=self._code.where(function, slot))
                if call.function is not None:
                    if not self._call(call.function, state, frame):
                        return
                else:
                    self._call_helper("" if call.helper is None else helper_name(call.helper), state, frame)
            elif code == LD_IMM64:
                target = calls[slot].function if slot in calls else None
                _set(state, instruction.dst, _NOTHING if target is None else frozenset({_Callback(target)}))
                slot += 1
            elif code == CALLX:
                _forget_arguments(state)
            elif code & 7 in (JMP, JMP32):
                yield slot + 1
                yield slot + 1 + instruction.offset
                return
            else:
                self._step(function, slot, instruction, state)
            slot += 1

    def _step(self, function: Function, slot: int, instruction: Instruction, state: _State) -> None:
        kind = instruction.code & 7
        if kind in (ALU, ALU64):
            _set(state, instruction.dst, _arithmetic(instruction, state))
        elif kind == LDX:
            source = state.get(instruction.src, _NOTHING)
            if not source or len(source) > 1:
                self.other_loads.add((function.section, slot))
            _set(state, instruction.dst, self._load(function, slot, instruction, source, state) if source else _NOTHING)
        elif kind == STX and instruction.code & MODE_MASK == MODE_ATOMIC:
            _step_atomic(instruction, state)
        elif kind in (ST, STX):
            spilled = instruction.code == STX_DW  # only whole pointers
            _store(state, instruction, state.get(instruction.src, _NOTHING) if spilled else _NOTHING)
        else:  # the old loads from packets, which XDP programs may not use
            _forget_arguments(state)

    def _load(self, function: Function, slot: int, instruction: Instruction, source: _Values, state: _State) -> _Values:
        loaded = _NOTHING
        for value in source:
            if isinstance(value, _Context):
                offset = value.offset + instruction.offset
                field = self._field(function, slot, instruction, offset)
                if field is not None:
                    self.accesses.add(ContextAccess(self._code.section(function).name, slot * 8, field))
                else:
                    self.impossible[function.section, slot] = ObjectError(
                        f"reads {instruction.size} bytes at offset {offset} of xdp_md, expected one of its u32 fields",
                        context=self._code.where(function, slot),
                    )
            elif isinstance(value, _Stack) and instruction.size == _SLOT_BYTES:
                held = state.get(_Slot(value.frame, value.offset + instruction.offset))
                loaded |= held if held is not None else {_OTHER}
                continue
            loaded |= {_OTHER}
        return loaded if loaded != {_OTHER} else _NOTHING

    def _field(self, function: Function, slot: int, instruction: Instruction, offset: int) -> str | None:
        """Return the field that a load through the context reads; None if it reads none."""
        relocated = self._relocated.get((self._code.section(function).name, slot * 8))
        if relocated is not None:
            return relocated if relocated in XDP_MD_FIELDS else None
        index = offset // _FIELD_BYTES
        whole = offset % _FIELD_BYTES == 0 and instruction.size == _FIELD_BYTES
        return XDP_MD_FIELDS[index] if whole and 0 <= index < len(XDP_MD_FIELDS) else None

    def _call(self, target: Function, state: _State, frame: int) -> bool:
        """Step over a call of a BPF function; return whether it returns."""
        self._charge(_size(state), target)
        arguments: _State = {
            where: held for where, held in state.items() if isinstance(where, _Slot) or 1 <= where <= 5
        }
        after = self.run(target, arguments, frame + 1)
        if after is None:
            return False
        # The callee saw all stacks, so what they hold now is what it says.
        for where in [where for where in state if isinstance(where, _Slot)]:
            del state[where]
        _forget_arguments(state)
        state.update(after)
        return True

    def _call_helper(self, helper: str, state: _State, frame: int) -> None:
        """Step over a call of a helper or kfunc, which may run a callback any number of times."""
        callback, argument, parameter = _CALLBACKS.get(helper, (0, 0, 0))
        targets = [value.function for value in state.get(callback, ()) if isinstance(value, _Callback)]
        again = bool(targets) and callback > 0
        while again:
            again = False
            for target in targets:
                self._charge(_size(state), target)
                entry: _State = {where: held for where, held in state.items() if isinstance(where, _Slot)}
                if argument in state:
                    entry[parameter] = state[argument]
                after = self.run(target, entry, frame + 1)
                if after is not None:
                    kept: _State = {where: held for where, held in state.items() if not isinstance(where, _Slot)}
                    kept.update((where, held) for where, held in after.items() if isinstance(where, _Slot))
                    again = _join(state, kept) or again
        _forget_arguments(state)


def _arithmetic(instruction: Instruction, state: _State) -> _Values:
    """Return what the destination may hold after an ALU instruction."""
    if instruction.code == MOV64_X and instruction.offset == 0:
        return state.get(instruction.src, _NOTHING)
    held = state.get(instruction.dst, _NOTHING)
    if held and instruction.code in (ADD64_K, SUB64_K):
        delta = instruction.imm if instruction.code == ADD64_K else -instruction.imm
        moved = frozenset(_moved(value, delta) for value in held)
        return moved if moved != {_OTHER} else _NOTHING
    return _NOTHING


def _moved(value: _Value, delta: int) -> _Value:
    """Return the pointer ``delta`` bytes further, unless it has left what it points to (a loop would never end)."""
    if isinstance(value, _Context) and 0 <= value.offset + delta < _FIELD_BYTES * len(XDP_MD_FIELDS):
        return _Context(value.offset + delta)
    if isinstance(value, _Stack) and -_STACK_BYTES <= value.offset + delta <= 0:
        return _Stack(value.frame, value.offset + delta)
    return _OTHER


def _step_atomic(instruction: Instruction, state: _State) -> None:
    """Forget what an atomic operation overwrites: memory, and the register that receives the old value."""
    if instruction.imm == ATOMIC_LOAD_ACQUIRE:
        state.pop(instruction.dst, None)
        return
    _store(state, instruction, _NOTHING)
    if instruction.imm == ATOMIC_CMPXCHG:
        state.pop(0, None)
    elif instruction.imm & ATOMIC_FETCH:
        state.pop(instruction.src, None)


def _store(state: _State, instruction: Instruction, held: _Values) -> None:
    bases = state.get(instruction.dst, _NOTHING)
    for base in bases:
        if not isinstance(base, _Stack):
            continue
        start = base.offset + instruction.offset
        for offset in range(start - start % _SLOT_BYTES, start + instruction.size, _SLOT_BYTES):
            where = _Slot(base.frame, offset)
            written = held if offset == start else _NOTHING
            if len(bases) == 1:
                _set(state, where, written)
            elif where in state or written:
                state[where] = (state.get(where, _NOTHING) | written) | {_OTHER}


def _set(state: _State, where: int | _Slot, held: _Values) -> None:
    if held:
        state[where] = held
    else:
        state.pop(where, None)


def _size(state: _State) -> int:
    return 1 + sum(map(len, state.values()))


def _forget_arguments(state: _State) -> None:
    """Forget R0..R5, which a call does not preserve."""
    for register in range(6):
        state.pop(register, None)


def _join(state: _State, other: _State) -> bool:
    """Make ``state`` say what holds in it or in ``other``; return whether that is anything new."""
    grown = False
    for where in state.keys() | other.keys():
        known = state.get(where)
        new = other.get(where, frozenset({_OTHER})) if known is not None else other[where] | {_OTHER}
        if known is None or not new <= known:
            state[where] = new if known is None else known | new
            grown = True
    return grown


def _survives(where: int | _Slot, frame: int) -> bool:
    """Whether a location outlives a function that runs in ``frame``: R0, and the stacks of its callers."""
    return where.frame < frame if isinstance(where, _Slot) else where == 0
