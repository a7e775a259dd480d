"""What the kernel tells of neighbours and routes lets workers forget; what changes no answer does not."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.router_namespace import RouterNamespace, router_namespace
from tests.serving import wait_until

pytestmark = pytest.mark.kernel

# Generations of the answers, one for each line of input. The thread ends with the process alone.
WATCHER = """
import sys
from uxdp_runtime.kernel_state import KernelState
from uxdp_runtime.serve.route_watch import RouteWatch
with KernelState(["bpf_fib_lookup"]) as kernel, RouteWatch() as watch:
    watch.follow([kernel])
    for line in sys.stdin:
        print(kernel._kernel.generation, flush=True)
"""
QUIET_SECONDS = 0.1
MAC, OTHER_MAC = "02:00:00:00:00:31", "02:00:00:00:00:32"


class Watcher:
    """Tells whether something was forgotten."""

    def __init__(self, space: RouterNamespace, process: subprocess.Popen[str]) -> None:
        self._space, self._process = space, process
        self._seen = 0
        wait_until(lambda: self.generation() > 1, "the dump is complete")
        wait_until(lambda: not self.has_forgotten(), "nothing is told")

    def generation(self) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def has_forgotten(self) -> bool:
        time.sleep(QUIET_SECONDS)
        before, self._seen = self._seen, self.generation()
        return self._seen != before

    def forgets(self, arguments: str) -> bool:
        self._space.ip(arguments)
        return self.has_forgotten()


@contextmanager
def watching(space: RouterNamespace) -> Iterator[Watcher]:
    command = ["ip", "netns", "exec", space.name, sys.executable, "-c", WATCHER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Watcher(space, process)
        finally:
            process.kill()


def test_watch_forgets_only_what_has_changed(kernel: None) -> None:
    with router_namespace() as space, watching(space) as watcher:
        for to, gone in (("10.1.0.30", "10.1.0.31"), ("fd00:1::30", "fd00:1::31")):
            assert watcher.forgets(f"neigh add {to} lladdr {MAC} dev out0 nud reachable"), to
            for state in ("stale", "reachable", "delay", "permanent", "noarp", "stale"):
                assert not watcher.forgets(f"neigh replace {to} lladdr {MAC} dev out0 nud {state}"), (to, state)
            assert watcher.forgets(f"neigh replace {to} lladdr {OTHER_MAC} dev out0 nud stale"), to
            assert not watcher.forgets(f"neigh replace {to} lladdr {OTHER_MAC} dev out0 nud permanent"), to
            assert not watcher.forgets(f"neigh add {gone} dev out0 nud failed"), to
            assert not watcher.forgets(f"neigh del {gone} dev out0"), to
            assert watcher.forgets(f"neigh replace {to} dev out0 nud failed"), to
            assert watcher.forgets(f"neigh replace {to} lladdr {OTHER_MAC} dev out0 nud permanent"), to
            assert watcher.forgets(f"neigh del {to} dev out0"), to
        # The dump told of this one.
        assert not watcher.forgets("neigh replace 10.1.0.2 lladdr 02:00:00:00:00:02 dev out0 nud stale")
        assert watcher.forgets("route add 198.51.100.0/24 via 10.1.0.2")
        assert watcher.forgets("link set out0 mtu 1300")
