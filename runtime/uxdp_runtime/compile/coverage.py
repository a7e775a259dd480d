"""Count the edges that a program takes, and note what it compares: for code that is run to be explored, never to serve.

Every way that a condition can go has a counter: the two of a conditional branch, the cases of a switch, the two values
of a select, which is how LLVM writes small branches; and every function. Critical edges were split before, so that an
edge's counter stands in the block that the edge leads to. Counters are bytes that stay at 255.

For every comparison of integers the values that were compared last are kept: who wants it to come out otherwise can
look for the one in what was given, and put the other in its place (as in AFL++'s CmpLog, or LLVM's trace-cmp).

What the native module defines besides:

    @uxdp_edges = global [N x i8]          the counters
    @uxdp_compared = global [2 * M x i64]  the two operands of each comparison, extended with zeros
    @uxdp_num_edges, @uxdp_num_compared    constants of i32: N and M
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from uxdp_bundle.ir_syntax import NAME

from .ir_text import Function, Module, result_of
from .unreached import reached

EDGES: Final = "uxdp_edges"
NUM_EDGES: Final = "uxdp_num_edges"
COMPARED: Final = "uxdp_compared"
NUM_COMPARED: Final = "uxdp_num_compared"
EXPORTED: Final = (EDGES, NUM_EDGES, COMPARED, NUM_COMPARED)

_LABEL: Final = re.compile(rf"^(?P<name>{NAME}):")
_BRANCH: Final = re.compile(rf"^  br i1 [^,]+, label %(?P<one>{NAME}), label %(?P<other>{NAME})")
_SWITCH: Final = re.compile(rf"^  switch i\d+ [^,]+, label %(?P<default>{NAME}) \[")
_CASE: Final = re.compile(rf"^    i\d+ -?\d+, label %(?P<target>{NAME})$")
_SELECT: Final = re.compile(r"select i1 (?P<condition>%[^,]+), ")
_COMPARISON: Final = re.compile(
    r"icmp (?:samesign )?\w+ i(?P<width>8|16|32|64) (?P<one>%[^,\s]+|-?\d+), (?P<other>%[^,\s]+|-?\d+)"
)
# What defined_ir makes, such as a guard of a division, is no decision of the program's.
_MADE: Final = re.compile(r"%uxdpx*\.\d+")
_TAIL_CALL: Final = re.compile(r"call .*\binttoptr \(i64 12 to ptr\)\(")
_ADD: Final = "declare i8 @llvm.uadd.sat.i8(i8, i8)"


def split_critical_edges(llvm: Any, bundle: Any) -> None:
    """Give every edge between two blocks of which the one has several ways out, the other several in, one of its own.

    :param llvm: llvmlite.binding
    :param bundle: a parsed module
    """
    machine = llvm.Target.from_triple("bpfel").create_target_machine()
    passes = llvm.create_new_module_pass_manager()
    passes.add_break_critical_edges_pass()
    passes.run(bundle, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))


def instrument(module: Module, entry: str, programs: Iterable[str]) -> None:
    """Add counters to what can be reached from a program.

    :param entry: the program
    :param programs: those that a tail call may lead to
    """
    functions = {function.name: function for function in module.functions}
    counted = reached(functions, [entry])
    if any(_TAIL_CALL.search(line) for name in counted for line in functions[name].lines):
        counted = reached(functions, programs)
    counters = _Counters()
    for name in sorted(counted):
        counters.add_to(functions[name])
    module.items += [
        f"@{EDGES} = global [{max(1, counters.edges)} x i8] zeroinitializer, align 16",
        f"@{NUM_EDGES} = constant i32 {counters.edges}",
        f"@{COMPARED} = global [{max(1, 2 * counters.compared)} x i64] zeroinitializer, align 16",
        f"@{NUM_COMPARED} = constant i32 {counters.compared}",
    ]
    if not any(isinstance(item, str) and item.startswith("declare i8 @llvm.uadd.sat.i8(") for item in module.items):
        module.items.append(_ADD)


class _Counters:
    def __init__(self) -> None:
        self.edges = 0
        self.compared = 0
        self._made = 0

    def add_to(self, function: Function) -> None:
        """Add counters to one function."""
        targets = set(_targets(function))
        lines: list[str] = []
        is_due = True  # of the block at hand: it begins with a function
        for number, line in enumerate(function.lines):
            if match := _LABEL.match(line):
                is_due = number == 0 or match["name"] in targets
                lines.append(line)
                continue
            if is_due and " = phi " not in line:
                lines += self._counted(str(self.edges))
                self.edges += 1
                is_due = False
            lines += self._before(line)
            lines.append(line)
        function.lines = lines

    def _before(self, line: str) -> Iterator[str]:
        defined = result_of(line)
        if defined is None:
            return
        if (match := _SELECT.match(defined[1])) and not _MADE.fullmatch(match["condition"]):
            which, index = self._fresh(), self._fresh()
            yield f"  {which} = zext i1 {match['condition']} to i64"
            yield f"  {index} = add i64 {which}, {self.edges}"
            yield from self._counted(index)
            self.edges += 2
        elif (match := _COMPARISON.match(defined[1])) and not _MADE.fullmatch(defined[0]):
            for place, operand in enumerate((match["one"], match["other"])):
                target = f"getelementptr (i64, ptr @{COMPARED}, i64 {2 * self.compared + place})"
                if operand.startswith("%") and match["width"] != "64":
                    wide = self._fresh()
                    yield f"  {wide} = zext i{match['width']} {operand} to i64"
                    operand = wide
                elif not operand.startswith("%"):
                    operand = str(int(operand) & (1 << int(match["width"])) - 1)
                yield f"  store i64 {operand}, ptr {target}, align 8"
            self.compared += 1

    def _counted(self, index: str) -> Iterator[str]:
        place, before, after = self._fresh(), self._fresh(), self._fresh()
        yield f"  {place} = getelementptr i8, ptr @{EDGES}, i64 {index}"
        yield f"  {before} = load i8, ptr {place}, align 1"
        yield f"  {after} = call i8 @llvm.uadd.sat.i8(i8 {before}, i8 1)"
        yield f"  store i8 {after}, ptr {place}, align 1"

    def _fresh(self) -> str:
        self._made += 1
        return f'%"uxdp.coverage.{self._made}"'


def _targets(function: Function) -> Iterator[str]:
    """Yield the labels that conditions lead to."""
    for line in function.lines:
        if match := _BRANCH.match(line):
            yield from (match["one"], match["other"])
        elif match := _SWITCH.match(line):
            yield match["default"]
        elif match := _CASE.match(line):
            yield match["target"]
