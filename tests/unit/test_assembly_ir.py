"""Inline assembly as IR: what has a form there, and why something has none. What it does is tested in the kernel."""

import re

import llvmlite.binding as llvm
import pytest

from uxdp_bundle.assembly_ir import with_plain_assembly
from uxdp_bundle.bpf_assembly import AssemblyError, Register, Target, parse

HEAD = 'target datalayout = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"\ntarget triple = "bpf"\n'
FILLING = re.compile(r'^  (?:%\S+ = )?call .* asm (?:sideeffect )?"", "[^"]*"', re.MULTILINE)


def plain(body: str, parameters: str = "i64 %0, i64 %1") -> tuple[str, str]:
    """Return what becomes of a function's body, as LLVM prints it, without the empty assembly; and the reason."""
    text, reason = with_plain_assembly(str(llvm.parse_assembly(f"{HEAD}define i64 @f({parameters}) {{\n{body}\n}}\n")))
    module = llvm.parse_assembly(text)
    module.verify()
    return FILLING.sub("", str(module)), reason


def test_arithmetic_is_arithmetic() -> None:
    text, reason = plain('%3 = call i64 asm "$0 &= $1; $0 s>>= 3", "=r,i,0"(i32 255, i64 %0)\nret i64 %3')
    assert (reason, " asm " in text) == ("", False)
    assert "and i64" in text
    assert "ashr i64" in text


def test_number_cut_for_the_assembly_alone_is_whole() -> None:
    text, reason = plain(
        '%3 = trunc i64 %0 to i16\ncallbr void asm sideeffect "if $0 > $1 goto ${2:l}", "r,ri,!i"(i16 %3, i32 9)\n'
        "to label %4 [label %5]\n4:\nret i64 1\n5:\nret i64 2"
    )
    assert reason == ""
    assert "icmp ugt i64 %0, 9" in text


def test_narrow_number_is_filled_with_zeros() -> None:
    text, reason = plain('%3 = call i64 asm "$0 = $1", "=r,r"(i32 %0)\nret i64 %3', "i32 %0, i64 %1")
    assert reason == ""
    assert "zext i32 %0 to i64" in text


def test_output_that_is_not_written_is_zero() -> None:
    text, reason = plain('%3 = call i64 asm "", "=r"()\nret i64 %3')
    assert (reason, " asm " in text) == ("", False)
    assert "add i64 0, 0" in text


def test_jumps_inside_of_the_text_become_blocks() -> None:
    text, reason = plain(
        '%3 = call i64 asm "if $1 > 4 goto +2\\0A$0 = 1\\0Agoto +1\\0A$0 = 2", "=&r,r"(i64 %0)\nbr label %4\n'
        "4:\n%5 = phi i64 [ %3, %2 ]\nret i64 %5"
    )
    assert (reason, " asm " in text) == ("", False)
    assert re.search(r"phi i64 \[ (1|2), %\S+ \], \[ (1|2), %\S+ \]", text)


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param("to label %3 [label %4]\n3:\nret i64 1\n4:\nret i64 2", id="two-blocks"),
        pytest.param("to label %3 [label %3]\n3:\n%4 = phi i64 [1, %2], [1, %2]\nret i64 %4", id="one-block"),
    ],
)
def test_may_goto_stays_assembly_of_its_own(blocks: str) -> None:
    body = 'callbr void asm sideeffect "{}", "!i"()\n' + blocks
    named, _reason = plain(body.format("may_goto ${0:l}"))
    in_bytes, reason = plain(body.format("1:.byte 0xe5; .byte 0; .long ((${0:l} - 1b - 8) / 8) & 0xffff;\\09 .short 0"))
    assert reason == ""
    assert named == in_bytes
    assert 'asm sideeffect "may_goto ${0:l}", "!i"()' in named


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        pytest.param("r0 = r0", "r0 is read, and nothing was written to it", id="unset"),
        pytest.param("$0 = r10", "r10 is read", id="frame-pointer-read"),
        pytest.param("r10 = $0", "the frame pointer is written", id="frame-pointer-written"),
        pytest.param("exit", "'exit' is not understood", id="exit"),
        pytest.param("call bpf_throw", "call bpf_throw: nothing of that name is declared", id="kfunc"),
        pytest.param("r1 = 3; call f", "r2 is read, and nothing was written to it", id="argument"),
        pytest.param("$0 += 4294967296", "no number that fits", id="immediate"),
        pytest.param("1: $0 += 1; goto 1b", "leads to no place further down", id="back"),
        pytest.param("l: $0 += 1; if $0 < 5 goto l", "leads to no place further down", id="back-to-a-label"),
        pytest.param("goto +7", "leads to no place further down", id="out"),
        pytest.param("goto +1; $0 = 1; $0 = 2", "'$0 = 1' is not reached", id="dead"),
        pytest.param(".byte 1", "'.byte 1' is not understood", id="bytes"),
        pytest.param("w1 = 1; $0 += w1", "mixes widths", id="widths"),
        pytest.param("lock *(u8 *)($0 + 0) += $0", "is no instruction", id="atomic-byte"),
        pytest.param("$0 = *(u64 *)($0 + 99999)", "no number that fits", id="offset"),
        pytest.param("if $0 == 1 goto ${5:l}", "a label that is no operand", id="label"),
    ],
)
def test_what_has_no_form_in_ir_stays_and_says_why(template: str, reason: str) -> None:
    text, seen = plain(f'%3 = call i64 asm sideeffect "{template}", "=r,0"(i64 %0)\nret i64 %3')
    assert reason in seen
    assert template in text


def test_operand_in_memory_stays() -> None:
    _text, reason = plain('call void asm "*(u64 *)$0 = 1", "*m"(ptr elementtype(i64) null)\nret i64 0')
    assert reason == "an operand by constraint '*m'"


def test_parse_reads_registers_labels_and_comments() -> None:
    statements = parse(
        "$0 = ${1} // first\n  w3 += -0x10; /* none */\nif r1 s< $$ goto x;;x:".replace("$$", "5"), {1: 7}
    )
    assert [statement.kind for statement in statements] == ["move", "arithmetic", "branch"]
    assert (statements[0].left, statements[0].right) == (Register("$0", is_word=False), 7)
    assert (statements[1].left, statements[1].right) == (Register("r3", is_word=True), -16)
    assert statements[2].target == Target(slot=3)


def test_parse_bounds_its_work() -> None:
    with pytest.raises(AssemblyError, match="more than 4096 instructions"):
        parse("r0 = 1\n" * 5000, {})
