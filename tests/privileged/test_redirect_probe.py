"""What the kernel says of redirects, and what it leaves alone: programs of a few instructions in a namespace."""

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from uxdp_runtime.bpf import syscall
from uxdp_runtime.bpf.maps import Map
from uxdp_runtime.bpf.network_namespace import NetworkNamespace
from uxdp_runtime.bpf.redirect_probe import KernelRedirect, RedirectProbe
from uxdp_runtime.errors import BpfError, ParameterError

pytestmark = pytest.mark.kernel

FRAME = bytes(60)
PORT = 77
BROADCAST = 8


def instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", code, target | source << 4, offset, immediate)


RETURN = instruction(0x95)


def verdict(number: int) -> bytes:
    return instruction(0xB7, 0, immediate=number) + RETURN


def redirect(ifindex: int) -> bytes:
    arguments = instruction(0xB7, 1, immediate=ifindex) + instruction(0xB7, 2)
    return arguments + instruction(0x85, immediate=23) + RETURN


def redirect_map(target: Map, key: int, flags: int = 0) -> bytes:
    arguments = instruction(0x18, 1, 1, immediate=target.fd) + instruction(0)
    arguments += instruction(0xB7, 2, immediate=key) + instruction(0xB7, 3, immediate=flags)
    return arguments + instruction(0x85, immediate=51) + RETURN


@contextmanager
def probe(program: bytes, namespace: NetworkNamespace) -> Iterator[RedirectProbe]:
    with ExitStack() as stack:
        fd = syscall.load_program(program, license_text="GPL")
        stack.callback(os.close, fd)
        yield stack.enter_context(RedirectProbe(fd, namespace))


@pytest.fixture
def namespace(kernel: None) -> Iterator[NetworkNamespace]:
    with NetworkNamespace() as made:
        made.add_device(PORT, PORT + 1)
        yield made


@pytest.fixture
def ports(namespace: NetworkNamespace) -> Iterator[Map]:
    with Map.create("devmap", key_size=4, value_size=4, max_entries=8) as made:
        with namespace.entered():
            made.update(struct.pack("=I", 3), struct.pack("=I", PORT))
        yield made


def interfaces() -> set[str]:
    with open("/proc/net/dev") as table:
        return {line.split(":")[0].strip() for line in table if ":" in line}


def test_namespace_devices_are_in_it_alone(kernel: None) -> None:
    before = interfaces()
    home = os.readlink("/proc/thread-self/ns/net")
    with NetworkNamespace() as namespace:
        namespace.add_device(500, 501)
        assert interfaces() == before
        with namespace.entered():
            assert os.readlink("/proc/thread-self/ns/net") != home
        assert os.readlink("/proc/thread-self/ns/net") == home
        with pytest.raises(BpfError, match="indices 500, 502: File exists"):
            namespace.add_device(500, 502)
    assert interfaces() == before


@pytest.mark.parametrize(("ifindex", "has_target"), [(PORT, True), (1, True), (9, False), (0, False)])
def test_probe_redirect_tells_the_interface(namespace: NetworkNamespace, ifindex: int, has_target: bool) -> None:
    with probe(redirect(ifindex), namespace) as asked:
        assert asked.run(FRAME) == KernelRedirect(None, ifindex, has_target, is_broadcast=False)


def test_probe_redirect_map_tells_map_and_key(namespace: NetworkNamespace, ports: Map) -> None:
    with probe(redirect_map(ports, 3), namespace) as asked:
        assert asked.run(FRAME) == KernelRedirect(ports.info.id, 3, has_target=True, is_broadcast=False)


@pytest.mark.parametrize(("key", "has_target"), [(3, True), (5, False)])
def test_probe_broadcast_is_told_from_a_key(
    namespace: NetworkNamespace, ports: Map, key: int, has_target: bool
) -> None:
    with probe(redirect_map(ports, key, BROADCAST), namespace) as asked:
        assert asked.run(FRAME) == KernelRedirect(ports.info.id, key, has_target, is_broadcast=True)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_probe_other_verdict_is_no_redirect(namespace: NetworkNamespace, number: int) -> None:
    with probe(verdict(number), namespace) as asked:
        assert asked.run(FRAME, metadata=bytes(32)) is None


def test_probe_transmitted_frame_goes_to_the_loopback(namespace: NetworkNamespace) -> None:
    with probe(verdict(3), namespace) as asked:
        assert asked.run(FRAME) == KernelRedirect(None, 1, has_target=True, is_broadcast=False)


def test_probe_redirect_of_another_thread_is_not_noted(namespace: NetworkNamespace) -> None:
    with probe(redirect(PORT), namespace) as asked:
        asked.run(FRAME)
        child = os.fork()
        if child == 0:
            with namespace.entered():
                syscall.run_program(asked._fd, FRAME, flags=syscall.BPF_F_TEST_XDP_LIVE_FRAMES, batch_size=1)
            os._exit(0)
        asked._notes[:] = bytes(len(asked._notes))
        assert os.waitpid(child, 0)[1] == 0
        assert not any(asked._notes[:])
        assert asked.run(FRAME) is not None


def test_probe_frame_that_the_kernel_does_not_take_raises_bpf_error(namespace: NetworkNamespace) -> None:
    with probe(redirect(PORT), namespace) as asked:
        with pytest.raises(BpfError, match="EINVAL"):
            asked.run(bytes(3500))
        with pytest.raises(ParameterError, match="13 bytes"):
            asked.run(bytes(13))
        assert asked.run(bytes(1514)) is not None
