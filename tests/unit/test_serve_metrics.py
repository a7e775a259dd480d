"""The endpoint for Prometheus: what it says, and whom it does not listen to."""

import selectors
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving_answers import kernel_answer, port_answer, queue_answer, stats_answer, status_answer
from uxdp_bundle.errors import UnsupportedFeatureError
from uxdp_runtime.errors import ParameterError, PortError
from uxdp_runtime.serve import metrics
from uxdp_runtime.serve.metrics import MetricsEndpoint, latency_histogram, parse_address

Served = tuple[MetricsEndpoint, selectors.BaseSelector]


@pytest.fixture
def served() -> Iterator[Served]:
    with selectors.DefaultSelector() as selector, MetricsEndpoint("127.0.0.1:0") as endpoint:
        answer = stats_answer(1.0, queue_answer(1000), queue_answer(5, queue=1, factor=2))
        endpoint.serve(selector, status_answer, lambda: answer)
        yield endpoint, selector


def connect(served: Served) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", int(served[0].url.split(":")[2].split("/")[0])))
    client.setblocking(False)
    return client


def dispatch(served: Served, seconds: float = 0.05) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for key, mask in served[1].select(0.005):
            key.data(mask)


def exchange(served: Served, *pieces: bytes) -> tuple[str, bytes]:
    """Send a request and return the status line and the body of the answer, until the server closes."""
    with connect(served) as client:
        for piece in pieces:
            client.sendall(piece)
            dispatch(served, 0.02)
        answer = b""
        end = time.monotonic() + 5
        while time.monotonic() < end:
            dispatch(served, 0.01)
            try:
                data = client.recv(1 << 20)
            except BlockingIOError:
                continue
            if not data:
                break
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0].decode(), body


def samples(text: str) -> dict[tuple[str, ...], float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sorted(sample.labels, key=lambda label: (label not in ("interface", "queue"), label))
            found[(sample.name, *(sample.labels[label] for label in labels))] = sample.value
    return found


def test_metrics_are_the_counters(served: Served) -> None:
    status, body = exchange(served, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == "HTTP/1.1 200 OK"
    found = samples(body.decode())
    assert found[("uxdp_serving",)] == 1
    assert found[("uxdp_data_process_restarts_total",)] == 2
    assert found[("uxdp_received_frames_total", "eth0", "0")] == 1000
    assert found[("uxdp_verdict_frames_total", "eth0", "0", "tx")] == 4000
    assert found[("uxdp_verdict_frames_total", "eth0", "1", "tx")] == 8000
    assert found[("uxdp_lost_frames_total", "eth0", "1", "tx_ring_full")] == 14
    assert found[("uxdp_socket_events_total", "eth0", "0", "rx_dropped")] == 5
    assert found[("uxdp_busy_seconds_total", "eth0", "0")] == pytest.approx(1000 * 250e-9)
    assert found[("uxdp_rx_ring_waiting_frames", "eth0", "0")] == 3
    assert found[("uxdp_frame_latency_seconds_bucket", "eth0", "0", "1.024e-06")] == 0
    assert found[("uxdp_frame_latency_seconds_bucket", "eth0", "0", "2.048e-06")] == 1000
    assert found[("uxdp_frame_latency_seconds_bucket", "eth0", "0", "+Inf")] == 1000
    assert found[("uxdp_frame_latency_seconds_count", "eth0", "0")] == 1000
    assert found[("uxdp_frame_latency_seconds_sum", "eth0", "0")] == pytest.approx(1000 * 1536e-9)
    assert found[("uxdp_kernel_questions_total", "asked")] == 40
    assert found[("uxdp_kernel_questions_total", "remembered")] == 960
    info = [key for key in found if key[0] == "uxdp_service_info"]
    assert len(info) == 1
    assert {"edge", "xdp_main", "ab" * 32} <= set(info[0])


def test_metrics_in_the_kernel_mode_are_the_programs_runs() -> None:
    with selectors.DefaultSelector() as selector, MetricsEndpoint("127.0.0.1:0") as endpoint:
        endpoint.serve(selector, status_answer, lambda: kernel_answer(1.0, 1000))
        _status, body = exchange((endpoint, selector), b"GET /metrics HTTP/1.1\r\n\r\n")
    found = samples(body.decode())
    assert found[("uxdp_kernel_runs_total",)] == 1000
    assert found[("uxdp_kernel_run_seconds_total",)] == pytest.approx(40e-6)


def test_metrics_of_a_dpdk_device_are_its_drivers() -> None:
    with selectors.DefaultSelector() as selector, MetricsEndpoint("127.0.0.1:0") as endpoint:
        answer = {**stats_answer(1.0, queue_answer(10)), "ports": [port_answer()]}
        endpoint.serve(selector, status_answer, lambda: answer)
        _status, body = exchange((endpoint, selector), b"GET /metrics HTTP/1.1\r\n\r\n")
    text = body.decode()
    assert 'uxdp_link_up{interface="eth0"} 1.0' in text
    assert 'uxdp_buffers_free{interface="eth0"} 4000.0' in text
    assert 'uxdp_device_events{event="rx_missed",interface="eth0"} 12.0' in text
    assert 'uxdp_device_xstats{interface="eth0",name="rx_q0_packets"} 99.0' in text


def test_metrics_that_cannot_be_read_are_a_servers_error() -> None:
    def stats() -> dict[str, Any]:
        raise PortError(5, "cannot be read", context="eth0")

    with selectors.DefaultSelector() as selector, MetricsEndpoint("127.0.0.1:0") as endpoint:
        endpoint.serve(selector, status_answer, stats)
        status, _body = exchange((endpoint, selector), b"GET /metrics HTTP/1.1\r\n\r\n")
    assert status == "HTTP/1.1 500 Internal Server Error"


def test_metrics_request_in_pieces_is_answered(served: Served) -> None:
    status, _body = exchange(served, b"GET /met", b"rics?x=1 HTTP/1.0\r", b"\n\r\n")
    assert status == "HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "404 Not Found", id="other-path"),
        pytest.param(b"POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed", id="post"),
        pytest.param(b"\x16\x03\x01\x02\r\n\r\n", "400 Bad Request", id="tls"),
        pytest.param(b"GET /metrics\r\n\r\n", "400 Bad Request", id="no-version"),
        pytest.param(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 9000, "431 Request Header Fields Too Large", id="long"),
    ],
)
def test_metrics_request_that_is_none_gets_an_error(served: Served, request_bytes: bytes, status: str) -> None:
    line, _body = exchange(served, request_bytes)
    assert line == f"HTTP/1.1 {status}"


def test_metrics_has_few_clients_and_cuts_off_slow_ones(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = []
    for _ in range(40):
        idle.append(connect(served))
        dispatch(served, 0.01)
    assert len(served[0]._clients) == metrics._MAX_CLIENTS
    monkeypatch.setattr(metrics, "_CLIENT_SECONDS", 0.0)
    served[0].drop_slow()
    assert not served[0]._clients
    for client in idle:
        client.close()
    monkeypatch.setattr(metrics, "_CLIENT_SECONDS", 5.0)
    assert exchange(served, b"GET /metrics HTTP/1.1\r\n\r\n")[0] == "HTTP/1.1 200 OK"


def test_metrics_client_that_goes_away_is_forgotten(served: Served) -> None:
    for sent in (b"", b"GET /metrics HTTP/1.1\r\n\r\n"):
        client = connect(served)
        client.sendall(sent)
        client.close()
    dispatch(served)
    assert not served[0]._clients


def test_metrics_address_that_is_taken_is_named(served: Served) -> None:
    taken = served[0].url.removeprefix("http://").removesuffix("/metrics")
    with pytest.raises(PortError, match="cannot listen: Address already in use") as caught:
        MetricsEndpoint(taken)
    assert caught.value.context == f"--metrics {taken}"
    with pytest.raises(PortError, match="cannot listen"):
        MetricsEndpoint("192.0.2.1:0")  # nobody's address (RFC 5737)


@pytest.mark.parametrize("text", ["", "9100", ":9100", "localhost", "127.0.0.1:99999", "::1:9100", "[::1]", "a:b:1"])
def test_parse_address_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="expected HOST:PORT"):
        parse_address(text)


def test_parse_address_takes_names_and_both_families() -> None:
    assert parse_address("127.0.0.1:9100") == ("127.0.0.1", 9100)
    assert parse_address("localhost:0") == ("localhost", 0)
    assert parse_address("[::1]:9100") == ("::1", 9100)


def test_metrics_without_the_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(UnsupportedFeatureError, match="prometheus-client") as caught:
        MetricsEndpoint("127.0.0.1:0")
    assert caught.value.remedy == "pip install 'uxdp[metrics]'"


def test_latency_histogram_is_cumulative() -> None:
    counts: list[Any] = [0] * 32
    counts[0], counts[3], counts[31] = 1, 2, 4
    buckets, total = latency_histogram(counts)
    assert buckets[0] == ("2e-09", 1)
    assert buckets[3] == ("1.6e-08", 3)
    assert buckets[30] == (repr(2**31 / 1e9), 3)
    assert buckets[31] == ("+Inf", 7)
    assert total == pytest.approx((1.5 + 2 * 12 + 4 * 1.5 * 2**31) / 1e9)
