"""Events of a service, as lines and as JSON."""

import json
import logging
from types import SimpleNamespace

import pytest

from uxdp_runtime.compile.ahead import Rejection
from uxdp_runtime.compile.program import Origin
from uxdp_runtime.serve.events import LOGGER, JsonFormatter, LineFormatter, report, report_origin


def records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == LOGGER]


def test_event_as_json_is_one_object_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    report("data_process_ended", "ended\nby 100 %s", level=logging.WARNING, pid=7, status=-9)
    (record,) = records(caplog)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    document = json.loads(text)
    assert document.pop("time").endswith("+00:00")
    assert document == {
        "level": "warning",
        "event": "data_process_ended",
        "message": "ended\nby 100 %s",
        "fields": {"pid": 7, "status": -9},
    }


def test_event_as_line_escapes_control_characters(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    report("stopping", "stopping: \x1b[2J\nfine")
    report("attached", "falling back", level=logging.WARNING)
    lines = [LineFormatter().format(record) for record in records(caplog)]
    assert lines == [r"uxdp: stopping: \x1b[2J\nfine", "uxdp: warning: falling back"]


def test_record_of_another_logger_is_an_event_called_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logging.getLogger("elsewhere").info("hello")
    assert json.loads(JsonFormatter().format(caplog.records[0]))["event"] == "log"


def test_origin_of_native_code_and_why_it_is_not_the_bundles_are_events(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rejection = Rejection("nf/x86_64/x86-64-v4", "features", "compiled for x86-64-v4; this machine lacks avx512f")
    compiled = SimpleNamespace(rejections=(rejection,), origin=Origin.CACHE, source=SimpleNamespace(entry="nf"))
    report_origin(compiled)
    refused, told = records(caplog)
    assert LineFormatter().format(refused) == f"uxdp: warning: native code in the bundle is not used: {rejection}"
    assert LineFormatter().format(told) == "uxdp: nf: native code from the cache"
    assert json.loads(JsonFormatter().format(told))["fields"] == {"program": "nf", "origin": "cache"}
