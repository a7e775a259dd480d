"""Fields of maps' values that are more than bytes: timers, locks, and what is refused for its sake."""

import pytest

from tests.unit.facts_fixtures import PASS, clang
from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.errors import UnsupportedFeatureError
from uxdp_bundle.map_definitions import map_definitions
from uxdp_runtime.bpf.timer_fields import lock_fields, refused_fields, timer_fields
from uxdp_runtime.stores import Stores, check_maps, control_library

HASH = "__uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);"
HEADERS = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
VALUES = """
struct inside { __u32 first; struct bpf_spin_lock lock; };
struct both { __u64 a; struct bpf_timer timer; struct inside inside; };
struct task;
struct pointing { __u64 a; struct task __attribute__((btf_type_tag("kptr"))) *task[2]; };
struct bpf_list_head { __u64 one, two; };
struct listing { struct bpf_list_head head; };
"""


def object_with(definition: str) -> bytes:
    return clang(f'{HEADERS}{VALUES}{PASS}struct {{ {definition} }} m SEC(".maps");')


def test_timers_and_locks_are_found_in_structures() -> None:
    parsed = BpfObject(object_with(f"{HASH} __type(value, struct both);"))
    assert (timer_fields(parsed), lock_fields(parsed), refused_fields(parsed)) == ({"m": 8}, {"m": 28}, {})


def test_stores_leave_locks_alone_and_show_none() -> None:
    obj = object_with(
        "__uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct inside);"
    )
    maps = map_definitions(BpfObject(obj))
    check_maps(obj, maps, control_library())
    store = Stores(obj, maps, 1, control_library())["m"]
    store.update(bytes(4), b"\1\0\0\0\xff\xff\xff\xff", 4)  # BPF_F_LOCK
    assert store.memory[:8] == b"\1" + bytes(7)
    assert store.lookup(bytes(4)) == b"\1" + bytes(7)


@pytest.mark.parametrize(
    ("definition", "field"),
    [
        (f"{HASH} __type(value, struct pointing);", "kptr"),
        (f"{HASH} __type(value, struct listing);", "bpf_list_head"),
        (
            "__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 1); __type(key, __u32);"
            f" __array(values, struct {{ {HASH} __type(value, struct inside); }});",
            "bpf_spin_lock",
        ),
    ],
    ids=["kptr", "list", "lock-in-inner-map"],
)
def test_values_that_native_code_cannot_have_are_refused_by_name(definition: str, field: str) -> None:
    obj = object_with(definition)
    with pytest.raises(UnsupportedFeatureError, match=field):
        check_maps(obj, map_definitions(BpfObject(obj)), control_library())
