"""What a measurement says, for people and for machines."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .session import KERNEL, LIMIT, NATIVE, Figures

# A time that is less was not measured: a round was disturbed.
_LEAST_NS: Final = 0.1


def as_json(figures: Sequence[Figures]) -> list[dict[str, Any]]:
    """Return one object for each number of flows: ns per frame by variant, and the ratios that matter."""
    documents = []
    for flows in dict.fromkeys(item.flows for item in figures):
        mine = {item.variant: item for item in figures if item.flows == flows}
        documents.append(
            {
                "flows": flows,
                "ns_per_frame": {name: round(item.net_ns, 2) for name, item in mine.items()},
                "empty_ns": {name: round(item.empty_ns, 2) for name, item in mine.items()},
                "rounds_ns": {name: [round(ns, 2) for ns in item.rounds] for name, item in mine.items()},
                "ratios": {what: round(ratio, 2) for what, ratio in ratios(mine).items()},
            }
        )
    return documents


def ratios(figures: Mapping[str, Figures]) -> dict[str, float]:
    """Return how many times the native code's time every other variant takes; of the limit, the reverse.

    The median of the rounds' ratios: what disturbs a round disturbs all variants in it alike.
    """
    found = {f"{name} / {NATIVE}": _ratio(item, figures[NATIVE]) for name, item in figures.items() if name != NATIVE}
    if LIMIT in figures:
        del found[f"{LIMIT} / {NATIVE}"]
        found[f"{NATIVE} / {LIMIT}"] = _ratio(figures[NATIVE], figures[LIMIT])
    return found


def _ratio(one: Figures, other: Figures) -> float:
    pairs = zip(one.rounds, other.rounds, strict=True)
    return statistics.median(mine / max(theirs, _LEAST_NS) for mine, theirs in pairs)


def table(figures: Sequence[Figures]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the columns and rows of a table: ns per frame, and how much faster than the kernel."""
    variants = list(dict.fromkeys(item.variant for item in figures))
    rows = []
    for flows in dict.fromkeys(item.flows for item in figures):
        mine = {item.variant: item for item in figures if item.flows == flows}
        speedup = f"{ratios(mine)[f'{KERNEL} / {NATIVE}']:.1f}×"
        rows.append((f"{flows:,}", *(f"{mine[name].net_ns:.1f}" for name in variants), speedup))
    return ("flows", *variants, "kernel / native"), rows
