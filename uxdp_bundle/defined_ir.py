"""Make IR mean one thing on every machine: remove its promises, and define what LLVM leaves undefined.

The kernel's verifier judges the object, and native code comes from the IR. That both are made of one module proves
nothing while the module holds undefined behaviour, for then each backend may choose what it means: a false promise
(nuw, !range, llvm.assume, nonnull, …) may leave the object as it is and yet let an optimiser drop a bounds check that
the verifier relied on. So IR is made defined *before* it is lowered, and both object and native code are made of that.

- Promises go: attributes, flags, metadata, assumptions, invariants (see ir_promises). What asks how much the compiler
  knows (llvm.is.constant, llvm.objectsize) is answered: nothing.
- undef and poison are zero, and unreachable returns zero: a verified program does not get there.
- Shifts take their amount modulo the width; division by zero gives 0, and the dividend as the remainder; the most
  negative number divided by -1 is itself. So BPF's instructions do.
- A bool in memory is a byte; functions are called by their own type and by the C convention, or not at all.
- An atomic operation whose result is used is ordered, for the BPF backend leaves out the result of one that is not.
- Stack slots live as long as their function if they fit into a BPF frame so, for slots that share memory hold one
  another's pointers, on BPF alone.

``defined`` changes nothing in what it has made. It runs in confined children, on what ir_rules let pass.

References: LLVM Language Reference Manual; Linux, Documentation/bpf/standardization/instruction-set.rst
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

from . import may_goto
from .ir_promises import (
    Signature,
    UndefinedIrError,
    plain_call,
    plain_constants,
    plain_group,
    plain_header,
)
from .ir_syntax import NAME, end_of_type, split_arguments, type_bytes

_V: Final = rf"%{NAME}"
_OPERAND: Final = rf"(?:{_V}|-?\d+|true|false|null|zeroinitializer)"
_REST: Final = r"(?P<rest>(?:, !.*)?)$"
_OPCODE: Final = re.compile(rf"^  (?:{_V} = )?(?P<opcode>[a-z]+)\b")
_OPCODES: Final = frozenset(
    (
        *("ret", "br", "switch", "unreachable", "call", "phi", "select", "freeze", "icmp", "fcmp"),
        *("tail", "musttail", "notail"),
        *("add", "sub", "mul", "udiv", "sdiv", "urem", "srem", "shl", "lshr", "ashr", "and", "or", "xor"),
        *("alloca", "load", "store", "getelementptr", "fence", "cmpxchg", "atomicrmw"),
        *("trunc", "zext", "sext", "ptrtoint", "ptrtoaddr", "inttoptr", "bitcast", "addrspacecast"),
        *("extractvalue", "insertvalue", "extractelement", "insertelement", "shufflevector"),
        *("fneg", "fadd", "fsub", "fmul", "fdiv", "frem", "fptrunc", "fpext", "fptoui", "fptosi", "uitofp", "sitofp"),
    )
)
_SHIFTS: Final = frozenset({"shl", "lshr", "ashr"})
_DIVISIONS: Final = frozenset({"udiv", "sdiv", "urem", "srem"})
_BINARY: Final = re.compile(
    rf"^  (?P<name>{_V}) = (?P<opcode>[a-z]+) i(?P<width>\d+) (?P<left>{_OPERAND}), (?P<right>{_OPERAND}){_REST}"
)
_LANES: Final = re.compile(r", (?:<(?:i\d+ -?\d+(?:, )?)+>|splat \(i\d+ -?\d+\))(?:, !.*)?$")
_AND: Final = re.compile(rf"^  (?P<name>{_V}) = and i\d+ {_OPERAND}, (?P<mask>\d+){_REST}")
_UREM: Final = re.compile(rf"^  (?P<name>{_V}) = urem i\d+ {_OPERAND}, (?P<divisor>[1-9]\d*){_REST}")
_EQUAL: Final = re.compile(rf"^  (?P<name>{_V}) = icmp eq i\d+ (?P<value>{_V}), (?P<number>0|-1){_REST}")
_EITHER: Final = re.compile(rf"^  (?P<name>{_V}) = or i1 (?P<one>{_V}), (?P<other>{_V}){_REST}")
_INSTEAD: Final = re.compile(rf"^  (?P<name>{_V}) = select i1 (?P<condition>{_V}), i\d+ 1, i\d+ (?P<value>{_V}){_REST}")
_ELEMENT: Final = re.compile(r", i\d+ (?P<index>\d+)(?:, !.*)?$")
_LANE_COUNT: Final = re.compile(r"element <(\d+) x ")
_RELAXED: Final = re.compile(
    rf"^  (?P<name>{_V}) = atomicrmw (?:volatile )?(?:add|sub|and|or|xor) .* (?P<order>monotonic)(?=, |$)"
)
_ACCESS: Final = re.compile(rf"^  (?:(?P<name>{_V}) = )?(?P<how>(?:load|store) (?:atomic )?(?:volatile )?)")
_WIDTH: Final = re.compile(r"\bi(\d+)\b")
_LANE_WIDTH: Final = re.compile(r"<\d+ x i(\d+)>")
_LANE: Final = re.compile(r" (-?\d+)")
_TAKEN: Final = re.compile(r"%uxdp(x*)\.")
_GROUP: Final = re.compile(r"(?<= )#\d+")
_LOCATION: Final = re.compile(r", !dbg !\d+")
_ALLOCA: Final = re.compile(
    rf"^  {_V} = alloca (?:(?:inalloca|swifterror) )*(?P<type>.+?)(?:, i\d+ (?P<count>\d+))?"
    r"(?:, align \d+)?(?:, addrspace\(\d+\))?(?:, !.*)?$"
)
_PROMISED: Final = re.compile(
    rf"^  (?:{_V} = )?(?:(?:tail|musttail|notail) )?call \S+ "
    r"@llvm\.(?:assume|invariant\.end|experimental\.noalias\.scope\.decl)\b"
)
_LIFETIME: Final = re.compile(r"^  call void @llvm\.lifetime\.(?:start|end)\.")
_ASKED: Final = re.compile(
    rf"^  (?P<name>{_V}) = call (?P<type>ptr|i\d+) @llvm\.(?P<what>is\.constant|objectsize|invariant\.start)\."
    r"[^(]*\((?P<arguments>.*)\)(?P<rest>.*)$"
)
_ZERO_IS_POISON: Final = re.compile(rf"^(  (?:{_V} = )?call i\d+ @llvm\.(?:ctlz|cttz|abs)\.[^(]*\(.*, i1 )true\)")
_SATURATING: Final = re.compile(
    rf"^  (?:{_V} = )?call \S+ @llvm\.[us]shl\.sat\.i(?P<width>\d+)\(i\d+ [^,]*, i\d+ (?P<amount>[^,)]+)\)"
)
_TYPE_DEFINITION: Final = re.compile(rf"^(?P<name>{_V}) = type (?P<body>.*)$")
# Slots that share no memory: so many bytes leave room for registers in a frame of 512 (MAX_BPF_STACK, linux/filter.h).
_MAX_SEPARATE_BYTES: Final = 384


def defined(text: str) -> str:
    """Return the text of a module that means the same everywhere.

    :param text: as LLVM prints a module that it has verified
    :raises UndefinedIrError: the module does what no meaning can be given to
    """
    try:
        return _defined(text)
    except ValueError as cause:
        raise UndefinedIrError("text", f"it cannot be read: {cause}") from cause


def _defined(text: str) -> str:
    lines = text.split("\n")
    types: dict[str, str] = {}
    signatures: dict[str, Signature] = {}
    for line in lines:
        if line.startswith(("define ", "declare ")):
            if "@llvm." not in line:
                _plain, name, signature = plain_header(line)
                signatures[name] = signature
        elif line.startswith("%") and (match := _TYPE_DEFINITION.match(line)):
            types[match["name"]] = match["body"]
    taken = {len(match[1]) for match in _TAKEN.finditer(text)}
    prefix = "uxdp" + "x" * next(number for number in range(len(taken) + 1) if number not in taken)
    shared = _Module(types, signatures, prefix, any(_has_odd_width(body) for body in types.values()))
    made: list[str] = []
    body: list[str] | None = None
    header, function, result = "", "", ""
    for line in lines:
        if body is not None:
            if line == "}":
                made += [header, *_Function(function, result, body, shared).defined(), line]
                body = None
            else:
                body.append(line)
        elif line.startswith("define "):
            header, function, signature = plain_header(line)
            result, body = signature.result, []
        elif line.startswith("declare ") and "@llvm." not in line:
            made.append(plain_header(line)[0])
        elif line.startswith("@"):
            made.append(plain_constants(line))
        else:
            made.append(line)
    return "\n".join(_plain_groups(made))


def _plain_groups(lines: list[str]) -> Iterator[str]:
    """Yield the lines with groups of attributes made plain, but for those of intrinsics, which LLVM itself decides."""
    used: set[str] = set()
    for line in lines:
        if (
            " #" in line
            and not line.startswith("attributes ")
            and not (line.startswith("declare ") and "@llvm." in line)
        ):
            used.update(_GROUP.findall(line))
    for line in lines:
        is_plain = line.startswith("attributes #") and line.split(" ", 2)[1] in used
        yield plain_group(line) if is_plain else line


@dataclass(frozen=True, slots=True)
class _Module:
    """What functions share: named types, signatures, the beginning of new names, whether a type has odd members."""

    types: dict[str, str]
    signatures: dict[str, Signature]
    prefix: str
    has_odd_types: bool


class _Function:
    """One function: knows which shift amounts and divisors are safe, and gives what is not a meaning."""

    def __init__(self, name: str, result: str, lines: list[str], module: _Module) -> None:
        self._name = name
        self._result = result
        self._lines = lines
        self._module = module
        self._made = 0
        self._masks: dict[str, int] = {}
        self._divisors: dict[str, set[int]] = {}  # value -> the numbers that it is not
        self._learn()
        self._separate = self._stack_bytes() <= _MAX_SEPARATE_BYTES

    def defined(self) -> Iterator[str]:
        """Yield the lines of the function's body."""
        in_switch = in_callbr = False
        for line in self._lines:
            if in_callbr:  # "          to label %4 [label %7]"
                match = may_goto.DESTINATIONS.match(line)
                if match is None:
                    self._refuse("a callbr that cannot be read", line)
                yield line[: match.start("rest")]
                in_callbr = False
            elif may_goto.IN_IR.match(line):
                in_callbr = True
                yield line
            elif in_switch:  # "    i32 1, label %3"
                in_switch = line != "  ]" and not line.startswith("  ], ")
                yield plain_constants(line)
            elif not line.startswith("  ") or line.startswith("    #dbg_"):
                yield line  # labels and debug records
            else:
                in_switch = line.startswith("  switch ") and line.endswith("[")
                yield from self._instruction(line)

    def _instruction(self, line: str) -> Iterator[str]:
        match = _OPCODE.match(line)
        opcode = match["opcode"] if match is not None else ""
        if opcode not in _OPCODES:
            raise UndefinedIrError("instruction", f"function {self._name}: {line.strip()[:80]!r}")
        line = plain_constants(line)
        if opcode in ("call", "tail", "musttail", "notail"):
            if _PROMISED.match(line):
                return
            yield from self._call(plain_call(line, self._module.signatures, self._name))
        elif opcode in _SHIFTS:
            yield from self._shift(line)
        elif opcode in _DIVISIONS:
            yield from self._division(line)
        elif opcode in ("load", "store"):
            yield from self._memory(line)
        elif opcode == "atomicrmw":
            yield self._ordered(line)
        elif opcode == "unreachable":
            location = _LOCATION.search(line)
            value = "void" if self._result == "void" else f"{self._result} zeroinitializer"
            yield f"  ret {value}{location[0] if location is not None else ''}"
        elif opcode in ("extractelement", "insertelement"):
            index, count = _ELEMENT.search(line), _LANE_COUNT.search(line)
            if index is None or count is None or int(index["index"]) >= int(count[1]):
                self._refuse("a vector's element without a constant index", line)
            yield line
        else:
            yield line

    def _call(self, line: str) -> Iterator[str]:
        if "@llvm." not in line:
            yield line
        elif self._separate and _LIFETIME.match(line):
            return
        elif match := _ASKED.match(line):
            what = f"add {match['type']} 0, {self._answer(match)}"
            if match["what"] == "invariant.start":
                what = "getelementptr i8, ptr null, i64 0"
            location = _LOCATION.search(match["rest"])
            yield f"  {match['name']} = {what}{location[0] if location is not None else ''}"
        else:
            shift = _SATURATING.match(line)
            if "shl.sat." in line and (
                shift is None or not shift["amount"].isdecimal() or int(shift["amount"]) >= int(shift["width"])
            ):
                self._refuse("a saturating shift by an amount that is not constant", line)
            yield _ZERO_IS_POISON.sub(r"\1false)", line)

    def _answer(self, match: re.Match[str]) -> str:
        """Return what llvm.is.constant and llvm.objectsize say if the compiler knows nothing."""
        if match["what"] != "objectsize":
            return "0"
        return "0" if split_arguments(match["arguments"])[1] == "i1 true" else "-1"

    def _shift(self, line: str) -> Iterator[str]:
        match = _BINARY.match(line)
        if match is None:
            self._check_lanes(line, lambda number, width: 0 <= number < width)
            yield line
            return
        width, amount = int(match["width"]), match["right"]
        head = f"  {match['name']} = {match['opcode']} i{width} {match['left']}, "
        if amount.startswith("%"):
            if self._masks.get(amount, width) >= width:
                safe = self._fresh()
                # Widths that are no power of two do not occur in C; what modulo means there is ours to say.
                how = (
                    f"and i{width} {amount}, {width - 1}"
                    if width & (width - 1) == 0
                    else f"urem i{width} {amount}, {width}"
                )
                yield f"  {safe} = {how}{match['rest']}"
                amount = safe
        else:
            amount = str(_number(amount) % width)
        yield f"{head}{amount}{match['rest']}"

    def _division(self, line: str) -> Iterator[str]:
        match = _BINARY.match(line)
        if match is None:
            self._check_lanes(line, lambda number, _width: number not in (0, -1))
            yield line
            return
        opcode, kind, left, right = match["opcode"], f"i{match['width']}", match["left"], match["right"]
        signed, remainder, rest = opcode[0] == "s", opcode.endswith("rem"), match["rest"]
        bad = {0, -1} if signed else {0}
        if not right.startswith("%"):
            number = _number(right)
            if number == 0:
                yield f"  {match['name']} = add {kind} {left if remainder else '0'}, 0{rest}"
            elif number == -1 and signed:
                yield f"  {match['name']} = {f'add {kind} 0, 0' if remainder else f'sub {kind} 0, {left}'}{rest}"
            else:
                yield line
            return
        if bad <= self._divisors.get(right, set()):
            yield line
            return
        is_zero, divisor, quotient = self._fresh(), self._fresh(), self._fresh()
        yield f"  {is_zero} = icmp eq {kind} {right}, 0{rest}"
        condition = is_zero
        if signed:
            is_minus, condition = self._fresh(), self._fresh()
            yield f"  {is_minus} = icmp eq {kind} {right}, -1{rest}"
            yield f"  {condition} = or i1 {is_zero}, {is_minus}{rest}"
        yield f"  {divisor} = select i1 {condition}, {kind} 1, {kind} {right}{rest}"
        yield f"  {quotient} = {opcode} {kind} {left}, {divisor}{rest}"
        if signed and not remainder:  # x % 1 is 0, which x % -1 is too; x / -1 is -x
            negated, chosen = self._fresh(), self._fresh()
            yield f"  {negated} = sub {kind} 0, {left}{rest}"
            yield f"  {chosen} = select i1 {is_minus}, {kind} {negated}, {kind} {quotient}{rest}"
            quotient = chosen
        value = left if remainder else "0"
        yield f"  {match['name']} = select i1 {is_zero}, {kind} {value}, {kind} {quotient}{rest}"

    def _memory(self, line: str) -> Iterator[str]:
        """Let a bool in memory be a byte; what else is not whole bytes has bits that are nobody's."""
        match = _ACCESS.match(line)
        if match is None:
            self._refuse("an access to memory that cannot be read", line)
        kind = line[match.end() : end_of_type(line, match.end())]
        rest = line[match.end() + len(kind) :]
        location = _LOCATION.search(rest)
        where = location[0] if location is not None else ""
        if kind == "i1" and match["name"]:
            byte = self._fresh()
            yield f"  {byte} = {match['how']}i8{rest}"
            yield f"  {match['name']} = trunc i8 {byte} to i1{where}"
        elif kind == "i1":
            value, _comma, place = rest[1:].partition(", ptr")
            byte = self._fresh()
            yield f"  {byte} = zext i1 {value} to i8{where}"
            yield f"{match[0]}i8 {byte}, ptr{place}"
        elif _has_odd_width(kind) or (kind.startswith("%") and self._module.has_odd_types):
            self._refuse("memory of a type that is not whole bytes", line)
        else:
            yield line

    def _ordered(self, line: str) -> str:
        """Let an operation whose result is used be one that the backend gives a result: lock add has none."""
        match = _RELAXED.match(line)
        if match is None:
            return line
        used = re.compile(rf"{re.escape(match['name'])}(?![-\w$.])")
        if sum(len(used.findall(other)) for other in self._lines) == 1:
            return line
        return f"{line[: match.start('order')]}acquire{line[match.end('order') :]}"

    def _learn(self) -> None:
        """Find amounts and divisors that are safe already, as what was defined before has them."""
        equal: dict[str, tuple[str, int]] = {}
        either: dict[str, tuple[str, str]] = {}
        for line in self._lines:
            if " = and i" in line and (match := _AND.match(line)):
                self._masks[match["name"]] = int(match["mask"])
            elif " = urem i" in line and (match := _UREM.match(line)):
                self._masks[match["name"]] = int(match["divisor"]) - 1
            elif " = icmp eq i" in line and (match := _EQUAL.match(line)):
                equal[match["name"]] = (match["value"], int(match["number"]))
            elif " = or i1 " in line and (match := _EITHER.match(line)):
                either[match["name"]] = (match["one"], match["other"])
            elif " = select i1 " in line and (match := _INSTEAD.match(line)):
                conditions = either.get(match["condition"], (match["condition"],))
                known = [equal[condition] for condition in conditions if condition in equal]
                self._divisors[match["name"]] = {number for value, number in known if value == match["value"]}

    def _stack_bytes(self) -> int:
        total = 0
        for line in self._lines:
            if " = alloca " in line and (match := _ALLOCA.match(line)):
                total += _slot_bytes(match["type"], self._module.types) * int(match["count"] or 1)
        return total

    def _check_lanes(self, line: str, is_safe: Callable[[int, int], bool]) -> None:
        lanes, width = _LANES.search(line), _LANE_WIDTH.search(line)
        if lanes is None or width is None:
            self._refuse("a shift or division of vectors by what is not constant", line)
        elif not all(is_safe(int(number), int(width[1])) for number in _LANE.findall(lanes[0])):
            self._refuse("a shift or division of vectors by what it has no meaning for", line)

    def _refuse(self, what: str, line: str) -> NoReturn:
        raise UndefinedIrError("undefined", f"function {self._name}: {what}: {line.strip()[:80]!r}")

    def _fresh(self) -> str:
        self._made += 1
        return f"%{self._module.prefix}.{self._made}"


def _slot_bytes(kind: str, types: dict[str, str]) -> int:
    try:
        return type_bytes(kind, types)[0]
    except ValueError:  # of a size that is not constant: BPF has no such slots, and LLVM will say so
        return 0


def _has_odd_width(kind: str) -> bool:
    return any(int(width) % 8 for width in _WIDTH.findall(kind))


def _number(operand: str) -> int:
    return int(operand) if operand.lstrip("-").isdecimal() else int(operand == "true")
