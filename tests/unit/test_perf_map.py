"""The file in which perf looks for the names of compiled code."""

import os
from pathlib import Path

import pytest

from uxdp_runtime.compile.loader import Function
from uxdp_runtime.serve.perf_map import PerfMap, format_map
from uxdp_runtime.serve.ports_library import ports_library

FUNCTIONS = (Function("second [x]", 0x2000, 0x40), Function("first", 0x1000, 16), Function("label", 0x3000, 0))


def test_map_is_in_the_order_of_addresses() -> None:
    assert format_map(FUNCTIONS) == "1000 10 first\n2000 40 second [x]\n"


def test_loaded_functions_have_sizes_and_lie_in_executable_memory() -> None:
    functions = {function.name: function for function in ports_library().functions}
    serve = functions["uxdp_af_xdp_serve"]
    assert serve.size_bytes > 100
    assert serve.address == ports_library().address("uxdp_af_xdp_serve")
    ranges = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    (mode,) = [
        words[1]
        for words in ranges
        if int(words[0].split("-")[0], 16) <= serve.address < int(words[0].split("-")[1], 16)
    ]
    assert mode == "r-xp"


def test_map_follows_the_process(tmp_path: Path) -> None:
    perf_map = PerfMap(tmp_path)
    assert not perf_map.follow(None, FUNCTIONS)
    assert perf_map.follow(7, FUNCTIONS)
    assert not perf_map.follow(7, ())
    assert not perf_map.follow(None, ())  # it has ended, and perf may still ask
    assert [path.name for path in tmp_path.iterdir()] == ["perf-7.map"]
    assert perf_map.follow(8, FUNCTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["perf-8.map"]
    assert (tmp_path / "perf-8.map").stat().st_mode & 0o777 == 0o644
    perf_map.close()
    perf_map.close()
    assert list(tmp_path.iterdir()) == []


def test_map_does_not_write_through_what_others_have_put_there(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "perf-7.map").symlink_to(target)
    PerfMap(tmp_path).follow(7, FUNCTIONS)
    assert target.read_text() == "precious"
    assert not (tmp_path / "perf-7.map").is_symlink()


def test_map_that_cannot_be_written_is_tried_once(tmp_path: Path) -> None:
    perf_map = PerfMap(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        perf_map.follow(os.getpid(), FUNCTIONS)
    assert not perf_map.follow(os.getpid(), FUNCTIONS)
