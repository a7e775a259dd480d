import hashlib
import ipaddress
import itertools
import json
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.elf_forge import instruction
from tests.privileged.frames import checksum
from tests.unit.facts_fixtures import EXIT, SOURCES, Assembly, clang
from uxdp_bundle.manifest import MapDefinition
from uxdp_runtime.frames import headers
from uxdp_runtime.frames.constants import MAX_CONSTANTS, Steering, constants_of, keys_of
from uxdp_runtime.frames.generate import Frame, generate
from uxdp_runtime.frames.mutate import Dice, Draft, mutate

ETH_IPV4, ETH_IPV6, ETH_ARP, ETH_VLAN, ETH_QINQ = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8
MUTATED = (" cut ", "bits flipped", "constant", "swapped", "set to", "length", "behind", "bad ")
VIP = ipaddress.ip_address("198.51.100.10").packed + b"\0\x50\6\0"


def many(n: int = 5000, seed: int = 1, constants: object = (), **limits: int) -> list[Frame]:
    return list(generate(n, seed, constants, **limits))  # type: ignore[arg-type]


def is_whole(frame: Frame) -> bool:
    """Whether the generator meant the frame to be right in every bit."""
    return not any(note in f" {frame.description}" for note in MUTATED)


def packets(frame: Frame) -> Iterator[tuple[int, bytes]]:
    """Yield the IP packets of a frame from the outside in: (ethertype, packet and what is behind it)."""
    data, offset = frame.data, 12
    (ethertype,) = struct.unpack_from("!H", data, offset)
    while ethertype in (ETH_VLAN, ETH_QINQ):
        offset += 4
        (ethertype,) = struct.unpack_from("!H", data, offset)
    data = data[offset + 2 :]
    while (ethertype == ETH_IPV4 and len(data) >= 20) or (ethertype == ETH_IPV6 and len(data) >= 40):
        yield ethertype, data
        proto, length = (data[9], (data[0] & 15) * 4) if ethertype == ETH_IPV4 else (data[6], 40)
        if ethertype == ETH_IPV4 and struct.unpack_from("!H", data, 6)[0] & 0x3FFF:
            return
        inner = data[length:]
        if proto == 47:
            flags, kind = struct.unpack_from("!HH", inner)
            inner = inner[4 + 4 * bool(flags & 0x8000) + 4 * bool(flags & 0x2000) :]
            ethertype, data = (struct.unpack_from("!H", inner, 12)[0], inner[14:]) if kind == 0x6558 else (kind, inner)
        elif proto in (4, 41):
            ethertype, data = ETH_IPV4 if proto == 4 else ETH_IPV6, inner
        else:
            return


def five_tuple(frame: Frame) -> tuple[object, ...] | None:
    for ethertype, packet in packets(frame) if len(frame.data) >= 60 else ():
        if ethertype == ETH_IPV4 and packet[0] == 0x45 and packet[9] in (6, 17) and not packet[6] & 0x3F:
            return (packet[9], packet[12:16], packet[16:20], packet[20:22], packet[22:24])
    return None


# --- the same every time


def test_generate_same_arguments_give_the_same_frames():
    assert many(500, 7, [80, b"abcdef"]) == many(500, 7, [80, b"abcdef"])


def test_generate_other_seed_gives_other_frames():
    assert many(100, 1) != many(100, 2)


def test_generate_fewer_frames_are_the_first_ones():
    assert many(50, 3) == many(500, 3)[:50]


def test_generate_order_and_kind_of_the_collection_do_not_matter():
    constants = [0x1234, -5, VIP, b"\1\2", 443]
    assert many(300, 1, constants) == many(300, 1, set(constants)) == many(300, 1, constants[::-1])


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_generate_does_not_depend_on_the_hashes_of_strings(hash_seed):
    script = (
        "import hashlib, json; from uxdp_runtime.frames.generate import generate;"
        "frames = list(generate(200, 1, {b'abcdef', b'ghijkl', 80, 443}));"
        "print(json.dumps([hashlib.sha256(b''.join(f.data for f in frames)).hexdigest(), frames[-1].description]))"
    )
    environment = {"PYTHONHASHSEED": hash_seed}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, env=environment)
    frames = many(200, 1, {b"abcdef", b"ghijkl", 80, 443})
    digest = hashlib.sha256(b"".join(frame.data for frame in frames)).hexdigest()
    assert json.loads(result.stdout) == [digest, frames[-1].description]


# --- what is in them


@pytest.mark.parametrize(("least", "most"), [(14, 1514), (14, 60), (60, 64), (100, 9000), (1, 20), (1514, 1514)])
def test_generate_lengths_stay_within_the_limits(least, most):
    lengths = {len(frame.data) for frame in many(1000, 1, [VIP], min_length=least, max_length=most)}
    assert least <= min(lengths)
    assert max(lengths) == most


def test_generate_lengths_reach_both_limits():
    lengths = Counter(len(frame.data) for frame in many(2000))
    assert lengths[14] > 10
    assert lengths[60] > 10
    assert lengths[1514] > 10
    assert len(lengths) > 400


@pytest.mark.parametrize(("n", "least", "most"), [(-1, 14, 1514), (1, 0, 1514), (1, 20, 19), (1, 14, 65536)])
def test_generate_impossible_arguments_raise_value_error(n, least, most):
    with pytest.raises(ValueError, match="expected 1 to 65535 bytes"):
        generate(n, 1, min_length=least, max_length=most)


def test_generate_no_frames():
    assert many(0) == []


@pytest.mark.parametrize(
    "note",
    [
        *("arp", "ethertype", "tcp syn", "tcp syn-ack", "tcp fin", "rare flags", "udp", "icmp echo", "icmp echo reply"),
        *("icmp error", "protocol", "reply", "fragment at 0", "fragment at 8", "ip options", "extension headers"),
        *("1 tags", "2 tags", "ipip", "gre", "gre key", "gre ethernet", "outer ipv6", "padded", "metadata"),
        *("cut to", "bits flipped", "swapped", "set to", "length", "behind", "bad ipv4 checksum", "bad tcp checksum"),
    ],
)
def test_generate_every_kind_of_frame_comes(note):
    assert any(note in frame.description for frame in many(4000))


def test_generate_whole_frames_have_right_lengths_and_checksums():
    seen: Counter[str] = Counter()
    for frame in filter(is_whole, many()):
        for ethertype, packet in packets(frame):
            if ethertype == ETH_IPV4:
                header = packet[: (packet[0] & 15) * 4]
                (total, fragment) = struct.unpack_from("!HxxH", packet, 2)
                assert len(header) <= total <= len(packet), frame
                assert checksum(header) == 0, frame
                proto, pseudo, body = header[9], header[12:20], packet[len(header) : total]
                if fragment & 0x3FFF:
                    seen["fragment"] += 1
                    continue
            else:
                (length,) = struct.unpack_from("!H", packet, 4)
                assert 40 + length <= len(packet), frame
                proto, pseudo, body = packet[6], packet[8:40], packet[40 : 40 + length]
            seen[f"{ethertype:#x} {proto}"] += 1
            summed = pseudo + struct.pack("!II", len(body), proto)
            if proto == 1:
                assert checksum(body) == 0, frame
            elif proto in (6, 58) or (proto == 17 and body[6:8] != b"\0\0"):
                assert checksum(summed + body) == 0, frame
    assert len(seen) > 12
    assert seen["0x800 6"] > 200
    assert seen["0x86dd 58"] > 30


def test_generate_flows_come_again_and_are_answered():
    tuples = [found for frame in filter(is_whole, many(3000)) if (found := five_tuple(frame)) is not None]
    times = Counter(tuples)
    assert len(times) > 40
    assert sum(count for count in times.values() if count > 1) > len(tuples) / 2
    answered = [t for t in times if (t[0], t[2], t[1], t[4], t[3]) in times]
    assert len(answered) > 20


def test_generate_metadata_is_rare_and_in_whole_words():
    lengths = Counter(len(frame.metadata) for frame in many())
    assert set(lengths) == {0, 4, 8, 12, 16, 20, 24, 28, 32}
    assert 0.9 < lengths[0] / 5000 < 1


# --- steered by constants


def test_generate_meets_the_key_of_a_service():
    """Address, port and protocol of one key come together, as destination, in a good share of the frames."""
    for seed in range(5):
        met = [found for frame in filter(is_whole, many(1000, seed, [VIP])) if (found := five_tuple(frame)) is not None]
        assert sum((t[2], t[4], t[0]) == (VIP[:4], VIP[4:6], VIP[6]) for t in met) >= 8


def test_generate_meets_the_key_of_an_ipv6_prefix():
    network = ipaddress.ip_address("2001:db8:aaaa:bbbb::1234").packed
    sources = {
        packet[8:24]
        for frame in filter(is_whole, many(2000, 1, [struct.pack("<I", 64) + network]))
        for ethertype, packet in packets(frame)
        if ethertype == ETH_IPV6 and packet[8:16] == network[:8]
    }
    assert network in sources
    assert len(sources) > 3


@pytest.mark.parametrize(
    ("constant", "planted"),
    [
        pytest.param(0x1234, b"\x12\x34", id="as-written"),
        pytest.param(0x1234, b"\x34\x12", id="swapped"),
        pytest.param(0xA1B2C3D4, b"\xa1\xb2\xc3\xd4", id="four-bytes"),
        pytest.param(0xA1B2C3D4, b"\xd4\xc3\xb2\xa1", id="four-bytes-swapped"),
        pytest.param(-0x5E4D3C2C, b"\xa1\xb2\xc3\xd4", id="sign-extended"),
        pytest.param(0x0102030405060708, b"\1\2\3\4\5\6\7\x08", id="eight-bytes"),
        pytest.param(b"\x0b\1\2\3\4\5", b"\x0b\1\2\3\4\5", id="mac"),
        pytest.param(b"some longer key", b"some longer key", id="string"),
    ],
)
def test_generate_plants_a_constant_of_the_program(constant, planted):
    without = sum(planted in frame.data for frame in many(1500, 1))
    assert sum(planted in frame.data for frame in many(1500, 1, [constant])) > without + 5


def test_steering_has_both_byte_orders_and_the_parts_of_long_constants():
    steering = Steering([80, VIP])
    assert {b"\0\x50", b"\x50\0"} <= set(steering.of_size[2])
    assert VIP[:4] in steering.of_size[4]
    assert VIP in steering.of_size[8]
    (endpoint,) = steering.endpoints
    assert endpoint.addresses4[0] == VIP[:4]
    assert endpoint.ports[0] == 80
    assert endpoint.protocols == (6,)


def test_steering_ignores_what_is_too_much():
    steering = Steering([*range(MAX_CONSTANTS * 2), *(struct.pack("<QQ", i, i) for i in range(MAX_CONSTANTS * 2))])
    assert len(steering.strings) == MAX_CONSTANTS


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(-(1 << 63), (1 << 64) - 1) | st.binary(max_size=80), max_size=20),
    st.integers(0, 1 << 64),
    st.integers(1, 200),
    st.integers(0, 1500),
)
def test_generate_takes_any_constants_seed_and_lengths(constants, seed, least, more):
    frames = many(60, seed, constants, min_length=least, max_length=least + more)
    assert all(least <= len(frame.data) <= least + more for frame in frames)
    assert len(frames) == 60


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=100), st.integers(0, 1 << 32), st.lists(st.sampled_from(sorted(headers.FIELDS))))
def test_mutate_any_layers_of_any_frame(data, seed, names):
    layers = [("eth", 0), *((name, min(3 * i, len(data))) for i, name in enumerate(names))]
    draft = Draft(bytearray(data), layers, min_length=min(14, len(data)))
    notes = mutate(draft, Dice(seed), Steering([80, b"constant"]))
    assert notes
    assert len(draft.data) >= min(14, len(data))


# --- headers


@given(st.binary(max_size=2000))
def test_checksum_agrees_with_the_sum_of_words(data):
    assert headers.checksum(data) == checksum(data)


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0", b"\xff\xff", b"\xff" * 4, b"\xff\xfe\0\1", b"\1"])
def test_checksum_of_edge_cases(data):
    assert headers.checksum(data) == checksum(data)


@pytest.mark.parametrize("length", range(20))
def test_ipv6_options_fill_whole_words_of_eight_bytes(length):
    header = headers.ipv6_options(59, bytes(length))
    assert len(header) == (header[1] + 1) * 8
    padding = header[2 + length :]
    assert padding in (b"", b"\0") or padding == bytes([1, len(padding) - 2]) + bytes(len(padding) - 2)


def test_fields_lie_within_their_headers():
    sizes = {"eth": 14, "vlan": 4, "arp": 28, "ipv4": 20, "ipv6": 40, "ext": 8, "tcp": 20, "udp": 8, "icmp": 8}
    for name, size in sizes.items():
        assert all(field.offset + field.size <= size for field in headers.FIELDS[name])


# --- the constants of an object


def test_constants_of_program_are_those_of_its_source():
    constants = constants_of(clang(SOURCES["map_value_types"].read_text()))
    assert {0x0008, 0xB512} <= set(constants)  # bpf_htons(0x0800) and bpf_htons(4789)
    assert (0x1122334455667788).to_bytes(8, "little") in constants
    assert b"hello\0\0\0" in constants
    assert b"\x0a\0\0\1\0\x50\6\0" in constants
    assert not {0, -1} & set(constants)


def test_constants_of_every_example_steer_without_error():
    for source in SOURCES.values():
        constants = constants_of(clang(source.read_text()))
        assert len(set(constants)) == len(constants)
        assert len(many(20, 1, constants)) == 20


def test_constants_of_instructions():
    assembly = Assembly()
    code = [
        instruction(0xB7, dst=0, imm=1001),  # mov
        instruction(0xB4, dst=1, imm=1002),  # mov32
        instruction(0x62, dst=10, offset=-4, imm=1003),  # store
        instruction(0xA7, dst=0, imm=1004),  # xor
        instruction(0x15, dst=0, offset=0, imm=1005),  # jeq
        instruction(0x16, dst=0, offset=0, imm=-1006),  # jeq32
        instruction(0x07, dst=0, imm=2001),  # add
        instruction(0x1D, dst=0, src=1, imm=2002),  # jeq of registers
        instruction(0x05, imm=2003),  # ja
        instruction(0x18, dst=0, imm=0x55667788) + instruction(0, imm=0x11223344),
        EXIT,
    ]
    assembly.function("program", b"".join(code))
    assert constants_of(assembly.image()) == (1001, 1002, 1003, 1004, 1005, -1006, 0x1122334455667788)


def test_constants_of_large_table_are_limited():
    table = ",".join(map(str, itertools.islice(itertools.count(1), 100_000)))
    source = f"const volatile unsigned table[] = {{{table}}};\nconst volatile int one = 1;\n"
    constants = constants_of(clang(SOURCES["minimal"].read_text() + source))
    assert len(constants) <= MAX_CONSTANTS
    assert all(len(constant) <= 64 for constant in constants if isinstance(constant, bytes))


def test_keys_of_leaves_out_the_indices_of_arrays():
    maps = [
        MapDefinition(name, kind, 4, 4, 8, 0, False, None)
        for name, kind in (("table", "hash"), ("trie", "lpm_trie"), ("places", "array"), ("ports", "devmap_hash"))
    ]
    contents = {definition.name: [(definition.name[:4].encode(), bytes(4))] for definition in maps}
    assert keys_of(maps, contents) == {b"tabl", b"trie"}
