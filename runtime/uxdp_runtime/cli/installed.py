"""``uxdp list``: installed network functions, found without running any code of their packages."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from uxdp_bundle.errors import InstalledError

from . import output

if TYPE_CHECKING:
    from uxdp_bundle.installed import InstalledDefect, InstalledFunction

_COLUMNS = ("Name", "Version", "Distribution", "Bundle id", "State", "Path")
_BROKEN = "error"
# Enough to tell bundles apart; the whole id is printed wherever it does not have to fit a terminal.
_SHORT_ID_CHARACTERS = 16


@click.command("list")
@click.option(
    "--site",
    "sites",
    metavar="DIR",
    multiple=True,
    type=click.Path(exists=True, file_okay=False),
    help="Look in this site-packages directory instead of this interpreter's; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_installed(sites: tuple[str, ...], as_json: bool) -> int:
    """List the installed network functions.

    Only files are read: no code of any package runs. A function whose files are not those that were installed is shown
    as an error, and the exit code is then 7. Whether you trust a bundle is what `uxdp authenticate` says.

    \b
    Example:
      uxdp list
      uxdp list --site /opt/nf/lib/python3.11/site-packages
      uxdp list --json | jq -r '.functions[].path'
    """
    from uxdp_bundle.installed import scan_installed

    scan = scan_installed(sites or None)
    if as_json:
        output.print_json(
            {
                "functions": [_function_json(function) for function in scan.functions],
                "errors": [_defect_json(defect) for defect in scan.defects],
            }
        )
    else:
        _print(
            [
                *(_row(function) for function in scan.functions),
                *((defect.name or "-", "-", defect.distribution, "-", _BROKEN, "-") for defect in scan.defects),
            ]
        )
        for defect in scan.defects:
            output.print_error(defect.error, as_json=False)
    return InstalledError.exit_code if scan.defects else 0


def _print(rows: list[tuple[str, ...]]) -> None:
    if not rows:
        output.note("no network function is installed here; pip install one, or name another directory with --site")
    elif sys.stdout.isatty():
        short = [(*row[:3], row[3][:_SHORT_ID_CHARACTERS], *row[4:]) for row in rows]
        output.print_table("Installed network functions", _COLUMNS, short)
    else:
        # For cut, awk and eyes: one line each, columns aligned, no line drawing.
        widths = [max(len(output.printable(row[i])) for row in (_COLUMNS, *rows)) for i in range(len(_COLUMNS))]
        for row in (_COLUMNS, *rows):
            cells = (output.printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
            output.say("  ".join(cells).rstrip())


def _row(function: "InstalledFunction") -> tuple[str, ...]:
    distribution = f"{function.distribution} {function.distribution_version}"
    path = str(function.path)
    return (function.name, function.version, distribution, function.bundle_id, function.state, path)


def _function_json(function: "InstalledFunction") -> dict[str, Any]:
    return {**asdict(function), "path": str(function.path), "state": function.state}


def _defect_json(defect: "InstalledDefect") -> dict[str, Any]:
    error = defect.error
    return {
        "distribution": defect.distribution,
        "name": defect.name,
        "type": type(error).__name__,
        "message": error.message,
        "context": error.context,
        "remedy": error.remedy,
        "exit_code": error.exit_code,
    }
