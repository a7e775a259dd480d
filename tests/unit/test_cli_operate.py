"""``uxdp status``, ``stats`` and ``stop``, answered by a control socket with nothing behind it."""

import json
import selectors
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.serving_answers import queue_answer, stats_answer, status_answer
from uxdp_runtime.cli import main
from uxdp_runtime.serve.control_socket import RUN_FOLDER, ControlSocket, socket_path
from uxdp_runtime.serve.handover import data_socket_path


@pytest.fixture(autouse=True)
def run_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(RUN_FOLDER, str(tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture
def service() -> Iterator[dict[str, bool]]:
    """A control socket called edge, until it is told to stop or the test ends; whether it serves can be set."""
    state = {"serving": True, "running": True}
    answers = iter(range(1000))

    def stats(_request: object) -> object:
        number = next(answers)
        return stats_answer(100.0 + number, queue_answer(1000 * number))

    def stop(_request: object) -> None:
        state["running"] = False

    selector = selectors.DefaultSelector()
    control = ControlSocket(
        "edge",
        selector,
        {"status": lambda _request: status_answer(serving=state["serving"]), "stats": stats, "stop": stop},
    )

    def loop() -> None:
        while state["running"]:
            for key, mask in selector.select(0.01):
                key.data(mask)
        control.close()

    thread = threading.Thread(target=loop)
    thread.start()
    yield state
    state["running"] = False
    thread.join()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="uxdp")


def test_status_without_services_says_so() -> None:
    result = run("status")
    assert result.exit_code == 0
    assert "no service runs here" in result.stderr
    assert json.loads(run("status", "--json").stdout) == {"services": []}


def test_status_lists_services_and_what_is_wrong(service: dict[str, bool], run_folder: Path) -> None:
    assert stat.S_IMODE(socket_path("edge").stat().st_mode) == 0o600
    result = run("status")
    assert result.exit_code == 0
    assert "edge" in result.stdout
    assert "eth0 (native)" in result.stdout
    assert json.loads(run("status", "edge", "--json").stdout) == status_answer()
    service["serving"] = False
    result = run("status", "edge")
    assert result.exit_code == 10
    assert "not serving" in result.stdout
    service["serving"] = True
    data_socket_path("edge").touch()  # is no service
    with socket.socket(socket.AF_UNIX) as ended:  # a socket whose process has gone
        ended.bind(str(run_folder / "old.sock"))
    result = run("status", "--json")
    assert result.exit_code == 10
    assert [(item["name"], item["serving"]) for item in json.loads(result.stdout)["services"]] == [
        ("edge", True),
        ("old", False),
    ]


@pytest.mark.parametrize("command", ["status", "stats", "stop"])
@pytest.mark.parametrize("name", ["nobody", "x" * 300])
def test_service_that_does_not_run_is_a_sentence_and_exit_code_10(command: str, name: str) -> None:
    result = run(command, name)
    assert result.exit_code == 10
    assert "no service answers" in result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_stats_shows_counters(service: dict[str, bool]) -> None:
    result = run("stats", "edge")
    assert result.exit_code == 0
    assert "lost: tx_ring_full" in result.stdout
    document = json.loads(run("stats", "edge", "--json").stdout)
    assert document["queues"][0]["verdicts"]["tx"] == 4000
    assert "the kernel was asked 40 times, 2 of them in vain; 960 answers were remembered" in result.output


def test_stats_watch_prints_a_document_a_line(service: dict[str, bool]) -> None:
    result = run("stats", "edge", "--watch", "--count", "2", "--json")
    assert result.exit_code == 0
    first, second = map(json.loads, result.stdout.splitlines())
    assert second["time"] - first["time"] == 1.0


def test_stats_watch_shows_rates(service: dict[str, bool]) -> None:
    result = run("stats", "edge", "--watch", "--count", "2")
    assert result.exit_code == 0
    assert "1.00k" in result.stdout


def test_stop_waits_for_the_end(service: dict[str, bool]) -> None:
    assert run("stop", "edge").exit_code == 0
    assert not socket_path("edge").exists()
    assert run("stop", "edge").exit_code == 10
