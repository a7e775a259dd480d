"""Workloads: frames whose checksums are right for every flow, files that are refused with the place in them."""

import ctypes
import mmap
import xml.dom.minidom
from pathlib import Path

import pytest

from tests.native_library import native_library
from uxdp_runtime.bench.chart import draw
from uxdp_runtime.bench.report import as_json, table
from uxdp_runtime.bench.session import Figures
from uxdp_runtime.bench.workload import HEAD_BYTES, FlowFrame, flow_frame, read_workload
from uxdp_runtime.errors import ParameterError
from uxdp_runtime.frames import headers as h

FLOWS = 5000


def heads_of(frame: FlowFrame, flows: int) -> list[bytes]:
    memory = mmap.mmap(-1, flows * HEAD_BYTES)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    native_library().uxdp_bench_fill(
        ctypes.c_void_p(address),
        ctypes.c_uint64(flows),
        frame.data[:HEAD_BYTES],
        *(ctypes.c_uint32(n) for n in (frame.address, frame.port, frame.ip_check, frame.transport_check)),
    )
    content = memory[:]
    return [content[start : start + HEAD_BYTES] for start in range(0, len(content), HEAD_BYTES)][:flows]


@pytest.mark.parametrize(
    ("proto", "destination"),
    [
        *(("tcp", "192.0.2.1"), ("udp", "192.0.2.1"), ("icmp", "192.0.2.1")),
        *(("udp", "2001:db8::1"), ("icmp", "2001:db8::1")),
    ],
)
def test_fill_makes_flows_with_valid_checksums(proto: str, destination: str) -> None:
    frame = flow_frame(proto=proto, destination=destination, payload_bytes=20)
    is_ipv6 = ":" in destination
    heads = heads_of(frame, FLOWS)
    number = {"tcp": 6, "udp": 17, "icmp": 58 if is_ipv6 else 1}[proto]
    for head in heads[:: FLOWS // 50]:
        data = head + frame.data[HEAD_BYTES:]
        ip, transport = data[14:34], data[54 if is_ipv6 else 34 :]
        if not is_ipv6:
            assert h.checksum(ip) == 0
        source, target = (data[22:38], data[38:54]) if is_ipv6 else (data[26:30], data[30:34])
        length = int.from_bytes(data[18:20]) if is_ipv6 else int.from_bytes(data[16:18]) - 20
        pseudo = b"" if number == 1 else h.pseudo_header(source, target, number, length)
        assert h.checksum(pseudo + transport[:length]) == 0
    assert len({head[frame.address : frame.address + 4] for head in heads}) == FLOWS
    assert (len({head[frame.port : frame.port + 2] for head in heads}) > 1) == (proto != "icmp")


def test_workload_without_a_file_is_udp() -> None:
    workload = read_workload(None)
    assert workload.frame.data[23] == h.IPPROTO_UDP
    assert workload.maps == "{}"


def test_workload_file_says_frame_and_maps(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_text('{"frame": {"proto": "tcp", "port": 443, "payload_bytes": 300}, "maps": {"reals": {"0": 1}}}')
    workload = read_workload(path)
    assert len(workload.frame.data) == 14 + 20 + 20 + 300
    assert workload.frame.data[36:38] == (443).to_bytes(2)
    assert workload.maps == '{"reals": {"0": 1}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "no JSON", id="cut-off"),
        pytest.param("[]", "expected an object", id="list"),
        pytest.param('{"rate": 1}', "expected an object", id="unknown-member"),
        pytest.param('{"frame": {"vlan": 1}}', "frame: expected an object", id="unknown-frame-member"),
        pytest.param('{"frame": {"proto": "sctp"}}', "'sctp', expected one of tcp", id="protocol"),
        pytest.param('{"frame": {"port": "80"}}', "frame.port: '80', expected int", id="type"),
        pytest.param('{"frame": {"port": true}}', "frame.port: True, expected int", id="bool"),
        pytest.param('{"frame": {"port": 65536}}', "65536, expected 0..65535", id="port"),
        pytest.param('{"frame": {"payload_bytes": 1401}}', "1401, expected 0..1400", id="payload"),
        pytest.param('{"frame": {"proto": "tcp", "destination": "::1"}}', "use udp|behind the first", id="tcp-ipv6"),
        pytest.param('{"frame": {"destination": "localhost"}}', "expected an address", id="name"),
    ],
)
def test_workload_that_is_malformed_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "w.json"
    path.write_text(text)
    with pytest.raises(ParameterError, match=message):
        read_workload(path)


def test_workload_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="cannot be read"):
        read_workload(tmp_path / "w.json")


FIGURES = (
    Figures("kernel", 1, 100.0, 50.0, (99.0, 100.0, 101.0)),
    Figures("native", 1, 20.0, 3.0, (20.0, 20.0, 20.0)),
    Figures("no inlining", 1, 40.0, 3.0, (40.0, 40.0, 40.0)),
    Figures("limit", 1, 16.0, 3.0, (16.0, 16.0, 16.0)),
)


def test_report_has_times_and_ratios() -> None:
    (document,) = as_json(FIGURES)
    assert document["flows"] == 1
    assert document["ns_per_frame"] == {"kernel": 100.0, "native": 20.0, "no inlining": 40.0, "limit": 16.0}
    assert document["ratios"] == {"kernel / native": 5.0, "no inlining / native": 2.0, "native / limit": 1.25}
    columns, rows = table(FIGURES)
    assert columns == ("flows", "kernel", "native", "no inlining", "limit", "kernel / native")
    assert rows == [("1", "100.0", "20.0", "40.0", "16.0", "5.0×")]


def test_chart_has_a_bar_for_each_figure_and_escapes_names() -> None:
    svg = draw("a <b> & c", FIGURES)
    assert svg.count("<title>") == len(FIGURES)
    assert "a &lt;b&gt; &amp; c" in svg
    assert xml.dom.minidom.parseString(svg).documentElement.tagName == "svg"
