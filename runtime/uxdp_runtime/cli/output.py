"""What ``uxdp`` prints, and where.

Results go to stdout; warnings and errors go to stderr, an error as ``uxdp: error: <where>: <what>`` and a line that
begins with an arrow and says what to do. With --json stdout holds exactly one JSON document: the result, or
``{"error": {"type", "message", "context", "remedy", "exit_code"}}``. Errors then go to stdout too, for a machine that
reads one stream and the exit code; stderr stays with warnings.

Bundles are other people's bytes: everything that is printed passes ``printable``, so that a name cannot move the
cursor, forge a line or hide one.
"""

import json
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click

from uxdp_bundle.errors import UxdpError

# Rich makes tables as wide as the terminal; where there is none, lines must not be cut for a width nobody has.
_WIDTH_WITHOUT_TERMINAL = 10_000
_ITEMS_PER_STEP: Final = 64

_T = TypeVar("_T")


def printable(text: str, *, keep: str = "") -> str:
    """Return ``text`` with everything but printable characters, and those in ``keep``, as escapes."""
    return "".join(
        character if character.isprintable() or character in keep else ascii(character)[1:-1] for character in text
    )


def say(text: str = "") -> None:
    """Print one line of a result."""
    click.echo(printable(text))


def warn(message: str) -> None:
    """Print a warning on stderr."""
    click.echo(f"uxdp: warning: {printable(message)}", err=True)


def note(message: str) -> None:
    """Print something on stderr that is worth knowing and no result."""
    click.echo(f"uxdp: {printable(message)}", err=True)


def counted(number: int, what: str) -> str:
    """Return a number of things, such as ``1 frame`` and ``2 frames``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def print_json(value: Any) -> None:
    """Print the one JSON document of this run, ASCII only, keys in the given order."""
    click.echo(json.dumps(value, indent=2))


def print_error(error: UxdpError, *, as_json: bool) -> None:
    """Print one of our errors."""
    print_failure(
        type(error).__name__,
        error.message,
        context=error.context,
        remedy=error.remedy,
        exit_code=error.exit_code,
        as_json=as_json,
    )


def print_failure(kind: str, message: str, *, context: str, remedy: str, exit_code: int, as_json: bool) -> None:
    """Print a failure of any kind; see the module's description."""
    if as_json:
        fields = {"type": kind, "message": message, "context": context, "remedy": remedy, "exit_code": exit_code}
        print_json({"error": fields})
        return
    where = f"{printable(context)}: " if context else ""
    click.echo(f"uxdp: error: {where}{printable(message)}", err=True)
    if remedy:
        click.echo("  → " + printable(remedy, keep="\n").replace("\n", "\n    "), err=True)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; long cells are folded, never cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(printable(title)), title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # Text, not str: a str's square brackets would be read as markup.
        table.add_row(*(Text(printable(cell, keep="\n")) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False)
    with console.capture() as capture:
        console.print(table)
    # Not by rich itself, which ends the process when the reader of a pipe has gone. Its padding is of no use in a file.
    click.echo("\n".join(line.rstrip() for line in capture.get().strip("\n").split("\n")))


def with_progress(
    items: Iterable[_T], what: str, *, total: int | None, done: Callable[[int], int], wanted: bool = True
) -> Generator[_T, None, None]:
    """Yield items, and show on stderr how far that is; only on a terminal, and nothing remains once it is closed.

    :param total: what ``done`` counts to; None: not known
    :param done: how much is done once that many items were taken
    :param wanted: whether to show anything at all
    """
    if not wanted or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(printable(what), total=total)
        for number, item in enumerate(items):
            if number % _ITEMS_PER_STEP == 0:
                progress.update(task, completed=done(number))
            yield item


@contextmanager
def time_bar(what: str, seconds: float, *, wanted: bool = True) -> Iterator[Callable[[float, str], None]]:
    """Show on stderr how much of a time is gone; only on a terminal, and nothing remains afterwards.

    :return: what is to be told, now and then, how many seconds are gone and what there is to say
    """
    if not wanted or not sys.stderr.isatty():
        yield lambda _elapsed, _text: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(printable(what), total=seconds)
        yield lambda elapsed, text: progress.update(task, completed=elapsed, description=printable(f"{what}: {text}"))
