"""The software bill of materials of a wheel: CycloneDX 1.6, in .dist-info/sboms/ (PEP 770).

It lists each bundle with its digest and id, the sources it was compiled from, and what compiled it. There is no serial
number and no time in it: the same sources give the same bytes.

References: https://cyclonedx.org/docs/1.6/json/, PEP 770
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from uxdp_bundle import canonical
from uxdp_bundle.manifest import Manifest

SBOM_NAME: Final = "uxdp.cdx.json"

_VERSION = re.compile(r"\d+(?:\.\d+)+")


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One bundle in a wheel; ``path`` is where the wheel has it."""

    path: str
    sha256: str
    bundle_id: str
    manifest: Manifest


def sbom(project: str, version: str, license_expression: str | None, bundles: Sequence[BundleFile]) -> bytes:
    """Return the bill of materials of a project's wheel.

    :param project: normalized name of the distribution
    :param license_expression: SPDX, of the distribution, or None
    """
    root: dict[str, Any] = {
        "type": "application",
        "bom-ref": f"pkg:pypi/{project}@{version}",
        "purl": f"pkg:pypi/{project}@{version}",
        "name": project,
        "version": version,
    }
    if license_expression:
        root["licenses"] = [{"expression": license_expression}]
    references = [_reference(bundle) for bundle in bundles]
    return canonical.dumps(
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"component": root, "tools": {"components": _tools(bundles)}},
            "components": [_component(bundle) for bundle in bundles],
            "dependencies": [
                {"ref": root["bom-ref"], "dependsOn": references},
                *({"ref": reference} for reference in references),
            ],
        }
    )


def _reference(bundle: BundleFile) -> str:
    return f"urn:uxdp:bundle:{bundle.bundle_id}"


def _component(bundle: BundleFile) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "type": "application",
        "bom-ref": _reference(bundle),
        "name": manifest.name,
        "version": manifest.version,
        # A bundle's license is what the kernel reads ("Dual MIT/GPL"), which need not be an SPDX expression.
        "licenses": [{"license": {"name": manifest.license}}],
        "hashes": [{"alg": "SHA-256", "content": bundle.sha256}],
        "properties": [
            {"name": "uxdp:bundle-id", "value": bundle.bundle_id},
            {"name": "uxdp:compiler", "value": manifest.build.compiler},
            {"name": "uxdp:lowering", "value": _lowering(manifest)},
            {"name": "uxdp:path", "value": bundle.path},
        ],
        "components": [
            {"type": "file", "name": source.path, "hashes": [{"alg": "SHA-256", "content": source.sha256}]}
            for source in manifest.build.sources
        ],
    }


def _lowering(manifest: Manifest) -> str:
    lowering = manifest.build.lowering
    return "none: the object is clang's own" if lowering is None else f"LLVM {lowering.llvm}"


def _tools(bundles: Sequence[BundleFile]) -> list[dict[str, str]]:
    """Return what made the bundles: each compiler and each lowering once."""
    tools = set()
    for bundle in bundles:
        compiler = bundle.manifest.build.compiler
        found = _VERSION.search(compiler)
        tools.add(("application", "clang", found.group() if found else compiler))
        if bundle.manifest.build.lowering is not None:
            tools.add(("library", "LLVM", bundle.manifest.build.lowering.llvm))
    return [{"type": kind, "name": name, "version": version} for kind, name, version in sorted(tools)]
