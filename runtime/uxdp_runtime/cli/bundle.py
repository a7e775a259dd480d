"""``uxdp inspect|extract|diff|bind``: what is in a bundle, and whether it holds together."""

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import click

from uxdp_bundle.container import Bundle, open_bundle
from uxdp_bundle.errors import FileAccessError
from uxdp_bundle.manifest import Manifest, MapDefinition, to_json

from . import output
from .bundle_argument import resolve_bundle
from .pipeline import bound_bundle

if TYPE_CHECKING:
    from uxdp_bundle.authentication import TrustVerdict

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_bundle = click.argument("bundle", metavar="BUNDLE|NAME")
# Names of members in files: what `uxdp extract` writes for roles that have one member.
_FILE_NAMES: Final = {"object": "{stem}.o", "ir": "{stem}.bc", "shim": "{stem}.shim.btf"}


@click.command()
@_bundle
@_json
def inspect(bundle: str, as_json: bool) -> None:
    """Show what a bundle claims to be and who signed it. Nothing of it is run, loaded or believed.

    \b
    Example:
      uxdp inspect load_balancer.uxdp
      uxdp inspect load_balancer.uxdp --json | jq '.manifest.maps[].name'
    """
    with open_bundle(resolve_bundle(bundle)) as opened:
        verdict = _assess(opened)
        if as_json:
            from .trust import verdict_json

            output.print_json(
                {
                    "bundle": opened.path,
                    "bundle_id": opened.bundle_id,
                    "manifest": to_json(opened.manifest),
                    "trust": verdict_json(verdict),
                }
            )
            return
        _print_manifest(opened)
        _print_trust(verdict)


@click.command()
@_bundle
@click.option("--insecure-unsigned", is_flag=True, help="Go on with a bundle that nobody you trust has signed.")
@_json
def bind(bundle: str, insecure_unsigned: bool, as_json: bool) -> None:
    """Authenticate a bundle, derive its facts again, lower its IR again, and compare.

    \b
    Example:
      uxdp bind load_balancer.uxdp
    """
    from uxdp_bundle.binding import Binding

    with bound_bundle(bundle, insecure_unsigned=insecure_unsigned) as bound:
        opened = bound.authentic.bundle
        manifest = opened.manifest
        if as_json:
            output.print_json(
                {
                    "bundle": opened.path,
                    "bundle_id": opened.bundle_id,
                    "name": manifest.name,
                    "binding": bound.binding.value,
                    "insecure": bound.authentic.insecure,
                    "programs": [program.name for program in bound.facts.programs],
                    "context_accesses": len(bound.facts.accesses),
                }
            )
            return
        meaning = {
            Binding.EQUAL: "the IR lowers to exactly this object",
            Binding.MUST_REVERIFY: "another LLVM made it: the kernel must verify the relowered object as well",
            Binding.NO_IR: "no IR: the object runs as bytecode",
        }
        output.say(f"{opened.path}: bound ({bound.binding.value}): {meaning[bound.binding]}")


@click.command()
@_bundle
@click.argument("member", required=False)
@click.option("-o", "--output", "target", type=click.Path(), help="Folder, or with MEMBER a file; - is stdout.")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
def extract(bundle: str, member: str | None, target: str | None, force: bool) -> None:
    """Write a bundle's members to files: all, or one role such as object, ir or shim (or role:name).

    Signatures are not looked at; the files are as trustworthy as the bundle.

    \b
    Example:
      uxdp extract nf.uxdp -o nf/
      uxdp extract nf.uxdp ir -o - | llvm-dis
    """
    with open_bundle(resolve_bundle(bundle)) as opened:
        if member is not None:
            role, _, name = member.partition(":")
            content = opened.member(role, name or None)
            if target == "-":
                sys.stdout.buffer.write(content)
                sys.stdout.buffer.flush()
                return
            path = Path(target) if target else Path(_file_name(opened, role, name))
            output.say(str(_write(path.parent, path.name, content, force)))
            return
        if target == "-":
            raise click.UsageError("-o - needs MEMBER: several files do not fit into one stream")
        folder = Path(target or f"{opened.manifest.name}-{opened.manifest.version}")
        files = {"manifest.json": opened.manifest_bytes}
        if opened.signatures:
            files["signatures.jsonl"] = opened.signatures
        for item in opened.manifest.members:
            files[_file_name(opened, item.role, item.name)] = opened.member(item.role, item.name)
        for name, content in files.items():
            output.say(str(_write(folder, name, content, force)))


@click.command()
@click.argument("old", type=click.Path())
@click.argument("new", type=click.Path())
@_json
def diff(old: str, new: str, as_json: bool) -> int:
    """Show what changed between two bundles: identity, programs, helpers, maps, constants, build.

    Exit code 1 if anything differs, as diff(1).

    \b
    Example:
      uxdp diff firewall-1.0.uxdp firewall-1.1.uxdp
    """
    with open_bundle(old) as one, open_bundle(new) as other:
        changes = list(_changes(one.manifest, other.manifest))
        same = one.bundle_id == other.bundle_id
        if as_json:
            keys = ("what", "name", "old", "new")
            output.print_json(
                {
                    "old": {"bundle": old, "bundle_id": one.bundle_id},
                    "new": {"bundle": new, "bundle_id": other.bundle_id},
                    "changes": [dict(zip(keys, change, strict=True)) for change in changes],
                }
            )
            return 0 if same else 1
        for what, name, before, after in changes:
            output.say(_change_line(what, name, before, after))
        if not changes:
            output.say("the bundles are the same" if same else "the same things in another order")
        return 0 if same else 1


def _changes(one: Manifest, other: Manifest) -> list[tuple[str, str, Any, Any]]:
    """Return (what, name, old, new); None stands for absent."""
    changes: list[tuple[str, str, Any, Any]] = []

    def compare(what: str, name: str, before: Any, after: Any) -> None:
        if before != after:
            changes.append((what, name, to_json(before), to_json(after)))

    for name in ("name", "version", "security_version", "license"):
        compare(name, "", getattr(one, name), getattr(other, name))
    kinds: tuple[tuple[str, str], ...] = (("program", "programs"), ("map", "maps"), ("constant", "params"))
    for what, attribute in kinds:
        left = {item.name: item for item in getattr(one, attribute)}
        right = {item.name: item for item in getattr(other, attribute)}
        for name in sorted(left.keys() | right.keys()):
            if name not in left or name not in right:
                compare(what, name, left.get(name), right.get(name))
                continue
            for key in left[name].__dataclass_fields__:
                compare(f"{what} {key}", name, getattr(left[name], key), getattr(right[name], key))
    compare("xdp_md", "", one.xdp_md, other.xdp_md)
    compare("critical", "", one.critical, other.critical)
    for name in ("kernel", "llvm", "mcpu"):
        compare(f"requirements {name}", "", getattr(one.requirements, name), getattr(other.requirements, name))
    for name in ("compiler", "flags", "lowering"):
        compare(name, "", getattr(one.build, name), getattr(other.build, name))
    sources = [{source.path: source.sha256 for source in manifest.build.sources} for manifest in (one, other)]
    for path in sorted(sources[0].keys() | sources[1].keys()):
        compare("source", path, sources[0].get(path), sources[1].get(path))
    contents = [{(m.role, m.name): m for m in manifest.members} for manifest in (one, other)]
    for role, name in sorted(contents[0].keys() | contents[1].keys()):
        before, after = contents[0].get((role, name)), contents[1].get((role, name))
        if before is None or after is None:
            compare(f"member {role}", name, before and before.sha256, after and after.sha256)
            continue
        for key in ("sha256", "media_type", "compression"):
            compare(f"member {role} {key}", name, getattr(before, key), getattr(after, key))
    return changes


def _change_line(what: str, name: str, before: Any, after: Any) -> str:
    """Return one line: - gone, + new, ~ changed."""
    label = f"{what} {name}".rstrip()
    if before is None:
        return f"+ {label}: {_shown(after)}"
    if after is None:
        return f"- {label}: {_shown(before)}"
    if isinstance(before, list) and sorted(map(str, before)) != sorted(map(str, after)):
        gone, new = ([item for item in one if item not in other] for one, other in ((before, after), (after, before)))
        return f"~ {label}: {' '.join([*(f'-{_shown(item)}' for item in gone), *(f'+{_shown(item)}' for item in new)])}"
    return f"~ {label}: {_shown(before)} → {_shown(after)}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    if isinstance(value, dict):
        return " ".join(f"{key}={_shown(item)}" for key, item in value.items() if key != "name")
    return "none" if value is None else str(value)


def _assess(opened: Bundle) -> "TrustVerdict":
    from uxdp_bundle.authentication import assess
    from uxdp_bundle.rollback import RollbackState
    from uxdp_bundle.trust import TrustStore

    return assess(opened, TrustStore.load(), now=datetime.now(UTC), rollback=RollbackState.load())


def _print_manifest(opened: Bundle) -> None:
    manifest = opened.manifest
    output.say(f"{manifest.name} {manifest.version}   license {manifest.license or '—'}")
    output.say(f"bundle id {opened.bundle_id}   security_version {manifest.security_version}")
    lowering = manifest.build.lowering
    made = f"lowered by LLVM {lowering.llvm} for {lowering.cpu}" if lowering else "object by clang, no IR"
    output.say(f"built by {manifest.build.compiler} {' '.join(manifest.build.flags)}; {made}")
    output.say(f"needs {', '.join(manifest.requirements.kernel) or 'nothing special'}")
    output.say(f"reads xdp_md: {', '.join(manifest.xdp_md) or 'nothing'}")
    output.print_table(
        "Programs",
        ("Name", "Section", "Instructions", "Helpers", "Kfuncs", "Flags"),
        [
            (
                program.name,
                program.section,
                str(program.instructions),
                ", ".join(name.removeprefix("bpf_") for name in program.helpers) or "—",
                ", ".join(program.kfuncs) or "—",
                ", ".join(program.flags) or "—",
            )
            for program in manifest.programs
        ],
    )
    if manifest.maps:
        output.print_table(
            "Maps", ("Name", "Type", "Key", "Value", "Entries", "Flags", "Inner"), [_map_row(m) for m in manifest.maps]
        )
    if manifest.params:
        rows = [(param.name, param.type, str(param.default)) for param in manifest.params]
        output.print_table("Constants (.rodata)", ("Name", "Type", "Default"), rows)
    output.print_table(
        "Members",
        ("Role", "Name", "Bytes", "Unpacked", "SHA-256"),
        [
            (member.role, member.name, str(member.length), str(member.size), member.sha256[:16])
            for member in manifest.members
        ],
    )


def _map_row(definition: MapDefinition) -> Sequence[str]:
    return (
        definition.name,
        definition.type,
        str(definition.key_size),
        str(definition.value_size),
        str(definition.max_entries),
        f"{definition.flags:#x}" + (" pinned" if definition.pinning else ""),
        f"{definition.inner.type} {definition.inner.value_size}" if definition.inner else "—",
    )


def _print_trust(verdict: "TrustVerdict") -> None:
    if verdict.signatures:
        rows = [
            (
                str(signature.key) if signature.key else "—",
                signature.state.value,
                ", ".join(signer.role for signer in signature.signers) or signature.reason,
            )
            for signature in verdict.signatures
        ]
        output.print_table("Signatures", ("Key", "State", "Counts as"), rows)
    if verdict.error is None:
        output.say("trust: trusted")
    else:
        output.say(f"trust: NOT trusted: {verdict.error}")
        if verdict.error.remedy:
            output.say(f"  → {verdict.error.remedy}")


def _file_name(opened: Bundle, role: str, name: str) -> str:
    """Return the file that a member is written to: never anything but a name below the folder."""
    pattern = _FILE_NAMES.get(role)
    return pattern.format(stem=opened.manifest.name) if pattern else f"{role}/{name}" if name else role


def _write(folder: Path, name: str, content: bytes, force: bool) -> Path:
    """Write a new file below a folder; what lies there is followed nowhere else, nor written through."""
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            inner = folder / parent
            inner.mkdir(exist_ok=True)
            if inner.is_symlink():
                raise FileAccessError("is a symbolic link, expected a folder", context=str(inner))
    except FileExistsError as cause:
        raise FileAccessError(
            "is a file, expected a folder", errno=cause.errno or 0, context=str(cause.filename)
        ) from cause
    except OSError as cause:
        if isinstance(cause, FileAccessError):
            raise
        raise FileAccessError(str(cause.strerror), errno=cause.errno or 0, context=str(folder)) from cause
    try:
        if force:
            path.unlink(missing_ok=True)
        # O_EXCL: neither an existing file nor one behind a link
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as file:
            file.write(content)
    except FileExistsError as cause:
        raise FileAccessError("exists", errno=cause.errno or 0, context=str(path), remedy="use --force") from cause
    except OSError as cause:
        raise FileAccessError(str(cause.strerror), errno=cause.errno or 0, context=str(path)) from cause
    return path
