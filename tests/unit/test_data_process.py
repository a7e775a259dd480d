"""A data process that cannot begin: whoever forked it hears so, and so does the log."""

import json
import logging
import os
import socket
import sys

import pytest

from uxdp_runtime.serve.af_xdp_port import AfXdpPort
from uxdp_runtime.serve.data_process import fork_data_process
from uxdp_runtime.serve.events import LOGGER, JsonFormatter
from uxdp_runtime.serve.handover import Estate


class BrokenPort(AfXdpPort):
    """A port that nothing can be said of."""

    def __init__(self) -> None:
        pass

    def descriptors(self) -> set[int]:
        raise OSError(24, "Too many open files")


def test_data_process_that_fails_is_an_event_and_an_exit_status(capfd: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger(LOGGER)
    logger.addHandler(handler)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            data = fork_data_process(BrokenPort(), [], Estate(listener, "", {}, 1, {}, {}))
            assert data.wait_ready(10.0) is None
            assert data.reap() == 70
    finally:
        logger.removeHandler(handler)
    assert data.pid != os.getpid()
    (line,) = capfd.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"]) == ("data_process_failed", "error")
    assert "Too many open files" in event["message"]
