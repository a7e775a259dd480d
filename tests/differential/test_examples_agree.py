"""Every example does natively what it does in the kernel: verdicts, bytes, metadata and maps."""

from pathlib import Path

import pytest

from tests.differential.agreement import assert_agreement
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.stores import ControlLibrary

pytestmark = pytest.mark.kernel

EXAMPLES = Path(__file__).parents[2] / "examples"
FRAMES = 1000
# Maps filled so that every path is taken, and the verdicts that must then occur.
CASES = {
    "l2_swap": ((), {"TX", "PASS"}),
    "firewall": ((), {"PASS", "DROP"}),
    "icmp_echo": ((), {"TX", "PASS"}),
    "flow_meter": ((), {"PASS"}),
    "payload_hash": ((), {"PASS"}),
    "load_balancer": (
        (
            'config:0={"local_addr": "10.0.0.9", "gateway_mac": "02:00:00:00:00:aa", "local_mac": "02:00:00:00:00:bb"}',
            'vips:{"addr": "192.0.2.1", "port": 53, "proto": 17}={"id": 3, "ring_slots": 4}',
            'vips:{"addr": "192.0.2.1", "port": 80, "proto": 6}={"id": 1, "ring_slots": 2, "flags": 1}',
            'vips:{"addr": "192.0.2.2", "port": 443, "proto": 6}={"id": 2, "ring_start": 8, "ring_slots": 3}',
            "ring:1=1",
            "reals:0=10.1.0.1",
            "reals:1=10.1.0.2",
        ),
        {"TX", "PASS", "DROP"},
    ),
}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_example_agrees_with_the_kernel(
    kernel: None, target: Target, control: ControlLibrary, cache: Path, name: str, seed: int
) -> None:
    settings, expected = CASES[name]
    source = EXAMPLES / name / f"{name}.c"
    verdicts = assert_agreement(source, target, control, cache, frames=FRAMES, seed=seed, settings=settings)
    assert verdicts.keys() >= expected
    assert verdicts.total() == FRAMES
