"""The file of ``uxdp serve --config``: TOML whose keys are the flags' names, and ``bundle``.

Every flag has a key, for the keys are taken from the command itself. What the file says takes the place of the flags'
defaults, so a flag that is given comes first.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from ..errors import ParameterError

_NO_KEYS: Final = ("config", "help")  # these say nothing about a service


def config_key(parameter: click.Parameter) -> str:
    """Return a parameter's key: an option's long name without dashes in front, an argument's name."""
    if isinstance(parameter, click.Option):
        return next(name for name in parameter.opts if name.startswith("--")).removeprefix("--")
    return parameter.name or ""


def config_parameters(command: click.Command) -> dict[str, click.Parameter]:
    """Return the parameters of a command that its file can set, by their keys."""
    found = {config_key(parameter): parameter for parameter in command.params}
    return {key: parameter for key, parameter in found.items() if key not in _NO_KEYS}


def read_config(path: Path, parameters: Mapping[str, click.Parameter]) -> dict[str, Any]:
    """Return what a file says, as values for click by the parameters' names.

    :param parameters: by key; ``_`` in the file's keys stands for ``-``, too
    :raises ParameterError: it cannot be read, has another key, or a value of another type
    """
    where = str(path)
    try:
        document = tomllib.loads(path.read_text())
    except OSError as cause:
        raise ParameterError(f"cannot be read: {cause.strerror or cause}", context=where) from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise ParameterError(f"no TOML: {cause}", context=where) from cause
    found: dict[str, Any] = {}
    for written, value in document.items():
        key = written.replace("_", "-")
        if key not in parameters:
            raise ParameterError(
                f"no such setting: {written}", context=where, remedy=f"known are {', '.join(sorted(parameters))}"
            )
        parameter = parameters[key]
        found[str(parameter.name)] = _value(parameter, value, f"{where}: {written}")
    return found


def use_config(ctx: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Let the other parameters' defaults be what the file says; the callback of an eager option."""
    if path is not None:
        ctx.default_map = read_config(path, config_parameters(ctx.command))


def _value(parameter: click.Parameter, value: Any, where: str) -> Any:
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise _wanted(value, "true or false", where)
        return value
    if parameter.multiple:
        if isinstance(value, dict):
            return [f"{name}={_text(item, where)}" for name, item in value.items()]
        return [_text(item, where) for item in _items(value, "a list, or a table", where)]
    if parameter.nargs > 1:
        items = _items(value, f"a list of {parameter.nargs}", where)
        if len(items) != parameter.nargs:
            raise _wanted(value, f"a list of {parameter.nargs}", where)
        return tuple(_text(item, where) for item in items)
    if isinstance(value, list):
        return ",".join(_text(item, where) for item in value)
    return _text(value, where)


def _items(value: Any, wanted: str, where: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise _wanted(value, wanted, where)
    return value


def _text(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _wanted(value, "text or a number", where)
    return str(value)


def _wanted(value: Any, wanted: str, where: str) -> ParameterError:
    return ParameterError(f"{value!r}, expected {wanted}", context=where)
