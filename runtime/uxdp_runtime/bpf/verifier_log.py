"""Read the verifier's log: at which instruction it stopped, why, and what it cost.

The log is text for people, and its details differ between kernels. What has stayed the same since Linux 4.15: an
instruction begins a line as ``12: (85) call …``, statistics begin with ``processed``, a comment with ``;``. The lines
behind the last instruction that are neither state nor statistics are the reason. A log may be cut off at its beginning
(Linux 6.4 and newer keep its end) or at its end (older ones).

References: kernel/bpf/log.c; kernel/bpf/verifier.c, print_verification_stats
"""

import re
from dataclasses import dataclass
from typing import Final

LOG_LEVEL: Final = 1  # BPF_LOG_LEVEL1: the path to the failure
LOG_STATS: Final = 4  # BPF_LOG_STATS
_INSTRUCTION: Final = re.compile(r"(\d+): \([0-9a-f]{2}\) ")
_STATE: Final = re.compile(r"\d+: |from \d+ to \d+|;| ?frame\d+: |caller:|callee:|returning from callee:|to caller at ")
_STATISTICS: Final = re.compile(
    r"processed \d+ insns |verification time \d+ usec|stack depth [\d+]+$|insns? processed "
)
_PROCESSED: Final = re.compile(r"^processed (\d+) insns ", re.MULTILINE)
_TIME: Final = re.compile(r"^verification time (\d+) usec", re.MULTILINE)
# More lines than this are no reason, but a dump of something.
_MAX_REASON_LINES: Final = 4
# No line of interest is longer; the statistics stand within so much of the end.
_TAIL_CHARACTERS: Final = 4096


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the verifier stopped: the index of the last instruction that it looked at, None if none, and its words."""

    instruction: int | None
    reason: str


def parse_refusal(log: str) -> Refusal:
    """Find the reason at the end of the log of a program that was refused."""
    reason: list[str] = []
    for line in reversed(log.splitlines()):
        match = _INSTRUCTION.match(line)
        if match is not None:
            return Refusal(int(match[1]), _joined(reason))
        if line.strip() and not _STATE.match(line) and not _STATISTICS.match(line):
            reason.insert(0, line.strip())
    return Refusal(None, _joined(reason))


def processed_instructions(log: str) -> int | None:
    """Return how many instructions the verifier processed, from the statistics at the end of a log."""
    match = _PROCESSED.search(log[-_TAIL_CHARACTERS:])
    return int(match[1]) if match is not None else None


def verification_time_us(log: str) -> int | None:
    """Return how long the verifier took, which only LOG_STATS makes it say."""
    match = _TIME.search(log[-_TAIL_CHARACTERS:])
    return int(match[1]) if match is not None else None


def _joined(reason: list[str]) -> str:
    return "; ".join(reason[-_MAX_REASON_LINES:])
