"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP), from the first line of the program to its last.

Before a command begins and after it is done, a signal ends the process at once: there is nothing to clean up,
and an exception in the middle of an import would be a traceback. While the command runs, it is cancelled and
cleans up. These signals have a handler, because the kernel does not deliver an unhandled signal to process 1.

Python's own start takes some 20 ms before our first line. A signal in that time has its default effect,
unless it is blocked until then, as in our image.
"""

# `signal` has 3 ms of imports of its own, in which Ctrl-C would still be a traceback.
import _signal  # type: ignore[import-not-found]
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Coroutine
    from types import FrameType
    from typing import Any, TypeVar

    T = TypeVar("T")

_SIGNALS = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)
_received: int = _signal.SIGINT


def end_at_once(code: "int | None" = None) -> None:
    """From now on these signals end the process at once, with this exit code.

    Without one, nothing has begun yet: 0 for `run`, which has nothing to stop, and 128 + its number for other
    commands. A signal that the parent process has set to be ignored, as nohup does, stays ignored.
    """

    def end(number: int, _frame: "FrameType | None") -> None:
        before = 0 if sys.argv[1:2] == ["run"] else 128 + number
        os._exit(before if code is None else code)

    for number in _SIGNALS:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, end)
    # The image's entry point blocks them until now.
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _SIGNALS)


def ask_to_stop() -> "tuple[int, ...]":
    """The signals that ask a worker to stop. With nohup a closed terminal is none."""
    return _SIGNALS if _signal.getsignal(_signal.SIGHUP) != _signal.SIG_IGN else _SIGNALS[:2]


def exit_code() -> int:
    """130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + _received


def run(command: "Coroutine[Any, Any, T]") -> "T":
    """As asyncio.run. The first signal cancels the command, which cleans up; a second ends that.

    Raises KeyboardInterrupt after it.
    """
    import asyncio
    import threading

    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(command)
    before = {number: _signal.getsignal(number) for number in _SIGNALS}
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(_all_but_late_connections)
        # asyncio cancels where it finds this handler, and no other.
        if before[_signal.SIGINT] != _signal.SIG_IGN:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
            for number in (_signal.SIGTERM, _signal.SIGHUP):
                if before[number] != _signal.SIG_IGN:
                    _signal.signal(number, _as_ctrl_c)
        try:
            return runner.run(command)
        finally:
            for number, handler in before.items():
                _signal.signal(number, handler)
            command.close()  # for the moment before it has begun


def _all_but_late_connections(loop: "AbstractEventLoop", context: "dict[str, Any]") -> None:
    """asyncio's loop, except for a connection that is completed while its task is being cancelled.

    Python's own callback would then set the result of a cancelled future, and print a traceback.
    """
    if "_sock_connect_cb" not in context["message"]:
        loop.default_exception_handler(context)


def _as_ctrl_c(number: int, _frame: "FrameType | None") -> None:
    global _received
    if number == _received == _signal.SIGHUP:
        return  # of one closed terminal the kernel and the shell may send one each
    _received = number
    _signal.raise_signal(_signal.SIGINT)
