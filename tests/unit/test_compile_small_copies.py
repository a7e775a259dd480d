"""Copies of a few bytes become loads and stores that copy the same, also onto themselves."""

import ctypes

import llvmlite.binding as llvm
import pytest

from uxdp_runtime.compile.ir_text import parse_module
from uxdp_runtime.compile.loader import LoadedObject
from uxdp_runtime.compile.small_copies import expand_small_copies

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
TEXT = """
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)
define void @copy(ptr noundef %to, ptr noundef %from) {{
  call void @llvm.{kind}.p0.p0.i64(ptr nonnull align 1 dereferenceable(3) %to, ptr %from, i64 {size}, i1 {volatile})
  ret void
}}
"""


def rewritten(size: int, kind: str = "memcpy", volatile: str = "false") -> str:
    module = parse_module(str(llvm.parse_assembly(TEXT.format(size=size, kind=kind, volatile=volatile))))
    expand_small_copies(module)
    return str(module)


def compiled(text: str) -> LoadedObject:
    module = llvm.parse_assembly(text)
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2, reloc="pic", codemodel="small")
    libc = ctypes.CDLL(None)
    names = ("memcpy", "memmove")
    symbols = {name: ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0 for name in names}
    return LoadedObject(machine.emit_object(module), symbols)


@pytest.mark.parametrize("kind", ["memcpy", "memmove"])
@pytest.mark.parametrize("size", [3, 5, 6, 7, 10, 12, 14, 20, 24, 31])
@pytest.mark.parametrize("distance", [0, 40])
def test_small_copy_copies_the_same_bytes(size: int, kind: str, distance: int) -> None:
    text = rewritten(size, kind)
    assert f"call void @llvm.{kind}" not in text
    memory = ctypes.create_string_buffer(bytes(range(1, 81)), 81)
    expected = bytearray(memory.raw)
    expected[distance : distance + size] = expected[:size]
    address = ctypes.addressof(memory)
    compiled(text).function("copy", None, ctypes.c_void_p, ctypes.c_void_p)(address + distance, address)
    assert memory.raw == bytes(expected)


def test_small_copy_that_overlaps_moves() -> None:
    memory = ctypes.create_string_buffer(bytes(range(1, 33)), 33)
    address = ctypes.addressof(memory)
    compiled(rewritten(14, "memmove")).function("copy", None, ctypes.c_void_p, ctypes.c_void_p)(address + 3, address)
    assert memory.raw[:17] == bytes((1, 2, 3, *range(1, 15)))


@pytest.mark.parametrize(
    ("size", "volatile"),
    [
        pytest.param(8, "false", id="a-power-of-two-is-llvms"),
        pytest.param(33, "false", id="too-long"),
        pytest.param(6, "true", id="volatile"),
    ],
)
def test_other_copies_stay(size: int, volatile: str) -> None:
    assert "call void @llvm.memcpy" in rewritten(size, volatile=volatile)
