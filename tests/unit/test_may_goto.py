"""may_goto on its way from IR to an object: where it stands there, and that nothing else becomes one."""

import llvmlite.binding as llvm
import pytest

from uxdp_bundle import may_goto
from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.defined_ir import defined
from uxdp_bundle.instructions import Code
from uxdp_bundle.ir_promises import UndefinedIrError
from uxdp_bundle.ir_rules import find_violation

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()

HEAD = 'target datalayout = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"\ntarget triple = "bpf"\n'
# Counts to %0 at most. The loop's phi names the block that the jump ends; so does that of the end.
LOOP = """
define i64 @f(i64 %0) section "xdp" {
  br label %2

2:
  %3 = phi i64 [ 0, %1 ], [ %6, %5 ]
  %4 = icmp eq i64 %3, %0
  br i1 %4, label %8, label %5

5:
  %6 = add i64 %3, 1
  callbr void asm sideeffect "may_goto ${0:l}", "!i"()
          to label %2 [label %7]

7:
  br label %8

8:
  %9 = phi i64 [ %3, %2 ], [ %6, %7 ]
  ret i64 %9
}
"""
# The first block's own jump: to the end at once, with a comparison with one of the numbers beside it.
FIRST = """
define i64 @f(i64 %0) section "xdp" {
  %2 = icmp eq i64 %0, 1835104615
  %3 = zext i1 %2 to i64
  callbr void asm sideeffect "may_goto ${0:l}", "!i"()
          to label %4 [label %6]

4:
  %5 = icmp eq i64 %0, 1835104615
  br i1 %5, label %6, label %7

6:
  %x = phi i64 [ %3, %1 ], [ 5, %4 ]
  ret i64 %x

7:
  ret i64 9
}
"""


def lowered(text: str) -> BpfObject:
    machine = llvm.Target.from_triple("bpfel").create_target_machine(cpu="v3", opt=2)
    module = llvm.parse_assembly(defined(str(llvm.parse_assembly(HEAD + text))))
    assert find_violation(module) is None
    assert defined(str(module)) == str(module)
    data = may_goto.lower(
        module, lambda other: machine.emit_object(module if other is None else llvm.parse_assembly(other))
    )
    return BpfObject(data)


def codes(obj: BpfObject) -> list[int]:
    code = Code(obj)
    return [instruction.code for instructions in code.sections.values() for instruction in instructions]


@pytest.mark.parametrize("text", [LOOP, FIRST], ids=["loop", "first-block"])
def test_lower_makes_one_instruction_of_it(text: str) -> None:
    obj = lowered(text)
    assert codes(obj).count(0xE5) == 1
    (section,) = [section for section in obj.sections if section.name == "xdp"]
    at = codes(obj).index(0xE5)
    raw = section.data[8 * at : 8 * at + 8]
    assert raw[1] == 0
    assert raw[4:] == bytes(4)


def test_lower_leaves_comparisons_with_its_numbers_alone() -> None:
    obj = lowered(FIRST)
    assert bytes.fromhex("6779616d") in next(section.data for section in obj.sections if section.name == "xdp")


def test_lower_jumps_out_of_the_loop() -> None:
    obj = lowered(LOOP)
    instructions = next(iter(Code(obj).sections.values()))
    at = next(slot for slot, instruction in enumerate(instructions) if instruction.code == 0xE5)
    target = at + 1 + instructions[at].offset
    assert target > at
    assert instructions[-1].code == 0x95


def test_lower_refuses_what_differs_elsewhere() -> None:
    module = llvm.parse_assembly(HEAD + LOOP)
    objects = iter([b"\x7fELF" + bytes(60), b"\x7fELF" + bytes(59) + b"x"])
    with pytest.raises(may_goto.MayGotoError, match="differ elsewhere"):
        may_goto.lower(module, lambda _text: next(objects))


def test_defined_refuses_another_callbr() -> None:
    text = LOOP.replace('"may_goto ${0:l}", "!i"()', '"may_goto ${1:l}", "r,!i"(i64 %0)')
    with pytest.raises(UndefinedIrError, match="callbr"):
        defined(str(llvm.parse_assembly(HEAD + text)))
