"""Whether frames that a program is run on one right after the other may share a reading of the clock.

Reading it costs as much as the rest of a small program: the CPU's counter is read in microcode, and what comes before
and what comes behind do not overlap. What bpf_ktime_get_ns returns may be some frames old (native/clock.h) only if
nobody can tell from the program's own times: where a run asks once at most, so that it measures nothing within itself,
and asks no other clock, and holds no lock under which it compares with the time of another worker.

The text that this works on is the compiler's own, after all other rewriting: helper calls are ``@"uxdp.call.NAME.N"``.
"""

import re
from collections.abc import Collection
from typing import Final

from .ir_text import Function, Module

_SITE: Final = re.compile(r'@"?uxdp\.call\.ktime_get_ns\.\d')
_TIME: Final = "uxdp_helper_ktime_get_ns"
# Other times, other runs on the same frame, and what orders workers.
_FORBIDS: Final = re.compile(
    r"uxdp_(?:helper|kfunc)_(?:ktime_get_(?!ns$)|jiffies64|timer_|spin_lock|xdp_metadata_rx_timestamp)|uxdp_tail_target"
)
_REFERENCE: Final = re.compile(r'@("[^"]*"|[-\w$.]+)')
_LABEL: Final = re.compile(r'^(?P<name>"[^"]*"|[-\w$.]+):')
_TARGETS: Final = re.compile(r'label %("[^"]*"|[-\w$.]+)')


def shares_time(module: Module, entry: str, called: Collection[str]) -> bool:
    """Return whether no run of the program that frames enter can ask for the time twice.

    :param called: the native functions that the module calls
    """
    if _TIME not in called or any(map(_FORBIDS.match, called)):
        return False
    function, *others = _reachable(module, entry)
    return not any(_SITE.search(line) for other in others for line in other.lines) and _passes_once(function)


def _reachable(module: Module, entry: str) -> list[Function]:
    """Return the functions that a program can get to, itself first: all that are named, called or not."""
    by_name = {function.name: function for function in module.functions}
    reached = {entry: by_name[entry]}
    work = [entry]
    while work:
        for line in by_name[work.pop()].lines:
            for name in by_name.keys() & set(_REFERENCE.findall(line)) - reached.keys():
                reached[name] = by_name[name]
                work.append(name)
    return list(reached.values())


def _passes_once(function: Function) -> bool:
    """Return whether no path through a function passes two sites, or one twice."""
    successors: dict[str, set[str]] = {}
    sites: list[str] = []
    block = ""
    for line in function.lines:
        label = _LABEL.match(line)
        if label is not None:
            block = label["name"]
            successors[block] = set()
            continue
        successors[block].update(_TARGETS.findall(line))
        if _SITE.search(line):
            sites.append(block)
    if len(set(sites)) < len(sites):
        return False
    return not any(_reached(successors, site).intersection(sites) for site in sites)


def _reached(successors: dict[str, set[str]], start: str) -> set[str]:
    """Return the blocks that can be entered after leaving one."""
    reached: set[str] = set()
    work = [start]
    while work:
        for target in successors[work.pop()] - reached:
            reached.add(target)
            work.append(target)
    return reached
