"""The processes of one drain: started as a user would, watched from outside, never left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from bench.errors import BenchError
from worker.sandbox.servers.processes import KERNEL_KILLS_ORPHANS, guarded, last_lines

ROOT: Final = Path(__file__).parent.parent
_STOP_SECONDS: Final = 45.0  # the worker's own limit is 25


@dataclass(frozen=True, slots=True)
class Crew:
    """Processes of one consumer group, and their logs."""

    processes: Sequence["subprocess.Popen[bytes]"]
    logs: Sequence[Path]

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.processes]

    def require_alive(self) -> None:
        for process, log in zip(self.processes, self.logs, strict=True):
            if (code := process.poll()) is not None:
                raise BenchError(f"a process ended with {code} before its work was done: {last_lines(log)}")

    def stop(self) -> None:
        """End them as an operator would; anything but exit code 0 is an error."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process, log in zip(self.processes, self.logs, strict=True):
            try:
                code = process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                raise BenchError(f"a process did not stop within {_STOP_SECONDS:g} s") from None
            if code != 0:
                raise BenchError(f"a process stopped with {code}: {last_lines(log)}")


@contextmanager
def started(
    command: Sequence[str], count: int, environment: Mapping[str, str], folder: Path
) -> Iterator[Crew]:
    """`count` processes of `command`, which may be stopped meanwhile; whatever is left is killed."""
    if KERNEL_KILLS_ORPHANS:
        command = [str(part) for part in guarded(command, ())]
    logs = [folder / f"process-{number}.log" for number in range(1, count + 1)]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for log in logs:
            with log.open("ab") as output:
                processes.append(
                    subprocess.Popen(
                        command,
                        cwd=ROOT,
                        env={**os.environ, **environment},
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        start_new_session=True,
                    )
                )
        yield Crew(processes, logs)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time of these processes and of all they started, those that ended included.

    (macOS does not report those that ended: what a closed connection's backend used is missing there.)
    """
    total = 0.0
    for pid in pids:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue  # it ended just now: its parent has inherited its times
            total += times.user + times.system + times.children_user + times.children_system
    return total


def machine_cpu_seconds() -> float:
    """CPU time of all processes on this machine since it started."""
    times = psutil.cpu_times()
    # Linux counts guest time as user time too. Time stolen by other virtual machines is not ours.
    idle = times.idle + getattr(times, "iowait", 0.0)
    counted_twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - counted_twice)


def resident_bytes(pid: int) -> int:
    """What the process holds in memory now."""
    return int(psutil.Process(pid).memory_info().rss)


def peak_bytes(pid: int) -> int:
    """The most it ever held, start-up included: the kernel's VmHWM. Not on Linux: what it holds now."""
    if sys.platform != "linux":
        return resident_bytes(pid)
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise BenchError(f"the kernel does not report the peak memory of process {pid}")
