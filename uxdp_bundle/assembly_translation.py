"""One asm statement of C as ordinary IR: what each instruction is there (see assembly_ir for what is promised).

Registers are followed as values, so a text with jumps becomes blocks with phis; jumps lead down only.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

from .bpf_assembly import AssemblyError, Register, Statement, Target, parse
from .ir_promises import Signature
from .ir_syntax import split_arguments

MAY_GOTO: Final = "may_goto ${0:l}"
_LOCATION: Final = re.compile(r", !dbg !\d+")
_ESCAPE: Final = re.compile(r"\\([0-9A-Fa-f]{2})")
_FIXED: Final = re.compile(r"\{r(\d)\}")
_OPERATIONS: Final = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "/": "udiv",
    "%": "urem",
    "s/": "sdiv",
    "s%": "srem",
    "&": "and",
    "|": "or",
    "^": "xor",
    "<<": "shl",
    ">>": "lshr",
    "s>>": "ashr",
}
_PREDICATES: Final = {
    "==": "eq",
    "!=": "ne",
    ">": "ugt",
    ">=": "uge",
    "<": "ult",
    "<=": "ule",
    "s>": "sgt",
    "s>=": "sge",
    "s<": "slt",
    "s<=": "sle",
}
_ARGUMENTS: Final = ("r1", "r2", "r3", "r4", "r5")


@dataclass(slots=True)
class Module:
    """What functions share: the beginning of new names, types of functions, declarations, what was not understood."""

    prefix: str
    signatures: Mapping[str, Signature]
    declarations: dict[str, str] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Value:
    """What a register holds: a pointer (``ptr``) or a number of 64 bits."""

    kind: str
    text: str


_ZERO: Final = _Value("i64", "0")


@dataclass(slots=True)
class FunctionContext:
    """The function around: the block that lines are in, and which numbers were cut: name -> (type, what of)."""

    module: Module
    block: str
    cut: dict[str, tuple[str, str]]
    made: int = 0

    def fresh(self) -> str:
        """Return a new name, without its sigil."""
        self.made += 1
        return f"{self.module.prefix}.{self.made}"

    def whole(self, kind: str, value: str) -> tuple[str, str]:
        """Return the number that was cut to few bits for the assembly's sake, or the operand itself."""
        return self.cut.get(value, (kind, value))


@dataclass(frozen=True, slots=True)
class Assembly:
    """One asm statement: the match of its line, its arguments with their types, where a callbr goes."""

    match: re.Match[str]
    arguments: list[tuple[str, str]]
    rest: str
    normal: str = ""
    others: tuple[str, ...] = ()

    @property
    def template(self) -> str:
        """The text of the assembly, without the escapes that it has in IR."""
        return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), self.match["template"])


def translated(assembly: Assembly, function: FunctionContext) -> list[str]:
    """Return the lines that stand for an asm statement.

    :raises AssemblyError: it has no form in IR, or is plain already; ``function.block`` may have changed
    """
    return _Translation(assembly, function).lines()


class _Translation:
    """Translates one asm statement.

    :raises AssemblyError: it has no form in IR; nothing was changed but names that were given out
    """

    def __init__(self, assembly: Assembly, function: FunctionContext) -> None:
        self._function = function
        self._assembly = assembly
        location = _LOCATION.search(assembly.rest)
        self._location = location[0] if location is not None else ""
        self._out: list[str] = []
        self._state: dict[str, _Value] = {}
        self._is_live = True  # whether control gets to what comes next
        self._end = 0
        self._block_prefix = function.fresh()
        self._entry_block = function.block
        self._waiting: dict[int, list[tuple[str, dict[str, _Value]]]] = {}
        self._labels: dict[int, str] = {}
        self._outputs: list[tuple[str, str]] = []  # type, register
        self._numbers: dict[int, int] = {}  # operands that are numbers
        self._words: set[int] = set()  # operands that are registers of 32 bits
        self._bind_operands()

    def lines(self) -> list[str]:
        """Return the lines that stand for the statement."""
        template = self._assembly.template
        statements = parse(template, self._numbers, self._words)
        is_call = self._assembly.match["word"] == "call"
        if template.strip() == "" and is_call and self._is_plain():
            raise AssemblyError("")
        if [statement.kind for statement in statements] == ["may_goto"] and template == MAY_GOTO:
            raise AssemblyError("")
        self._end = statements[-1].behind if statements else 0
        clobbers_memory = "~{memory}" in self._assembly.match["constraints"]
        if clobbers_memory:
            self._emit('call void asm sideeffect "", "~{memory}"()')
        for statement in statements:
            self._arrive(statement.slot)
            if not self._is_live:
                raise AssemblyError(f"{statement.text[:60]!r} is not reached")
            self._step(statement)
        self._arrive(self._end)
        if not self._is_live:
            if is_call:
                raise AssemblyError("its end is not reached")
            return self._out
        if clobbers_memory and statements:
            self._emit('call void asm sideeffect "", "~{memory}"()')
        self._result()
        if not is_call:
            self._emit(f"br label {self._assembly.normal}")
        return self._out

    def _is_plain(self) -> bool:
        """Whether empty assembly gives back only what it is given."""
        constraints = self._assembly.match["constraints"].split(",")
        outputs = [piece for piece in constraints if piece.startswith("=") and "*" not in piece]
        tied = {int(piece) for piece in constraints if piece.isdecimal()}
        return tied == set(range(len(outputs)))

    # Operands

    def _bind_operands(self) -> None:
        match = self._assembly.match
        pieces = [piece for piece in match["constraints"].split(",") if piece]
        kinds = _result_types(match["type"])
        arguments = iter(self._assembly.arguments)
        number = 0
        for piece in pieces:
            if piece.startswith("~"):
                continue
            if piece == "!i":
                self._labels[number] = self._assembly.others[len(self._labels)]
            elif piece.startswith("="):
                self._outputs.append((kinds[len(self._outputs)], self._output(piece, number)))
            else:
                kind, value = next(arguments)
                self._input(piece, number, kind, value)
            number += 1

    def _output(self, piece: str, number: int) -> str:
        piece = piece.lstrip("=&")
        if fixed := _FIXED.fullmatch(piece):
            return f"r{fixed[1]}"
        if piece == "w":
            self._words.add(number)
        elif "r" not in piece or "*" in piece:
            raise AssemblyError(f"an output by constraint {piece!r}")
        self._set(f"${number}", _ZERO)
        return f"${number}"

    def _input(self, piece: str, number: int, kind: str, value: str) -> None:
        if piece.isdecimal():
            self._set(self._outputs[int(piece)][1], self._loaded(kind, value))
        elif fixed := _FIXED.fullmatch(piece):
            self._set(f"r{fixed[1]}", self._loaded(kind, value))
        elif any(letter in piece for letter in "in") and (constant := _constant(kind, value)) is not None:
            self._numbers[number] = constant
        elif "*" not in piece and ("r" in piece or piece == "w" or (piece == "i" and kind == "ptr")):
            if piece == "w":
                self._words.add(number)
            self._set(f"${number}", self._loaded(kind, value))
        else:
            raise AssemblyError(f"an operand by constraint {piece!r}")

    def _loaded(self, kind: str, value: str) -> _Value:
        """Return an operand as a register holds it."""
        kind, value = self._function.whole(kind, value)
        if kind in ("i64", "ptr"):
            return _Value(kind, value)
        width = re.fullmatch(r"i(\d+)", kind)
        if width is None or int(width[1]) > 64:
            raise AssemblyError(f"an operand of type {kind}")
        if (constant := _constant(kind, value)) is not None:
            return _Value("i64", str(constant % (1 << int(width[1]))))
        return self._new("i64", f"zext {kind} {value} to i64")

    def _result(self) -> None:
        match = self._assembly.match
        if match["result"] is None:
            return
        values = [(kind, self._as(self._state.get(register, _ZERO), kind)) for kind, register in self._outputs]
        if not match["type"].startswith("{"):
            kind, value = values[0]
            # A name for a value that has one already: an operation that does nothing.
            what = f"getelementptr i8, ptr {value}, i64 0" if kind == "ptr" else f"add {kind} {value}, 0"
            self._emit(f"{match['result']} = {what}")
            return
        structure = "poison"
        for index, (kind, value) in enumerate(values):
            last = index == len(values) - 1
            name = match["result"] if last else f"%{self._function.fresh()}"
            self._emit(f"{name} = insertvalue {match['type']} {structure}, {kind} {value}, {index}")
            structure = name

    # Instructions

    def _step(self, statement: Statement) -> None:
        steps: dict[str, Callable[[Statement], None]] = {
            "arithmetic": self._arithmetic,
            "move": self._move,
            "negate": self._negate,
            "extend": self._extend,
            "swap": self._swap,
            "load": self._load,
            "store": self._store,
            "atomic": self._atomic,
            "branch": self._branch,
            "may_goto": self._may_goto,
            "goto": self._goto,
            "call": self._call,
        }
        steps[statement.kind](statement)

    def _arithmetic(self, statement: Statement) -> None:
        left, right, operator = statement.left, statement.right, statement.operator
        base = self._get(left)
        if _width(statement) == 32:
            one = self._opaque(self._word(base), "i32")
            other = self._operand_text(right, "i32")
            made = self._opaque(self._new("i32", f"{_OPERATIONS[operator]} i32 {one}, {other}").text, "i32")
            self._set(left.name, self._new("i64", f"zext i32 {made} to i64"))
            return
        if base.kind == "ptr" and operator in "+-":
            other = self._operand_text(right, "i64")
            if operator == "-":
                other = self._new("i64", f"sub i64 0, {other}").text
            moved = self._new("ptr", f"getelementptr i8, ptr {self._opaque(base.text, 'ptr')}, i64 {other}")
            self._set(left.name, _Value("ptr", self._opaque(moved.text, "ptr")))
            return
        added = self._get(right)
        if operator == "+" and added.kind == "ptr":
            offset = self._opaque(self._as(base, "i64"), "i64")
            moved = self._new("ptr", f"getelementptr i8, ptr {added.text}, i64 {offset}")
            self._set(left.name, _Value("ptr", self._opaque(moved.text, "ptr")))
            return
        one = self._opaque(self._as(base, "i64"), "i64")
        made = self._new("i64", f"{_OPERATIONS[operator]} i64 {one}, {self._operand_text(right, 'i64')}").text
        self._set(left.name, _Value("i64", self._opaque(made, "i64")))

    def _move(self, statement: Statement) -> None:
        left, right = statement.left, statement.right
        if isinstance(right, int):
            self._set(left.name, _Value("i64", str(right % (1 << 32) if left.is_word else right)))
            return
        value = self._get(right)
        if _width(statement) == 32:
            value = self._new("i64", f"zext i32 {self._word(value)} to i64")
        self._set(left.name, value)

    def _negate(self, statement: Statement) -> None:
        left, right = statement.left, statement.right
        if left.is_word:
            made = self._opaque(self._new("i32", f"sub i32 0, {self._word(self._get(right))}").text, "i32")
            self._set(left.name, self._new("i64", f"zext i32 {made} to i64"))
            return
        made = self._new("i64", f"sub i64 0, {self._as(self._get(right), 'i64')}").text
        self._set(left.name, _Value("i64", self._opaque(made, "i64")))

    def _extend(self, statement: Statement) -> None:
        left, right, bits = statement.left, statement.right, statement.bits
        narrow = self._new(f"i{bits}", f"trunc i64 {self._as(self._get(right), 'i64')} to i{bits}").text
        width = 32 if left.is_word else 64
        if width == bits:
            raise AssemblyError(f"{statement.text[:60]!r} extends nothing")
        made = self._opaque(self._new(f"i{width}", f"sext i{bits} {narrow} to i{width}").text, f"i{width}")
        self._set(left.name, self._new("i64", f"zext i32 {made} to i64") if width == 32 else _Value("i64", made))

    def _swap(self, statement: Statement) -> None:
        left, right, bits = statement.left, statement.right, statement.bits
        value = self._as(self._get(right), "i64")
        if bits < 64:
            value = self._new(f"i{bits}", f"trunc i64 {value} to i{bits}").text
        if statement.operator != "le":  # objects are little-endian
            declarations = self._function.module.declarations
            declarations[f"@llvm.bswap.i{bits}"] = f"declare i{bits} @llvm.bswap.i{bits}(i{bits})"
            value = self._new(f"i{bits}", f"call i{bits} @llvm.bswap.i{bits}(i{bits} {value})").text
        if bits < 64:
            value = self._new("i64", f"zext i{bits} {value} to i64").text
        self._set(left.name, _Value("i64", self._opaque(value, "i64")))

    def _load(self, statement: Statement) -> None:
        left, bits = statement.left, statement.bits
        loaded = self._new(f"i{bits}", f"load volatile i{bits}, ptr {self._address(statement)}, align {bits // 8}")
        how = "zext" if statement.operator == "u" else "sext"
        self._set(left.name, loaded if bits == 64 else self._new("i64", f"{how} i{bits} {loaded.text} to i64"))

    def _store(self, statement: Statement) -> None:
        right, bits = statement.right, statement.bits
        value = self._get(right)
        if value.kind == "ptr" and bits == 64:
            stored = f"ptr {value.text}"
        elif isinstance(right, int):
            stored = f"i{bits} {right % (1 << bits)}"
        else:
            stored = f"i{bits} {self._as(value, f'i{bits}')}"
        self._emit(f"store volatile {stored}, ptr {self._address(statement)}, align {bits // 8}")

    def _atomic(self, statement: Statement) -> None:
        right, bits = statement.right, statement.bits
        operation = _OPERATIONS[statement.operator]
        if bits < 32 or operation == "sub":
            raise AssemblyError(f"{statement.text[:60]!r} is no instruction")
        value = self._as(self._get(right), f"i{bits}")
        self._new(
            f"i{bits}",
            f"atomicrmw {operation} ptr {self._address(statement)}, i{bits} {value} monotonic, align {bits // 8}",
        )

    def _call(self, statement: Statement) -> None:
        if statement.operator:
            result = self._call_by_name(statement.operator)
        else:
            values = [self._state[name] for name in takewhile(self._state.__contains__, _ARGUMENTS)]
            arguments = ", ".join(f"{value.kind} {value.text}" for value in values)
            result = self._new("i64", f"call i64 inttoptr (i64 {statement.right} to ptr)({arguments})")
        for register in ("r0", *_ARGUMENTS):
            self._state.pop(register, None)
        if result is not None:
            self._state["r0"] = result

    def _call_by_name(self, name: str) -> _Value | None:
        """Call a function of the module, or a kfunc; return what it gives."""
        signature = self._function.module.signatures.get(name)
        if signature is None:
            raise AssemblyError(f"call {name}: nothing of that name is declared")
        arguments = [
            f"{kind} {self._as(self._get(Register(register, is_word=False)), kind)}"
            for kind, register in zip(signature.parameters, _ARGUMENTS, strict=False)
        ]
        call = f"call {signature.result} @{name}({', '.join(arguments)})"
        if signature.result == "void":
            self._emit(call)
            return None
        value = self._new(signature.result, call)
        if signature.result in ("ptr", "i64"):
            return value
        return self._new("i64", f"zext {signature.result} {value.text} to i64")

    # Control flow

    def _branch(self, statement: Statement) -> None:
        left, right = statement.left, statement.right
        one, other = self._get(left), self._get(right)
        if _width(statement) == 32:
            kind, first, second = "i32", self._word(one), self._operand_text(right, "i32")
        elif one.kind == "ptr" and other.kind == "ptr":
            kind, first, second = "ptr", one.text, other.text
        else:
            kind, first, second = "i64", self._as(one, "i64"), self._operand_text(right, "i64")
        if statement.operator == "&":
            met = self._new(kind, f"and {kind} {first}, {second}").text
            condition = self._new("i1", f"icmp ne {kind} {met}, 0").text
        else:
            condition = self._new("i1", f"icmp {_PREDICATES[statement.operator]} {kind} {first}, {second}").text
        target, following = self._destination(statement.target), self._following(statement)
        self._emit(f"br i1 {condition}, label {target}, label {following}")
        self._go_on(following)

    def _may_goto(self, statement: Statement) -> None:
        following = self._following(statement)
        target = self._destination(statement.target, keeps_edges=following == self._assembly.normal)
        self._out.append(f'  callbr void asm sideeffect "{MAY_GOTO}", "!i"()')
        self._out.append(f"          to label {following} [label {target}]{self._location}")
        self._go_on(following)

    def _goto(self, statement: Statement) -> None:
        self._emit(f"br label {self._destination(statement.target)}")
        self._is_live = False

    def _following(self, statement: Statement) -> str:
        """Return the block behind a jump that may be taken: of the last one in a callbr where that goes."""
        last = statement.behind == self._end and self._end not in self._waiting
        if last and self._assembly.normal and self._function.block == self._entry_block:
            return self._assembly.normal
        return f"%{self._function.fresh()}"

    def _go_on(self, following: str) -> None:
        if following == self._assembly.normal:
            self._is_live = False
        else:
            self._begin(following[1:])

    def _destination(self, target: Target, *, keeps_edges: bool = False) -> str:
        """Return the block of a target; what registers hold then is noted for it.

        :param keeps_edges: the jump leads to the statement's end, too, as the callbr that it stands for
        """
        if target.operand >= 0:
            if target.operand not in self._labels:
                raise AssemblyError("a label that is no operand")
            if self._outputs:
                raise AssemblyError("outputs at a label of C")
            merges = self._assembly.normal in self._labels.values() and not keeps_edges
            if self._function.block != self._entry_block or merges:
                raise AssemblyError("a label of C is reached in several ways")
            return self._labels[target.operand]
        waiting = self._waiting.setdefault(target.slot, [])
        name = f"{self._block_prefix}.at.{target.slot}"
        waiting.append((self._function.block, dict(self._state)))
        return f"%{name}"

    def _arrive(self, slot: int) -> None:
        """Begin the block that jumps lead to, if any does."""
        waiting = self._waiting.pop(slot, [])
        if not waiting:
            return
        name = f"{self._block_prefix}.at.{slot}"
        if self._is_live:
            waiting.append((self._function.block, self._state))
            self._emit(f"br label %{name}")
        self._begin(name)
        merged: dict[str, _Value] = {}
        for register in waiting[0][1]:
            values = [state.get(register) for _block, state in waiting]
            known = [value for value in values if value is not None]
            if len(known) < len(values):
                continue
            if len(set(known)) == 1:
                merged[register] = known[0]
                continue
            kinds = {value.kind for value in known}
            kind = "ptr" if kinds == {"ptr"} else "i64"
            if len(kinds) > 1 and any(value.kind == "ptr" for value in known):
                continue  # a pointer here, a number there: whoever reads it would have to know
            edges = ", ".join(f"[ {value.text}, {block} ]" for value, (block, _s) in zip(known, waiting, strict=True))
            merged[register] = self._new(kind, f"phi {kind} {edges}")
        self._state, self._is_live = merged, True

    def _begin(self, name: str) -> None:
        self._out += ["", f"{name}:"]
        self._function.block = f"%{name}"

    # Values

    def _get(self, operand: Register | int) -> _Value:
        if isinstance(operand, int):
            return _Value("i64", str(operand))
        if operand.name not in self._state:
            raise AssemblyError(f"{operand.name} is read, and nothing was written to it")
        return self._state[operand.name]

    def _set(self, register: str, value: _Value) -> None:
        if register == "r10":
            raise AssemblyError("the frame pointer is written")
        self._state[register] = value

    def _as(self, value: _Value, kind: str) -> str:
        if value.kind == kind:
            return value.text
        if kind == "ptr":
            return self._new("ptr", f"inttoptr i64 {value.text} to ptr").text
        text = value.text if value.kind == "i64" else self._new("i64", f"ptrtoint ptr {value.text} to i64").text
        return text if kind == "i64" else self._new(kind, f"trunc i64 {text} to {kind}").text

    def _word(self, value: _Value) -> str:
        return self._as(value, "i32")

    def _operand_text(self, operand: Register | int, kind: str) -> str:
        if isinstance(operand, int):
            return str(operand)
        return self._as(self._get(operand), kind)

    def _address(self, statement: Statement) -> str:
        base = self._as(self._get(statement.base), "ptr")
        if statement.offset == 0:
            return base
        return self._new("ptr", f"getelementptr i8, ptr {base}, i64 {statement.offset}").text

    def _opaque(self, value: str, kind: str) -> str:
        """Hand a value through assembly that does nothing."""
        how = "sideeffect " if self._assembly.match["sideeffect"] else ""
        return self._new(kind, f'call {kind} asm {how}"", "=r,0"({kind} {value})').text

    def _new(self, kind: str, what: str) -> _Value:
        name = f"%{self._function.fresh()}"
        self._emit(f"{name} = {what}")
        return _Value(kind, name)

    def _emit(self, what: str) -> None:
        self._out.append(f"  {what}{self._location}")


def _result_types(kind: str) -> list[str]:
    if kind == "void":
        return []
    return split_arguments(kind[1:-1]) if kind.startswith("{") else [kind]


def _constant(kind: str, value: str) -> int | None:
    """Return a constant operand as assembly prints it; None if it is none."""
    if value in ("true", "false"):
        return int(value == "true")
    if re.fullmatch(r"-?\d+", value):
        return int(value)
    if value == "null":
        return 0
    found = re.fullmatch(r"inttoptr \(i64 (\d+) to ptr\)", value)
    return int(found[1]) if found is not None and kind == "ptr" else None


def _width(statement: Statement) -> int:
    """Return the bits that an instruction works on: both of its registers must be of one width."""
    widths = {operand.is_word for operand in (statement.left, statement.right) if isinstance(operand, Register)}
    if len(widths) > 1:
        raise AssemblyError(f"{statement.text[:60]!r} mixes widths")
    return 32 if widths == {True} else 64
