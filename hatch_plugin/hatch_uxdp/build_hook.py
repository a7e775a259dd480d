"""The build hook: from C sources to bundles in a wheel, with an index and a bill of materials.

Hatchling calls ``initialize`` before it writes an archive and ``finalize`` after it. What happens in between depends on
what is built:

- a wheel: every source is compiled into a temporary folder and from there forced into the wheel, so a build never
  touches the tree, and a wheel from a source distribution equals the one from the tree. A bundle whose source lies in a
  package that the wheel ships lies beside its source; any other lies in a folder named after the project. It is one
  level deep: pip removes a folder that it has emptied, but not the parents of that folder.
- an editable wheel: every source is compiled to a live file beside it, and the index has that file's absolute path.
- a source distribution: nothing.

Forced files also make the wheel of a project without any Python package: hatchling then asks for no file selection.
The tag is py3-none-any, since a bundle is code for the kernel's machine and no Python's.

References: https://hatch.pypa.io/latest/plugins/build-hook/reference/, PEP 517, 660, 770
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.builders.wheel import WheelBuilderConfig

from uxdp_bundle.container import bundle_from_bytes
from uxdp_bundle.errors import UnsupportedFeatureError, UxdpError
from uxdp_bundle.keys import SigningKey, development_key, development_key_path, signing_key_from_environment
from uxdp_bundle.signature import sign_bundle
from uxdp_bundle.wheel_index import BUNDLE_SUFFIX, INDEX_NAME, IndexEntry, encode_index
from uxdp_cc.build import BuildRequest, build
from uxdp_cc.errors import CompileError
from uxdp_cc.toolchain import Toolchain, find_toolchain

from .config import HookConfig, HookConfigError, check_include_dirs, find_sources, parse_config
from .sbom import SBOM_NAME, BundleFile, sbom

WHEEL_TAG: Final = "py3-none-any"
_EDITABLE = "editable"


class UxdpBuildHook(BuildHookInterface[WheelBuilderConfig]):
    """The plugin ``uxdp``."""

    PLUGIN_NAME = "uxdp"

    _outputs: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, sign and register every bundle; end the build with one message if that fails.

        :param version: ``standard`` or ``editable``
        :param build_data: hatchling's, changed in place
        """
        try:
            config = parse_config(self.config, self._location())
            if self.target_name == "sdist":
                return
            if self.target_name != "wheel":
                raise HookConfigError("bundles can only be built into a wheel", context=self._location())
            if "sbom_files" not in build_data:
                raise UnsupportedFeatureError(
                    "hatchling",
                    "this version cannot put a bill of materials into a wheel",
                    context="build-system.requires",
                    remedy='say requires = ["hatchling>=1.29", "uxdp[clang]"]',
                )
            self._build(config, version, build_data)
        except CompileError as error:
            self._release()
            self.app.abort(f"{error.diagnostics.rstrip()}\n{_message(error)}".lstrip(), code=1)
        except UxdpError as error:
            self._release()
            self.app.abort(_message(error), code=1)
        except OSError as error:
            self._release()
            self.app.abort(f"uxdp: {error}", code=1)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder: the archive has its files now."""
        self._release()

    def _release(self) -> None:
        if self._outputs is not None:
            self._outputs.cleanup()
            self._outputs = None

    def _location(self) -> str:
        """Return the name of the table that hatchling read, for messages."""
        target = f"tool.hatch.build.targets.{self.target_name}"
        own = self.PLUGIN_NAME in self.build_config.target_config.get("hooks", {})
        return f"{target if own else 'tool.hatch.build'}.hooks.{self.PLUGIN_NAME}"

    def _build(self, config: HookConfig, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root).resolve()
        check_include_dirs(config, root)
        sources = find_sources(config, root)
        key = self._signing_key(config)
        toolchain = find_toolchain()
        self._outputs = tempfile.TemporaryDirectory(prefix="uxdp-build-")
        outputs = Path(self._outputs.name)
        editable = version == _EDITABLE
        places = self._live_places(root, sources) if editable else self._wheel_places(sources)
        files = []
        for source, (selected, place) in zip(sources, places, strict=True):
            image = self._compile(config, root, source, toolchain, key)
            with bundle_from_bytes(image, path=place) as bundle:
                digest = hashlib.sha256(image).hexdigest()
                files.append(BundleFile(place, digest, bundle.bundle_id, bundle.manifest))
            if editable:
                _write_live(Path(place), image)
                build_data["artifacts"].append(f"/{selected}")
            else:
                output = outputs / Path(place).name
                output.write_bytes(image)
                build_data["force_include"][str(output)] = selected
        self._describe(files, outputs, editable, build_data)

    def _compile(
        self, config: HookConfig, root: Path, source: PurePosixPath, toolchain: Toolchain, key: SigningKey | None
    ) -> bytes:
        """Return the bundle of one source, signed unless ``key`` is None."""
        request = BuildRequest(
            sources=(str(source),),
            clang_args=config.clang_args(),
            name=source.stem,
            version=self.metadata.version,
            license=self.metadata.core.license_expression or None,
            cwd=root,
        )
        try:
            output = build(request, toolchain)
        except CompileError as error:
            error.context = str(source)
            raise
        for text in (output.diagnostics.rstrip(), *output.notices):
            if text:
                self.app.display_warning(text)
        if key is None:
            return output.bundle
        with bundle_from_bytes(output.bundle, path=str(source)) as bundle:
            return sign_bundle(bundle, key)

    def _signing_key(self, config: HookConfig) -> SigningKey | None:
        if config.sign == "off":
            return None
        key = signing_key_from_environment(config.key_variable)
        if key is not None:
            return key
        if config.sign == "require":
            raise HookConfigError(
                f'"require", and the environment variable {config.key_variable} is not set',
                context=f"{config.location}.sign",
                remedy=f"set {config.key_variable} to the path of a secret key file, or to its PEM text",
            )
        key, created = development_key(create=True)
        self.app.display_warning(
            f"uxdp: {config.key_variable} is not set: signed with the development key {key.public.text}, which only "
            f"this user trusts" + (f" (made now: {development_key_path()})" if created else "")
        )
        return key

    @staticmethod
    def _live_places(root: Path, sources: Sequence[PurePosixPath]) -> list[tuple[str, str]]:
        """Return (path in the tree, absolute path) of each live bundle: beside its source."""
        beside = [source.with_suffix(BUNDLE_SUFFIX) for source in sources]
        return [(str(path), str(root / path)) for path in beside]

    def _wheel_places(self, sources: Sequence[PurePosixPath]) -> list[tuple[str, str]]:
        """Return (path in terms of the tree, path in the wheel) of each bundle; ``sources`` may rewrite the former."""
        config = self.build_config
        # Hatchling refuses to say anything about files before it knows that there will be some.
        with config.set_build_data({"artifacts": [f"*{BUNDLE_SUFFIX}"], "force_include": {}}):
            if config.get_distribution_path(INDEX_NAME) != INDEX_NAME:
                raise HookConfigError(
                    f"moves {INDEX_NAME} in the wheel's metadata, where installed network functions are looked for",
                    context=f"tool.hatch.build.targets.{self.target_name}.sources",
                    remedy="let it not rewrite the prefix 'uxdp/', nor the empty one",
                )
            shipped = [Path(selected) for selected in config.only_include if Path(selected).is_dir()]
            paths = [self._selected_path(source, shipped) for source in sources]
            return [(path, config.get_distribution_path(path)) for path in paths]

    def _selected_path(self, source: PurePosixPath, shipped: Sequence[Path]) -> str:
        """Return a bundle's path in terms of the tree: beside a shipped source, else in the project's own folder."""
        path = Path(self.root, source)
        if any(path.is_relative_to(directory) for directory in shipped):
            return str(source.with_suffix(BUNDLE_SUFFIX))
        project = self.build_config.builder.normalize_file_name_component(self.metadata.core.name)
        return f"{project}/{source.stem}{BUNDLE_SUFFIX}"

    def _describe(self, files: list[BundleFile], outputs: Path, editable: bool, build_data: dict[str, Any]) -> None:
        """Add the index, the bill of materials and the tag."""
        index = outputs / "index.json"
        index.write_bytes(
            encode_index(
                IndexEntry(
                    file.manifest.name, file.manifest.version, file.path, file.bundle_id, file.sha256, editable=editable
                )
                for file in files
            )
        )
        build_data["extra_metadata"][str(index)] = INDEX_NAME
        if editable:
            return  # a live file changes, a bill of materials would soon lie
        core = self.metadata.core
        bill = outputs / SBOM_NAME
        bill.write_bytes(sbom(core.name, self.metadata.version, core.license_expression or None, files))
        build_data["sbom_files"].append(str(bill))
        # A hook that comes later may compile an extension module and want its platform's tag.
        if (
            build_data["build_hooks"][-1] == self.PLUGIN_NAME
            and build_data["pure_python"]
            and not build_data["infer_tag"]
        ):
            build_data.setdefault("tag", WHEEL_TAG)


def _write_live(path: Path, image: bytes) -> None:
    """Replace a live file at once: whoever serves it sees the old bundle or the new one."""
    fd, temporary = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(image)
            os.fchmod(fd, 0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise


def _message(error: UxdpError) -> str:
    return f"uxdp: {error}" + (f"\n  {error.remedy}" if error.remedy else "")
