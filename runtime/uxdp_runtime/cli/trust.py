"""``uxdp trust add|list|remove|revoke`` and ``uxdp authenticate``."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uxdp_bundle import trusted_files
from uxdp_bundle.keys import load_public_key
from uxdp_bundle.trust import BUNDLE_ID_PATTERN, DEFAULT_ROLE, ROLE_PATTERN, TrustedKey, TrustStore

from . import output
from .bundle_argument import resolve_bundle

if TYPE_CHECKING:
    from uxdp_bundle.authentication import Signer, TrustVerdict

_scope = click.option(
    "--system/--user",
    "system",
    default=None,
    help="Change the trust of all users (/etc/uxdp) or your own.  [default: --system for root, else --user]",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(no_args_is_help=True)
def trust() -> None:
    """Decide whose bundles may run here.

    \b
    Example:
      uxdp trust add publisher.pem.pub --names 'firewall'
      uxdp trust list
    """


def _parse_role(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not ROLE_PATTERN.fullmatch(value):
        raise click.BadParameter(f"{value!r}, expected a lower-case word such as {DEFAULT_ROLE!r}")
    return value


def _parse_names(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name for value in values for name in value.replace(",", " ").split()))
    if not names:
        raise click.BadParameter("no name, expected globs of bundle names such as 'lb-*'")
    return names


def _parse_time(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as cause:
        raise click.BadParameter(f"{value!r}, expected a time such as 2027-01-01T00:00:00Z") from cause
    if moment.tzinfo is None:
        raise click.BadParameter(f"{value!r} has no offset, expected a time such as 2027-01-01T00:00:00Z")
    return moment


@trust.command("add")
@click.argument("key", metavar="KEY|FILE")
@click.option(
    "--names",
    metavar="GLOB",
    multiple=True,
    required=True,
    callback=_parse_names,
    help="Names of the bundles that this key may sign; may be repeated, or hold several with commas.",
)
@click.option("--role", default=DEFAULT_ROLE, show_default=True, callback=_parse_role, help="What the key signs as.")
@click.option("--not-before", metavar="TIME", callback=_parse_time, help="Trust the key from then on.")
@click.option("--not-after", metavar="TIME", callback=_parse_time, help="Trust the key until then.")
@click.option("--comment", default="", help="Who this is; kept in the file.")
@_scope
@_json
def add(
    key: str,
    names: tuple[str, ...],
    role: str,
    not_before: datetime | None,
    not_after: datetime | None,
    comment: str,
    system: bool | None,
    as_json: bool,
) -> None:
    """Trust a public key, given as text or as a file, to sign bundles of some names.

    \b
    Example:
      uxdp trust add ed25519:… --names 'lb-*' --not-after 2027-01-01T00:00:00Z
      uxdp trust add auditor.pem.pub --names '*' --role auditor
    """
    from uxdp_bundle.trust_edit import add_key

    entry = TrustedKey(load_public_key(key), names, role, not_before, not_after, comment)
    path = add_key(_directory(system), entry)
    if as_json:
        output.print_json({"key": _key_json(entry), "file": str(path)})
        return
    output.say(f"{entry.key} is now trusted as {role} of {', '.join(names)} ({path})")


@trust.command("list")
@_json
def list_trust(as_json: bool) -> None:
    """Show the keys, rules and revocations that your commands follow.

    \b
    Example:
      uxdp trust list
      uxdp trust list --json | jq '.keys[].key'
    """
    store = TrustStore.load()
    revoked_keys = [{"key": key.text, "source": source} for key, source in store.revocations.keys.items()]
    revoked_bundles = [{"bundle_id": name, "source": source} for name, source in store.revocations.bundles.items()]
    if as_json:
        output.print_json(
            {
                "keys": [_key_json(entry) for entry in store.keys],
                "rules": [
                    {
                        "names": list(rule.names),
                        "role": rule.role,
                        "threshold": rule.threshold,
                        "source": rule.source,
                    }
                    for rule in store.rules
                ],
                "revoked": {"keys": revoked_keys, "bundles": revoked_bundles},
            }
        )
        return
    if not store.keys:
        output.say("No key is trusted: no bundle will be accepted. Trust one with `uxdp trust add`.")
    else:
        output.print_table(
            "Trusted keys",
            ("Key", "Role", "Names", "Valid", "Comment", "File"),
            [(e.key.text, e.role, ", ".join(e.names), _validity(e, store), e.comment, e.source) for e in store.keys],
        )
    if store.rules:
        output.print_table(
            "Rules",
            ("Names", "Role", "Signatures", "File"),
            [(", ".join(rule.names), rule.role, str(rule.threshold), rule.source) for rule in store.rules],
        )
    if revoked_keys or revoked_bundles:
        rows = [("key", item["key"], item["source"]) for item in revoked_keys]
        rows += [("bundle", item["bundle_id"], item["source"]) for item in revoked_bundles]
        output.print_table("Revoked", ("What", "Which", "File"), rows)


@trust.command("remove")
@click.argument("key", metavar="KEY|FILE")
@_scope
@_json
def remove(key: str, system: bool | None, as_json: bool) -> None:
    """Stop trusting a public key, for all names and roles.

    \b
    Example:
      uxdp trust remove ed25519:…
    """
    from uxdp_bundle.trust_edit import remove_key

    public = load_public_key(key)
    paths = remove_key(_directory(system), public)
    if as_json:
        output.print_json({"key": public.text, "files": [str(path) for path in paths]})
        return
    output.say(f"{public} is no longer trusted ({', '.join(map(str, paths))})")


@trust.command("revoke")
@click.option("--key", "key_names", metavar="KEY|FILE", multiple=True, help="Public key whose signatures never count.")
@click.option("--bundle", "bundle_names", metavar="ID|FILE", multiple=True, help="Bundle that is always refused.")
@_scope
@_json
def revoke(key_names: tuple[str, ...], bundle_names: tuple[str, ...], system: bool | None, as_json: bool) -> None:
    """Never again accept signatures of a key, or one bundle, whatever else is trusted.

    \b
    Example:
      uxdp trust revoke --key ed25519:…
      uxdp trust revoke --bundle broken.uxdp
    """
    from uxdp_bundle import trust_edit

    if not key_names and not bundle_names:
        raise click.UsageError("nothing to revoke, expected --key or --bundle")
    keys = [load_public_key(name) for name in key_names]
    bundles = [_bundle_id(name) for name in bundle_names]
    path = trust_edit.revoke(_directory(system), keys, bundles)
    if as_json:
        output.print_json({"keys": [key.text for key in keys], "bundles": bundles, "file": str(path)})
        return
    for what in [str(key) for key in keys] + [f"bundle {bundle}" for bundle in bundles]:
        output.say(f"{what} is revoked ({path})")


@click.command()
@click.argument("bundle", metavar="BUNDLE|NAME")
@click.option(
    "--insecure-unsigned",
    is_flag=True,
    help="Accept a bundle that nobody you trust has signed. Whoever made it can then do what the bundle can.",
)
@click.option("--record-use", is_flag=True, help="Record its security_version: older ones are refused from now on.")
@_json
def authenticate(bundle: str, insecure_unsigned: bool, record_use: bool, as_json: bool) -> None:
    """Check that a bundle is signed by whom you trust, not revoked and not rolled back.

    \b
    Example:
      uxdp authenticate firewall.uxdp
    """
    from uxdp_bundle import authentication
    from uxdp_bundle.container import open_bundle
    from uxdp_bundle.rollback import RollbackState

    with open_bundle(resolve_bundle(bundle)) as opened:
        rollback = RollbackState.load()
        authentic = authentication.authenticate(
            opened, TrustStore.load(), now=datetime.now(UTC), rollback=rollback, allow_unsigned=insecure_unsigned
        )
        manifest = opened.manifest
        if authentic.insecure:
            output.warn(f"{bundle}: INSECURE: nobody you trust has signed this bundle; accepted by --insecure-unsigned")
        recorded = record_use and authentic.record_use(rollback)
        if as_json:
            output.print_json(
                {
                    "bundle": bundle,
                    "bundle_id": opened.bundle_id,
                    "name": manifest.name,
                    "version": manifest.version,
                    "security_version": manifest.security_version,
                    "insecure": authentic.insecure,
                    "signers": [signer_json(signer) for signer in authentic.signers],
                    "recorded": recorded,
                }
            )
            return
        state = "NOT authentic, accepted all the same" if authentic.insecure else "authentic"
        output.say(f"{bundle}: {state}: {manifest.name} {manifest.version}, bundle id {opened.bundle_id}")
        for signer in authentic.signers:
            output.say(f"  {signer.role} {signer.key} ({signer.source})")


def signer_json(signer: "Signer") -> dict[str, str]:
    """Return the JSON form of a signer."""
    return {"key": signer.key.text, "role": signer.role, "source": signer.source}


def verdict_json(verdict: "TrustVerdict") -> dict[str, Any]:
    """Return the JSON form of a trust verdict, for commands that show one."""
    error = verdict.error
    return {
        "trusted": verdict.trusted,
        "reason": str(error) if error else "",
        "remedy": error.remedy if error else "",
        "requirements": [
            {"role": item.role, "threshold": item.threshold, "counted": item.counted} for item in verdict.requirements
        ],
        "signatures": [
            {
                "key": signature.key.text if signature.key else None,
                "state": signature.state.value,
                "reason": signature.reason,
                "roles": [signer.role for signer in signature.signers],
            }
            for signature in verdict.signatures
        ],
    }


def _directory(system: bool | None) -> Path:
    root = os.geteuid() == 0
    if root and system is False:
        raise click.UsageError("root follows the trust of the system alone: --user has no effect for root")
    return trusted_files.system_config_dir() if system or root else trusted_files.user_config_dir()


def _bundle_id(name: str) -> str:
    if BUNDLE_ID_PATTERN.fullmatch(name):
        return name
    from uxdp_bundle.container import open_bundle

    with open_bundle(name) as opened:
        return opened.bundle_id


def _key_json(entry: TrustedKey) -> dict[str, Any]:
    return {
        "key": entry.key.text,
        "names": list(entry.names),
        "role": entry.role,
        "not_before": entry.not_before.isoformat() if entry.not_before else None,
        "not_after": entry.not_after.isoformat() if entry.not_after else None,
        "comment": entry.comment,
        "source": entry.source,
    }


def _validity(entry: TrustedKey, store: TrustStore) -> str:
    now = datetime.now(UTC)
    if entry.key in store.revocations.keys:
        return "revoked"
    if entry.not_before is not None and now < entry.not_before:
        return f"from {entry.not_before.isoformat()}"
    if entry.not_after is None:
        return "always"
    return f"{'until' if now <= entry.not_after else 'expired'} {entry.not_after.isoformat()}"
