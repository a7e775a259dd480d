"""Sizes with which each type of map can be created."""

_SHAPES = {
    "ringbuf": (0, 0, 4096),
    "user_ringbuf": (0, 0, 4096),
    "lpm_trie": (8, 4, 16),
    "queue": (0, 4, 4),
    "stack": (0, 4, 4),
    "bloom_filter": (0, 4, 4),
}


def shape(kind: str) -> tuple[int, int, int]:
    """Return bytes of a key and of a value, and the number of elements."""
    return _SHAPES.get(kind, (4, 4, 4))
