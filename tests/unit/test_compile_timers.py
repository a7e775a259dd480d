"""Timer callbacks get numbers that outlive the code; what cannot be numbered is refused."""

import llvmlite.binding as llvm
import pytest

from uxdp_bundle.manifest import MapDefinition
from uxdp_runtime.compile.calls import UnsupportedCallError
from uxdp_runtime.compile.definitions import NativeMap
from uxdp_runtime.compile.ir_text import parse_module
from uxdp_runtime.compile.limits import check_limits
from uxdp_runtime.compile.timers import prepare_timers

MAPS = {"m": NativeMap(MapDefinition("m", "array", 4, 32, 1, 0, pinning=False, inner=None), 5, 1)}
TEXT = """
@m = external global i8
define i32 @tick(ptr %map, ptr %key, ptr %value) {
  %r = call i64 inttoptr (i64 170 to ptr)(ptr %value, ptr @tick)
  ret i32 0
}
define i32 @nf(ptr %v, ptr %f) {
  %a = call i64 inttoptr (i64 169 to ptr)(ptr %v, ptr @m, i64 1)
  %b = call i64 inttoptr (i64 170 to ptr)(ptr %v, ptr @tick)
  ret i32 1
}
"""


def prepared(text: str) -> tuple[str, bool]:
    module = parse_module(str(llvm.parse_assembly(text)))
    check_limits(module)
    has_timers = prepare_timers(module, MAPS)
    llvm.parse_assembly(str(module)).verify()
    return str(module), has_timers


def test_callback_is_set_by_number_and_called_by_number() -> None:
    text, has_timers = prepared(TEXT)
    assert has_timers
    assert "(ptr %v, i64 1)" in text
    assert "i32 1, label %c1" in text
    assert "call i32 @tick(ptr %map, ptr %key, ptr %value)" in text
    assert "i32 5, label %m5" in text


def test_module_without_timers_stays_as_it_is() -> None:
    text = "define i32 @nf(ptr %c) {\n  ret i32 1\n}\n"
    assert not prepared(text)[1]


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        pytest.param("(ptr %v, ptr @tick)", "(ptr %v, ptr %f)", "bpf_timer_set_callback", id="unknown-callback"),
        pytest.param("(ptr %v, ptr @tick)", "(ptr %v, ptr @m)", "bpf_timer_set_callback", id="no-function"),
        pytest.param("(ptr %v, ptr @tick)", "(ptr %v, i64 1)", "bpf_timer_set_callback", id="number"),
        pytest.param("ptr @m, i64 1", "ptr %f, i64 1", "bpf_timer_init", id="unknown-map"),
        pytest.param("ptr @m, i64 1", "ptr @tick, i64 1", "bpf_timer_init", id="no-map"),
        pytest.param("@tick(ptr %map,", "@tick(i64 %map,", "bpf_timer_set_callback", id="argument-is-no-pointer"),
    ],
)
def test_what_cannot_be_numbered_is_refused(old: str, new: str, name: str) -> None:
    with pytest.raises(UnsupportedCallError) as caught:
        prepared(TEXT.replace(old, new))
    assert caught.value.name == name
