"""The JSON schema of the hook's table, for validate-pyproject and for editors."""

import json
from importlib.resources import files
from typing import Any

from uxdp_bundle.errors import UxdpError

# validate-pyproject knows one schema per tool, the one of the highest priority. Ours checks one table of [tool.hatch];
# a schema of the whole of it, if somebody installs one (priority 0 or 1), is worth more.
_PRIORITY = -1


def get_schema(tool_name: str = "hatch") -> dict[str, Any]:
    """Checks ``[tool.hatch.build.targets.wheel.hooks.uxdp]``; the rest of ``[tool.hatch]`` passes."""
    if tool_name != "hatch":
        raise UxdpError(f"there is no schema for [tool.{tool_name}], only for [tool.hatch]")
    schema: dict[str, Any] = json.loads(files(__package__).joinpath("uxdp.schema.json").read_bytes())
    return schema


get_schema.priority = _PRIORITY  # type: ignore[attr-defined]
