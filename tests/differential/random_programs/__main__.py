"""Generate random programs and compare them: ``python -m tests.differential.random_programs --help``."""

import argparse
import sys
import time

from uxdp_runtime.compile.targets import host_target
from uxdp_runtime.stores import control_library

from .batch import DifferenceError, Report, compare_object
from .source import generate_source


def main() -> int:
    """Compare objects from one number on; return 1 at a difference."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential.random_programs", description=main.__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--object", type=int, default=0, help="number of the first object")
    parser.add_argument("--objects", type=int, default=1, help="how many")
    parser.add_argument("--programs", type=int, default=25, help="programs of an object")
    parser.add_argument("--only", metavar="NAME", help="run one program only, from fresh maps")
    parser.add_argument("--frames", type=int, default=48, help="for each program")
    parser.add_argument("--print", action="store_true", help="print the source, and run nothing")
    parser.add_argument("--refused", action="store_true", help="print why programs were refused")
    given = parser.parse_args()
    if given.print:
        print(generate_source(given.seed, given.object, given.programs).text)
        return 0
    total, started, status = Report(), time.monotonic(), 0
    target, control = host_target(), control_library()
    for number in range(given.object, given.object + given.objects):
        try:
            total.add(
                compare_object(
                    given.seed,
                    number,
                    num_programs=given.programs,
                    frames=given.frames,
                    target=target,
                    control=control,
                    only=given.only,
                )
            )
        except DifferenceError as difference:
            print(difference)
            status = 1
    seconds = time.monotonic() - started
    print(
        f"{total.programs} programs equal, {len(total.refused)} refused ({total.refusal_rate:.1%}), {seconds:.1f} s; "
        + ", ".join(f"{name} {count}" for name, count in total.verdicts.most_common(6))
        + f"; {total.left_out} frames by chance"
    )
    if given.refused:
        print("\n".join(f"{name}: {reason}" for name, reason in total.refused.items()))
    return status


if __name__ == "__main__":
    sys.exit(main())
