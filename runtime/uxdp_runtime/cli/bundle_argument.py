"""The argument BUNDLE of a command: a file, or the name of an installed network function."""

import os

from uxdp_bundle.errors import InstalledError


def resolve_bundle(argument: str) -> str:
    """Return the path of the bundle that a user names.

    What contains a slash, ends in .uxdp, or exists as a file is a path; anything else is the name of an installed
    function.

    :raises InstalledError: there is neither such a file nor such a function, or its files are not those installed
    """
    if os.sep in argument or argument.endswith(".uxdp") or os.path.lexists(argument):
        return argument
    from uxdp_bundle.installed import locate

    try:
        return str(locate(argument).path)
    except InstalledError as error:
        raise InstalledError(
            f"no file {argument!r} here, and {error.message}", context=error.context, remedy=error.remedy
        ) from error
