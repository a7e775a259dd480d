"""``uxdp status``, ``stats`` and ``stop``: look at services that run here and end them, over their control sockets."""

import json
import sys
import time
from typing import Any, Final

import click

from ..errors import PortError
from . import output

_STATUS_COLUMNS: Final = ("Name", "State", "Program", "Interfaces", "Queues", "Up", "Restarts", "PID", "Data PID")
_STOP_SECONDS: Final = 15.0


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(name: str | None, as_json: bool) -> int:
    """Show the services that run here, or one of them.

    The exit code is 0 if all that are shown serve, and 10 if one does not.

    \b
    Example:
      sudo uxdp status
      sudo uxdp status edge --json | jq .data_pid
    """
    from ..serve.control_socket import ask, services

    if name is not None:
        found = [ask(name, {"command": "status"})]
    else:
        found = [_status_of(service) for service in services()]
    if as_json:
        output.print_json(found[0] if name is not None else {"services": found})
    elif found:
        output.print_table("Services", _STATUS_COLUMNS, [_status_row(item) for item in found])
    else:
        output.note("no service runs here")
    return 0 if all(item["serving"] for item in found) else PortError.exit_code


@click.command()
@click.argument("name")
@click.option("--watch", is_flag=True, help="Go on, once a second, with rates.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="With --watch: stop after so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch one document a line.")
def stats(name: str, watch: bool, count: int | None, as_json: bool) -> None:
    """Show a service's counters: received frames, verdicts, losses and why, per queue.

    \b
    Example:
      sudo uxdp stats edge --watch
      sudo uxdp stats edge --json | jq '.queues[].verdicts'
    """
    from rich.console import Console

    from ..serve.control_socket import ask
    from ..serve.live_table import COLUMNS, LiveTable, table_rows
    from ..serve.rates import rates

    if not watch:
        answer = ask(name, {"command": "stats"})
        if as_json:
            output.print_json(answer)
        else:
            output.print_table(name, COLUMNS, table_rows(rates(None, answer)))
            if "kernel_questions" in answer:
                asked = answer["kernel_questions"]
                output.say(
                    f"the kernel was asked {asked['asked']} times, {asked['failed']} of them in vain; "
                    f"{asked['remembered']} answers were remembered"
                )
        return
    before: dict[str, Any] | None = None
    left = count
    with LiveTable(Console()) as table:
        while left is None or left > 0:
            answer = ask(name, {"command": "stats"})
            if as_json:
                click.echo(json.dumps(answer))
            elif sys.stdout.isatty():
                table.show(ask(name, {"command": "status"}), rates(before, answer))
            else:
                output.print_table(name, COLUMNS, table_rows(rates(before, answer)))
            sys.stdout.flush()
            before = answer
            left = None if left is None else left - 1
            if left != 0:
                time.sleep(1.0)


@click.command()
@click.argument("name")
def stop(name: str) -> None:
    """End a service: what it has received is finished, then its interfaces are as before.

    \b
    Example:
      sudo uxdp stop edge
    """
    from ..serve.control_socket import ask, socket_path

    ask(name, {"command": "stop"})
    path = socket_path(name)
    end = time.monotonic() + _STOP_SECONDS
    while path.exists():
        if time.monotonic() > end:
            raise PortError(
                110, f"told to stop, and has not within {_STOP_SECONDS:.0f} s", context=name, remedy="see its log"
            )
        time.sleep(0.02)


def _status_of(name: str) -> dict[str, Any]:
    """Return a service's status, or that it does not answer, and why."""
    from ..serve.control_socket import ask

    try:
        answer: dict[str, Any] = ask(name, {"command": "status"})
    except PortError as error:
        return {"name": name, "serving": False, "error": error.message}
    return answer


def _status_row(item: dict[str, Any]) -> tuple[str, ...]:
    if "error" in item:
        return (item["name"], item["error"], *("-" for _ in _STATUS_COLUMNS[2:]))
    interfaces = [
        f"{interface['name']} ({'gone' if interface.get('gone') else interface['attached']})"
        for interface in item["interfaces"]
    ]
    return (
        item["name"],
        "serving" if item["serving"] else "not serving",
        item["program"],
        ", ".join(interfaces),
        str(sum(len(interface["queues"]) for interface in item["interfaces"])),
        f"{item['uptime_seconds']:.0f} s",
        str(item["restarts"]),
        str(item["pid"]),
        str(item["data_pid"] or "-"),
    )
