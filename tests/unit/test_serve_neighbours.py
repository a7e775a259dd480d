"""What is told of neighbours is a change if it changes what a lookup of a route answers."""

import socket
import struct

import pytest

from uxdp_runtime.serve.neighbours import Neighbours

NEW, DELETED, GET, DONE, ERROR, NEW_ROUTE = 28, 29, 30, 3, 2, 24
NONE, INCOMPLETE, REACHABLE, STALE, DELAY, PROBE, FAILED, NOARP, PERMANENT = 0, 1, 2, 4, 8, 16, 32, 64, 128
MAC, OTHER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
HERE, THERE = "10.0.0.1", "fd00::1"


def message(kind: int, body: bytes, sequence: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body.ljust((len(body) + 3) & ~3, b"\0")


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data.ljust((len(data) + 3) & ~3, b"\0")


def told(
    state: int, mac: bytes | None = MAC, *, kind: int = NEW, to: str = HERE, ifindex: int = 3, flags: int = 0,
    sequence: int = 0, family: int = 0,
) -> bytes:  # fmt: skip
    own_family = socket.AF_INET6 if ":" in to else socket.AF_INET
    body = struct.pack("=BxxxiHBB", family or own_family, ifindex, state, flags, 1)
    body += attribute(1, socket.inet_pton(own_family, to)) + (attribute(2, mac) if mac is not None else b"")
    return message(kind, body, sequence)


def dumped(*entries: tuple[int, bytes | None, str]) -> Neighbours:
    """Return neighbours that are completely known."""
    neighbours = Neighbours()
    assert neighbours.wants_dump
    (sequence,) = struct.unpack_from("=I", neighbours.ask(), 8)
    assert not neighbours.wants_dump
    for state, mac, to in entries:
        assert not neighbours.changed_by(told(state, mac, to=to, sequence=sequence))
    assert neighbours.changed_by(message(DONE, bytes(4), sequence))
    assert not neighbours.wants_dump
    return neighbours


@pytest.mark.parametrize("to", [HERE, THERE])
def test_changed_by_confirmations_is_false(to: str) -> None:
    neighbours = dumped((STALE, MAC, to))
    for state in (DELAY, PROBE, REACHABLE, STALE, NOARP, PERMANENT):
        assert not neighbours.changed_by(told(state, to=to))


@pytest.mark.parametrize("to", [HERE, THERE])
def test_changed_by_other_address_or_validity_is_true(to: str) -> None:
    neighbours = dumped((REACHABLE, MAC, to))
    assert neighbours.changed_by(told(REACHABLE, OTHER_MAC, to=to))
    assert not neighbours.changed_by(told(STALE, OTHER_MAC, to=to))
    assert neighbours.changed_by(told(STALE, MAC, to=to))
    assert neighbours.changed_by(told(FAILED, None, to=to))
    assert not neighbours.changed_by(told(INCOMPLETE, None, to=to))
    assert neighbours.changed_by(told(REACHABLE, MAC, to=to))
    assert neighbours.changed_by(told(REACHABLE, MAC, to=to, kind=DELETED))
    assert not neighbours.changed_by(told(FAILED, None, to=to, kind=DELETED))
    assert neighbours.changed_by(told(PERMANENT, MAC, to=to))


def test_changed_by_search_for_hosts_is_false() -> None:
    neighbours = dumped((REACHABLE, MAC, HERE))
    for number in range(2, 50):
        to = f"10.0.0.{number}"
        for step in (told(INCOMPLETE, None, to=to, kind=GET), told(FAILED, None, to=to)):
            assert not neighbours.changed_by(step)
        assert not neighbours.changed_by(told(FAILED, None, to=to, kind=DELETED))


def test_changed_by_same_address_on_another_interface_is_true() -> None:
    neighbours = dumped((REACHABLE, MAC, HERE))
    assert neighbours.changed_by(told(REACHABLE, ifindex=4))


def test_changed_by_forwarding_tables_is_false_and_by_all_else_true() -> None:
    neighbours = dumped((REACHABLE, MAC, HERE))
    assert not neighbours.changed_by(told(REACHABLE, OTHER_MAC, family=7))
    assert neighbours.changed_by(told(REACHABLE, flags=8))
    assert neighbours.changed_by(told(REACHABLE, family=28))
    assert neighbours.changed_by(message(NEW_ROUTE, bytes(12)))
    assert neighbours.changed_by(told(STALE) + message(NEW_ROUTE, bytes(12)))
    assert not neighbours.changed_by(told(STALE) + told(REACHABLE))


def test_changed_by_several_messages_hears_all_of_them() -> None:
    neighbours = dumped((REACHABLE, MAC, HERE))
    assert neighbours.changed_by(message(NEW_ROUTE, bytes(12)) + told(REACHABLE, OTHER_MAC))
    assert not neighbours.changed_by(told(REACHABLE, OTHER_MAC))


def test_changed_by_anything_before_the_dump_is_complete_is_true() -> None:
    neighbours = Neighbours()
    assert neighbours.changed_by(told(REACHABLE))
    (sequence,) = struct.unpack_from("=I", neighbours.ask(), 8)
    assert neighbours.changed_by(told(REACHABLE))
    # What is told has precedence over the dump, which may be older.
    assert neighbours.changed_by(told(REACHABLE, OTHER_MAC))
    assert not neighbours.changed_by(told(REACHABLE, MAC, sequence=sequence))
    assert neighbours.changed_by(message(DONE, bytes(4), sequence + 1))
    assert neighbours.changed_by(told(STALE, OTHER_MAC))
    assert neighbours.changed_by(message(DONE, bytes(4), sequence))
    assert not neighbours.changed_by(told(STALE, OTHER_MAC))


def test_changed_by_all_neighbours_when_the_dump_fails_or_something_was_lost() -> None:
    neighbours = Neighbours()
    (sequence,) = struct.unpack_from("=I", neighbours.ask(), 8)
    neighbours.changed_by(message(ERROR, bytes(20), sequence))
    assert not neighbours.wants_dump
    assert all(neighbours.changed_by(told(STALE)) for _ in range(2))
    neighbours = dumped((REACHABLE, MAC, HERE))
    neighbours.lost()
    assert neighbours.wants_dump
    assert all(neighbours.changed_by(told(STALE)) for _ in range(2))


@pytest.mark.parametrize(
    "datagram",
    [
        pytest.param(bytes(7), id="short-header"),
        pytest.param(struct.pack("=IHHII", 15, NEW, 0, 0, 0), id="length-below-header"),
        pytest.param(struct.pack("=IHHII", 17, NEW, 0, 0, 0), id="length-beyond-datagram"),
        pytest.param(message(NEW, bytes(11)), id="short-neighbour"),
        pytest.param(message(NEW, struct.pack("=BxxxiHBB", 2, 3, 2, 0, 1)), id="no-address"),
        pytest.param(told(REACHABLE)[:28] + struct.pack("=HH", 3, 1) + bytes(16), id="bad-attribute"),
    ],
)
def test_changed_by_what_is_not_understood_is_true_and_nothing_is_known(datagram: bytes) -> None:
    neighbours = dumped((REACHABLE, MAC, HERE))
    assert neighbours.changed_by(datagram)
    assert neighbours.wants_dump
