"""The parts of ``verify`` that need no kernel: who may make its results, logs, constants, places of instructions."""

import dataclasses
from typing import Any

import pytest

from tests.bound_bundles import bound_case
from tests.bundle_factory import build_case
from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.container import bundle_from_bytes
from uxdp_bundle.errors import ObjectError, UnsupportedFeatureError
from uxdp_bundle.facts import object_facts
from uxdp_bundle.manifest import Param
from uxdp_runtime.bpf import libbpf, verifier_log
from uxdp_runtime.bpf.constants import encode_constants, parse_value
from uxdp_runtime.bpf.loading import default_programs
from uxdp_runtime.bpf.relocation import CoreKind, CoreValue, LoadedCode, ObjectCode, Place, decode
from uxdp_runtime.errors import ParameterError
from uxdp_runtime.verify import VerifiedObject, VerifiedProgram, verify


def object_of(case: str) -> bytes:
    with bundle_from_bytes(build_case(case)) as bundle:
        return bytes(bundle.object)


# --- only verify makes them ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [VerifiedProgram, VerifiedObject])
def test_verified_things_are_made_by_verify_alone(kind: Any) -> None:
    arguments = dict.fromkeys(field.name for field in dataclasses.fields(kind) if field.init)
    if kind is VerifiedObject:
        arguments["loaded"] = None
    with pytest.raises(TypeError, match="made by verify"):
        kind(**arguments, maker=object())
    with pytest.raises(TypeError, match="cannot be derived from"):
        type("Other", (kind,), {})


def test_verify_without_libbpf_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "_LIBRARY", "libbpf-that-is-not-there.so.1")
    libbpf._library.cache_clear()
    try:
        with bound_case("minimal") as bound, pytest.raises(UnsupportedFeatureError, match="libbpf"):
            verify(bound)
    finally:
        libbpf._library.cache_clear()


# --- the verifier's log --------------------------------------------------------------------------

REFUSED = """\
0: R1=ctx() R10=fp0
; __u8 *data = (void *)(long)ctx->data; @ nf.c:10
1: (61) r2 = *(u32 *)(r1 +0)          ; R1=ctx() R2=pkt(r=0)
; return data[14]; @ nf.c:14
5: (71) r1 = *(u8 *)(r2 +0)
invalid access to packet, off=14 size=1, R2(id=0,off=14,r=14)
R2 offset is outside of the packet
verification time 22 usec
stack depth 0+8
processed 6 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
NO_INSTRUCTION = """\
metadata kfuncs require device-bound program
processed 0 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
STATE_BEHIND = """\
from 3 to 5: R1=ctx() R10=fp0
26: (85) call pc+6
caller:
 frame1: R6=scalar(id=4) R10=fp0
callee:
 frame2: R1=scalar(id=4) R10=fp0
33: frame2: R1=scalar(id=4) R10=fp0
the call stack of 9 frames is too deep !
"""
ACCEPTED = """\
verification time 155 usec
stack depth 32+0+8
processed 86 insns (limit 1000000) max_states_per_insn 1 total_states 7 peak_states 7 mark_read 0
"""


@pytest.mark.parametrize(
    ("log", "instruction", "reason"),
    [
        pytest.param(
            REFUSED,
            5,
            "invalid access to packet, off=14 size=1, R2(id=0,off=14,r=14); R2 offset is outside of the packet",
            id="packet",
        ),
        pytest.param(NO_INSTRUCTION, None, "metadata kfuncs require device-bound program", id="no-instruction"),
        pytest.param(STATE_BEHIND, 26, "the call stack of 9 frames is too deep !", id="state-behind"),
        pytest.param(REFUSED[-420:], 5, None, id="beginning-cut-off"),
        pytest.param(ACCEPTED, None, "", id="accepted"),
        pytest.param("", None, "", id="empty"),
    ],
)
def test_parse_refusal(log: str, instruction: int | None, reason: str | None) -> None:
    refusal = verifier_log.parse_refusal(log)
    assert refusal.instruction == instruction
    assert reason is None or refusal.reason == reason


def test_log_statistics_are_read_from_the_end() -> None:
    assert verifier_log.processed_instructions(REFUSED) == 6
    assert verifier_log.processed_instructions(ACCEPTED) == 86
    assert verifier_log.verification_time_us(ACCEPTED) == 155
    assert verifier_log.verification_time_us(NO_INSTRUCTION) is None
    assert verifier_log.processed_instructions("") is None


# --- constants -----------------------------------------------------------------------------------


def encoded(**values: int | bytes) -> dict[str, tuple[str, bytes]]:
    data = object_of("loading/settings")
    constants = encode_constants(BpfObject(data), object_facts(data).params, values)
    return {constant.name: (constant.section, constant.data) for constant in constants}


@pytest.mark.parametrize(
    ("name", "value", "data"),
    [
        ("limit", 0, b"\0\0\0\0"),
        ("limit", 0xFFFFFFFF, b"\xff\xff\xff\xff"),
        ("limit", b"abcd", b"abcd"),
        ("offset", -32768, b"\x00\x80"),
        ("offset", 32767, b"\xff\x7f"),
        ("seed", (1 << 64) - 1, b"\xff" * 8),
        ("enabled", True, b"\1"),
        ("mode", 1, b"\1\0\0\0"),
        ("range", b"\1\0\2\0", b"\1\0\2\0"),
    ],
)
def test_encode_constant(name: str, value: int | bytes, data: bytes) -> None:
    assert encoded(**{name: value}) == {name: (".rodata", data)}


def test_encode_constant_in_another_section_of_constants() -> None:
    assert encoded(other=255) == {"other": (".rodata.other", b"\xff")}


def test_encoded_constant_lies_where_the_object_has_its_default() -> None:
    data = object_of("loading/settings")
    parsed = BpfObject(data)
    (constant,) = encode_constants(parsed, object_facts(data).params, {"seed": 0})
    section = parsed.section(constant.section)
    assert section is not None
    assert section.data[constant.offset : constant.offset + 8] == bytes.fromhex("8877665544332211")


@pytest.mark.parametrize(
    ("default", "size", "text", "value"),
    [
        (0, 4, "10", 10),
        (0, 4, "-1", -1),
        (0, 4, "0x1F", 31),
        (0, 1, "true", 1),
        (0, 1, "false", 0),
        ("00000000", 4, "01 02 0a0b", b"\x01\x02\x0a\x0b"),
    ],
)
def test_parse_value(default: int | str, size: int, text: str, value: int | bytes) -> None:
    assert parse_value(Param("name", "type", size, default), text) == value


@pytest.mark.parametrize(("default", "text"), [(0, ""), (0, "ten"), (0, "1.5"), ("00", "xy"), ("00", "0")])
def test_parse_value_malformed_is_a_parameter_error(default: int | str, text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_value(Param("name", "type", 1, default), text)
    assert caught.value.context == "constant name"


# --- which programs ------------------------------------------------------------------------------


def test_default_programs_are_those_without_question_mark() -> None:
    facts = object_facts(object_of("loading/sections"))
    assert default_programs(facts) == ("older", "newer")
    manual = dataclasses.replace(facts, programs=tuple(p for p in facts.programs if "manual" in p.flags))
    with pytest.raises(ParameterError) as caught:
        default_programs(manual)
    assert "on_demand" in caught.value.remedy


# --- where instructions come from ----------------------------------------------------------------


def raw_of(code: ObjectCode, places: tuple[Place, ...]) -> bytes:
    parts = []
    for place in places:
        section = code.object.section(place.section)
        assert section is not None
        parts.append(section.data[place.offset : place.offset + 8])
    return b"".join(parts)


@pytest.mark.parametrize("program", ["first", "second", "on_cpu"])
def test_places_cover_each_reached_function_once(program: str) -> None:
    data = object_of("many_facts")
    places = ObjectCode(data).places_of(program)
    (fact,) = (fact for fact in object_facts(data).programs if fact.name == program)
    assert len(places) == len(set(places)) == fact.instructions
    assert places[0] == Place(fact.section, 0)


def test_places_of_an_unknown_program_is_an_object_error() -> None:
    with pytest.raises(ObjectError, match="no such program"):
        ObjectCode(object_of("minimal")).places_of("classify")


def test_loaded_code_that_does_not_fit_is_unsupported() -> None:
    code = ObjectCode(object_of("many_facts"))
    raw = raw_of(code, code.places_of("first"))
    assert code.loaded("first", raw).places == code.places_of("first")
    for wrong in (raw[:-8], raw + raw[:8], b"\x95" + raw[1:]):
        with pytest.raises(UnsupportedFeatureError, match="composes the program first"):
            code.loaded("first", wrong)


def test_core_value_without_answer_is_none_and_does_not_spoil_the_code() -> None:
    code = ObjectCode(object_of("loading/core"))
    places = code.places_of("core")
    values = code.core_values(LoadedCode(decode(raw_of(code, places)), places))
    field = next(v for v in values.values() if v.placeholder == "llvm.xdp_rxq_info:0:8$0:1")
    assert (field.kind, field.before, field.value) == (CoreKind.FIELD_BYTE_OFFSET, 8, 8)
    raw = bytearray(raw_of(code, places))
    at = places.index(field.place) * 8
    raw[at : at + 8] = bytes([0x85, 0, 0, 0]) + (195896080).to_bytes(4, "little")
    poisoned = code.core_values(code.loaded("core", bytes(raw)))
    assert poisoned[field.place] == dataclasses.replace(field, value=None, size=0)


def test_core_value_follows_the_width_of_a_load() -> None:
    place = Place("xdp", 0)
    value = CoreValue(place, CoreKind.FIELD_BYTE_OFFSET, 1, "xdp_md", "0:1", 4, 4, 4, 8)
    assert value.placeholder == "llvm.xdp_md:0:4$0:1"
