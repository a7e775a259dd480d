"""Small real bundles and site directories for tests of what lies around the compiler."""

import base64
import csv
import hashlib
import io
import json
import struct
from pathlib import Path

from uxdp_bundle.container import OBJECT_MEDIA_TYPE, SHIM_MEDIA_TYPE, Content, bundle_from_bytes, pack
from uxdp_bundle.manifest import Build, Lowering, Manifest, Requirements, SourceFile
from uxdp_bundle.wheel_index import INDEX_PATH, IndexEntry, encode_index


def minimal_object() -> bytes:
    """An eBPF object of one null section: sound for the container, useless for the kernel."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + bytes(9), 1, 247, 1, 0, 0, 64, 0, 64, 0, 0, 64, 1, 0
    )
    return header + bytes(64)


def make_bundle(name="nf", version="1.0", license="Dual MIT/GPL", source="nf.c", content=b""):
    manifest = Manifest(
        name=name,
        version=version,
        security_version=0,
        license=license,
        critical=(),
        members=(),
        programs=(),
        maps=(),
        xdp_md=(),
        params=(),
        requirements=Requirements(kernel=(), llvm=22, mcpu="v3"),
        build=Build(
            compiler="clang version 22.1.0",
            flags=("-O2",),
            sources=(SourceFile(source, hashlib.sha256(content).hexdigest()),),
            lowering=Lowering(llvm="22.1.0", cpu="v3", features="", optimisation=2),
        ),
    )
    return pack(
        manifest,
        (
            Content("object", "nf.o", OBJECT_MEDIA_TYPE, minimal_object()),
            Content("shim", "nf.btf", SHIM_MEDIA_TYPE, b"shim"),
        ),
    )


def entry_of(image: bytes, path: str, *, editable: bool = False) -> IndexEntry:
    with bundle_from_bytes(image) as bundle:
        return IndexEntry(
            bundle.manifest.name,
            bundle.manifest.version,
            path,
            bundle.bundle_id,
            hashlib.sha256(image).hexdigest(),
            editable,
        )


class Site:
    """A site directory that is written as an installer would, one distribution at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def info(self, distribution: str, version: str = "1.0") -> Path:
        return self.directory / f"{distribution.replace('-', '_')}-{version}.dist-info"

    def install(self, distribution: str, version: str = "1.0", *, name: str | None = None, **files: bytes) -> Path:
        """Install a distribution of one bundle, ``DISTRIBUTION/NAME.uxdp``, and return the bundle's path."""
        folder = distribution.replace("-", "_")
        name = name or folder
        image = make_bundle(name, version)
        path = f"{folder}/{name}.uxdp"
        self.write(path, image)
        self.write_info(distribution, version, encode_index([entry_of(image, path)]), [path])
        return self.directory / path

    def install_editable(self, distribution: str, project: Path, *, url: str | None = None) -> Path:
        """Install a distribution whose bundle is a live file in ``project``, and return its path."""
        name = distribution.replace("-", "_")
        image = make_bundle(name)
        project.mkdir(parents=True, exist_ok=True)
        live = project / f"{name}.uxdp"
        live.write_bytes(image)
        origin = {"url": url or project.as_uri(), "dir_info": {"editable": True}}
        info = self.info(distribution)
        self.write(f"{info.name}/direct_url.json", json.dumps(origin).encode())
        index = encode_index([entry_of(image, str(live), editable=True)])
        self.write_info(distribution, "1.0", index, [f"{info.name}/direct_url.json"])
        return live

    def write(self, relative: str, data: bytes) -> None:
        path = self.directory / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def write_info(self, distribution: str, version: str, index: bytes, recorded: list[str]) -> None:
        info = self.info(distribution, version).name
        self.write(f"{info}/METADATA", f"Metadata-Version: 2.4\nName: {distribution}\nVersion: {version}\n".encode())
        self.write(f"{info}/{INDEX_PATH}", index)
        self.write_record(distribution, version, [*recorded, f"{info}/METADATA", f"{info}/{INDEX_PATH}"])

    def write_record(self, distribution: str, version: str, recorded: list[str]) -> None:
        info = self.info(distribution, version).name
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for relative in recorded:
            data = (self.directory / relative).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            writer.writerow((relative, f"sha256={digest}", len(data)))
        writer.writerow((f"{info}/RECORD", "", ""))
        self.write(f"{info}/RECORD", text.getvalue().encode())

    def rewrite_index(self, distribution: str, index: bytes, version: str = "1.0") -> None:
        """Replace the index and make the RECORD agree, as a hostile package would."""
        info = self.info(distribution, version).name
        self.write(f"{info}/{INDEX_PATH}", index)
        record = (self.directory / info / "RECORD").read_text()
        recorded = [row[0] for row in csv.reader(io.StringIO(record)) if row[1]]
        self.write_record(distribution, version, recorded)
