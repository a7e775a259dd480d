"""Cases in files: what is written is read again, and what is no case is refused."""

from pathlib import Path

import pytest

from uxdp_runtime.errors import ParameterError
from uxdp_runtime.frames.generate import Frame
from uxdp_runtime.fuzz.case import Case, Element, elements_of, read_case, summary, write_case
from uxdp_runtime.steps import MapChange

CASE = Case(
    (Element("table", b"\1\2", b"\3"),),
    (
        Frame(bytes(range(20)), metadata=bytes(4), description="ipv4"),
        MapChange("table", b"\1\2", b"\xff", 2),
        MapChange(".bss", bytes(4), b"\1"),
        MapChange("table", b"\1\2", None),
        Frame(bytes(14)),
    ),
)


def test_case_that_was_written_is_read_again(tmp_path: Path) -> None:
    write_case(tmp_path / "case.json", CASE)
    assert read_case(tmp_path / "case.json", ["table", ".bss"]) == CASE
    assert elements_of(CASE.contents) == CASE.elements
    assert summary(CASE) == "2 frames, 3 changes of maps, 1 map element"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "[]",
            "{}",
            '{"steps": 7}',
            '{"steps": [1]}',
            '{"steps": [{"frame": "0"}]}',
            '{"steps": [{"map": "table"}]}',
        ),
        *('{"steps": [], "maps": [{}]}', '{"steps": [{"map": "table", "key": "", "value": "", "flags": -1}]}'),
        '{"steps": [{"map": "other", "key": "", "value": ""}]}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:40],
)
def test_case_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "case.json").write_text(text)
    with pytest.raises(ParameterError, match=r"case\.json"):
        read_case(tmp_path / "case.json", ["table"])


def test_case_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="cannot be read: No such file"):
        read_case(tmp_path / "case.json", [])
    with pytest.raises(ParameterError, match="cannot be written: No such file"):
        write_case(tmp_path / "nowhere" / "case.json", CASE)
