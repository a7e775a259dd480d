"""What the compiler finds out about pointers to maps in maps of maps."""

from dataclasses import replace
from pathlib import Path

import pytest

from uxdp_bundle.errors import UnsupportedFeatureError
from uxdp_bundle.manifest import MapDefinition
from uxdp_runtime.compile.inner_maps import INNER_TYPES, REFUSED_INNER, InnerMaps, check_inner
from uxdp_runtime.compile.ir_text import parse_module

# What SUPPORT.md says of inner maps, as one line.
SUPPORT = (Path(__file__).parents[2] / "SUPPORT.md").read_text()
INNER_TEXT = " ".join(SUPPORT.partition("Maps in maps of maps are")[2].split())
SMALL = MapDefinition("", "hash", 4, 8, 10, 0, False, None)
LARGE = MapDefinition("", "hash", 4, 16, 10, 0, False, None)
ROW = MapDefinition("", "array", 4, 8, 10, 0, False, None)
TEMPLATES = {"outer": SMALL, "same": SMALL, "other": LARGE, "rows": ROW}
DECLARED = {
    name: replace(kind, name=name, max_entries=entries)
    for name, kind, entries in (("shared", SMALL, 99), ("wide", LARGE, 10), ("row", ROW, 10), ("longer", ROW, 11))
}
TEXT = """\
define i32 @program(ptr %given, i1 %which) {
start:
  %one = tail call ptr inttoptr (i64 1 to ptr)(ptr noundef @outer, ptr nonnull %given)
  %two = call ptr inttoptr (i64 1 to ptr)(ptr @same, ptr %given)
  %three = call ptr inttoptr (i64 1 to ptr)(ptr @other, ptr %given)
  %value = call ptr inttoptr (i64 1 to ptr)(ptr @plain, ptr %given)
  %copy = freeze ptr %one
  %either = select i1 %which, ptr %one, ptr %two
  %mixed = select i1 %which, ptr %one, ptr %three
  %row = call ptr @"uxdp.call.map_lookup_elem.3"(ptr @rows, ptr %given)
  %fallback = select i1 %which, ptr %one, ptr @shared
  %unlike = select i1 %which, ptr %one, ptr @wide
  %fits = select i1 %which, ptr %row, ptr @row
  %long = select i1 %which, ptr %row, ptr @longer
  %foreign = select i1 %which, ptr %one, ptr @elsewhere
  %plainly = select i1 %which, ptr @shared, ptr @shared
  %outers = select i1 %which, ptr @outer, ptr @same
  br label %loop
loop:
  %merged = phi ptr [ %copy, %start ], [ %again, %loop ]
  %again = phi ptr [ null, %start ], [ %merged, %loop ]
  %known = phi ptr [ %one, %start ], [ %given, %loop ]
  br label %loop
}
"""


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("%one", SMALL),
        ("%three", LARGE),
        ("%copy", SMALL),
        ("%either", SMALL),
        ("%merged", SMALL),
        ("%again", SMALL),
        ("%row", ROW),
        ("%fallback", SMALL),
        ("%fits", ROW),
        ("%unlike", None),
        ("%long", None),
        ("%foreign", None),
        ("%plainly", None),
        ("%outers", None),
        ("%mixed", None),
        ("%value", None),
        ("%known", None),
        ("%given", None),
        ("null", None),
    ],
)
def test_template_is_known_where_nothing_else_can_be(name: str, template: MapDefinition | None) -> None:
    (function,) = parse_module(TEXT).functions
    assert InnerMaps(function, TEMPLATES, DECLARED).template_of(name) == template


def outer_of(template: MapDefinition | None) -> MapDefinition:
    return MapDefinition("outer", "array_of_maps", 4, 4, 10, 0, False, template)


@pytest.mark.parametrize("kind", sorted(INNER_TYPES))
def test_inner_maps_of_these_types_are_supported(kind: str) -> None:
    check_inner(outer_of(replace(SMALL, type=kind)), "")
    assert f"`{kind}`" in INNER_TEXT


@pytest.mark.parametrize("kind", REFUSED_INNER)
def test_inner_maps_of_other_types_are_refused_by_name_with_the_reason_in_support(kind: str) -> None:
    with pytest.raises(UnsupportedFeatureError) as refused:
        check_inner(outer_of(replace(SMALL, type=kind)), "nf.c:7")
    assert refused.value.reason == f"maps of type {kind} in map outer: {REFUSED_INNER[kind]}"
    assert refused.value.context == "nf.c:7"
    assert REFUSED_INNER[kind] in INNER_TEXT


def test_map_of_maps_without_template_is_refused() -> None:
    with pytest.raises(UnsupportedFeatureError, match="does not declare what its inner maps are like"):
        check_inner(outer_of(None), "")
