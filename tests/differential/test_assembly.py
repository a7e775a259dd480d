"""Inline assembly as IR: it does what clang's assembler makes of it, and endless loops end when the kernel's do."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import uxdp_cc.build
from tests.bound_bundles import bound_image
from uxdp_bundle.lowering import LoweredObject, RefusedIrError
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.bpf.test_run import TestRunner
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.compile.program import compile_program
from uxdp_runtime.frames.generate import generate
from uxdp_runtime.native_module import FrameBatch, NativeModule
from uxdp_runtime.stores import ControlLibrary, Stores
from uxdp_runtime.verify import verify

pytestmark = pytest.mark.kernel

CASES = Path(__file__).parents[1] / "cases" / "native"
FRAMES = 200
ENDLESS = """\
#include "common.h"
#define can_loop                                                    \\
        ({ __label__ out, on; bool ret = true;                      \\
           asm volatile goto("may_goto %l[out]" ::::out); goto on;  \\
        out: ret = false;                                           \\
        on:; ret; })

__u64 turns;

SEC("xdp")
int endless(struct xdp_md *ctx)
{
    while (can_loop)
        turns++;
    return XDP_TX;
}
"""


def _run_in_kernel(image: bytes, program: str) -> Iterator[object]:
    """Yield what the kernel makes of each frame, then the results."""
    with bound_image(image) as bound, verify(bound) as verified, TestRunner(verified.programs[program].fd) as runner:
        for frame in generate(FRAMES, 7, set()):
            outcome = runner.run(frame.data)
            yield outcome.verdict, outcome.frame
        results = verified.maps["results"]
        yield [results.lookup(number.to_bytes(4, "little")) for number in range(64)]


@pytest.mark.parametrize("name", ["assembly", "assembly_calls", "assembly_memory", "may_goto"])
def test_assembly_as_ir_does_what_clang_makes_of_it(kernel: None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    request = BuildRequest(sources=(f"{name}.c",), cwd=CASES)
    ours = build(request)
    assert ours.manifest.build.lowering is not None

    def refuse(*_arguments: object, **_options: object) -> LoweredObject:
        raise RefusedIrError("inline-asm", "assembly")

    monkeypatch.setattr(uxdp_cc.build, "lower", refuse)
    clangs = build(request)
    assert clangs.manifest.build.lowering is None
    assert list(_run_in_kernel(ours.bundle, name)) == list(_run_in_kernel(clangs.bundle, name))


def test_endless_loop_ends_after_a_quarter_of_a_second(
    kernel: None, target: Target, control: ControlLibrary, cache: Path, tmp_path: Path
) -> None:
    source = tmp_path / "endless.c"
    source.write_text(ENDLESS)
    image = build(BuildRequest(sources=(source.name,), cwd=tmp_path, clang_args=(f"-I{CASES}",))).bundle
    frame = next(iter(generate(1, 7, set()))).data
    with bound_image(image) as bound, verify(bound) as verified:
        compiled = compile_program(verified, "endless", target, num_cpus=1, cache_directory=cache)
        with TestRunner(verified.programs["endless"].fd) as runner:
            start = time.monotonic()
            assert runner.run(frame).verdict == 3
            in_kernel = time.monotonic() - start
        stores = Stores(compiled.source.object, compiled.source.maps, 1, control)
        batch = FrameBatch(1)
        batch.put(0, frame)
        start = time.monotonic()
        NativeModule(compiled.native.data, stores, 0, now_ns=1).run(batch, 1)
        native = time.monotonic() - start
    assert batch.result(0).verdict == 3
    assert int.from_bytes(stores.section(".bss")[:8], "little") > 0xFFFF
    assert 0.2 < native < 2
    # An older kernel ends the loop after 8 M turns.
    assert in_kernel < 2
