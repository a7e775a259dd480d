"""A reader of bundles that was written from FORMAT.md alone: it imports nothing of uxdp.

It shows that the document is enough, and that the code does what it says. The numbers are the document's sections.
"""

import base64
import hashlib
import json
import re
import struct
import unicodedata
from itertools import pairwise
from typing import Any

import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MIB, KIB = 1 << 20, 1 << 10


class Refused(Exception):
    """The document says that a reader refuses this."""


def require(condition: object, what: str) -> None:
    if not condition:
        raise Refused(what)


def aligned(n: int) -> int:
    return (n + 15) // 16 * 16


def read(image: bytes) -> dict[str, Any]:
    """Sections 2 to 7 and 9: return what a well-formed bundle holds, and the keys that signed it."""
    require(64 <= len(image) <= 64 * MIB, "2.2 file")
    magic, version, zero, sigs_len, man_len, zero_too, m = struct.unpack("<8sHHIIIQ", image[-64:-32])
    require(magic == bytes.fromhex("89 55 58 44 50 0D 0A 1A") and version == 1 and zero == zero_too == 0, "2.1 trailer")
    require(man_len <= 256 * KIB and sigs_len <= 256 * KIB, "2.2 lengths")
    t = len(image) - 64
    s = t - sigs_len
    require(m % 16 == 0 and aligned(m + man_len) == s, "2.3 offsets")
    require(not any(image[m + man_len : s]), "2.3 padding")
    raw, signatures = image[m : m + man_len], image[s:t]
    require(hashlib.sha256(image[t : t + 32] + raw + signatures).digest() == image[t + 32 :], "2.1 checksum")
    found = canonical_json(raw)
    check_manifest(found)
    contents = read_members(image, found["members"], m)
    only = {role: content for (role, _name), content in contents.items()}
    check_elf(only["object"])
    bundle_id = hashlib.sha256(raw).hexdigest()
    return {
        "bundle_id": bundle_id,
        "manifest": found,
        "contents": contents,
        "accesses": read_shim(only["shim"]),
        "native": {name: read_native(content, name) for (role, name), content in contents.items() if role == "native"},
        "keys": read_signatures(signatures, bundle_id, found["name"]),
    }


def json_object(data: bytes) -> dict[str, Any]:
    """Section 3, as far as it holds for envelopes too."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        require(len(dict(items)) == len(items), "3 duplicate key")
        return dict(items)

    def number(text: str) -> int:
        require(re.fullmatch(r"-?[0-9]+", text) and -(2**63) <= int(text) < 2**64, "3 number")
        return int(text)

    try:
        value = json.loads(
            data.decode(), object_pairs_hook=pairs, parse_int=number, parse_float=number, parse_constant=number
        )
    except ValueError as error:
        raise Refused("3 JSON") from error
    require(isinstance(value, dict), "3 object")
    return value


def canonical_json(data: bytes) -> dict[str, Any]:
    value = json_object(data)
    require(encoded(value).encode() == data, "3 canonical")
    return value


def encoded(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{encoded(key)}:{encoded(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(encoded, value)) + "]"
    if isinstance(value, str):
        short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
        return '"' + "".join(short.get(c) or (c if c >= " " else f"\\u{ord(c):04x}") for c in value) + '"'
    return (
        {None: "null", True: "true", False: "false"}[value]
        if value is None or value is True or value is False
        else str(value)
    )


def is_text(value: Any) -> bool:
    def printable(c: str) -> bool:
        return c == " " or unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}

    return isinstance(value, str) and len(value) <= 1024 and all(map(printable, value))


def is_path(value: Any) -> bool:
    if not is_text(value) or not 1 <= len(value) <= 255 or "\\" in value:
        return False
    parts = value.split("/")
    return parts[0] != "" and not {".", ".."} & set(parts)


def one_of(*choices: str):
    return lambda value: value in choices


def matches(pattern: str):
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value)


def integer(low: int, high: int):
    return lambda value: type(value) is int and low <= value <= high


def array(check, most: int = 2**18):
    return lambda value: isinstance(value, list) and len(value) <= most and all(map(check, value))


def record(**fields):
    def check(value: Any) -> bool:
        require(isinstance(value, dict) and value.keys() == fields.keys(), f"4 record with {sorted(fields)}")
        for key, is_right in fields.items():
            require(is_right(value[key]), f"4 {key}")
        return True

    return check


def nullable(check):
    return lambda value: value is None or check(value)


SHA256 = matches("[0-9a-f]{64}")
U32, U64 = integer(0, 2**32 - 1), integer(0, 2**64 - 1)
MEMBER = record(
    role=one_of("object", "ir", "shim", "source", "sbom", "vectors", "native"),
    name=is_path,
    offset=U64,
    length=U64,
    size=U64,
    sha256=SHA256,
    media_type=is_text,
    compression=one_of("none", "zstd"),
)
PROGRAM = record(
    name=is_text,
    section=is_text,
    instructions=integer(1, 2**31),
    **{key: array(is_text) for key in ("flags", "helpers", "kfuncs")},
)


def map_record(inner):
    return record(
        name=is_text,
        type=is_text,
        inner=inner,
        pinning=lambda value: type(value) is bool,
        **dict.fromkeys(("key_size", "value_size", "max_entries", "flags"), U32),
    )


PARAM = record(name=is_text, type=is_text, size=integer(1, 2**24), default=lambda value: type(value) in (int, str))
REQUIREMENTS = record(kernel=array(is_text), llvm=integer(0, 1000), mcpu=is_text)
LOWERING = record(llvm=is_text, cpu=is_text, features=matches("[A-Za-z0-9+,_-]*"), optimisation=integer(0, 3))
BUILD = record(
    compiler=is_text,
    flags=array(is_text),
    sources=array(record(path=is_path, sha256=SHA256), 4096),
    lowering=nullable(LOWERING),
)
MANIFEST = {
    "schema": integer(1, 1),
    "critical": array(is_text),
    "name": matches("[A-Za-z0-9][A-Za-z0-9._-]{0,63}"),
    "version": matches("[A-Za-z0-9][A-Za-z0-9.+!_-]{0,63}"),
    "security_version": integer(0, 2**31 - 1),
    "license": is_text,
    "members": array(MEMBER, 64),
    "programs": array(PROGRAM, 256),
    "maps": array(map_record(nullable(map_record(nullable(lambda _: False)))), 256),
    "xdp_md": array(is_text),
    "params": array(PARAM, 1024),
    "requirements": REQUIREMENTS,
    "build": BUILD,
}


def check_manifest(found: dict[str, Any]) -> None:
    """Section 4."""
    for key, is_right in MANIFEST.items():
        require(key in found and is_right(found[key]), f"4 {key}")
    require(set(found["critical"]) <= MANIFEST.keys(), "11 critical")
    for param in found["params"]:
        if isinstance(param["default"], str):
            require(re.fullmatch(f"[0-9a-f]{{{2 * param['size']}}}", param["default"]), "4 default")


def read_members(image: bytes, members: list[dict[str, Any]], m: int) -> dict[tuple[str, str], bytes]:
    """Section 5."""
    roles = [member["role"] for member in members]
    require(roles[:1] == ["object"] and roles.count("object") == roles.count("shim") == 1, "5 number")
    require(roles.count("ir") <= 1, "5 number")
    contents: dict[tuple[str, str], bytes] = {}
    position = 0
    for member in members:
        end = member["offset"] + member["length"]
        require(member["offset"] == position and end <= m, "5 offset")
        require(member["size"] <= (16 if member["role"] == "object" else 64) * MIB, "2.2 size")
        require(member["role"] != "object" or member["compression"] == "none", "5 compression")
        stored = image[member["offset"] : end]
        require(hashlib.sha256(stored).hexdigest() == member["sha256"], "5 hash")
        position = aligned(end)
        require(not any(image[end:position]), "2 padding")
        if member["compression"] == "none":
            require(member["size"] == member["length"], "5 size")
        else:
            require(member["size"] > 0, "5 size")
            stored = unpack(stored, member["size"])
        require((member["role"], member["name"]) not in contents, "4 unique name")
        contents[member["role"], member["name"]] = stored
    require(position == m, "5 M")
    return contents


WORD = matches("[A-Za-z0-9._+-]{1,64}")
DESCRIPTION = record(
    program=is_text,
    machine=one_of("x86_64", "aarch64"),
    cpu=WORD,
    features=array(WORD),
    llvm=WORD,
    values=lambda value: isinstance(value, dict) and all(type(number) is int for number in value.values()),
    **dict.fromkeys(("library", "object", "maps"), SHA256),
)


def read_native(content: bytes, name: str) -> tuple[dict[str, Any], bytes]:
    """Section 5.1: return the description and the object."""
    require(len(content) >= 4, "5.1 length")
    (length,) = struct.unpack_from("<I", content)
    require(length <= 256 * KIB and 4 + length <= len(content), "5.1 length")
    description, elf = canonical_json(content[4 : 4 + length]), content[4 + length :]
    DESCRIPTION(description)
    require(description["features"] == sorted(set(description["features"])), "5.1 features")
    require(name == "{program}/{machine}/{cpu}".format(**description), "5.1 name")
    machine = {"x86_64": 62, "aarch64": 183}[description["machine"]]
    require(elf[:7] == bytes.fromhex("7F 45 4C 46 02 01 01"), "5.1 object")
    require(struct.unpack_from("<HH", elf, 16) == (1, machine), "5.1 object")
    return description, elf


def unpack(frame: bytes, size: int) -> bytes:
    try:
        require(zstandard.get_frame_parameters(frame).content_size == size, "5 content size")
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Refused("5 zstd") from error


def check_elf(elf: bytes) -> None:
    """Section 6."""
    require(len(elf) >= 64, "6 header")
    ident, kind, machine, *_, phoff, shoff, _flags, ehsize, _, phnum, shentsize, shnum, shstrndx = struct.unpack_from(
        "<16sHHIQQQIHHHHHH", elf
    )
    require(ident[:7] == bytes.fromhex("7F 45 4C 46 02 01 01") and (kind, machine, ehsize) == (1, 247, 64), "6 header")
    require(phnum == phoff == 0 and shentsize == 64 and 1 <= shnum <= 1024 and shstrndx < shnum, "6 header")
    require(shoff >= 64 and shoff + 64 * shnum <= len(elf), "6 table")
    ranges = [(0, 64), (shoff, shoff + 64 * shnum)]
    ends = [shoff + 64 * shnum]
    for i in range(shnum):
        section_type, offset, size = struct.unpack_from("<4xI16xQQ", elf, shoff + 64 * i)
        if section_type not in (0, 8):
            require(offset + size <= len(elf), "6 section")
            ends.append(offset + size)
            ranges += [(offset, offset + size)] * (size > 0)
    ranges.sort()
    require(all(one[1] <= other[0] for one, other in pairwise(ranges)), "6 disjoint")
    require(max(ends) == len(elf), "6 end")


FIELDS = ("data", "data_end", "data_meta", "ingress_ifindex", "rx_queue_index", "egress_ifindex")


def read_shim(data: bytes) -> list[tuple[str, int, str]]:
    """Section 7: return (section, offset, field) of each record, and refuse any other encoding of them."""
    try:
        accesses = shim_records(data)
    except (struct.error, ValueError, IndexError) as error:
        raise Refused("7 structure") from error
    require(accesses == sorted(set(accesses)) and write_shim(accesses) == data, "7 encoding")
    return accesses


def shim_records(data: bytes) -> list[tuple[str, int, str]]:
    types, strings = struct.unpack_from("<I4xI", data, 12)
    texts = data[24 + types : 24 + types + strings]
    position = 24 + types + strings
    position += -position % 4
    (length,) = struct.unpack_from("<I", data, position + 28)
    position += 32
    end = position + length
    accesses = []
    position += 4
    while position < end:
        name, count = struct.unpack_from("<II", data, position)
        position += 8
        for _ in range(count):
            offset, _type, path, _kind = struct.unpack_from("<4I", data, position)
            position += 16
            index = int(texts[path : texts.index(0, path)].removeprefix(b"0:"))
            accesses.append((texts[name : texts.index(0, name)].decode(), offset, FIELDS[index]))
    return accesses


def write_shim(accesses: list[tuple[str, int, str]]) -> bytes:
    strings, offsets = b"\0", {}

    def name(text: str) -> int:
        nonlocal strings
        if text not in offsets:
            offsets[text] = len(strings)
            strings += text.encode() + b"\0"
        return offsets[text]

    types = struct.pack("<4I", name("__u32"), 0x01000000, 4, 32) + struct.pack("<4I", name("__u64"), 0x01000000, 8, 64)
    types += struct.pack("<3I", name("xdp_md"), 0x04000006, 40)
    for field, (kind, offset) in zip(FIELDS, [(2, 0), (2, 8), (2, 16), (1, 24), (1, 28), (1, 32)], strict=True):
        types += struct.pack("<3I", name(field), kind, offset * 8)
    records = struct.pack("<I", 16) if accesses else b""
    for section in sorted({section for section, _, _ in accesses}):
        mine = [access for access in accesses if access[0] == section]
        records += struct.pack("<2I", name(section), len(mine))
        for _, offset, field in mine:
            records += struct.pack("<4I", offset, 3, name(f"0:{FIELDS.index(field)}"), 0)
    btf = struct.pack("<HBB5I", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings
    btf += bytes(-len(btf) % 4)
    return btf + struct.pack("<HBB7I", 0xEB9F, 1, 0, 32, 0, 0, 0, 0, 0, len(records)) + records


def unbase64(text: Any) -> bytes:
    require(isinstance(text, str), "9 base64")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Refused("9 base64") from error
    require(base64.b64encode(data).decode() == text, "9 base64")
    return data


def read_signatures(lines: bytes, bundle_id: str, name: str) -> list[str]:
    """Section 9: return the keys that signed, as their keyids claim; each claim is verified."""
    statement = (
        '{"_type":"https://in-toto.io/Statement/v1","predicate":{},'
        '"predicateType":"urn:uxdp:bundle:1",'
        f'"subject":[{{"digest":{{"sha256":"{bundle_id}"}},"name":"{name}"}}]}}'
    ).encode()
    message = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(statement), statement)
    require(not lines or lines.endswith(b"\n"), "9 last line")
    keys: list[str] = []
    count = 0
    for line in lines.split(b"\n")[:-1]:
        envelope = json_object(line)
        require(envelope.keys() == {"payload", "payloadType", "signatures"}, "9 keys")
        require(envelope["payloadType"] == "application/vnd.in-toto+json", "9 payloadType")
        require(unbase64(envelope["payload"]) == statement, "9 payload")
        require(isinstance(envelope["signatures"], list) and envelope["signatures"], "9 signatures")
        for entry in envelope["signatures"]:
            require(isinstance(entry, dict) and {"sig"} <= entry.keys() <= {"sig", "keyid"}, "9 keys")
            sig, keyid = unbase64(entry["sig"]), entry.get("keyid", "")
            require(len(sig) == 64, "9 sig")
            require(is_text(keyid) and len(keyid) <= 256, "9 keyid")
            count += 1
            if keyid.startswith("ed25519:"):
                raw = unbase64(keyid.removeprefix("ed25519:"))
                try:
                    Ed25519PublicKey.from_public_bytes(raw).verify(sig, message)
                except (InvalidSignature, ValueError) as error:
                    raise Refused("9 signature") from error
                keys.append(keyid)
    require(count <= 16, "2.2 signatures")
    return keys
