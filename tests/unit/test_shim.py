import struct

import pytest

from tests.unit.facts_fixtures import SOURCES, clang
from uxdp_bundle.btf import Btf, BtfExt, Kind
from uxdp_bundle.context_access import XDP_MD_FIELDS, ContextAccess
from uxdp_bundle.errors import BundleFormatError
from uxdp_bundle.facts import object_facts
from uxdp_bundle.shim import NATIVE_XDP_MD, NATIVE_XDP_MD_BYTES, decode_shim, encode_shim

ACCESSES = [
    ContextAccess(".text", 8, "data"),
    ContextAccess("xdp", 0, "data_end"),
    ContextAccess("xdp", 16, "egress_ifindex"),
]


def parts(data: bytes) -> tuple[Btf, BtfExt]:
    """Take a shim apart, as FORMAT.md says."""
    types, strings = struct.unpack_from("<I4xI", data, 12)
    end = 24 + types + strings
    btf = Btf(data[:end])
    assert not any(data[end : end + -end % 4])
    return btf, BtfExt(data[end + -end % 4 :], btf)


def test_native_xdp_md_is_laid_out_as_c_would():
    source = """
    struct xdp_md {
        unsigned long long data, data_end, data_meta;
        unsigned int ingress_ifindex, rx_queue_index, egress_ifindex;
    } one;
    """
    btf = Btf(next(section_of(clang(source), ".BTF")))
    (structure,) = [found for found in btf.types if found.kind is Kind.STRUCT]
    layout = {name: (offset // 8, btf.size(type_id)) for name, type_id, offset in btf.members(structure)}
    assert (layout, structure.size_or_type) == (NATIVE_XDP_MD, NATIVE_XDP_MD_BYTES)
    assert tuple(NATIVE_XDP_MD) == XDP_MD_FIELDS


def section_of(obj: bytes, name: str):
    from uxdp_bundle.bpf_object import BpfObject

    yield BpfObject(obj).section(name).data


def test_encode_shim_describes_the_native_structure():
    btf, _ext = parts(encode_shim(ACCESSES))
    structure = btf.type(3)
    assert (structure.kind, structure.name, structure.size_or_type) == (Kind.STRUCT, "xdp_md", 40)
    assert [(name, btf.spell(type_id), offset) for name, type_id, offset in btf.members(structure)] == [
        ("data", "__u64", 0),
        ("data_end", "__u64", 64),
        ("data_meta", "__u64", 128),
        ("ingress_ifindex", "__u32", 192),
        ("rx_queue_index", "__u32", 224),
        ("egress_ifindex", "__u32", 256),
    ]


def test_encode_shim_names_instruction_and_field_of_each_access():
    btf, ext = parts(encode_shim(ACCESSES))
    records = {
        section: [(offset, type_id, btf.string(path), kind) for offset, type_id, path, kind in found]
        for section, found in ext.core_relocations.items()
    }
    assert records == {".text": [(8, 3, "0:0", 0)], "xdp": [(0, 3, "0:1", 0), (16, 3, "0:5", 0)]}


@pytest.mark.parametrize("accesses", [ACCESSES, ACCESSES[:1], []], ids=["three", "one", "none"])
def test_decode_shim_gives_back_the_accesses(accesses):
    assert decode_shim(encode_shim(accesses)) == accesses


@pytest.mark.parametrize("name", ["context_direct", "context_callbacks", "load_balancer"])
def test_decode_shim_of_real_accesses(name):
    accesses = list(object_facts(clang(SOURCES[name].read_text())).accesses)
    assert decode_shim(encode_shim(accesses)) == accesses


def test_encode_shim_section_named_like_a_string_of_its_own():
    accesses = [ContextAccess("xdp_md", 0, "data")]
    assert decode_shim(encode_shim(accesses)) == accesses


SOUND = encode_shim(ACCESSES)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "malformed", id="empty"),
        pytest.param(SOUND[:-1], "malformed", id="cut"),
        pytest.param(SOUND[:24], "malformed", id="header-alone"),
        pytest.param(SOUND + b"\0", "not the canonical encoding", id="longer"),
        pytest.param(SOUND.replace(b"0:5\0", b"0:6\0"), "no field has access string '0:6'", id="no-such-field"),
        pytest.param(SOUND.replace(b"0:5\0", b"1:5\0"), "no field has access string '1:5'", id="no-such-path"),
        pytest.param(SOUND.replace(b"0:5\0", b"0:x\0"), "no field has access string '0:x'", id="no-number"),
        pytest.param(SOUND.replace(b"0:5\0", "0:²".encode()), "malformed|no field|canonical", id="no-ascii-number"),
        pytest.param(SOUND.replace(b"__u64", b"__u65"), "not the canonical encoding", id="another-type"),
    ],
)
def test_decode_shim_malformed_raises_bundle_format_error(data, message):
    with pytest.raises(BundleFormatError, match=message) as caught:
        decode_shim(data)
    assert caught.value.context == "shim"


def test_decode_shim_any_flipped_bit_raises_bundle_format_error_or_gives_other_accesses():
    for place in range(len(SOUND)):
        for bit in range(8):
            data = bytearray(SOUND)
            data[place] ^= 1 << bit
            try:
                assert decode_shim(bytes(data)) != ACCESSES
            except BundleFormatError:
                continue
