"""Fields of maps' values that are more than bytes: timers, locks, and what is refused for its sake."""

from pathlib import Path

import pytest

from tests.unit.facts_fixtures import PASS, clang
from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.errors import UnsupportedFeatureError
from uxdp_bundle.map_definitions import map_definitions
from uxdp_runtime.bpf.timer_fields import lock_fields, refused_fields, timer_fields
from uxdp_runtime.stores import Stores, check_maps, control_library

SUPPORT = (Path(__file__).parents[2] / "SUPPORT.md").read_text()
HASH = "__uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);"
HEADERS = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
VALUES = """
struct inside { __u32 first; struct bpf_spin_lock lock; };
struct both { __u64 a; struct bpf_timer timer; struct inside inside; };
struct task;
"""
POINTER_TAGS = ("kptr", "kptr_untrusted", "percpu_kptr", "uptr")
FIELDS = ("bpf_list_head", "bpf_rb_root", "bpf_refcount", "bpf_wq", "bpf_res_spin_lock", "bpf_task_work")


def object_with(definition: str, values: str = "") -> bytes:
    return clang(f'{HEADERS}{VALUES}{values}{PASS}struct {{ {definition} }} m SEC(".maps");')


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


def check_is_refused(definition: str, field: str, values: str = "") -> None:
    obj = object_with(definition, values)
    with pytest.raises(UnsupportedFeatureError) as refused:
        check_maps(obj, map_definitions(BpfObject(obj)), control_library())
    assert refused.value.name == f"{field} in a map's values"


@pytest.mark.parametrize("tag", POINTER_TAGS)
def test_values_with_pointers_to_objects_of_the_kernel_are_refused_by_name(tag: str) -> None:
    values = f'struct pointing {{ __u64 a; struct task __attribute__((btf_type_tag("{tag}"))) *task[2]; }};'
    check_is_refused(f"{HASH} __type(value, struct pointing);", tag, values)


@pytest.mark.parametrize("field", FIELDS)
def test_values_with_fields_that_native_code_has_not_got_are_refused_by_name(field: str) -> None:
    values = f"struct {field} {{ __u64 one, two; }}; struct holder {{ __u64 a; struct {field} field[1]; }};"
    check_is_refused(f"{HASH} __type(value, struct holder);", field, values)


@pytest.mark.parametrize(("inner", "field"), [("inside", "bpf_spin_lock"), ("ticking", "bpf_timer")])
def test_locks_and_timers_in_inner_maps_are_refused_by_name(inner: str, field: str) -> None:
    definition = (
        "__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 1); __type(key, __u32);"
        f" __array(values, struct {{ {HASH} __type(value, struct {inner}); }});"
    )
    check_is_refused(definition, field, "struct ticking { __u64 a; struct bpf_timer timer; };")


def test_support_names_the_fields_that_are_refused() -> None:
    assert all(f"`{name}`" in SUPPORT for name in (*POINTER_TAGS, *FIELDS))
