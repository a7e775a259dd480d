"""Which flags maps of each type may have, and which may be inner ones, asked of the running kernel."""

import ctypes
import os
import re
from itertools import combinations
from pathlib import Path

import pytest

from tests.map_shapes import shape
from uxdp_bundle.errors import UxdpError
from uxdp_bundle.map_definitions import MAP_TYPES
from uxdp_runtime import abi
from uxdp_runtime.bpf import syscall
from uxdp_runtime.bpf.maps import Map
from uxdp_runtime.compile.inner_maps import INNER_TYPES, REFUSED_INNER
from uxdp_runtime.stores import control_library

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("kernel")]

SUPPORT = (Path(__file__).parents[2] / "SUPPORT.md").read_text().partition("## Maps\n")[2].partition("\n## ")[0]
SUPPORTED = re.findall(r"^\| `(\w+)` \| yes \| \|$", SUPPORT, re.MULTILINE)
NO_PREALLOC = 1 << 0  # which a trie must have
ACCESS = {"user": 1 << 3 | 1 << 4, "program": 1 << 7 | 1 << 8}  # read-only and write-only at once is refused
# Of a devmap: the kernel sets it itself, and refuses who asks for it.
RDONLY_PROG = 1 << 7
# include/uapi/linux/bpf.h; what is behind has no meaning for maps that XDP programs use.
NUM_FLAGS = 16


def kernel_takes(kind: str, flags: int, inner: Map) -> bool:
    key, value, entries = shape(kind)
    inner_fd = inner.fd if kind.endswith("_of_maps") else 0
    try:
        os.close(syscall.create_map(MAP_TYPES.index(kind), key, value, entries, flags=flags, inner_map_fd=inner_fd))
    except UxdpError:
        return False
    return True


def native_takes(kind: str, flags: int) -> bool:
    key, value, entries = shape(kind)
    descriptor = abi.Map(
        kind=MAP_TYPES.index(kind), key_size=key, value_size=value, max_entries=entries, flags=flags, num_cpus=1
    )
    return bool(control_library().store_bytes(ctypes.byref(descriptor)))


@pytest.mark.parametrize("kind", SUPPORTED)
def test_native_maps_have_the_flags_that_the_kernels_may_have(kind: str) -> None:
    always = NO_PREALLOC if kind == "lpm_trie" else 0
    few = [sum(1 << bit for bit in bits) for count in range(3) for bits in combinations(range(NUM_FLAGS), count)]
    with Map.create("hash", key_size=4, value_size=4, max_entries=4) as inner:
        kernel = {flags for flags in few if kernel_takes(kind, flags | always, inner)}
    native = {flags for flags in few if native_takes(kind, flags | always)}
    assert kernel - native == set()
    # A program with a map that the kernel refuses is not loaded, so natively these are never made.
    only_native = {flags for flags in native - kernel if not any(flags & both == both for both in ACCESS.values())}
    assert all(kind.startswith("devmap") and flags & RDONLY_PROG for flags in only_native)


@pytest.mark.parametrize("kind", [kind for kind in SUPPORTED if not kind.endswith("_of_maps")])
def test_inner_maps_that_the_kernel_takes_are_native_or_refused_with_a_reason(kind: str) -> None:
    key, value, entries = shape(kind)
    flags = NO_PREALLOC if kind == "lpm_trie" else 0
    with Map.create(kind, key_size=key, value_size=value, max_entries=entries, flags=flags) as inner:
        taken = kernel_takes("array_of_maps", 0, inner)
    assert taken == (kind in INNER_TYPES | REFUSED_INNER.keys())
