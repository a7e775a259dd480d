"""What a measurement says, for people and for machines."""

from collections.abc import Sequence
from typing import Any

from .session import KERNEL, LIMIT, NATIVE, Figures


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
                "rounds_ns": {name: list(item.rounds) for name, item in mine.items()},
                "ratios": ratios({name: item.net_ns for name, item in mine.items()}),
            }
        )
    return documents


def ratios(net_ns: dict[str, float]) -> dict[str, float]:
    """Return how many times the native code's time every other variant takes; of the limit, the reverse."""
    native = max(net_ns[NATIVE], 0.01)
    found = {f"{name} / {NATIVE}": round(ns / native, 2) for name, ns in net_ns.items() if name not in (NATIVE, LIMIT)}
    if LIMIT in net_ns:
        found[f"{NATIVE} / {LIMIT}"] = round(native / max(net_ns[LIMIT], 0.01), 2)
    return found


def table(figures: Sequence[Figures]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the columns and rows of a table: ns per frame, and how much faster than the kernel."""
    variants = list(dict.fromkeys(item.variant for item in figures))
    rows = []
    for flows in dict.fromkeys(item.flows for item in figures):
        net = {item.variant: item.net_ns for item in figures if item.flows == flows}
        speedup = f"{net[KERNEL] / max(net[NATIVE], 0.01):.1f}×"
        rows.append((f"{flows:,}", *(f"{net[name]:.1f}" for name in variants), speedup))
    return ("flows", *variants, "kernel / native"), rows
