"""Derive the facts of an object in a process that may not use much: ``python -m tests.hostile.derive_facts FILE``.

Prints the type of the error, or "facts". Exit status 0 for both; anything else is a defect.
"""

import resource
import sys
from pathlib import Path

from uxdp_bundle.errors import ObjectError
from uxdp_bundle.facts import object_facts

# A bundle's object has at most 16 MiB; everything that is derived from it has to fit a small machine.
MEMORY_BYTES = 2 << 30
CPU_SECONDS = 20


def main() -> None:
    """Read, derive, print."""
    data = Path(sys.argv[1]).read_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    try:
        object_facts(data)
    except ObjectError as error:
        print(type(error).__name__, error)
    else:
        print("facts")


if __name__ == "__main__":
    main()
