"""The side-by-side dump shows every difference, and little else."""

from uxdp_runtime.hexdump import side_by_side


def test_side_by_side_marks_the_rows_that_differ() -> None:
    left = bytes(range(100))
    right = left[:50] + b"\xff" + left[51:]
    lines = list(side_by_side(left, right, context_rows=1))
    assert [line for line in lines if line.startswith(">")] == [
        "> 0030  30 31 32 33 34 35 36 37  |  30 31 ff 33 34 35 36 37"
    ]
    assert [line.strip() for line in lines].count("…") == 2
    assert len(lines) == 5


def test_side_by_side_shorter_side_ends_early() -> None:
    lines = list(side_by_side(bytes(8), bytes(16)))
    assert lines[1].startswith("> 0008  ")
    assert lines[1].endswith("|  00 00 00 00 00 00 00 00")


def test_side_by_side_equal_sides_are_shown_whole() -> None:
    assert [line[0] for line in side_by_side(bytes(24), bytes(24))] == [" ", " ", " "]
