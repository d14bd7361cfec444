"""Several worker processes on one machine: each a whole worker of the same consumer group.

A process of its own each, because one event loop's decoding would stall the other's locked section.
"""

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from worker import interruption
from worker.error_texts import reason_of
from worker.errors import LoginRefusedError
from worker.failures import backoff_seconds
from worker.observability import log
from worker.observability.events import Event, about
from worker.settings import Settings

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.2
STABLE_SECONDS: Final = 30.0  # a worker that lived this long was well: its next restart does not wait
GRACE_SECONDS: Final = 5.0  # beyond the workers' own shutdown timeout

_PACKAGES: Final = str(Path(__file__).parent.parent.parent)
_STOPPED_WHILE_STARTING: Final = frozenset({-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_the_supervisor() -> None:
    # In the child, before it becomes a worker: should we be killed, nobody would be left to stop it.
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(slots=True)
class _Child:
    number: int
    process: "subprocess.Popen[bytes]"
    started_at: float  # monotonic seconds
    restarts: int = 0
    due_at: float | None = None  # when to start it again; None: it runs
    signals: int = 0  # how many of ours have been passed on to it


class _Supervisor:
    def __init__(self, settings: Settings, workers: int) -> None:
        self._settings = settings
        self._workers = workers
        of_host = f"{socket.gethostname()}-{settings.http_port or os.getpid()}"
        self._name = settings.instance_id or of_host
        self._signals: list[int] = []
        self._was_ever_stable = False
        self._children: list[_Child] = []

    def run(self) -> int:
        """Keep the workers running until stopped; returns the exit code."""
        for number in interruption.ask_to_stop():
            signal.signal(number, self._on_signal)
        try:
            while not self._signals and len(self._children) < self._workers:
                self._children.append(self._start(len(self._children)))
            while not self._signals:
                for child in self._children:
                    code = self._look_after(child)
                    if code is not None:
                        return code
                time.sleep(POLL_SECONDS)
            time.sleep(POLL_SECONDS)  # `_pass_on` has to come after what systemd sends
            return self._wait_for_all()
        finally:
            self._end_all()

    def _start(self, number: int) -> _Child:
        port = self._settings.http_port
        environment = {
            **os.environ,
            "ORDER_WORKER_HTTP_PORT": str(port + number if port else 0),
            # The one that is started again takes the place of the one that ended.
            "ORDER_WORKER_INSTANCE_ID": f"{self._name}-{number}",
        }
        if _PACKAGES not in sys.path[1:]:  # a checkout that is not installed, found as the working folder
            environment["PYTHONPATH"] = os.pathsep.join(
                filter(None, [_PACKAGES, os.environ.get("PYTHONPATH")])
            )
        process = subprocess.Popen(
            # -P: a folder with a `worker.py` or `db` of its own would be started in our place, for ever.
            [sys.executable, "-P", "-m", "worker", "run"],
            env=environment,
            # Ctrl-C in a terminal reaches only the supervisor, so that each worker gets the signal once, from
            # it.
            start_new_session=True,
            preexec_fn=_end_with_the_supervisor if _LIBC else None,
        )
        logger.info(
            "worker %d is process %d", number, process.pid, extra=about(Event.PROCESS_STARTED, worker=number)
        )
        return _Child(number, process, time.monotonic())

    def _look_after(self, child: _Child) -> int | None:
        """Restart a worker that ended; an exit code when there is no point in continuing."""
        now = time.monotonic()
        if child.due_at is not None:
            if now >= child.due_at:
                self._start_again(child, now)
            return None
        code = child.process.poll()
        if code is None:
            self._was_ever_stable = self._was_ever_stable or now - child.started_at > STABLE_SECONDS
            return None
        if code == 1 and not self._was_ever_stable:
            # It has reported on standard error what is missing; the next one would report the same.
            # Others may have started, on a port that is free: they finish their batch.
            self._stop_all()
            return 1
        lived_seconds = now - child.started_at
        is_lasting = not self._was_ever_stable or lived_seconds >= self._settings.refused_limit_seconds
        if code == LoginRefusedError.exit_code and is_lasting:
            # The others have the same credentials. They stop too, and those that still work finish their
            # batch. (A worker that starts while the credentials are being renewed is started again.)
            self._stop_all()
            return code
        child.restarts = 0 if lived_seconds > STABLE_SECONDS else child.restarts + 1
        pause_seconds = backoff_seconds(child.restarts, self._settings.retry_max_seconds)
        extra = about(Event.PROCESS_ENDED, worker=child.number, exit_code=code, seconds=pause_seconds)
        logger.warning(
            "worker %d ended with %d; again in %.1f s", child.number, code, pause_seconds, extra=extra
        )
        child.due_at = now + pause_seconds
        return None

    def _start_again(self, child: _Child, now: float) -> None:
        try:
            fresh = self._start(child.number)
        except OSError as error:  # no more processes, files or memory: those that run must not end by that
            child.restarts += 1
            pause_seconds = backoff_seconds(child.restarts, self._settings.retry_max_seconds)
            logger.warning(
                "worker %d cannot be started (%s); again in %.1f s",
                *(child.number, reason_of(error), pause_seconds),
                extra=about(Event.TROUBLE, worker=child.number, seconds=pause_seconds),
            )
            child.due_at = now + pause_seconds
            return
        child.process, child.started_at, child.due_at, child.signals = fresh.process, now, None, 0

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGHUP:
            self._signals.append(number)
        elif not self._signals:  # of one closed terminal the kernel and the shell may send one each
            self._signals.append(signal.SIGTERM)

    def _pass_on(self) -> None:
        """Pass each signal on once to each child, because a second one ends it at once.

        The first as SIGHUP: systemd sends SIGTERM to each process of a service, and a worker that is being
        stopped already does not count a SIGHUP.
        """
        first = signal.SIGHUP if signal.SIGHUP in interruption.ask_to_stop() else signal.SIGTERM
        for child in self._children:
            # One in each round: two that arrive at once would count as one.
            if child.signals < len(self._signals) and child.process.poll() is None:
                child.process.send_signal(self._signals[child.signals] if child.signals else first)
                child.signals += 1

    def _stop_all(self) -> None:
        self._signals.append(signal.SIGTERM)
        self._wait_for_all()

    def _wait_for_all(self) -> int:
        deadline = time.monotonic() + self._settings.shutdown_timeout_seconds + GRACE_SECONDS
        while any(child.process.poll() is None for child in self._children):
            self._pass_on()
            if time.monotonic() > deadline:
                return 1
            time.sleep(POLL_SECONDS)
        codes = [c.process.returncode for c in self._children if c.due_at is None]
        # One that was still starting had no handler yet and ended by the signal itself: nothing was begun.
        return max((abs(code) for code in codes if code not in _STOPPED_WHILE_STARTING), default=0)

    def _end_all(self) -> None:
        for child in self._children:
            if child.process.poll() is None:
                child.process.kill()
            child.process.wait()


def supervise(settings: Settings, workers: int) -> int:
    """Run `workers` processes until stopped, restarting those that end; returns the exit code.

    Worker k serves HTTP on the configured port + k. Signals are passed on. A worker that ends by itself or is
    killed is restarted, after a growing pause. If the first ones report a wrong setting or a missing server,
    this returns 1 instead of restarting for ever; 4 if a server refused our credentials for too long.
    """
    log.configure(settings.log_level, settings.log_format)
    return _Supervisor(settings, workers).run()
