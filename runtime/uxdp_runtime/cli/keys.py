"""``uxdp keygen`` and ``uxdp sign``."""

import errno
import os
import shlex
import stat
import sys
from pathlib import Path

import click

from uxdp_bundle import keys, trusted_files
from uxdp_bundle.container import open_bundle
from uxdp_bundle.errors import FileAccessError
from uxdp_bundle.signature import parse_envelopes, sign_bundle

from . import output

_DEFAULT_KEY_NAME = "signing.pem"


@click.command()
@click.option(
    "-o",
    "--output",
    "output_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Secret key file; the public key is written beside it as FILE.pub.  [default: signing.pem in the user's "
    "configuration directory]",
)
@click.option("--passphrase", "ask", is_flag=True, help="Encrypt the secret key; asks for the passphrase.")
@click.option("--passphrase-env", metavar="VAR", help="Encrypt the secret key with the passphrase in this variable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def keygen(output_file: Path | None, ask: bool, passphrase_env: str | None, as_json: bool) -> None:
    """Make a key pair to sign bundles with.

    The secret key file has mode 0600; it is never printed, and never overwritten.

    \b
    Example:
      uxdp keygen -o publisher.pem
      uxdp trust add publisher.pem.pub --names 'firewall'
    """
    if ask and passphrase_env:
        raise click.UsageError("--passphrase and --passphrase-env exclude each other")
    passphrase = None
    if ask:
        passphrase = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
    elif passphrase_env:
        passphrase = os.environ.get(passphrase_env)
        if not passphrase:
            raise click.UsageError(f"the variable {passphrase_env} is unset or empty")
    if output_file is None:
        output_file = trusted_files.user_config_dir() / _DEFAULT_KEY_NAME
        trusted_files.ensure_directory(output_file.parent, mode=0o700, parents_mode=0o700)
    key = keys.generate_key()
    public_file = keys.write_secret_key(output_file, key, passphrase)
    if as_json:
        output.print_json(
            {
                "public_key": key.public.text,
                "public_key_file": str(public_file),
                "secret_key_file": str(output_file),
                "encrypted": passphrase is not None,
            }
        )
        return
    output.say(key.public.text)
    output.say(f"  secret key  {output_file}{' (encrypted)' if passphrase else ''}")
    output.say(f"  public key  {public_file}")
    output.say()
    output.say("To trust it here, and to sign with it:")
    output.say(f"  uxdp trust add {shlex.quote(str(public_file))} --names 'NAME'")
    output.say(f"  uxdp sign BUNDLE --key {shlex.quote(str(output_file))}")


@click.command()
@click.argument("bundle", type=click.Path())
@click.option(
    "--key",
    "key_file",
    metavar="FILE",
    help="Secret key file.  [default: $UXDP_SIGNING_KEY, else your development key]",
)
@click.option("--add", is_flag=True, help="Keep the signatures that are there; without this they are replaced.")
@click.option("-o", "--output", "output_file", metavar="OUT", help="Write there, and leave BUNDLE as it is.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sign(bundle: str, key_file: str | None, add: bool, output_file: str | None, as_json: bool) -> None:
    """Sign a bundle; its id does not change.

    $UXDP_SIGNING_KEY may hold the PEM text of the key instead of a file's name. The passphrase of an encrypted key is
    read from $UXDP_SIGNING_KEY_PASSPHRASE, or asked for.

    \b
    Example:
      uxdp sign firewall.uxdp --key publisher.pem
      uxdp sign firewall.uxdp --key auditor.pem --add
    """
    target = Path(output_file or bundle)
    with open_bundle(bundle) as opened:
        mode = mode_for(target)
        key = signing_key(key_file)
        image = sign_bundle(opened, key, add=add)
        bundle_id, name = opened.bundle_id, opened.manifest.name
        count = len(parse_envelopes(opened.signatures, bundle_id, name)) + 1 if add else 1
    try:
        trusted_files.replace_file(target, image, mode)
    except OSError as cause:
        raise FileAccessError(
            f"cannot be written: {cause.strerror}", errno=cause.errno or errno.EIO, context=str(target)
        ) from cause
    if as_json:
        output.print_json(
            {
                "bundle": str(target),
                "bundle_id": bundle_id,
                "name": name,
                "key": key.public.text,
                "signatures": count,
            }
        )
        return
    output.say(f"{target}: signed by {key.public.text}, {count} signature{'s' if count > 1 else ''} in all")


def signing_key(key_file: str | None) -> keys.SigningKey:
    """Return the key to sign with: that of a file, of the environment, or else the user's development key."""
    if key_file is not None:
        passphrase = os.environ.get(f"{keys.SIGNING_KEY_VARIABLE}_PASSPHRASE")
        return keys.signing_key_from(key_file, passphrase or _ask_passphrase, context="--key")
    key = keys.signing_key_from_environment(passphrase=_ask_passphrase)
    if key is not None:
        return key
    key, created = keys.development_key(create=True)
    made = "made and used" if created else "used"
    output.note(f"{made} your development key ({keys.development_key_path()}), which only your own commands trust")
    return key


def _ask_passphrase() -> str | None:
    if not sys.stdin.isatty():
        return None
    passphrase: str = click.prompt("Passphrase", hide_input=True, err=True)
    return passphrase


def mode_for(target: Path) -> int:
    """Return the mode for the file that is about to be written: that of the file in its place, if there is one."""
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        umask = os.umask(0o077)
        os.umask(umask)
        return 0o666 & ~umask
    except (OSError, ValueError) as cause:
        raise FileAccessError(str(cause), errno=errno.EIO, context=str(target)) from cause
    if not stat.S_ISREG(mode):
        raise FileAccessError(
            "is no regular file", errno=errno.EINVAL, context=str(target), remedy="choose another name with -o"
        )
    return stat.S_IMODE(mode) & 0o777
