"""Code for aarch64 does what code for this machine does, which does what the kernel does; under qemu's emulation."""

import ctypes
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bound_bundles import bound_image
from tests.differential.case_settings import SETTINGS
from tests.differential.test_examples_agree import CASES as EXAMPLE_CASES
from tests.differential.test_examples_agree import EXAMPLES
from tests.remote_machine import MACHINE, RemoteMachine, RemoteProgram, build_remote, emulator
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.compile.ahead import compile_ahead
from uxdp_runtime.compile.compiler import Target, compile_object
from uxdp_runtime.compile.program import program_source
from uxdp_runtime.compile.targets import named_target
from uxdp_runtime.frames.constants import constants_of
from uxdp_runtime.frames.generate import generate
from uxdp_runtime.map_file import read_map_file
from uxdp_runtime.native_module import FrameBatch, NativeModule
from uxdp_runtime.outcomes import verdict_name
from uxdp_runtime.stores import ControlLibrary, Stores

NATIVE_CASES = Path(__file__).parents[1] / "cases" / "native"
# The same moment in both processes, in ns since boot.
CLOCK_NS = 1_234_567_890_123_456
WORKERS, WORKER = 3, 1
FRAMES, BURST = 320, 64
SEED = 5
# One for each kind of map and of work; all of them are compared with the kernel elsewhere.
CASES = [
    "map_hash",
    "map_lpm",
    "map_lru",
    "map_percpu",
    "map_choice",
    "tail_calls",
    "atomics",
    "adjust_head",
    "checksum",
]
CASES += ["iter_num", "dynptr_memory", "dynptr_frame_moves", "strtol"]
CASES += ["map_bloom", "map_for_each", "map_percpu_lookup", "map_queue", "map_spin_lock"]
CASES += ["arithmetic", "global_data", "load_store_bytes", "loops", "redirects", "ringbuf", "subprograms"]
ARRAYS = ("array", "percpu_array")
HASHES = ("hash", "lpm_trie", "lru_hash", "lru_percpu_hash", "percpu_hash")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteMachine]:
    if emulator() is None:
        reason = "no emulator of aarch64: apt-get install qemu-user-static"
        if os.environ.get("UXDP_REQUIRE"):
            pytest.fail(f"UXDP_REQUIRE: {reason}")
        pytest.skip(reason)
    with RemoteMachine(build_remote(tmp_path_factory.mktemp("remote"))) as machine:
        yield machine


@pytest.mark.parametrize(
    "source",
    [*(EXAMPLES / name / f"{name}.c" for name in EXAMPLE_CASES), *(NATIVE_CASES / f"{name}.c" for name in CASES)],
    ids=lambda path: path.stem,
)
def test_aarch64_agrees_with_this_machine(
    machine: RemoteMachine, target: Target, control: ControlLibrary, source: Path
) -> None:
    settings = EXAMPLE_CASES[source.stem][0] if source.stem in EXAMPLE_CASES else SETTINGS.get(source.stem, ())
    with bound_image(build(BuildRequest(sources=(source.name,), cwd=source.parent)).bundle) as bound:
        obj = bytes(bound.authentic.bundle.object)
        program = program_source(bound, bound.facts.programs[0].name, num_cpus=WORKERS, values=None, constants={})
        stores = Stores(program.object, program.maps, WORKERS, control)
        here = NativeModule(compile_object(program, target).data, stores, WORKER, now_ns=CLOCK_NS)
        code = compile_ahead(program, named_target("aarch64-generic"))
        assert code.machine == MACHINE
        sections = {name: bytes(stores.section(name)) for name in stores.sections}
        there = RemoteProgram(machine, code.data, program.object, program.maps, sections, here.worker)
        stores.link_programs(program.object, program.programs)
        for name in (store.definition.name for store in stores if store.definition.type == "prog_array"):
            for key, value in stores[name].items():
                there.update(name, key, value)
        contents = read_map_file(obj, None, settings, cpus=WORKERS)
        for name, elements in contents.items():
            for key, value in elements:
                stores[name].update(key, value)
                there.update(name, key, value)
        keys = {key for elements in contents.values() for key, _value in elements}
        frames = generate(FRAMES, SEED, {*constants_of(obj), *keys})
        verdicts: Counter[str] = Counter()
        batch = FrameBatch(BURST)
        while burst := list(itertools.islice(frames, BURST)):
            for index, frame in enumerate(burst):
                batch.put(
                    index,
                    frame.data,
                    metadata=frame.metadata,
                    ifindex=frame.ingress_ifindex,
                    queue=frame.rx_queue_index,
                )
            here.run(batch, len(burst))
            done = there.run([(f.data, f.metadata, f.ingress_ifindex, f.rx_queue_index) for f in burst])
            for index, frame in enumerate(burst):
                assert done[index] == batch.result(index), frame.description
                verdicts[verdict_name(done[index].verdict)] += 1
        for store in stores:
            name = store.definition.name
            if store.definition.type in ARRAYS:
                # All elements are there, and where they are follows from the definition: as one piece it is quick.
                size = control.store_bytes(ctypes.byref(store.descriptor))
                assert there.store(name, size) == ctypes.string_at(int(store.descriptor.store), size), name
            elif store.definition.type in HASHES:
                assert there.items(name, store.value_bytes) == dict(store.items()), name
        for name in stores.sections:
            assert there.section(name) == bytes(stores.section(name)), name
    assert verdicts.total() == FRAMES
    if source.stem in EXAMPLE_CASES:
        assert verdicts.keys() >= EXAMPLE_CASES[source.stem][1] - {"DROP"}
