"""Frames through BPF_PROG_TEST_RUN, with a program that does what the frame says."""

import errno
import socket
import struct
import subprocess
from collections.abc import Iterator

import pytest

from tests.bound_bundles import bound_case
from uxdp_runtime.bpf import syscall, test_run
from uxdp_runtime.bpf.test_run import Outcome, Verdict
from uxdp_runtime.errors import BpfError, ParameterError
from uxdp_runtime.verify import verify

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("kernel")]

RETURN, HEAD, TAIL, METADATA, CONTEXT, COUNT = range(6)
LOOPBACK = 1


@pytest.fixture(scope="module")
def runner(kernel: None) -> Iterator[test_run.TestRunner]:
    with (
        bound_case("loading/movement") as bound,
        verify(bound) as verified,
        test_run.TestRunner(verified.programs["movement"].fd) as runner,
    ):
        yield runner


def frame(command: int, argument: int = 0, length: int = 64) -> bytes:
    return bytes([command, argument & 0xFF]) + bytes(index % 251 for index in range(2, length))


@pytest.mark.parametrize("verdict", [*Verdict, 5, 77, 255])
def test_run_returns_the_programs_result_as_it_is(runner: test_run.TestRunner, verdict: int) -> None:
    outcome = runner.run(frame(RETURN, verdict))
    assert outcome.verdict == verdict
    assert (outcome.frame, outcome.metadata) == (frame(RETURN, verdict), b"")


@pytest.mark.parametrize("length", [14, 15, 60, 1514, 3000])
def test_run_keeps_every_byte(runner: test_run.TestRunner, length: int) -> None:
    sent = frame(RETURN, Verdict.PASS, length)
    assert runner.run(sent).frame == sent


@pytest.mark.parametrize("length", [0, 1, 13])
def test_run_frame_without_ethernet_header_is_refused(runner: test_run.TestRunner, length: int) -> None:
    with pytest.raises(ParameterError, match=f"{length} bytes, .* at least 14"):
        runner.run(bytes(length), metadata=bytes(16))


@pytest.mark.parametrize("amount", [-120, -20, -1, 0, 1, 20, 50])
def test_run_adjusted_head_moves_the_first_byte(runner: test_run.TestRunner, amount: int) -> None:
    sent = frame(HEAD, amount)
    outcome = runner.run(sent)
    assert outcome.verdict == Verdict.TX
    if amount >= 0:
        assert outcome.frame == sent[amount:]
    else:
        assert outcome.frame[-amount:] == sent
        assert len(outcome.frame) == 64 - amount


@pytest.mark.parametrize("amount", [-50, -1, 1, 127])
def test_run_adjusted_tail_changes_the_length(runner: test_run.TestRunner, amount: int) -> None:
    sent = frame(TAIL, amount)
    outcome = runner.run(sent)
    assert outcome.verdict == Verdict.TX
    assert outcome.frame == (sent + bytes(max(amount, 0)))[: 64 + amount]


def test_run_metadata_made_by_the_program_is_apart_from_the_frame(runner: test_run.TestRunner) -> None:
    outcome = runner.run(frame(METADATA))
    assert outcome.metadata == b"\xaa" * 8
    assert outcome.frame == frame(METADATA)
    assert (outcome.context.data, outcome.context.data_end) == (8, 72)


def test_run_metadata_given_is_in_front_of_the_frame(runner: test_run.TestRunner) -> None:
    given = bytes(range(16))
    outcome = runner.run(frame(RETURN, Verdict.PASS), metadata=given)
    assert (outcome.metadata, outcome.frame) == (given, frame(RETURN, Verdict.PASS))
    added = runner.run(frame(METADATA), metadata=given)
    assert (added.metadata, added.frame) == (b"\xaa" * 8 + given, frame(METADATA))
    with pytest.raises(ParameterError, match="multiple of 4"):
        runner.run(frame(RETURN), metadata=bytes(6))


def test_run_head_moved_takes_metadata_along(runner: test_run.TestRunner) -> None:
    outcome = runner.run(frame(HEAD, -8), metadata=bytes(range(16)))
    assert outcome.verdict == Verdict.TX
    assert (outcome.metadata, len(outcome.frame)) == (bytes(range(16)), 72)


def test_run_context_names_interface_and_queue(runner: test_run.TestRunner) -> None:
    def seen(outcome: Outcome) -> tuple[int, ...]:
        return struct.unpack_from("=II", outcome.frame, 4)

    assert seen(runner.run(frame(CONTEXT))) == (LOOPBACK, 0)
    name = "uxdp-run0"
    create = ["ip", "link", "add", name, "numrxqueues", "4", "type", "veth", "peer", "name", "uxdp-run1"]
    subprocess.run([*create, "numrxqueues", "4"], check=True)
    try:
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        ifindex = socket.if_nametoindex(name)
        outcome = runner.run(frame(CONTEXT), ifindex=ifindex, queue=3)
        assert seen(outcome) == (ifindex, 3)
        assert (outcome.context.ingress_ifindex, outcome.context.rx_queue_index) == (ifindex, 3)
        with pytest.raises(BpfError) as caught:
            runner.run(frame(CONTEXT), ifindex=ifindex, queue=4)
        assert caught.value.errno == errno.EINVAL
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)
    with pytest.raises(BpfError) as caught:
        runner.run(frame(CONTEXT), ifindex=ifindex)
    assert caught.value.errno == errno.ENODEV


def test_run_other_descriptor_is_an_error() -> None:
    with (
        open("/dev/null", "rb") as file,
        test_run.TestRunner(file.fileno()) as runner,
        pytest.raises(OSError) as caught,
    ):
        runner.run(bytes(64))
    assert isinstance(caught.value, BpfError)


def test_time_is_net_of_an_empty_program(runner: test_run.TestRunner) -> None:
    timing = runner.time(frame(RETURN, Verdict.PASS), repeat=10_000)
    assert min(timing.gross_ns, timing.empty_ns) > 0  # which is more is for a quiet machine to say
    assert timing.net_ns == timing.gross_ns - timing.empty_ns < 1000
    assert timing.stable


def test_time_of_a_program_that_wears_its_frame_out_is_not_stable(runner: test_run.TestRunner) -> None:
    assert not runner.time(frame(COUNT, length=1000), repeat=100).stable


def test_run_program_too_small_a_buffer_is_enospc() -> None:
    with bound_case("loading/movement") as bound, verify(bound) as verified, pytest.raises(BpfError) as caught:
        syscall.run_program(verified.programs["movement"].fd, frame(RETURN), data_out_bytes=10)
    assert caught.value.errno == errno.ENOSPC
