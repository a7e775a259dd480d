"""Native LPM tries against a list of prefixes."""

import errno
import ipaddress
import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.native_library import EXIST, NO_PREALLOC, NOEXIST, Definition, NativeMap, OperationError


class Table:
    """Prefixes as (bits, length), looked through one by one."""

    def __init__(self, data_bytes: int, max_entries: int) -> None:
        self.bits = data_bytes * 8
        self.max_entries = max_entries
        self.values: dict[tuple[int, int], bytes] = {}

    def masked(self, key: bytes) -> tuple[int, int]:
        """Return (value of the prefix's bits, length)."""
        (length,) = struct.unpack_from("<I", key)
        number = int.from_bytes(key[4:], "big")
        return (number >> (self.bits - length) if length <= self.bits else 0), length

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of the longest prefix of the key."""
        number, length = self.masked(key)
        if length > self.bits:
            return None
        for shorter in range(length, -1, -1):
            found = self.values.get((number >> (length - shorter), shorter))
            if found is not None:
                return found
        return None

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """Return 0 or the errno."""
        place = self.masked(key)
        if flags > EXIST or place[1] > self.bits:
            return errno.EINVAL
        if place in self.values:
            if flags == NOEXIST:
                return errno.EEXIST
        elif flags == EXIST:
            return errno.ENOENT
        elif len(self.values) == self.max_entries:
            return errno.ENOSPC
        self.values[place] = value
        return 0

    def delete(self, key: bytes) -> int:
        """Return 0 or the errno."""
        place = self.masked(key)
        if place[1] > self.bits:
            return errno.EINVAL
        return 0 if self.values.pop(place, None) is not None else errno.ENOENT


def attempt(operation: object, *arguments: object) -> int:
    assert callable(operation)
    try:
        operation(*arguments)
    except OperationError as error:
        return error.number
    return 0


@pytest.mark.parametrize("spread", [2, 256], ids=["dense", "random"])
@pytest.mark.parametrize(
    ("data_bytes", "max_entries"), [(1, 600), (4, 200), (4, 2000), (8, 500), (9, 500), (16, 1000), (256, 500)]
)
def test_random_sequence_equals_model(data_bytes: int, max_entries: int, spread: int) -> None:
    draw = random.Random(data_bytes)
    native = NativeMap(Definition("lpm_trie", 4 + data_bytes, 8, max_entries, NO_PREALLOC))
    table = Table(data_bytes, max_entries)
    added: list[bytes] = []
    for step in range(8000):
        length = draw.randrange(data_bytes * 8 + 2)
        key = struct.pack("<I", length) + bytes(
            draw.randrange(spread) * (255 // (spread - 1)) for _ in range(data_bytes)
        )
        if added and draw.random() < 0.5:
            near = bytearray(draw.choice(added))
            near[4 + draw.randrange(data_bytes)] ^= 1 << draw.randrange(8)
            near[:4] = struct.pack("<I", min(length, struct.unpack_from("<I", near)[0] + draw.randrange(-2, 9)) % 2049)
            key = bytes(near)
        what = draw.randrange(6)
        value, flags = struct.pack("<Q", step), draw.choice([0, 0, 0, 1, 2, 3])
        if what < 3:
            assert attempt(native.update, key, value, flags) == table.update(key, value, flags)
            added.append(key)
        elif what == 3:
            assert attempt(native.delete, key) == table.delete(key)
        else:
            assert native.program_value(key) == table.lookup(key), key.hex()
    assert {table.masked(key): native.lookup(key) for key in native.keys()} == table.values  # noqa: SIM118


def address(text: str) -> bytes:
    network = ipaddress.ip_network(text)
    return struct.pack("<I", network.prefixlen) + network.network_address.packed


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("10.1.2.3/32", "10.1.2.0/24"),
        ("10.1.3.3/32", "10.1.0.0/16"),
        ("10.2.0.1/32", "10.0.0.0/8"),
        ("11.0.0.1/32", "0.0.0.0/0"),
        ("10.1.2.0/23", "10.1.0.0/16"),
        ("10.0.0.0/7", "0.0.0.0/0"),
    ],
)
def test_longest_prefix_of_no_more_bits_than_the_key_wins(wanted: str, expected: str) -> None:
    native = NativeMap(Definition("lpm_trie", 8, 8, 1000, NO_PREALLOC))
    routes = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24"]
    for number, route in enumerate(routes):
        native.update(address(route), struct.pack("<Q", number))
    strict = ipaddress.ip_network(wanted, strict=False)
    key = struct.pack("<I", strict.prefixlen) + strict.network_address.packed
    assert native.program_value(key) == struct.pack("<Q", routes.index(expected))


def test_update_while_enumerating_visits_every_key_once() -> None:
    native = NativeMap(Definition("lpm_trie", 8, 4, 300, NO_PREALLOC))
    routes = {struct.pack("<I", 24) + bytes([10, number, 7, 0]) for number in range(200)}
    for route in routes:
        native.update(route, bytes(4))
    seen = []
    key = native.next_key(None)
    while key is not None:
        seen.append(key)
        native.update(key, b"new!")
        key = native.next_key(key)
    assert sorted(seen) == sorted(routes)


def test_lookup_among_a_million_prefixes_reads_few_nodes(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: apt-get install gcc libc6-dev")
    program = tmp_path / "lpm_depth"
    source = Path(__file__).parents[1] / "native" / "lpm_depth.c"
    command = ["gcc", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Wno-attributes", "-fno-strict-aliasing"]
    subprocess.run([*command, str(source), "-o", str(program)], check=True)
    run = subprocess.run([str(program)], check=True, capture_output=True, text=True, timeout=60)
    few4, many4, few6, many6 = ([int(word) for word in line.split()] for line in run.stdout.splitlines())
    assert [table[3] for table in (few4, many4, few6, many6)] == [100_000] * 4
    assert few4[0] == few6[0] == 1000
    assert many4[0] > 900_000  # of a million random prefixes some are the same
    assert many6[0] > 900_000
    # A node decides four bits. A thousand times the prefixes cost two nodes more at IPv4, three at IPv6.
    assert many4[1] <= 2
    assert many4[2] <= few4[2] + 200
    assert many6[1] <= 8
    assert many6[2] <= few6[2] + 300


def test_prefixes_in_a_large_map_are_found() -> None:
    draw = random.Random(2)
    native = NativeMap(Definition("lpm_trie", 8, 4, 1 << 20, NO_PREALLOC))
    prefixes = {}
    for number in range(200_000):
        length = draw.choice([16, 20, 22, 24, 24, 24, 32])
        bits = draw.getrandbits(length)
        key = struct.pack("<I", length) + (bits << (32 - length)).to_bytes(4, "big")
        prefixes[key] = struct.pack("<I", number)
        native.update(key, prefixes[key])
    assert len(native.memory) > 1 << 27
    for key in draw.sample(list(prefixes), 2000):
        assert native.lookup(key) == prefixes[key]
    small = NativeMap(Definition("lpm_trie", 8, 4, 1 << 20, NO_PREALLOC))
    for key in list(prefixes)[:50]:
        small.update(key, prefixes[key])
    assert small.resident_bytes() < 1 << 20
