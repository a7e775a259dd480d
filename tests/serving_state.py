"""Versions of tests/cases/serve/state.c, the frames that it answers, and its answers."""

import struct
from pathlib import Path
from typing import NamedTuple

from tests.veth import HOST_MAC, PEER_MAC
from uxdp_cc.build import BuildRequest, build

CASES = Path(__file__).parent / "cases" / "serve"
_ETH_P_802_EX1 = 0x88B5
_REPORT = struct.Struct("=IBBBBIII")
_HEADER = bytes.fromhex((HOST_MAC + PEER_MAC).replace(":", "")) + struct.pack("!H", _ETH_P_802_EX1)
_ANSWER_HEADER = bytes.fromhex((PEER_MAC + HOST_MAC).replace(":", "")) + struct.pack("!H", _ETH_P_802_EX1)


class Answer(NamedTuple):
    """What the program wrote into a frame."""

    number: int
    version: int
    mark: int
    stage: int
    flow: int
    ifindex: int
    queue: int
    seen: int


def state_bundle(folder: Path, *defines: str, name: str = "state") -> Path:
    """Build a version of the program, such as with ``VERSION=2``."""
    arguments = tuple(f"-D{define}" for define in defines)
    path = folder / f"{name}.uxdp"
    path.write_bytes(build(BuildRequest(sources=("state.c",), cwd=CASES, clang_args=arguments, name="state")).bundle)
    return path


def question(number: int) -> bytes:
    """Return a frame of 64 bytes that the program answers."""
    return (_HEADER + struct.pack("=I", number)).ljust(64, b"\0")


def is_answer(data: bytes) -> bool:
    """Whether a frame is such an answer."""
    return data.startswith(_ANSWER_HEADER)


def answer(data: bytes) -> Answer:
    """Read one."""
    return Answer(*_REPORT.unpack_from(data, len(_HEADER)))
