"""The systemd template that is shipped: what it says fits the command."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

import uxdp_runtime.serve
from uxdp_runtime.cli.serve import serve

TEMPLATE = Path(uxdp_runtime.serve.__file__).parent / "uxdp@.service"


def test_unit_file_starts_what_the_command_takes() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(TEMPLATE)
    section = unit["Service"]
    assert section["Type"] == "notify"
    assert section["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert int(section["WatchdogSec"]) > 1
    words = section["ExecStart"].split()
    assert words[:3] == ["/usr/bin/env", "uxdp", "serve"]
    flags = {name for parameter in serve.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= flags


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_unit_file_is_one_that_systemd_understands(tmp_path: Path) -> None:
    instance = tmp_path / "uxdp@edge.service"
    instance.write_text(TEMPLATE.read_text())
    run = subprocess.run(["systemd-analyze", "verify", str(instance)], capture_output=True, text=True, timeout=60)
    complaints = [line for line in run.stderr.splitlines() if "uxdp@edge" in line]
    assert complaints == []
