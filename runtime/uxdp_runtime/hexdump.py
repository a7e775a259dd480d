"""Show two byte strings side by side, so that one sees where they differ."""

from collections.abc import Callable, Iterator

_ROW_BYTES = 8


def first_difference(left: bytes, right: bytes) -> int:
    """Return the offset of the first byte that differs, or is there on one side only; -1 if there is none."""
    if left == right:
        return -1
    pairs = enumerate(zip(left, right, strict=False))
    return next((offset for offset, (one, other) in pairs if one != other), min(len(left), len(right)))


def rows(data: bytes) -> Iterator[str]:
    """Yield lines ``offset  bytes`` of 16 bytes each."""
    for row in range(0, len(data), 2 * _ROW_BYTES):
        halves = (data[start : start + _ROW_BYTES].hex(" ") for start in (row, row + _ROW_BYTES))
        yield f"{row:04x}  {'  '.join(halves)}".rstrip()


def side_by_side(
    left: bytes, right: bytes, *, context_rows: int = 2, mark: Callable[[str], str] = str
) -> Iterator[str]:
    """Yield lines ``offset  left | right``; rows that differ are marked with ``>``.

    Rows far from a difference are left out, which a line with an ellipsis tells.

    :param mark: what is done to the digits of a byte that differs, such as to colour them
    """
    starts = range(0, max(len(left), len(right)), _ROW_BYTES)
    differing = {row for row in starts if left[row : row + _ROW_BYTES] != right[row : row + _ROW_BYTES]}
    near = {
        row
        for row in starts
        if any(abs(row - other) <= context_rows * _ROW_BYTES for other in differing) or not differing
    }
    skipped = False
    for row in starts:
        if row not in near:
            if not skipped:
                yield "   …"
            skipped = True
            continue
        skipped = False
        sign = ">" if row in differing else " "
        one, other = (data[row : row + _ROW_BYTES] for data in (left, right))
        yield f"{sign} {row:04x}  {_cells(one, other, mark)}  |  {_cells(other, one, mark).rstrip()}"


def _cells(data: bytes, other: bytes, mark: Callable[[str], str]) -> str:
    """Return bytes as digits, as wide as a full row."""
    digits = [
        f"{byte:02x}" if other[place : place + 1] == bytes([byte]) else mark(f"{byte:02x}")
        for place, byte in enumerate(data)
    ]
    return " ".join(digits + ["  "] * (_ROW_BYTES - len(data)))
