"""uxdp serve --mode kernel: the verified program on the interface, with a service's commands; and --on-failure."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.isolated_user import isolate
from tests.serving import RunningService, packet_socket, received, run_folder, send_all, serving, wait_until
from tests.serving_state import Answer, answer, is_answer, question, state_bundle
from tests.veth import HOST_ADDRESS, VethPair, veth_pair
from uxdp_runtime.bpf import syscall
from uxdp_runtime.cli.group import main
from uxdp_runtime.ports.attachment import detach_other
from uxdp_runtime.ports.interface import interface
from uxdp_runtime.serve.control_socket import RUN_FOLDER
from uxdp_runtime.serve.pinning import PIN_FOLDER

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("user")]
PASS_ALL = bytes.fromhex("b7000000020000009500000000000000")  # r0 = XDP_PASS; exit
XDP_FLAGS_DRV_MODE = 1 << 2
PAUSES = 8  # data processes that are ended in a row: the next restart waits for 1.28 s


@pytest.fixture
def pair(kernel: None) -> Iterator[VethPair]:
    with veth_pair() as made:
        # A veth whose peer has no program leaves what its own program transmits in a queue that nobody looks at.
        # Source: drivers/net/veth.c, veth_xdp_flush()
        with made.entered(made.peer):
            program = syscall.load_program(PASS_ALL, license_text="GPL")
            link = syscall.create_xdp_link(program, socket.if_nametoindex(made.interface), XDP_FLAGS_DRV_MODE)
        yield made
        os.close(link)
        os.close(program)


@pytest.fixture
def user(bpffs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv(RUN_FOLDER, run_folder(tmp_path / "run")[RUN_FOLDER])
    monkeypatch.setenv(PIN_FOLDER, str(bpffs / "uxdp"))


def in_kernel(pair: VethPair, folder: Path, *arguments: str) -> AbstractContextManager[RunningService]:
    return serving(pair, state_bundle(folder), "--program", "state", "--mode", "kernel", *arguments, name="state")


def ask_program(pair: VethPair, count: int = 1) -> list[Answer]:
    with packet_socket(pair, pair.peer) as raw:
        raw.settimeout(0.5)
        send_all(raw, [question(number) for number in range(count)])
        return [answer(data) for data in received(raw, count, is_answer)]


def attached(pair: VethPair) -> bool:
    run = pair.run(pair.host, "ip", "-json", "link", "show", "dev", pair.interface)
    return "xdp" in json.loads(run.stdout)[0]


def uxdp(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_kernel_mode_serves_with_the_kernels_maps(pair: VethPair, tmp_path: Path, bpffs: Path) -> None:
    with in_kernel(pair, tmp_path, "--set", 'flows:10.0.0.1={"frames": 40}') as service:
        assert ask_program(pair)[0][1:5] == (1, 0, 1, 41)
        uxdp("map", "set", "state", "settings", "0", '{"mark": 5}')
        uxdp("map", "set", "state", "stages", "0", "stage_two")
        assert ask_program(pair)[0][1:5] == (1, 5, 2, 42)
        assert uxdp("map", "dump", "state", "flows", "stages") == (
            'flows:\n  "10.0.0.1" = {"frames": 42}\nstages:\n  0 = "stage_two"\n'
        )
        uxdp("map", "set", "state", "ports", "0", pair.interface)
        assert {path.name for path in (bpffs / "uxdp" / "state").iterdir()} >= {"flows", "settings", "stages", "_bss"}
        status = service.ask("status")
        assert (status["mode"], status["data_pid"], status["serving"]) == ("kernel", None, True)
        assert status["interfaces"][0]["attached"] == "native"
        assert service.ask("stats")["kernel"]["program_id"] == status["program_id"]
        assert "state" in uxdp("status")
        run = pair.run(pair.peer, "ping", "-c", "2", "-i", "0.02", "-W", "1", HOST_ADDRESS)
        assert " 0% packet loss" in run.stdout
        assert service.stop() == 0
    assert not attached(pair)
    assert not (bpffs / "uxdp").exists()


def test_kernel_mode_reload_keeps_maps_and_programs(pair: VethPair, tmp_path: Path) -> None:
    with in_kernel(pair, tmp_path, "--set", 'flows:10.0.0.1={"frames": 40}') as service:
        uxdp("map", "set", "state", "stages", "0", "stage_two")
        assert ask_program(pair)[0][1:5] == (1, 0, 2, 41)
        uxdp("reload", "state", str(state_bundle(tmp_path, "VERSION=2", name="next")))
        assert ask_program(pair)[0][1:5] == (2, 0, 2, 42)
        other = state_bundle(tmp_path, "FLOW_MEMBERS=__u64 frames, bytes", name="other")
        refused = CliRunner().invoke(main, ["reload", "state", str(other)])
        assert refused.exit_code == 1
        assert "map flows: value size 8 became 16" in refused.output
        assert ask_program(pair)[0][1:5] == (2, 0, 2, 43)
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: service.log.count("the kernel runs it now") == 2, "reloaded", 10.0)
        assert ask_program(pair)[0][1:5] == (2, 0, 2, 44)


def test_kernel_mode_detaches_when_its_process_is_killed(pair: VethPair, tmp_path: Path) -> None:
    with in_kernel(pair, tmp_path) as service:
        assert attached(pair)
        os.kill(service.ask("status")["pid"], signal.SIGKILL)
        wait_until(lambda: not attached(pair), "detached", 2.0)


def test_kernel_mode_with_on_failure_is_refused(pair: VethPair, tmp_path: Path) -> None:
    arguments = ["serve", str(state_bundle(tmp_path)), "--af-xdp", pair.interface, "--insecure-unsigned"]
    result = CliRunner().invoke(main, [*arguments, "--mode", "kernel", "--on-failure", "drop"])
    assert result.exit_code == 2
    assert "--on-failure" in result.output


def test_replace_leaves_interfaces_of_other_namespaces_alone(pair: VethPair, tmp_path: Path) -> None:
    with in_kernel(pair, tmp_path), veth_pair() as other, other.entered(other.host):
        assert socket.if_nametoindex(other.interface) == served_index(pair)
        program = syscall.load_program(PASS_ALL, license_text="GPL")
        link = syscall.create_xdp_link(program, socket.if_nametoindex(other.interface), XDP_FLAGS_DRV_MODE)
        detach_other(interface(other.interface))
        assert not attached(other)
        assert attached(pair)
        assert ask_program(pair)[0].version == 1
        os.close(link)
        os.close(program)


def served_index(pair: VethPair) -> int:
    with pair.entered(pair.host):
        return socket.if_nametoindex(pair.interface)


def keep_away(service: RunningService) -> None:
    """End data processes until a restart waits, so that nobody serves for a while."""
    ended: list[int] = []
    while len(ended) < PAUSES:
        pid = service.ask("status")["data_pid"]
        if pid is not None and pid not in ended:
            os.kill(pid, signal.SIGKILL)
            ended.append(pid)
    wait_until(lambda: service.ask("status")["data_pid"] is None, "away", 10.0)


@pytest.mark.parametrize("what", ["pass", "drop", "kernel"])
def test_while_native_code_is_away_the_fallback_decides(pair: VethPair, tmp_path: Path, what: str) -> None:
    bundle = state_bundle(tmp_path)
    flow = 'flows:10.0.0.1={"frames": 40}'
    arguments = ("--program", "state", "--tx", "ring", "--on-failure", what, "--set", flow)
    with serving(pair, bundle, *arguments, name="state") as service:
        uxdp("map", "set", "state", "settings", "0", '{"mark": 6}')
        assert ask_program(pair)[0][1:5] == (1, 6, 1, 41)
        with packet_socket(pair, pair.host) as stack, packet_socket(pair, pair.peer) as peer:
            for raw in (stack, peer):
                raw.settimeout(0.2)
            keep_away(service)
            send_all(peer, [question(7)])
            passed = received(stack, 1, lambda data: data == question(7))
            answered = [answer(data) for data in received(peer, 1, is_answer)]
        # The kernel's copy has the arrays, and what else was written; what native code counted it has not.
        assert (len(passed), [item[:5] for item in answered]) == {
            "pass": (1, []),
            "drop": (0, []),
            "kernel": (0, [(7, 1, 6, 1, 41)]),
        }[what]
        wait_until(lambda: service.ask("status")["data_pid"] is not None, "native code is back", 10.0)
        assert ask_program(pair)[0][1:5] == (1, 6, 1, 42)
