"""The worked example of FORMAT.md: ``python -m tests.format_example`` prints it, with ``--write`` into the document.

The example is small enough to be read byte by byte. Its object is an ELF file of one null section; so it is well-formed
and signed, but holds no program, and nobody can bind it.
"""

import argparse
import textwrap
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import uxdp_bundle
from tests.elf_forge import Elf
from uxdp_bundle.container import OBJECT_MEDIA_TYPE, SHIM_MEDIA_TYPE, Content, bundle_from_bytes, pack
from uxdp_bundle.context_access import ContextAccess
from uxdp_bundle.keys import SigningKey
from uxdp_bundle.manifest import Build, Manifest, Requirements
from uxdp_bundle.shim import encode_shim
from uxdp_bundle.signature import sign_bundle

DOCUMENT = Path(uxdp_bundle.__file__).with_name("FORMAT.md")
MARK = "<!-- Written by `python -m tests.format_example --write`; a test holds it against the code. -->"
# RFC 8032, section 7.1, TEST 1
SECRET_KEY = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")


def example_bundle() -> bytes:
    """Return the image of the example."""
    manifest = Manifest(
        name="example",
        version="1.0",
        security_version=0,
        license="MIT",
        critical=(),
        members=(),
        programs=(),
        maps=(),
        xdp_md=("data", "data_end"),
        params=(),
        requirements=Requirements(kernel=(), llvm=0, mcpu="v3"),
        build=Build(compiler="none", flags=(), sources=(), lowering=None),
    )
    accesses = (ContextAccess("xdp.frags", 0, "data_end"), ContextAccess("xdp.frags", 8, "data"))
    contents = (
        Content("object", "object", OBJECT_MEDIA_TYPE, Elf(names=False).image()),
        Content("shim", "shim", SHIM_MEDIA_TYPE, encode_shim(accesses)),
    )
    with bundle_from_bytes(pack(manifest, contents)) as bundle:
        return sign_bundle(bundle, SigningKey(Ed25519PrivateKey.from_private_bytes(SECRET_KEY)))


def example_text() -> str:
    """Return the section of the document, from behind the mark to its end."""
    image = example_bundle()
    with bundle_from_bytes(image) as bundle:
        object_member, shim = bundle.manifest.members
        manifest_offset = shim.offset + len(_padded(bundle.member("shim")))
        signatures_offset = len(image) - 64 - len(bundle.signatures)
        parts = [
            f"A bundle of {len(image)} bytes with the id `{bundle.bundle_id}`, signed with the secret key of RFC 8032, "
            "section 7.1, TEST 1, which everybody knows. Its object is an ELF header and one null section, "
            f"{object_member.length} bytes; it holds no program, so the bundle is well-formed and cannot be bound.",
            _wrapped(
                f"The shim, at offset {shim.offset}, names two accesses in section `xdp.frags`: the instruction at "
                "byte 0 reads `data_end`, the one at byte 8 `data`. It has "
                f"{shim.length} bytes, so {-shim.length % 16} of padding follow:"
            ),
            _hexdump(image, shim.offset, manifest_offset),
            _wrapped(
                f"The manifest, at offset {manifest_offset} (0x{manifest_offset:x}), has {len(bundle.manifest_bytes)} "
                f"bytes and {-len(bundle.manifest_bytes) % 16} of padding. The line breaks are not part of it:"
            ),
            _folded(bundle.manifest_bytes.decode()),
            _wrapped(
                f"The signatures, at offset {signatures_offset}, are one line of {len(bundle.signatures)} bytes with "
                "its end (U+000A):"
            ),
            _folded(bundle.signatures.decode().rstrip("\n")),
            f"The trailer, at offset {len(image) - 64}:",
            _hexdump(image, len(image) - 64, len(image)),
        ]
    parts[0] = _wrapped(parts[0])
    return "\n\n" + "\n\n".join(parts) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 16)


def _hexdump(image: bytes, start: int, end: int) -> str:
    lines = []
    for offset in range(start, end, 16):
        row = image[offset : min(offset + 16, end)]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"    {offset:08x}  {row[:8].hex(' '):23}  {row[8:].hex(' '):23}  |{text}|")
    return "\n".join(lines)


def _folded(text: str) -> str:
    return "\n".join(f"    {text[i : i + 112]}" for i in range(0, len(text), 112))


def main() -> None:
    """Print the example, or write it into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"replace the example in {DOCUMENT.name}")
    if not parser.parse_args().write:
        print(example_text())
        return
    head, mark, _old = DOCUMENT.read_text().partition(MARK)
    if not mark:
        raise SystemExit(f"{DOCUMENT}: the mark in front of the example is missing")
    DOCUMENT.write_text(head + mark + example_text())


if __name__ == "__main__":
    main()
