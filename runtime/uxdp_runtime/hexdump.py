"""Show two byte strings side by side, so that one sees where they differ."""

from collections.abc import Iterator

_ROW_BYTES = 8


def side_by_side(left: bytes, right: bytes, *, context_rows: int = 2) -> Iterator[str]:
    """Yield lines ``offset  left | right``; rows that differ are marked with ``>``.

    Rows far from a difference are left out, which a line with an ellipsis tells.
    """
    rows = range(0, max(len(left), len(right)), _ROW_BYTES)
    differing = {row for row in rows if left[row : row + _ROW_BYTES] != right[row : row + _ROW_BYTES]}
    near = {
        row
        for row in rows
        if any(abs(row - other) <= context_rows * _ROW_BYTES for other in differing) or not differing
    }
    skipped = False
    for row in rows:
        if row not in near:
            if not skipped:
                yield "   …"
            skipped = True
            continue
        skipped = False
        mark = ">" if row in differing else " "
        one, other = (_cells(data[row : row + _ROW_BYTES]) for data in (left, right))
        yield f"{mark} {row:04x}  {one}  |  {other}"


def _cells(data: bytes) -> str:
    return " ".join(f"{byte:02x}" for byte in data).ljust(3 * _ROW_BYTES - 1)
