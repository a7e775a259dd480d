"""Frames lie anywhere in the address space: above 4 GiB, below, and across the boundary at every interesting byte.

A pointer that lost its upper half on the way, through the stack, a subprogram, a callback or a tail call, reads other
memory than the kernel does, or none.
"""

from pathlib import Path

import pytest

from tests.bound_bundles import bound_image
from tests.native_frames import PlacedBatch
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime import abi
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.compile.program import compile_program
from uxdp_runtime.differential import Differential, native_cpus
from uxdp_runtime.frames.generate import generate
from uxdp_runtime.stores import ControlLibrary
from uxdp_runtime.verify import verify

pytestmark = pytest.mark.kernel

CASES = Path(__file__).parents[1] / "cases" / "native"
FRAMES = 200
BOUNDARY = 1 << 32
# Where a frame's buffer begins; the frame itself begins abi.HEADROOM bytes behind that.
PLACES = {
    "below-4g": 0x4000_0000,
    "ends-at-4g": BOUNDARY - abi.HEADROOM - 14,
    "across-4g": BOUNDARY - abi.HEADROOM - 37,
    "begins-at-4g": BOUNDARY - abi.HEADROOM,
    "headroom-across-4g": BOUNDARY - 9,
    "above-4g": 0x5_4000_0010,
    "high": 0x7000_8000_0003,
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("adjust_sequence", id="direct"),
        pytest.param("metadata", id="metadata"),
        pytest.param("bounded_loops", id="loop"),
        pytest.param("spilled", id="spilled"),
        pytest.param("pointers", id="structure"),
        pytest.param("subprograms", id="subprograms"),
        pytest.param("loop_frame_moves", id="callback"),
        pytest.param("tail_call_limit", id="tail-call"),
        pytest.param("tail_call_subprogram", id="tail-call-in-subprogram"),
        pytest.param("copied_frame", id="helpers"),
    ],
)
def test_case_with_frames_anywhere_agrees_with_the_kernel(
    kernel: None, target: Target, control: ControlLibrary, cache: Path, name: str
) -> None:
    image = build(BuildRequest(sources=(f"{name}.c",), cwd=CASES)).bundle
    with bound_image(image) as bound:
        for place, address in PLACES.items():
            with verify(bound) as verified:
                compiled = compile_program(verified, name, target, num_cpus=native_cpus(), cache_directory=cache)
                with Differential(compiled, control) as sides:
                    sides._native._batch = PlacedBatch(address)
                    for _frame, _outcome, difference in sides.run(generate(FRAMES, 3)):
                        assert difference is None, f"{place}: {difference}"
                    assert list(sides.map_differences()) == [], place
