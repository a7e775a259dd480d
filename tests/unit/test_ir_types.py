"""Places of parts of IR types are those of the BPF data layout."""

import llvmlite.binding as llvm
import pytest

from uxdp_runtime.compile.ir_text import parse_module
from uxdp_runtime.compile.ir_types import TypeLayouts

TEXT = """
%struct.pair = type { i8, i64 }
%struct.packed = type <{ i8, i64, [3 x i16] }>
%"union.of two" = type { [3 x %struct.pair], ptr }
%struct.opaque = type opaque
@keep = external global [1 x { ptr, ptr, %struct.packed, %"union.of two" }]
"""


@pytest.fixture(scope="module")
def layouts() -> TypeLayouts:
    return TypeLayouts(parse_module(TEXT))


@pytest.mark.parametrize(
    ("kind", "indices", "expected"),
    [
        pytest.param("i8", [5], 5, id="bytes"),
        pytest.param("ptr", [3], 24, id="pointers"),
        pytest.param("i24", [2], 8, id="odd-width"),
        pytest.param("i1", [2], 2, id="bit"),
        pytest.param("i128", [1], 16, id="widest"),
        pytest.param("%struct.pair", [1], 16, id="whole-structure"),
        pytest.param("%struct.pair", [0, 1], 8, id="field-aligned"),
        pytest.param("%struct.packed", [0, 1], 1, id="field-packed"),
        pytest.param("%struct.packed", [1, 2, 1], 15 + 9 + 2, id="array-in-packed"),
        pytest.param('%"union.of two"', [0, 0, 2, 1], 40, id="nested"),
        pytest.param('%"union.of two"', [-1, 1], -56 + 48, id="negative"),
        pytest.param("[4 x [2 x i32]]", [0, 3, 1], 28, id="array-of-arrays"),
        pytest.param("<4 x i32>", [1, 2], 24, id="vector"),
        pytest.param("{ i16, double }", [0, 1], 8, id="literal-structure"),
        pytest.param("%struct.opaque", [0], None, id="opaque"),
        pytest.param("%struct.pair", [0, 2], None, id="no-such-field"),
        pytest.param("i32", [0, 1], None, id="no-parts"),
        pytest.param("%struct.pair", [], None, id="no-index"),
    ],
)
def test_offset_is_that_of_the_bpf_layout(
    layouts: TypeLayouts, kind: str, indices: list[int], expected: int | None
) -> None:
    assert layouts.offset(kind, indices) == expected


@pytest.mark.parametrize("kind", ["%struct.pair", "%struct.packed", '%"union.of two"', "<4 x i32>", "i24", "i128"])
def test_offset_of_the_next_element_is_llvms_size(layouts: TypeLayouts, kind: str) -> None:
    layout = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"
    text = f'target datalayout = "{layout}"\n{TEXT}\n@of = external global {kind}\n'
    variable = llvm.parse_assembly(text).get_global_variable("of")
    data = llvm.create_target_data(layout)
    assert layouts.offset(kind, [1]) == data.get_abi_size(variable.global_value_type)
