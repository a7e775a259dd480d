"""Operations on a map that is called from many places become one function; from few, and cheap ones, they do not."""

import pytest

from uxdp_bundle.manifest import MapDefinition
from uxdp_runtime.compile.definitions import NativeMap
from uxdp_runtime.compile.ir_text import parse_module
from uxdp_runtime.compile.shared_calls import MAX_INLINED, share_calls


def _native(name: str, kind: str) -> NativeMap:
    return NativeMap(MapDefinition(name, kind, 4, 8, 16, 0, pinning=False, inner=None), 0, 1)


MAPS = {name: _native(name, kind) for name, kind in (("flows", "lru_hash"), ("other", "hash"), ("counts", "array"))}


def shared(*calls: str) -> str:
    body = "\n".join(f"  %{number} = {call}" for number, call in enumerate(calls, start=2))
    module = parse_module(f"define i32 @f(ptr %0) {{\n{body}\n  ret i32 2\n}}")
    share_calls(module, MAPS)
    return str(module)


LOOKUP = 'call ptr @"uxdp.call.map_lookup_elem.0"(ptr @{}, ptr %0)'
UPDATE = 'call i64 @"uxdp.call.map_update_elem.1"(ptr @flows, ptr %0, ptr %0, i64 1)'


def test_calls_from_few_places_stay() -> None:
    text = shared(*[LOOKUP.format("flows")] * MAX_INLINED, UPDATE)
    assert "uxdp.shared" not in text


def test_calls_from_many_places_lead_to_one_function() -> None:
    text = shared(*[LOOKUP.format("flows")] * (MAX_INLINED + 1), *[UPDATE] * (MAX_INLINED + 1))
    assert text.count('call ptr @"uxdp.shared.0"(ptr %v0)') == MAX_INLINED + 1
    assert text.count('call i64 @"uxdp.shared.1"(ptr %v0, ptr %v0, i64 1)') == MAX_INLINED + 1
    assert 'define internal i64 @"uxdp.shared.1"(ptr %a0, ptr %a1, i64 %a2) noinline {' in text
    assert '  %r = call ptr @"uxdp.call.map_lookup_elem.0"(ptr @flows, ptr %a0)\n  ret ptr %r' in text


def test_each_map_has_a_function_of_its_own() -> None:
    many = MAX_INLINED + 1
    text = shared(*[LOOKUP.format("flows")] * many, *[LOOKUP.format("other")] * many)
    assert text.count("define internal ptr") == 2
    assert text.count('@"uxdp.call.map_lookup_elem.0"(ptr @other') == 1


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(LOOKUP.format("counts"), id="lookup-in-an-array"),
        pytest.param('call ptr @"uxdp.call.map_lookup_elem.0"(ptr %0, ptr %0)', id="map-that-is-no-constant"),
        pytest.param('call i64 @"uxdp.call.redirect_map.2"(ptr @flows, i64 1, i64 0)', id="another-helper"),
    ],
)
def test_others_stay(call: str) -> None:
    assert "uxdp.shared" not in shared(*[call] * (2 * MAX_INLINED))
