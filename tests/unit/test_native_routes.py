"""The answers of bpf_fib_lookup that a worker keeps: found by the whole key, given up when there are too many."""

import ctypes
import platform
import socket
import subprocess

import pytest

from tests.native_library import NATIVE_TESTS, clang
from uxdp_runtime.kernel_state import Routes

TBID = 8
ROUTES = len(Routes().routes)
KINDS = [
    pytest.param(socket.AF_INET, 0, id="ipv4"),
    pytest.param(socket.AF_INET, TBID, id="ipv4-with-table"),
    pytest.param(socket.AF_INET6, 0, id="ipv6"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("routes")
    compiler = [*clang(), "-target", f"{platform.machine()}-linux-gnu", "-fPIC", "-O2", "-std=gnu11"]
    made, path = folder / "routes.o", folder / "routes.so"
    subprocess.run([*compiler, "-c", str(NATIVE_TESTS / "routes.c"), "-o", str(made)], check=True)
    subprocess.run([compiler[0], "ld.lld", "-shared", str(made), "-o", str(path)], check=True)
    return ctypes.CDLL(str(path))


@pytest.fixture
def routes() -> Routes:
    # Sets are read as whole cache lines.
    memory = (ctypes.c_char * (ctypes.sizeof(Routes) + 64))()
    return Routes.from_buffer(memory, -ctypes.addressof(memory) % 64)


def numbers(routes: Routes) -> list[int]:
    """Return the numbers of all answers that are found by a set."""
    slots = bytes(memoryview(routes.slots).cast("B"))
    return [slot % ROUTES for slot in memoryview(slots).cast("I") if slot]


@pytest.mark.parametrize(("family", "flags"), KINDS)
def test_routes_of_a_hundred_thousand_keys_are_all_kept(
    library: ctypes.CDLL, routes: Routes, family: int, flags: int
) -> None:
    assert library.test_remember(ctypes.byref(routes), 0, 100_000, family, flags) == 100_000
    found = library.test_found(ctypes.byref(routes), 0, 100_000, family, flags)
    assert 99_900 < found <= routes.used <= 100_000
    assert library.test_found(ctypes.byref(routes), 100_000, 100_000, family, flags) == 0


def test_routes_of_other_families_flags_and_tables_are_apart(library: ctypes.CDLL, routes: Routes) -> None:
    for family, flags in ((socket.AF_INET, 0), (socket.AF_INET, 1), (socket.AF_INET, TBID), (socket.AF_INET6, 0)):
        assert library.test_remember(ctypes.byref(routes), 0, 1000, family, flags) == 1000
    assert routes.used == 4000


@pytest.mark.parametrize(("family", "flags"), KINDS)
def test_routes_of_too_many_keys_take_the_place_of_others(
    library: ctypes.CDLL, routes: Routes, family: int, flags: int
) -> None:
    assert library.test_remember(ctypes.byref(routes), 0, 2 * ROUTES, family, flags) == 2 * ROUTES
    kept = numbers(routes)
    assert routes.used == ROUTES - 1
    assert len(kept) == len(set(kept)) == library.test_found(ctypes.byref(routes), 0, 2 * ROUTES, family, flags)
    assert len(kept) > 0.99 * ROUTES
    assert 0 not in kept
    # Chance decides, so flows that take turns do not always miss.
    missed = library.test_remember(ctypes.byref(routes), 0, ROUTES + ROUTES // 4, family, flags)
    missed = library.test_remember(ctypes.byref(routes), 0, ROUTES + ROUTES // 4, family, flags)
    assert 0 < missed < ROUTES
