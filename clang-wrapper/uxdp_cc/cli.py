"""uxdp-cc: clang's command line, but -c writes a signed bundle."""

import sys
from collections.abc import Sequence

from uxdp_bundle.errors import UxdpError

from . import interruption
from .messages import report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run uxdp-cc; return its exit status: clang's if clang failed, 1 for other errors.

    Where clang does it all (-E, --version, …) this process becomes clang.
    """
    argv = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with interruption.unwinding():
            with interruption.held():  # an interrupted import would leave a traceback
                from .driver import run
            return run(argv)
    except interruption.Ended as ended:
        signal_number = ended.number
    except UxdpError as error:
        return report(error)
    except OSError as error:
        return report(UxdpError(str(error)))
    # Here, and not above, for there the traceback still holds on to what removes itself when it is let go.
    return interruption.end_by(signal_number)
