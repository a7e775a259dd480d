"""Rates from two snapshots, and the table that is made of them."""

import io

import pytest
from rich.console import Console

from tests.serving_answers import kernel_answer, port_answer, queue_answer, stats_answer, status_answer
from uxdp_runtime.serve.live_table import COLUMNS, LiveTable, scaled, table_rows, title
from uxdp_runtime.serve.operation import _until_it_fails, status_line
from uxdp_runtime.serve.rates import rates

BEFORE = stats_answer(100.0, queue_answer(1000))
AFTER = stats_answer(102.0, queue_answer(5000, factor=3))


def test_rates_are_differences_by_time() -> None:
    (queue,) = rates(BEFORE, AFTER)
    assert queue.received.frames == 5000
    assert queue.received.pps == 2000
    assert queue.received.bps == 2000 * 100 * 8
    assert [(flow.what, flow.frames, flow.pps, flow.bps) for flow in queue.verdicts] == [
        ("aborted", 3, 1, 800),
        ("drop", 60, 20, 16_000),
        ("pass", 900, 300, 240_000),
        ("tx", 12_000, 4000, 3_200_000),
    ]
    assert [(flow.what, flow.frames, flow.pps) for flow in queue.losses] == [
        ("tx_ring_full", 21, 7),
        ("kernel rx_dropped", 15, 5),
    ]
    assert queue.ns_per_frame == 250
    assert (queue.rx_ring_waiting, queue.rx_ring_size) == (3, 2048)


def test_rates_without_an_earlier_snapshot_are_unknown() -> None:
    (queue,) = rates(None, AFTER)
    assert queue.received.frames == 5000
    assert queue.received.pps is None
    assert {flow.pps for flow in (*queue.verdicts, *queue.losses)} == {None}
    assert queue.ns_per_frame == 250


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(AFTER, stats_answer(104.0, queue_answer(10)), id="another-service"),
        pytest.param(AFTER, stats_answer(102.0, queue_answer(6000)), id="no-time-passed"),
        pytest.param(AFTER, stats_answer(90.0, queue_answer(6000)), id="clock-went-back"),
        pytest.param(AFTER, stats_answer(104.0, queue_answer(6000, queue=1)), id="new-queue"),
    ],
)
def test_rates_that_cannot_be_known_are_none(before: dict[str, object], after: dict[str, object]) -> None:
    (queue,) = rates(before, after)
    assert queue.received.pps is None


def test_rates_of_an_idle_queue_have_its_mean_cost() -> None:
    (queue,) = rates(AFTER, stats_answer(103.0, queue_answer(5000, factor=3)))
    assert queue.received.pps == 0
    assert queue.ns_per_frame == 250
    (empty,) = rates(None, stats_answer(1.0, queue_answer(0)))
    assert empty.ns_per_frame is None


def test_rates_in_the_kernel_mode_are_the_programs_runs() -> None:
    (kernel,) = rates(kernel_answer(1.0, 100), kernel_answer(3.0, 500))
    assert (kernel.interface, kernel.queue_id, kernel.ns_per_frame) == ("kernel", 5, 40)
    assert (kernel.received.frames, kernel.received.pps, kernel.received.bps) == (500, 200, None)
    assert table_rows([kernel]) == [("kernel:5", "runs", "500", "200", "-", "40", "-")]
    (another,) = rates(kernel_answer(1.0, 100), kernel_answer(3.0, 500, program_id=6))
    assert another.received.pps is None
    status = {**status_answer(), "mode": "kernel", "data_pid": None}
    assert "in the kernel" in title(status)
    assert status_line(status, None, kernel_answer(1.0, 0)) == "the kernel serves eth0"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0"), (999.4, "999"), (999.6, "1.00k"), (12_345.0, "12.3k"), (1.5e6, "1.50M"), (2e12, "2.00T")],
)
def test_scaled_has_three_digits(value: float | None, text: str) -> None:
    assert scaled(value) == text


def test_table_has_a_row_for_each_verdict_and_loss() -> None:
    rows = table_rows(rates(BEFORE, AFTER))
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert rows[0] == ("eth0:0", "received", "5000", "2.00k", "1.60M", "250", "3/2048")
    assert [row[1] for row in rows[1:]] == [
        *("aborted", "drop", "pass", "tx"),
        *("lost: tx_ring_full", "lost: kernel rx_dropped"),
    ]


def test_live_table_is_drawn_without_a_thread_and_without_control_characters_of_others() -> None:
    import threading

    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100)
    threads = threading.active_count()
    with LiveTable(console) as table:
        table.show({**status_answer(), "name": "edge\x1b[2J[red]"}, rates(BEFORE, AFTER))
        table.show(status_answer(), rates(BEFORE, AFTER))
        assert threading.active_count() == threads
    text = output.getvalue()
    assert r"edge\x1b[2J[red]: xdp_main, up 1:02:05, data process 11, 2 restarts" in text
    assert "lost: tx_ring_full" in text


def test_title_tells_when_nobody_serves() -> None:
    assert "NOT SERVING" in title(status_answer(serving=False))


def test_status_line_adds_queues_up() -> None:
    after = stats_answer(102.0, queue_answer(5000, factor=3), queue_answer(7, queue=1))
    line = status_line(status_answer(), BEFORE, after)
    assert line == "serving eth0: 2000 frames per second, 48 lost, 2 restarts"


def test_observer_that_fails_is_reported_once_and_not_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise OSError(5, "Input/output error")

    act = _until_it_fails("the live table", fail)
    act()
    act()
    assert len(calls) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "the live table ends, serving goes on: Input/output error"
    ]


def test_table_tells_a_dpdk_devices_losses_link_and_buffers_with_its_first_queue() -> None:
    answer = {**stats_answer(1.0, queue_answer(10), queue_answer(10, queue=1)), "ports": [port_answer(up=False)]}
    rows = table_rows(rates(None, answer))
    (first,) = (row for row in rows if row[0].startswith("eth0:0"))
    assert (first[0], first[-1]) == ("eth0:0 (link down)", "96/4096")
    assert [row[1:3] for row in rows if "device" in row[1]] == [
        ("lost: device rx_missed", "12"),
        ("lost: device rx_no_mbuf", "3"),
    ]
