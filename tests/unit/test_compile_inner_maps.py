"""What the compiler finds out about pointers to maps in maps of maps."""

import pytest

from uxdp_bundle.manifest import MapDefinition
from uxdp_runtime.compile.inner_maps import InnerMaps
from uxdp_runtime.compile.ir_text import parse_module

SMALL = MapDefinition("", "hash", 4, 8, 10, 0, False, None)
LARGE = MapDefinition("", "hash", 4, 16, 10, 0, False, None)
TEMPLATES = {"outer": SMALL, "same": SMALL, "other": LARGE}
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
        ("%mixed", None),
        ("%value", None),
        ("%known", None),
        ("%given", None),
        ("null", None),
    ],
)
def test_template_is_known_where_nothing_else_can_be(name: str, template: MapDefinition | None) -> None:
    (function,) = parse_module(TEXT).functions
    assert InnerMaps(function, TEMPLATES).template_of(name) == template
