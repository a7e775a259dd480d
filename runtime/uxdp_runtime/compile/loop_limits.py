"""Let loops end that run for too long: may_goto, as the kernel has it.

Every frame of a function that holds a may_goto has a counter and a time at which it began, both on its stack. The
jumps count; each time the counter has run out, native/helpers/control_flow.c looks at the clock.

Reference: Linux, kernel/bpf/core.c, bpf_check_timed_may_goto
"""

from typing import Final

from uxdp_bundle import may_goto

from .ir_text import Function, Module

FUNCTION: Final = "uxdp_may_goto"
_LEFT: Final = '%"uxdp.loop.left"'
_STARTED: Final = '%"uxdp.loop.started"'
_STEPS: Final = 0xFFFF  # BPF_MAX_TIMED_LOOPS of include/linux/bpf.h


def limit_loops(module: Module) -> None:
    """Replace every may_goto by a call that counts, and a branch."""
    changed = [_limit(function) for function in module.functions]
    if any(changed):
        module.items.append(f"declare zeroext i1 @{FUNCTION}(ptr, ptr)")


def _limit(function: Function) -> bool:
    if not any(may_goto.IN_IR.match(line) for line in function.lines):
        return False
    first, *rest = function.lines
    lines = [
        first,
        f"  {_LEFT} = alloca i64, align 8",
        f"  {_STARTED} = alloca i64, align 8",
        f"  store i64 {_STEPS}, ptr {_LEFT}, align 8",
        f"  store i64 0, ptr {_STARTED}, align 8",
    ]
    following = iter(rest)
    number = 0
    for line in following:
        where = may_goto.DESTINATIONS.match(next(following)) if may_goto.IN_IR.match(line) else None
        if where is None:
            lines.append(line)
            continue
        over = f'%"uxdp.loop.over.{number}"'
        number += 1
        lines += [
            f"  {over} = call zeroext i1 @{FUNCTION}(ptr {_LEFT}, ptr {_STARTED})",
            f"  br i1 {over}, label {where['end']}, label {where['on']}",
        ]
    function.lines = lines
    return True
