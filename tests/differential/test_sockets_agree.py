"""XSKMAP with sockets in it: bpf(2) takes descriptors, so the two sides are filled differently."""

import socket
import struct
from collections import Counter
from pathlib import Path

import pytest

from tests.bound_bundles import bound_image
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.compile.program import compile_program
from uxdp_runtime.differential import Differential, native_cpus
from uxdp_runtime.frames.generate import generate
from uxdp_runtime.stores import ControlLibrary
from uxdp_runtime.verify import verify

pytestmark = pytest.mark.kernel

CASES = Path(__file__).parents[1] / "cases" / "native"
FRAMES = 1000
AF_XDP = 44  # include/linux/socket.h
UNBOUND_QUEUE = 0  # what bpf_xdp_sock.queue_id of a socket is that was not bound


def test_case_with_sockets_agrees_with_the_kernel(
    kernel: None, target: Target, control: ControlLibrary, cache: Path
) -> None:
    image = build(BuildRequest(sources=("map_xskmap.c",), cwd=CASES)).bundle
    verdicts: Counter[int] = Counter()
    with bound_image(image) as bound, verify(bound) as verified, socket.socket(AF_XDP, socket.SOCK_RAW) as xsk:
        compiled = compile_program(verified, "map_xskmap", target, num_cpus=native_cpus(), cache_directory=cache)
        with Differential(compiled, control) as sides:
            assert sides._kernel.twin is not None
            for key in (1, 2):
                packed = struct.pack("=I", key)
                for item in (verified.maps["sockets"], sides._kernel.twin._copy.maps["sockets"]):
                    item.update(packed, struct.pack("=I", xsk.fileno()))
                for side in sides._sides:
                    side.stores["sockets"].update(packed, struct.pack("=I", UNBOUND_QUEUE))
            for _frame, outcome, difference in sides.run(generate(FRAMES, 3)):
                assert difference is None, str(difference)
                verdicts[outcome.verdict] += 1
            assert list(sides.map_differences()) == []
            assert not sides.targets_not_compared
    assert verdicts.keys() == {0, 1, 2, 3, 4}
