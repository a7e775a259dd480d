"""Metrics for Prometheus: a service's counters in its text format, over HTTP from the control process's event loop.

prometheus_client writes the format, but serves from a thread, which a process that forks must not have; so the little
that a scrape needs of HTTP is here: one GET for each connection, then it is closed. Anybody who reaches the address may
ask, so clients are few, requests short, and a client that takes long is cut off.

Reference: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import re
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Final, Self

from uxdp_bundle.errors import UnsupportedFeatureError, UxdpError

from ..errors import ParameterError, PortError

_MAX_CLIENTS: Final = 16
_MAX_REQUEST_BYTES: Final = 8192
_CLIENT_SECONDS: Final = 5.0
_CHUNK_BYTES: Final = 1 << 16
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\[\]]+)):(\d{1,5})")

Snapshot = Callable[[], Mapping[str, Any]]


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``127.0.0.1:9100`` or ``[::1]:9100``.

    :raises ParameterError: not of this form
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match[3]) > 65535:
        raise ParameterError(f"{text!r}, expected HOST:PORT, such as 127.0.0.1:9100 or [::1]:9100", context="--metrics")
    return match[1] or match[2], int(match[3])


class MetricsEndpoint:
    """An address that answers ``GET /metrics`` once ``serve`` was called. Close it, or use it as a context manager."""

    def __init__(self, address: str) -> None:
        """Listen.

        :param address: HOST:PORT; port 0: the kernel chooses one
        :raises PortError: the address cannot be had; ``context`` names it
        :raises UnsupportedFeatureError: prometheus-client is not installed
        :raises ParameterError: not an address
        """
        self._prometheus = _prometheus_client()
        self._clients: dict[socket.socket, _Client] = {}
        self._selector: selectors.BaseSelector | None = None
        self._body: Callable[[], bytes] = bytes
        host, port = parse_address(address)
        try:
            family, kind, _, _, place = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._listener = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        except OSError as cause:
            raise _cannot_listen(address, cause) from cause
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(place)
            self._listener.listen(_MAX_CLIENTS)
        except OSError as cause:
            self._listener.close()
            raise _cannot_listen(address, cause) from cause
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._listener.getsockname()[1]}/metrics"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def serve(self, selector: selectors.BaseSelector, status: Snapshot, stats: Snapshot) -> None:
        """Answer requests whenever the selector's events are dispatched.

        :param status: returns the answer to ``status``
        :param stats: returns the answer to ``stats``
        """
        registry = self._prometheus.CollectorRegistry(auto_describe=False)
        registry.register(_Collector(self._prometheus, status, stats))
        self._body = lambda: bytes(self._prometheus.generate_latest(registry))
        self._selector = selector
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def drop_slow(self) -> None:
        """Cut off clients that have taken too long; to be called now and then."""
        limit = time.monotonic() - _CLIENT_SECONDS
        for connection, client in list(self._clients.items()):
            if client.since < limit:
                self._drop(connection)

    def close(self) -> None:
        """Stop listening."""
        for connection in list(self._clients):
            self._drop(connection)
        if self._selector is not None:
            self._selector.unregister(self._listener)
        self._listener.close()

    def _accept(self, _mask: int) -> None:
        try:
            connection, _address = self._listener.accept()
        except OSError:
            return
        self.drop_slow()
        if len(self._clients) >= _MAX_CLIENTS or self._selector is None:
            connection.close()
            return
        connection.setblocking(False)
        self._clients[connection] = _Client()
        self._selector.register(connection, selectors.EVENT_READ, lambda mask: self._talk(connection, mask))

    def _talk(self, connection: socket.socket, mask: int) -> None:
        client = self._clients.get(connection)
        if client is None:  # cut off by what the loop did just before
            return
        try:
            if mask & selectors.EVENT_READ:
                data = connection.recv(_CHUNK_BYTES)
                if not data:
                    self._drop(connection)
                    return
                if not client.is_answered:
                    client.received += data
                    self._answer(client)
            if client.answer:
                del client.answer[: connection.send(client.answer[:_CHUNK_BYTES])]
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        if client.is_answered and not client.answer:
            self._drop(connection)
        elif client.answer and self._selector is not None:
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            self._selector.modify(connection, both, lambda mask: self._talk(connection, mask))

    def _answer(self, client: "_Client") -> None:
        head, end, _ = bytes(client.received).partition(b"\r\n\r\n")
        if not end:
            if len(client.received) > _MAX_REQUEST_BYTES:
                client.say("431 Request Header Fields Too Large", b"too long\n")
            return
        match = re.match(rb"([A-Z]+) (\S+) HTTP/1\.[01](?:\r\n|$)", head)
        if match is None:
            client.say("400 Bad Request", b"expected GET /metrics HTTP/1.1\n")
        elif match[1] != b"GET":
            client.say("405 Method Not Allowed", b"expected GET\n")
        elif match[2].partition(b"?")[0] != b"/metrics":
            client.say("404 Not Found", b"there is only /metrics\n")
        else:
            try:
                client.say("200 OK", self._body(), kind=self._prometheus.CONTENT_TYPE_LATEST)
            except UxdpError as error:
                client.say("500 Internal Server Error", f"{error}\n".encode())

    def _drop(self, connection: socket.socket) -> None:
        del self._clients[connection]
        if self._selector is not None:
            self._selector.unregister(connection)
        connection.close()


class _Client:
    def __init__(self) -> None:
        self.since = time.monotonic()
        self.received = bytearray()
        self.answer = bytearray()
        self.is_answered = False

    def say(self, status: str, body: bytes, *, kind: str = "text/plain; charset=utf-8") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self.answer += head.encode() + body
        self.is_answered = True


class _Collector:
    """Makes metrics of snapshots, when asked. Counters are the queues', which no restart of a process resets."""

    def __init__(self, prometheus: ModuleType, status: Snapshot, stats: Snapshot) -> None:
        self._core = prometheus.core
        self._status = status
        self._stats = stats

    def collect(self) -> Iterator[Any]:
        status, stats = self._status(), self._stats()
        queues = stats["queues"]
        yield self._one("uxdp_serving", "Whether a data process serves.", status["serving"])
        yield self._one("uxdp_start_time_seconds", "Unix time at which the service started.", status["started"])
        text = "Data processes that ended and were replaced."
        yield self._total("uxdp_data_process_restarts", text, stats["restarts"])
        info = self._core.InfoMetricFamily("uxdp_service", "What is served.")
        info.add_metric([], {name: str(status[name]) for name in ("name", "program", "bundle_id")})
        yield info
        for name, text, key in (
            ("uxdp_received_frames", "Frames taken from the RX ring.", "rx_frames"),
            ("uxdp_received_bytes", "Bytes of frames taken from the RX ring.", "rx_bytes"),
            ("uxdp_bursts", "Bursts of frames.", "bursts"),
            ("uxdp_sleeps", "How often the queue's thread had nothing to do.", "polls"),
            ("uxdp_inject_calls", "System calls that injected frames.", "inject_calls"),
            ("uxdp_samples_taken", "Frames copied for --pcap-sample.", "samples_taken"),
            (
                "uxdp_samples_missed",
                "Frames that were not copied, because nobody had taken the earlier ones.",
                "samples_missed",
            ),
            ("uxdp_inject_stalls", "Of these, calls that took more than 1 ms.", "inject_stalls"),
            ("uxdp_stack_frames", "Frames that the kernel's stack transmitted through a DPDK queue.", "stack_frames"),
            ("uxdp_stack_lost_frames", "Of the stack's frames, those that could not leave.", "stack_lost"),
            ("uxdp_cpumap_lost_frames", "Frames that came by a cpumap and could not be passed.", "cpumap_lost"),
        ):
            yield self._counter(name, text, [(_place(queue), queue[key]) for queue in queues])
        seconds = [(_place(queue), queue["busy_ns"] / 1e9) for queue in queues]
        yield self._counter("uxdp_busy_seconds", "Time that the queue's thread worked.", seconds)
        for name, text, group, label in (
            ("uxdp_verdict_frames", "Frames by the program's verdict.", "verdicts", "verdict"),
            ("uxdp_verdict_bytes", "Bytes of frames as received, by verdict.", "verdict_bytes", "verdict"),
            ("uxdp_lost_frames", "Frames that could not follow their verdict, or got none.", "lost", "cause"),
            ("uxdp_socket_events", "What the kernel counts for the AF_XDP socket.", "kernel", "event"),
        ):
            values = [([*_place(queue), key], value) for queue in queues for key, value in queue[group].items()]
            yield self._counter(name, text, values, label)
        ways = [([*_place(queue), way], queue[f"tx_by_{way}"]) for queue in queues for way in ("ring", "injection")]
        yield self._counter("uxdp_transmitted_frames", "Frames with XDP_TX that were sent.", ways, "way")
        for name, text, key in (
            ("uxdp_rx_ring_waiting_frames", "Frames that wait in the RX ring.", "rx_ring_waiting"),
            ("uxdp_rx_ring_size_frames", "Places in the RX ring.", "rx_ring_size"),
        ):
            gauge = self._core.GaugeMetricFamily(name, text, labels=["interface", "queue"])
            for queue in queues:
                gauge.add_metric(_place(queue), queue[key])
            yield gauge
        yield self._latency(queues)
        if "kernel_questions" in stats:
            text = "Questions to the kernel, those of them that failed, and those that an earlier answer spared."
            family = self._core.CounterMetricFamily("uxdp_kernel_questions", text, labels=["outcome"])
            for outcome, number in stats["kernel_questions"].items():
                family.add_metric([outcome], number)
            yield family
        yield from self._devices(stats.get("ports", ()))
        if "kernel" in stats:
            runs, seconds = stats["kernel"]["runs"], stats["kernel"]["run_ns"] / 1e9
            text = "Runs of the program in the kernel, if kernel.bpf_stats_enabled is 1."
            yield self._total("uxdp_kernel_runs", text, runs)
            yield self._total("uxdp_kernel_run_seconds", "Time that these took.", seconds)

    def _devices(self, ports: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
        """Yield what is known of DPDK's devices, and what their drivers count."""
        if not ports:
            return
        for name, text, key in (
            ("uxdp_buffers", "Buffers of the device (mbufs).", "mbufs"),
            ("uxdp_buffers_free", "Of these, free ones.", "mbufs_free"),
        ):
            gauge = self._core.GaugeMetricFamily(name, text, labels=["interface"])
            for port in ports:
                gauge.add_metric([port["interface"]], port[key])
            yield gauge
        gauge = self._core.GaugeMetricFamily("uxdp_link_up", "Whether the device's link is up.", labels=["interface"])
        for port in ports:
            gauge.add_metric([port["interface"]], float(port["link"]["up"]))
        yield gauge
        for name, text, group, label in (
            ("uxdp_device_events", "What the driver counts, since the data process began.", "counters", "event"),
            ("uxdp_device_xstats", "What the driver counts besides, by its own names.", "xstats", "name"),
        ):
            # Another data process begins at zero, so to Prometheus they are no counters.
            gauge = self._core.GaugeMetricFamily(name, text, labels=["interface", label])
            for port in ports:
                for key, value in port[group].items():
                    gauge.add_metric([port["interface"], key], value)
            yield gauge

    def _total(self, name: str, text: str, value: float) -> Any:
        return self._core.CounterMetricFamily(name, text, value=value)

    def _one(self, name: str, text: str, value: float) -> Any:
        return self._core.GaugeMetricFamily(name, text, value=float(value))

    def _counter(self, name: str, text: str, values: Sequence[tuple[list[str], float]], *labels: str) -> Any:
        family = self._core.CounterMetricFamily(name, text, labels=["interface", "queue", *labels])
        for where, value in values:
            family.add_metric(where, value)
        return family

    def _latency(self, queues: list[Any]) -> Any:
        family = self._core.HistogramMetricFamily(
            "uxdp_frame_latency_seconds",
            "Frames by how long their burst took from the RX ring to its disposal; the sum is that of the buckets' "
            "middles.",
            labels=["interface", "queue"],
        )
        for queue in queues:
            family.add_metric(_place(queue), *latency_histogram(queue["latency_ns_log2"]))
        return family


def latency_histogram(counts: list[int]) -> tuple[list[tuple[str, int]], float]:
    """Return cumulative buckets (upper limit in seconds, frames), and an estimate of the sum in seconds.

    :param counts: frames whose burst took 2^i up to 2^(i+1) ns, by i; the last bucket has no upper limit
    """
    buckets, total = [], 0
    for power, count in enumerate(counts):
        total += count
        limit = "+Inf" if power == len(counts) - 1 else repr(2 ** (power + 1) / 1e9)
        buckets.append((limit, total))
    return buckets, sum(count * 1.5 * 2**power for power, count in enumerate(counts)) / 1e9


def _place(queue: Mapping[str, Any]) -> list[str]:
    return [queue["interface"], str(queue["queue"])]


def _prometheus_client() -> ModuleType:
    try:
        import prometheus_client.core
    except ImportError as cause:
        raise UnsupportedFeatureError(
            "prometheus-client", "is not installed", context="--metrics", remedy="pip install 'uxdp[metrics]'"
        ) from cause
    return prometheus_client


def _cannot_listen(address: str, cause: OSError) -> PortError:
    return PortError(
        cause.errno or 99,
        f"cannot listen: {cause.strerror or cause}",
        context=f"--metrics {address}",
        remedy="give an address of this machine and a port that is free",
    )
