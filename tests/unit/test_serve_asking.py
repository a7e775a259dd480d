"""Asking a service over its control socket."""

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from uxdp_runtime.errors import PortError
from uxdp_runtime.serve import control_socket
from uxdp_runtime.serve.control_socket import RUN_FOLDER, ask, socket_path


def test_who_asks_waits_for_a_place_among_those_to_be_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_FOLDER, str(tmp_path))
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(os.fspath(socket_path("busy")))
        listener.listen(0)
        other.connect(os.fspath(socket_path("busy")))  # has the only place

        def answer() -> None:
            listener.accept()[0].close()
            with listener.accept()[0] as client, client.makefile("rb") as stream:
                request = json.loads(stream.readline())
                client.sendall(json.dumps({"ok": request["command"]}).encode() + b"\n")

        later = threading.Timer(0.2, answer)
        later.start()
        try:
            assert ask("busy", {"command": "status"}) == "status"
        finally:
            later.join()


def test_who_finds_no_place_in_time_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_FOLDER, str(tmp_path))
    monkeypatch.setattr(control_socket, "_CLIENT_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(os.fspath(socket_path("busy")))
        listener.listen(0)
        other.connect(os.fspath(socket_path("busy")))
        with pytest.raises(PortError, match="no service answers: Resource temporarily unavailable"):
            ask("busy", {"command": "status"})
