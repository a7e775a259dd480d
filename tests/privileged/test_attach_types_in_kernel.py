"""What programs are loaded as, by the names of their sections; the kernel tells by what it lets be done with them."""

import errno
import struct
from collections.abc import Callable, Iterator

import pytest

from tests.bound_bundles import bound_case
from uxdp_runtime.bpf.maps import Map
from uxdp_runtime.bpf.test_run import TestRunner
from uxdp_runtime.errors import BpfError
from uxdp_runtime.verify import VerifiedObject, verify

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("kernel")]

LOOPBACK = 1
QUEUE_FRAMES = 64
FRAME = bytes(64)
KEY = bytes(4)
# Where each can be: on an interface and in a test run, in a devmap, in a cpumap; and whether it takes all buffers.
PROGRAMS = {
    "plain": ("interface", False),
    "plain_frags": ("interface", True),
    "on_device": ("devmap", False),
    "on_device_frags": ("devmap", True),
    "on_cpu": ("cpumap", False),
    "on_cpu_frags": ("cpumap", True),
    "named": ("devmap", False),
    "older": ("interface", False),
}


@pytest.fixture(scope="module")
def verified() -> Iterator[VerifiedObject]:
    """All of them, loaded as uxdp loads a bundle."""
    with bound_case("loading/attach_types") as bound, verify(bound, programs=list(PROGRAMS)) as verified:
        yield verified


def refusal(call: Callable[..., object], *arguments: object) -> int:
    """Return the errno that the kernel refuses with, or 0."""
    try:
        call(*arguments)
    except BpfError as error:
        assert error.errno is not None
        return error.errno
    return 0


def goes_into(kind: str, first: int, fd: int) -> bool:
    """Return whether the kernel takes a program in an entry of a devmap or cpumap."""
    with Map.create(kind, key_size=4, value_size=8, max_entries=1) as entries:
        # A cpumap says ENOMEM, whatever the reason.
        return refusal(entries.update, KEY, struct.pack("=Ii", first, fd)) == 0


@pytest.mark.parametrize("name", PROGRAMS)
def test_section_says_where_a_program_is_attached(verified: VerifiedObject, name: str) -> None:
    place, _frags = PROGRAMS[name]
    fd = verified.programs[name].fd
    with TestRunner(fd) as runner:
        assert refusal(runner.run, FRAME) == (0 if place == "interface" else errno.EINVAL)
    assert goes_into("devmap", LOOPBACK, fd) == (place == "devmap")
    assert goes_into("cpumap", QUEUE_FRAMES, fd) == (place == "cpumap")


@pytest.mark.parametrize("name", PROGRAMS)
def test_section_says_whether_a_program_takes_frames_of_several_buffers(verified: VerifiedObject, name: str) -> None:
    place, frags = PROGRAMS[name]
    others = {"interface": "plain_frags", "devmap": "on_device_frags", "cpumap": "on_cpu_frags"}
    # Programs of one prog_array agree in it: kernel/bpf/core.c, bpf_prog_map_compatible.
    with Map.create("prog_array", key_size=4, value_size=4, max_entries=1) as table:
        table.update(KEY, struct.pack("=i", verified.programs[others[place]].fd))
        answer = refusal(table.update, KEY, struct.pack("=i", verified.programs[name].fd))
    assert answer == (0 if frags else errno.EINVAL)
    assert ("frags" in verified.programs[name].flags) == frags
