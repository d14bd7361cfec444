"""Runs faults by name and seed, in lanes with their own servers, and reports the result of each run.

The same fault and seed give the same run, except for the timing of the machine.
"""

import faulthandler
import hashlib
import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import Final, TypeAlias

from tests.faults.along import subscriber
from tests.faults.arena import Arena, arena
from tests.faults.catalogue import FAULTS
from tests.faults.cluster import on_three_brokers
from tests.faults.site import Site, running_site
from tests.faults.standby import on_a_pair
from tests.faults.verdict import find_violations
from tests.faults.workload import make_workload
from tests.support.pooler import HOW_TO_INSTALL
from worker.sandbox.servers.errors import LocalServiceError

DRAIN_SECONDS: Final = 120.0
RECOVERY_SECONDS: Final = 30.0  # until something is decided again after the last fault, or all is
LARGEST_WORKER_BYTES: Final = 200_000_000  # whatever the backlog

Waiting: TypeAlias = "Queue[tuple[str, int]]"
Results: TypeAlias = "Queue[Run | Exception]"


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one run. `violations` is empty if every guarantee held."""

    fault: str
    seed: int
    orders: int
    injected: int
    seconds: float
    violations: tuple[str, ...]
    digest: str
    """of the workers' logs: differs between two runs"""

    @property
    def verdict(self) -> str:
        return "violated" if self.violations else "ok"


def run(site: Site, fault: str, seed: int, orders: int) -> Run:
    """Run once, and judge the result. A fault that cannot be carried out to its end is a violation too."""
    began = time.monotonic()
    partitions = 4 + seed % 5
    workload = make_workload(seed, orders, partitions)
    with tempfile.TemporaryDirectory(prefix="campaign-") as name:
        folder = Path(name)
        networked = FAULTS[fault].networked
        with arena(
            site, workload, seed=seed, partitions=partitions, folder=folder, networked=networked
        ) as there:
            violations = _fight(there, fault)
            digest = _digest(folder)
            if violations:
                kept = _kept_logs(f"{fault}-{seed}", folder, site.folder)
                violations += [f"logs: {line}" for line in [str(kept), *_tails(folder)]]
            return Run(
                fault, seed, orders, there.injected, time.monotonic() - began, tuple(violations), digest
            )


def carry_out(plan: Iterable[tuple[str, int]], orders: int, lanes: int, minutes: float) -> Iterator[Run]:
    """The result of each (fault, seed), as soon as it is known. After `minutes` no more runs begin.

    Each lane is a process with servers of its own. Raises LocalServiceError when one gets no servers, and
    RuntimeError when one dies.
    """
    context = multiprocessing.get_context("spawn")
    waiting, results = context.Queue(), context.Queue()
    for one in plan:
        waiting.put(one)
    deadline = time.monotonic() + minutes * 60
    started = [context.Process(target=_lane, args=(waiting, orders, deadline, results)) for _ in range(lanes)]
    for lane in started:
        lane.start()
    try:
        yield from _results(started, results)
    finally:
        for lane in started:
            if lane.is_alive():
                assert lane.pid
                os.kill(lane.pid, signal.SIGINT)  # it stops its servers and workers
            lane.join()


def _results(lanes: Sequence[BaseProcess], results: Results) -> Iterator[Run]:
    """Until all lanes have ended."""
    while True:
        over = not any(lane.is_alive() for lane in lanes)
        try:
            result = results.get(timeout=1)
        except Empty:
            if dead := [lane.exitcode for lane in lanes if lane.exitcode]:
                raise RuntimeError(f"a lane of the campaign ended with {dead[0]}") from None
            if over:
                return
            continue
        if isinstance(result, BaseException):
            raise result
        yield result


def _lane(waiting: Waiting, orders: int, deadline: float, results: Results) -> None:
    """One run after the other until nothing waits."""
    signal.signal(signal.SIGINT, _interrupt_once)
    threading.Thread(target=_end_with_the_campaign, daemon=True).start()
    faulthandler.enable()  # librdkafka is native code
    logging.disable(logging.ERROR)
    try:
        while not waiting.empty():
            with running_site() as site, ExitStack() as stack:
                on_cluster = cache(lambda: stack.enter_context(on_three_brokers(site)))
                on_pair = cache(lambda: stack.enter_context(on_a_pair(site)))
                for fault, seed in _taken(waiting, deadline):
                    where = site
                    if FAULTS[fault].three_brokers:
                        where = on_cluster()
                    elif FAULTS[fault].with_standby:
                        where = on_pair()
                        if FAULTS[fault].networked and where.pooler is None:
                            raise LocalServiceError(HOW_TO_INSTALL)
                    one = _judged(where, fault, seed, orders)
                    results.put(one)
                    if one.violations:
                        break  # its servers may be damaged: the next run gets new ones
    except KeyboardInterrupt:
        pass
    except Exception as error:
        results.put(error)


def _judged(site: Site, fault: str, seed: int, orders: int) -> Run:
    """As `run`; where topics or servers fail before or after the fault, that is a violation of this run."""
    began = time.monotonic()
    try:
        return run(site, fault, seed, orders)
    except Exception as error:
        return Run(fault, seed, orders, 0, time.monotonic() - began, tuple(_failure(error)), "-")


def _interrupt_once(*_: object) -> None:
    # Ctrl-C reaches the campaign and its lanes, and then the campaign stops the lanes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with_the_campaign() -> None:
    """As by Ctrl-C, so that servers and workers are stopped, however the campaign ended."""
    campaign = multiprocessing.parent_process()
    assert campaign
    campaign.join()
    os.kill(os.getpid(), signal.SIGINT)


def _taken(waiting: Waiting, deadline: float) -> Iterator[tuple[str, int]]:
    """The next that waits, again and again; once the time is up, nothing waits any more."""
    with suppress(Empty):
        while True:
            one = waiting.get(timeout=1)
            if time.monotonic() < deadline:
                yield one


def _fight(there: Arena, fault: str) -> list[str]:
    with subscriber(there.scene) as along:
        try:
            there.feed(1 / 32)  # before the group's first worker has come
            there.keep()
            # All of them, so that they share nearly all of the work.
            for worker in there.crew:
                worker.wait_until_ready()
            there.feed(1 / 4)
            FAULTS[fault].strike(there)
            there.feed()
            _require_recovery(there)
            there.until(lambda: there.scene.lag() == 0, DRAIN_SECONDS)
            memory_bytes = there.largest_worker_bytes()
            codes = there.dismiss()
            violations = find_violations(there, along)
        except Exception as error:
            return _failure(error)
    if any(code not in {0, -9, -15} for code in codes):
        violations.append(f"workers ended with {codes}")
    if there.injected == 0 and fault != "none":
        violations.append("the fault did not strike")
    if memory_bytes > LARGEST_WORKER_BYTES:
        violations.append(f"a worker holds {memory_bytes:,} bytes")
    return violations


def _failure(error: Exception) -> list[str]:
    return [
        f"{type(error).__name__}: {error}".splitlines()[0],
        *"".join(traceback.format_exception(error)).splitlines()[-12:],
    ]


def _require_recovery(there: Arena) -> None:
    decided = there.decided()
    there.until(
        lambda: (
            there.decided() > max(decided, 0) or there.decided() >= there.orders or there.scene.lag() == 0
        ),
        RECOVERY_SECONDS,
    )


def _digest(folder: Path) -> str:
    logs = b"".join(path.read_bytes() for path in sorted(folder.glob("*.log")))
    return hashlib.sha256(logs).hexdigest()[:12]


def _kept_logs(name: str, *folders: Path) -> Path:
    """Where the logs of a violated run are now, as its own folders are about to be removed."""
    kept = Path(tempfile.mkdtemp(prefix=f"campaign-logs-{name}-"))
    for folder in folders:
        for log in folder.glob("*.log"):
            shutil.copy(log, kept)
    return kept


def _tails(folder: Path) -> list[str]:
    return [
        f"{path.name}: {line}"
        for path in sorted(folder.glob("*.log"))
        for line in path.read_text(errors="replace").splitlines()[-3:]
    ]
