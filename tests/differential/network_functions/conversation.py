"""What tests of network functions are made of: frames, the verdicts they must get, and what must hold of the result.

Kernel and native code may both be wrong only where the program is. So a conversation also checks what the program is
for: the addresses, lengths and checksums of the frames that it makes, with the builders and parsers of this folder.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "cases" / "network_functions"


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame, and the verdict that it must get."""

    name: str
    data: bytes
    verdict: str


# Yields frames, and gets what the program made of each, so that answers can be given.
Conversation = Generator[Sent, bytes, None]


@dataclass(frozen=True)
class NetworkFunction:
    """A program and its traffic.

    - ``clang_args``: what it is compiled with;
    - ``settings``: the content of its maps, as of ``uxdp test --set``; ``params``: other values of its constants;
    - ``constants``: addresses and ports that generated frames shall have;
    - ``counters``: a map of 64-bit counters, one per CPU, each of which must have counted something in the end, but
      those in ``not_counted``;
    - ``verdicts``: that the mixed frames must get;
    - ``environment``: what is there while both sides run, such as a network namespace with routes;
    - ``targets_unknown``: where the kernel sends redirected frames cannot be told;
    - ``by_chance``: some frames depend on the clock, and are not compared.
    """

    sources: tuple[str, ...]
    entry: str
    conversation: Callable[[], Conversation]
    verdicts: frozenset[str]
    clang_args: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    params: Mapping[str, int | bytes] = field(default_factory=dict)
    constants: tuple[bytes, ...] = ()
    counters: str = "counters"
    not_counted: frozenset[int] = frozenset()
    environment: Callable[[], AbstractContextManager[None]] = nullcontext
    targets_unknown: bool = False
    by_chance: bool = False
