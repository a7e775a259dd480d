"""Work in a child process: results and errors come back, and a crash ends the child alone."""

import faulthandler
import os
import signal

import pytest

from uxdp_runtime.errors import LoadError, ParameterError
from uxdp_runtime.frames.generate import Frame
from uxdp_runtime.fuzz.child import ChildError, CrashError, in_child
from uxdp_runtime.fuzz.journal import Journal
from uxdp_runtime.steps import MapChange, Step


def crash(number: signal.Signals) -> None:
    faulthandler.disable()  # pytest has it print what is known here
    os.kill(os.getpid(), number)


def test_in_child_result_comes_back_from_another_process() -> None:
    pid, frame = in_child(lambda: (os.getpid(), Frame(b"\x01" * 14, metadata=b"\x02" * 4)))
    assert pid != os.getpid()
    assert frame == Frame(b"\x01" * 14, metadata=b"\x02" * 4)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ParameterError("no such map", context="map m", remedy="name another"), id="ours"),
        pytest.param(LoadError(22, "refused", messages=("one", "two"), context="nf.uxdp"), id="system-call"),
        pytest.param(KeyError("k"), id="python"),
    ],
)
def test_in_child_error_comes_back_whole(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        in_child(fail)
    assert caught.value.args == error.args
    assert vars(caught.value) == vars(error)
    assert str(caught.value) == str(error)
    assert getattr(caught.value, "errno", None) == getattr(error, "errno", None)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGTRAP, signal.SIGILL])
def test_in_child_crash_is_an_error_with_its_signal(number: signal.Signals) -> None:
    with pytest.raises(CrashError, match=number.name) as caught:
        in_child(lambda: crash(number))
    assert caught.value.signal is number


@pytest.mark.parametrize(
    ("end", "how"),
    [
        pytest.param(lambda: os.kill(os.getpid(), signal.SIGKILL), "by SIGKILL", id="killed"),
        pytest.param(lambda: os._exit(3), "with 3", id="exit"),
    ],
)
def test_in_child_other_end_is_no_crash(end: object, how: str) -> None:
    assert callable(end)
    with pytest.raises(ChildError, match=how):
        in_child(end)


def test_journal_has_what_a_crashed_child_was_about_to_do() -> None:
    steps: list[Step] = [
        Frame(b"\x05" * 20, description="udp"),
        MapChange("m", b"\x01", None),
        MapChange("m", b"", b"x", 2),
    ]
    with Journal() as journal:
        journal.add(steps[:1])

        def work() -> None:
            journal.clear()
            journal.add(steps[:2])
            journal.add(steps[2:])
            crash(signal.SIGSEGV)

        with pytest.raises(CrashError):
            in_child(work)
        assert journal.read() == tuple(steps)
