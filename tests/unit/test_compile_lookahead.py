"""Looking ahead: the slice fetches for the right keys, changes nothing, and leaves what programs do as it is."""

import ctypes
import random
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from tests.bound_bundles import bound_image
from uxdp_bundle.manifest import MapDefinition
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime import abi
from uxdp_runtime.compile.compiler import NativeObject, ProgramSource, Variant, compile_object
from uxdp_runtime.compile.definitions import NativeMap
from uxdp_runtime.compile.ir_text import parse_module
from uxdp_runtime.compile.lookahead import ROUTES, add_lookahead
from uxdp_runtime.compile.program import program_source
from uxdp_runtime.compile.targets import host_target
from uxdp_runtime.native_module import FrameBatch, NativeModule
from uxdp_runtime.stores import Stores, control_library

CASE = Path(__file__).parents[1] / "cases" / "look_ahead.c"
WAYS = {"direct": 0, "small": 1, "frame": 2, "map": 3, "moves": 4, "tree": 5, "loop": 6, "inner": 7, "nowhere": 8}
BURST = 50  # more than a group, and not a multiple of it
EXPORTED = ("uxdp_run", "uxdp_ahead", "uxdp_follow", "uxdp_ahead_pays")


@dataclass(frozen=True)
class Built:
    source: ProgramSource
    with_lookahead: NativeObject
    without: NativeObject


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The case compiled both ways."""
    image = build(BuildRequest(sources=(CASE.name,), cwd=CASE.parent)).bundle
    with bound_image(image) as bound:
        source = program_source(bound, "look_ahead", num_cpus=1, values=None, constants={})
    target = host_target()
    return Built(
        source,
        compile_object(source, target, Variant(EXPORTED)),
        compile_object(source, target, Variant(lookahead=False)),
    )


class Running:
    """One compiled variant with stores of its own."""

    def __init__(self, source: ProgramSource, native: NativeObject) -> None:
        self.stores = Stores(source.object, source.maps, 1, control_library())
        self.module = NativeModule(native.data, self.stores, 0)
        self.batch = FrameBatch(BURST)

    def fill(self, flows: int) -> None:
        for number in range(flows):
            self.stores["flows"].update(key(number), struct.pack("=Q", 1))
            if number % 4 == 0:
                self.stores["routes"].update(struct.pack("=I", 32) + key(number), struct.pack("=Q", number))
            self.stores["flows_of_cpu0"].update(key(number), struct.pack("=Q", 1))
        self.stores["aliases"].update(key(3), key(5))

    def run(self, frames: list[bytes]) -> list[tuple[int, bytes]]:
        for index, frame in enumerate(frames):
            self.batch.put(index, frame)
        self.module.run(self.batch, len(frames))
        results = [self.batch.result(index) for index in range(len(frames))]
        return [(result.verdict, result.data) for result in results]

    def contents(self) -> dict[str, object]:
        maps: dict[str, object] = {store.definition.name: sorted(store.items()) for store in self.stores}
        return maps | {name: bytes(self.stores.section(name)) for name in self.stores.sections}


def key(number: int) -> bytes:
    return struct.pack("=I", number * 2654435761 & 0xFFFFFFFF)


def frame(way: str, number: int) -> bytes:
    return bytes((0, WAYS[way], 0x80, 1, 2, 0x81)) + key(number) + bytes(50)


@pytest.fixture
def ahead(built: Built) -> Iterator[Running]:
    yield Running(built.source, built.with_lookahead)


def looked_up(running: Running, data: bytes) -> tuple[int, int, int]:
    """Return what uxdp_ahead says of a frame: which lookup, where it begins, and in which inner map."""
    running.batch.put(0, data)
    place, table = ctypes.c_uint64(), ctypes.c_uint64()
    function = running.module.function("uxdp_ahead", ctypes.c_uint32, *(ctypes.c_void_p,) * 3)
    lookup = function(*map(ctypes.addressof, (running.batch.descriptors, place, table)))
    return lookup, place.value, table.value


@pytest.mark.parametrize("way", ["direct", "small", "loop", "tree", "inner"])
def test_ahead_before_a_large_lookup_finds_its_place(ahead: Running, way: str) -> None:
    ahead.fill(100)
    places = {looked_up(ahead, frame(way, number)) for number in range(64)}
    assert all(lookup > 0 and bool(table) is (way == "inner") for lookup, _place, table in places)
    assert len(places) > 32  # another place for nearly every key


def test_ahead_follows_what_small_maps_say(ahead: Running) -> None:
    ahead.fill(100)
    assert looked_up(ahead, frame("small", 3)) == looked_up(ahead, frame("direct", 5))
    assert looked_up(ahead, frame("small", 4)) == looked_up(ahead, frame("direct", 4))


@pytest.mark.parametrize("way", ["frame", "map", "moves", "nowhere"])
def test_ahead_where_something_is_changed_before_ends(ahead: Running, way: str) -> None:
    assert looked_up(ahead, frame(way, 1)) == (0, 0, 0)


def test_ahead_on_a_short_frame_reads_nothing_behind_it(ahead: Running) -> None:
    assert looked_up(ahead, frame("direct", 1)[:13]) == (0, 0, 0)


def test_ahead_changes_neither_frame_nor_maps(ahead: Running) -> None:
    ahead.fill(100)
    before = ahead.contents()
    stores = {store.definition.name: bytes(store.memory) for store in ahead.stores}
    follow = ahead.module.function("uxdp_follow", None, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64)
    for way in WAYS:
        for number in range(8):
            data = frame(way, number)
            follow(*looked_up(ahead, data))
            assert ahead.batch.result(0).data == data
    assert {store.definition.name: bytes(store.memory) for store in ahead.stores} == stores
    assert ahead.contents() == before


def test_ahead_pays_once_the_map_outgrows_the_cache(ahead: Running) -> None:
    pays = ahead.module.function("uxdp_ahead_pays", ctypes.c_bool)
    ahead.fill(100)
    assert not pays()
    ahead.fill(20_000)
    assert pays()


def test_ahead_pays_once_the_worker_has_an_inner_map_that_outgrows_the_cache(ahead: Running) -> None:
    pays = ahead.module.function("uxdp_ahead_pays", ctypes.c_bool)
    assert not pays()
    for number in range(20_000):
        ahead.stores["flows_of_cpu0"].update(key(number), bytes(8))
    assert pays()


def test_run_with_and_without_lookahead_gives_the_same(built: Built) -> None:
    dice = random.Random(1)
    one, other = Running(built.source, built.with_lookahead), Running(built.source, built.without)
    for running in (one, other):
        running.fill(20_000)
    for _ in range(200):
        # Few flows, so that frames of one group change what others of it look up.
        frames = [
            frame(dice.choice(list(WAYS)), dice.randrange(40_000 if dice.random() < 0.5 else 8)) for _ in range(BURST)
        ]
        assert one.run(frames) == other.run(frames)
    assert one.contents() == other.contents()
    assert {verdict for verdict, _data in one.run(frames)} >= {2, 3}


HEAD = 'target datalayout = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"\ntarget triple = "bpf"\n'
LARGE = NativeMap(
    MapDefinition(
        name="large", type="hash", key_size=4, value_size=8, max_entries=1 << 20, flags=0, pinning="none", inner=None
    ),
    0,
    1,
)
BODY = """
@large = external global i8
declare ptr @"uxdp.call.map_lookup_elem.0"(ptr, ptr)
declare void @sub()
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
define i32 @entry(ptr %f) {
  %k = alloca i32
  STEP
  %v = call ptr @"uxdp.call.map_lookup_elem.0"(ptr @large, ptr %k)
  ret i32 1
}
"""


def sliced(step: str) -> str:
    """Return the slice of a program that does something before its lookup, verified; empty if there is none."""
    module = parse_module(str(llvm.parse_assembly(HEAD + BODY.replace("STEP", step))))
    found = add_lookahead(module, "entry", {"large": LARGE})
    llvm.parse_assembly(str(module)).verify()
    text = re.search(r"define i32 @uxdp_ahead.*?^}", str(module), re.DOTALL | re.MULTILINE)
    assert (text is not None) == (found == ("large",))
    return "" if text is None else text[0]


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("store i32 1, ptr %k", id="store-to-its-stack"),
        pytest.param(
            "call void @llvm.memset.p0.i64(ptr noundef nonnull align 4 dereferenceable(4) %k, i8 0, i64 4, i1 false)",
            id="memset-of-its-stack",
        ),
        pytest.param("%x = load volatile i32, ptr %f", id="volatile-load"),
        pytest.param(
            "%b = load i1, ptr %f\n  switch i1 %b, label %c [\n    i1 true, label %d\n  ]\nd:\n  br label %c\nc:",
            id="switch-of-a-bit",
        ),
    ],
)
def test_slice_keeps_what_has_no_effect(step: str) -> None:
    assert "@uxdp_prefetch(ptr @large, ptr %k)" in sliced(step)
    assert "volatile" not in sliced(step)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("store i32 1, ptr %f", id="store-to-the-context"),
        pytest.param("%p = load ptr, ptr %f\n  store i32 1, ptr %p", id="store-to-the-frame"),
        pytest.param(
            "%c = icmp eq ptr %f, null\n  %p = select i1 %c, ptr %k, ptr %f\n  store i32 1, ptr %p", id="store-maybe"
        ),
        pytest.param("call void @llvm.memset.p0.i64(ptr %f, i8 0, i64 4, i1 false)", id="memset-of-other-memory"),
        pytest.param("%o = atomicrmw add ptr %k, i32 1 seq_cst", id="atomic"),
        pytest.param("%o = cmpxchg ptr %k, i32 1, i32 2 seq_cst seq_cst", id="compare-exchange"),
        pytest.param("store atomic i32 1, ptr %k seq_cst, align 4", id="atomic-store"),
        pytest.param("fence seq_cst", id="fence"),
        pytest.param("call void @sub()", id="subprogram"),
        pytest.param('%m = call ptr @"uxdp.call.map_lookup_elem.0"(ptr %f, ptr %k)', id="unknown-map"),
    ],
)
def test_slice_ends_before_an_effect(step: str) -> None:
    assert sliced(step) == ""


def test_slice_of_a_small_map_is_none() -> None:
    module = parse_module(str(llvm.parse_assembly(HEAD + BODY.replace("STEP", ""))))
    definition = MapDefinition(
        name="large", type="hash", key_size=4, value_size=8, max_entries=64, flags=0, pinning="none", inner=None
    )
    assert add_lookahead(module, "entry", {"large": NativeMap(definition, 0, 1)}) == ()
    assert "uxdp_ahead" not in str(module)


@pytest.mark.parametrize("kind", ["i32", "i64"])
def test_slice_ends_at_a_lookup_of_a_route_and_looks_ahead_in_what_is_kept(kind: str) -> None:
    call = f'%r = call i64 @"uxdp.call.fib_lookup.3"(ptr %f, ptr noundef %k, {kind} 64, {kind} noundef 5)'
    text = HEAD + BODY.replace("STEP", call) + f'\ndeclare i64 @"uxdp.call.fib_lookup.3"(ptr, ptr, {kind}, {kind})\n'
    module = parse_module(str(llvm.parse_assembly(text)))
    assert add_lookahead(module, "entry", {"large": LARGE}) == (ROUTES,)
    llvm.parse_assembly(str(module)).verify()
    assert "@uxdp_prefetch_fib_lookup(ptr noundef %k, i64 " in str(module)
    assert "call zeroext i1 @uxdp_routes_outgrow_cache()" in str(module)


def test_descriptor_layout_is_what_the_slice_reads() -> None:
    # The slice reads data and data_end at the offsets that widening the context gave them.
    assert (abi.Frame.data.offset, abi.Frame.data_end.offset) == (0, 8)
