"""The ``uxdp`` command group: finds commands, and turns every failure into one sentence and an exit code.

A command's module is imported when the command is run, and not before: ``uxdp authenticate`` must not pay for the
imports of ``uxdp bind``. So the table below holds the one-line help too.

Exit codes: those of uxdp_bundle.errors; 1 for other input and output errors, 2 for usage, 130 after an interrupt, 141
when the reader of a pipe has gone.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from uxdp_bundle.errors import UxdpError

from . import output

EXIT_OTHER: Final = 1
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as the shell reports it
EXIT_BROKEN_PIPE: Final = 141  # 128 + SIGPIPE

# name: (module, attribute, one-line help)
COMMANDS: Final = {
    "keygen": ("uxdp_runtime.cli.keys", "keygen", "Make a key pair to sign bundles with."),
    "sign": ("uxdp_runtime.cli.keys", "sign", "Sign a bundle; its id does not change."),
    "trust": ("uxdp_runtime.cli.trust", "trust", "Decide whose bundles may run here."),
    "authenticate": ("uxdp_runtime.cli.trust", "authenticate", "Check that a bundle is signed by whom you trust."),
    "bind": ("uxdp_runtime.cli.bundle", "bind", "Check that the object is what the bundle's IR lowers to."),
    "verify": ("uxdp_runtime.cli.verify", "verify", "Let the kernel's verifier judge a bundle's programs."),
    "compile": ("uxdp_runtime.cli.compile", "compile_bundle", "Put native code for named CPUs into a bundle."),
    "inspect": ("uxdp_runtime.cli.bundle", "inspect", "Show what is in a bundle and who signed it."),
    "extract": ("uxdp_runtime.cli.bundle", "extract", "Write a bundle's members to files."),
    "diff": ("uxdp_runtime.cli.bundle", "diff", "Show what changed between two bundles."),
    "test": ("uxdp_runtime.cli.test", "test", "Prove that native code does what the kernel does."),
    "replay": ("uxdp_runtime.cli.replay", "replay", "Run a capture through a program, natively."),
    "serve": ("uxdp_runtime.cli.serve", "serve", "Serve a network function on live traffic."),
    "status": ("uxdp_runtime.cli.operate", "status", "Show the services that run here."),
    "stats": ("uxdp_runtime.cli.operate", "stats", "Show a service's counters and rates."),
    "stop": ("uxdp_runtime.cli.operate", "stop", "End a service."),
    "reload": ("uxdp_runtime.cli.reload", "reload", "Serve another version, without losing a frame."),
    "map": ("uxdp_runtime.cli.map", "map_group", "Read and write the maps of a running service."),
    "bench": ("uxdp_runtime.cli.bench", "bench", "Measure what a frame costs in the kernel and natively."),
    "list": ("uxdp_runtime.cli.installed", "list_installed", "List the installed network functions."),
}


class _ReaderGoneError(Exception):
    """Whoever read our stdout has closed it."""


class UxdpGroup(click.Group):
    """A click group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table, which is the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, _, help_text) in COMMANDS.items()])

    # Both are overridden to keep a reader that has gone from click, which would exit with 1.

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the group's own options, which may print help."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except BrokenPipeError as cause:
            raise _ReaderGoneError from cause

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as cause:
            raise _ReaderGoneError from cause

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line and exit with its code; see the module's description."""
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            result = super().main(arguments, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
            code = result if type(result) is int else 0
        except (BrokenPipeError, _ReaderGoneError):
            code = _abandon_stdout()
        except (UxdpError, click.ClickException, click.Abort, OSError) as error:
            if not standalone_mode:
                raise
            code = _report(error, as_json="--json" in arguments)
        if not standalone_mode:
            return code
        sys.exit(code)


def _report(error: UxdpError | click.ClickException | click.Abort | OSError, *, as_json: bool) -> int:
    """Print an error and return its exit code."""
    try:
        if isinstance(error, UxdpError):
            output.print_error(error, as_json=as_json)
            return error.exit_code
        if isinstance(error, click.Abort):
            message, context, remedy, code = "interrupted", "", "", EXIT_INTERRUPTED
        elif isinstance(error, click.ClickException):
            message, code = error.format_message(), error.exit_code
            command = getattr(error, "ctx", None)
            context = command.command_path.partition(" ")[2] if command else ""
            remedy = f"see `{command.command_path} --help`" if command else ""
            if isinstance(error, click.exceptions.NoArgsIsHelpError):
                click.echo(message, err=True)
                return code
        else:
            message, context, remedy, code = error.strerror or str(error), str(error.filename or ""), "", EXIT_OTHER
        output.print_failure(
            type(error).__name__, message, context=context, remedy=remedy, exit_code=code, as_json=as_json
        )
    except BrokenPipeError:
        return _abandon_stdout()
    return code


def _abandon_stdout() -> int:
    """Point stdout at nothing, so that what is still buffered does not fail once more when Python exits."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
    return EXIT_BROKEN_PIPE


@click.group(cls=UxdpGroup, name="uxdp", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="uxdp", prog_name="uxdp")
def main() -> None:
    """Sign, trust, inspect and run XDP network functions in .uxdp bundles.

    Every command has --help with an example. Commands that print data take --json; then stdout holds one JSON
    document, be it the result or {"error": …}.

    \b
    Exit codes: 0 done · 1 other failure, or differences found · 2 usage · 3 malformed bundle · 4 not trusted
    5 object and IR differ · 6 key or trust files · 7 installed network functions · 8 not supported here
    9 refused by the kernel · 10 an interface, queue or service cannot be had
    """
