"""What hatchling loads through the entry point group ``hatch``."""

from hatchling.plugin import hookimpl

from .build_hook import UxdpBuildHook


@hookimpl
def hatch_register_build_hook() -> type[UxdpBuildHook]:
    """Register the build hook ``uxdp``."""
    return UxdpBuildHook
