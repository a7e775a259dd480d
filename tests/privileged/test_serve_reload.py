"""uxdp reload on live traffic: no frame is lost or comes twice, maps are kept, refusals change nothing."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.isolated_user import isolate
from tests.serving import RunningService, packet_socket, received, run_folder, send_all, serving, wait_until
from tests.serving_state import Answer, answer, is_answer, question, state_bundle
from tests.veth import VethPair, veth_pair
from uxdp_runtime.cli.group import main
from uxdp_runtime.serve.control_socket import RUN_FOLDER, RemoteError

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("kernel")]
FRAMES_PER_STEP = 50
STEP_SECONDS = 0.005


@pytest.fixture
def pair(kernel: None) -> Iterator[VethPair]:
    with veth_pair() as made:
        yield made


@pytest.fixture
def service(pair: VethPair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RunningService]:
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv(RUN_FOLDER, run_folder(tmp_path / "run")[RUN_FOLDER])
    flow = 'flows:10.0.0.1={"frames": 0}'
    bundle = state_bundle(tmp_path)
    with serving(pair, bundle, "--program", "state", "--tx", "ring", "--set", flow, name="state") as running:
        yield running


class Traffic:
    """Numbered frames that are sent all the time, and their answers."""

    def __init__(self) -> None:
        self.sent = 0
        self.answers: list[Answer] = []
        self.is_over = False


@contextmanager
def traffic(pair: VethPair) -> Iterator[Traffic]:
    flow = Traffic()
    with packet_socket(pair, pair.peer) as raw:
        raw.settimeout(0.5)

        def send() -> None:
            while not flow.is_over and flow.sent < 1_000_000:
                send_all(raw, [question(number) for number in range(flow.sent, flow.sent + FRAMES_PER_STEP)])
                flow.sent += FRAMES_PER_STEP
                time.sleep(STEP_SECONDS)

        def receive() -> None:
            while not flow.is_over or len(flow.answers) < flow.sent:
                found = [answer(data) for data in received(raw, FRAMES_PER_STEP, is_answer)]
                flow.answers += found
                if flow.is_over and not found:
                    return

        threads = [threading.Thread(target=send), threading.Thread(target=receive)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(0.2)
            yield flow
            time.sleep(0.2)
        finally:
            flow.is_over = True
            for thread in threads:
                thread.join()


def ask_program(pair: VethPair) -> Answer:
    with packet_socket(pair, pair.peer) as raw:
        send_all(raw, [question(0)])
        (data,) = received(raw, 1, is_answer)
        return answer(data)


def reload(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["reload", "state", str(path), *arguments], catch_exceptions=False)


def test_reload_under_traffic_loses_nothing_and_keeps_the_maps(
    service: RunningService, pair: VethPair, tmp_path: Path
) -> None:
    service.ask("map-set", map="settings", key=0, value={"mark": 3})
    service.ask("map-set", map="groups", key=0, value={"max_entries": 10})
    service.ask("map-set", map="groups[0]", key="10.0.0.1", value=0)
    service.ask("map-set", map="residents", key="10.0.0.1", value=0)
    versions = [state_bundle(tmp_path, f"VERSION={number}", name=f"state-{number}") for number in (2, 3, 4)]
    with traffic(pair) as flow:
        for version in versions:
            result = reload(version)
            assert result.exit_code == 0, result.output
            print(result.output)
            time.sleep(0.1)
    missing = set(range(flow.sent)) - {item.number for item in flow.answers}
    assert not missing, (missing, len(flow.answers), service.ask("stats"))
    assert [item.number for item in flow.answers] == list(range(flow.sent))
    assert sorted({item.version for item in flow.answers}) == [1, 2, 3, 4]
    assert [item.version for item in flow.answers] == sorted(item.version for item in flow.answers)
    # An array, a hash map and a counter in .bss that went on without a gap.
    assert {item.mark for item in flow.answers} == {3}
    assert [item.flow for item in flow.answers] == [(number + 1) % 256 for number in range(flow.sent)]
    assert [item.seen for item in flow.answers][7:] == list(range(8, flow.sent + 1))
    for group in ("groups[0]", "groups[1]"):
        assert service.ask("map-get", map=group, key="10.0.0.1")["value"] == flow.sent
    assert service.totals()["lost"] == 0
    assert service.ask("status")["restarts"] == 0
    assert service.ask("status")["bundle"] == str(versions[-1])


def test_while_a_new_version_is_compiled_the_old_one_is_looked_after(
    service: RunningService, pair: VethPair, tmp_path: Path
) -> None:
    old, new = service.ask("status"), state_bundle(tmp_path, "VERSION=2", name="next")
    results: list[Result] = []
    reloading = threading.Thread(target=lambda: results.append(reload(new)))
    reloading.start()
    lowerers: list[int] = []
    wait_until(lambda: bool(lowerers.extend(lowerers_of(service)) or lowerers), "it lowers the IR")
    os.kill(lowerers[0], signal.SIGSTOP)
    try:
        assert is_reloading(service)
        os.kill(old["data_pid"], signal.SIGKILL)
        wait_until(lambda: service.ask("status")["restarts"] == 1, "restarted")
        now = service.ask("status")
        assert (now["bundle"], now["serving"]) == (old["bundle"], True)
        assert not results
        assert ask_program(pair).version == 1
    finally:
        os.kill(lowerers[0], signal.SIGCONT)
    reloading.join()
    assert results[0].exit_code == 0, results[0].output
    assert ask_program(pair).version == 2
    assert service.stop() == 0


def is_reloading(service: RunningService) -> bool:
    """Ask for what would be refused anyway: one reload at a time comes first."""
    with pytest.raises(RemoteError) as refused:
        service.ask("reload", bundle="/nowhere/none.uxdp")
    return refused.value.message == "another reload is under way"


def lowerers_of(service: RunningService) -> list[int]:
    """Return the processes below a service's that lower IR, as each reload does; native code may be cached."""
    parents: dict[int, int] = {}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if b"lowering_child.py" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended

    def is_below(pid: int) -> bool:
        return pid == service.process.pid or (pid in parents and is_below(parents[pid]))

    return [pid for pid in found if is_below(pid)]


def test_reload_of_other_map_definitions_is_refused_unless_they_may_be_dropped(
    service: RunningService, pair: VethPair, tmp_path: Path
) -> None:
    service.ask("map-set", map="settings", key=0, value={"mark": 3})
    other = state_bundle(tmp_path, "VERSION=2", "FLOW_MEMBERS=__u64 frames, bytes", name="other")
    before = service.ask("status")
    refused = reload(other)
    assert refused.exit_code == 1
    assert "map flows: value size 8 became 16" in refused.output
    assert ask_program(pair)[1:5] == (1, 3, 1, 1)
    assert service.ask("status")["data_pid"] == before["data_pid"]
    result = reload(other, "--drop-maps")
    assert result.exit_code == 0, result.output
    assert "maps dropped: flows" in result.output
    assert ask_program(pair)[1:5] == (2, 3, 1, 0)


def test_reload_resets_global_data_of_other_variables(service: RunningService, pair: VethPair, tmp_path: Path) -> None:
    service.ask("map-set", map=".bss", key=0, value={"seen": 50})
    service.ask("map-set", map=".data", key=0, value={"limit": 1})
    other = state_bundle(tmp_path, "GLOBALS=__u32 unused; __u64 seen", name="other")
    result = reload(other)
    assert "start anew (global data): .bss" in result.output
    assert ask_program(pair).seen == 1  # and .data is kept


def test_reload_keeps_programs_by_name(service: RunningService, pair: VethPair, tmp_path: Path) -> None:
    service.ask("map-set", map="stages", key=0, value="stage_two")
    assert reload(state_bundle(tmp_path, "VERSION=2", name="other")).exit_code == 0
    assert ask_program(pair)[1:4] == (2, 0, 2)


@pytest.mark.parametrize("damage", ["missing", "no-bundle", "flipped"])
def test_reload_of_what_is_no_bundle_changes_nothing(
    service: RunningService, pair: VethPair, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "bad.uxdp"
    if damage == "no-bundle":
        path.write_bytes(b"\x7fELF")
    elif damage == "flipped":
        data = bytearray(state_bundle(tmp_path, name="new").read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert reload(path).exit_code in (1, 3)
    assert ask_program(pair).version == 1


def test_hangup_opens_the_bundle_again(service: RunningService, pair: VethPair, tmp_path: Path) -> None:
    state_bundle(tmp_path, "VERSION=9")
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: ask_program(pair).version == 9, "the new version serves", 10.0)
    (tmp_path / "state.uxdp").write_bytes(b"")
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "not reloaded" in service.log, "refused", 10.0)
    assert ask_program(pair).version == 9
