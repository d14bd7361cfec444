"""Worker processes that die, stand still, come and go."""

import signal
from contextlib import suppress
from typing import Final

from tests.faults.arena import Arena, wake
from tests.faults.strikes import INJECTIONS, Strike
from tests.faults.verdict import has_open_transaction
from tests.support.deadline import eventually
from tests.support.worker_process import WorkerProcess
from worker.core.steps import Step

# How many times a worker passes a step, at most, before it is struck there. Two workers of four partitions
# take over two each, and no more.
_AT_FIRST: Final = 3
_PASSES: Final = {Step.TAKEOVER_FENCED: 2}


def nothing(arena: Arena) -> None:
    """The run without a fault, for comparison."""
    arena.some_progress()


def crash_at(step: Step) -> Strike:
    def crash(arena: Arena) -> None:
        """A worker kills itself at the step, again and again."""
        for _ in range(INJECTIONS):
            if victim := _struck(arena, step, "SIGKILL"):
                # It says so a moment before it does it.
                eventually(lambda: victim.process.poll() is not None)
                arena.injected += victim.process.poll() == -signal.SIGKILL

    return crash


def late_commit(arena: Arena) -> None:
    """The owner before commits when the next one has begun, and not ended, to take its partitions over."""
    size, arena.size = arena.size, 1
    arena.settings["transaction_timeout_ms"] = "20000"  # neither gives up while it stands still
    for _ in range(2):
        arena.dismiss()
        old = _struck(arena, Step.BEFORE_KAFKA_COMMIT, "SIGSTOP")
        assert old is not None
        new = arena.add_at_step(Step.TAKEOVER_FENCED, "SIGSTOP", 0)
        arena.until(lambda: f"SIGSTOP at {Step.TAKEOVER_FENCED}" in new.log)  # noqa: B023
        lag = arena.scene.lag()
        wake(old)
        arena.until(lambda: arena.scene.lag() != lag or "fenced" in old.log)  # noqa: B023
        wake(new)
        arena.injected += 1
        arena.until(lambda: arena.scene.lag() == 0)
    arena.size = size


def zombie_at(step: Step) -> Strike:
    def zombie(arena: Arena) -> None:
        """A worker stands still at the step past its session, and wakes up when others have its work."""
        for _ in range(2):
            victim = _struck(arena, step, "SIGSTOP")
            arena.until(lambda: arena.scene.lag() == 0)
            if victim is not None:
                arena.injected += 1
                wake(victim)
            arena.feed(1 / 8)

    return zombie


def stall(arena: Arena) -> None:
    """The event loop of a worker stands still for 15 seconds, and then continues as if nothing had been."""
    victim = _struck(arena, Step.AFTER_SENDS, "stall")
    assert victim is not None
    arena.until(lambda: "continuing" in victim.log)
    arena.injected += 1


def transaction_timeout(arena: Arena) -> None:
    """The broker ends a Kafka transaction that stays open too long, while its worker keeps its session."""
    victim = _struck(arena, Step.BEFORE_KAFKA_COMMIT, "SIGSTOP", session_timeout_ms="60000")
    assert victim is not None
    assert has_open_transaction(arena.scene), "its sends are in an open transaction"
    arena.until(lambda: not has_open_transaction(arena.scene))
    wake(victim)
    arena.injected += 1


def kill_at_random(arena: Arena) -> None:
    """SIGKILL to any worker, at any moment."""
    for _ in range(2 * INJECTIONS):
        arena.some_progress()
        arena.any_worker().kill()
        arena.injected += 1


def stop_at_random(arena: Arena) -> None:
    """SIGTERM to any worker, and again before it can have ended."""
    for number in range(2 * INJECTIONS):
        arena.some_progress()
        worker = arena.any_worker()
        worker.signal(signal.SIGTERM)
        if number % 2:
            with suppress(ProcessLookupError):
                worker.signal(signal.SIGTERM)
        arena.injected += 1


def rebalance_storm(arena: Arena) -> None:
    """Workers come and go, so that partitions change hands again and again."""
    for _ in range(2 * INJECTIONS):
        arena.some_progress()
        guest = arena.workers.start(**arena.settings)
        arena.crew.append(guest)
        arena.some_progress()
        guest.signal(signal.SIGTERM)
        arena.injected += 1


def one_name(arena: Arena) -> None:
    """All workers have one name: each that starts removes the others from the group, those that live too."""
    arena.dismiss()
    arena.settings["instance_id"] = "one"
    kill_at_random(arena)
    rebalance_storm(arena)


def small_batches(arena: Arena) -> None:
    """Four workers that decide a few orders at a time: most batches reject nothing."""
    arena.dismiss()
    arena.settings["batch_max_records"] = "8"
    arena.size = 4
    arena.keep()
    for worker in arena.crew:
        worker.wait_until_ready()
    for _ in range(INJECTIONS):
        arena.some_progress()
        arena.injected += 1


def rewind_to_the_beginning(arena: Arena) -> None:
    """An operator moves the group's offsets to the beginning, with Kafka's own tool."""
    for _ in range(2):
        arena.some_progress()
        _rewind(arena, "--to-earliest")


def rewind_by_time(arena: Arena) -> None:
    """An operator moves the group's offsets to a time at which half of the orders were decided."""
    for _ in range(2):
        arena.some_progress()
        # Otherwise the backlog would be older than that time, and skipped, as the operator asked: no rewind.
        arena.until(lambda: arena.scene.lag() == 0)
        half = "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY decided_at) FROM order_outcomes"
        moment = arena.shop.value(half)
        _rewind(arena, "--to-datetime", f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z")


def _rewind(arena: Arena, *to: str) -> None:
    codes = arena.dismiss()
    assert set(codes) == {0}, codes
    before = arena.scene.lag() or 0
    arena.scene.rewind(*to)
    arena.rewinds += 1
    arena.injected += (arena.scene.lag() or 0) > before


def _struck(arena: Arena, step: Step, action: str, **settings: str) -> WorkerProcess | None:
    """A worker that has done `action` to itself at the step, while only one other worker ran beside it.

    None if it did not reach the step so often. Then it was ended, because it would freeze later, when nothing
    wakes it.
    """
    size, arena.size = arena.size, 1
    while len(arena.crew) > 1:
        arena.crew.pop().stop()
    passed = arena.chance.randrange(_PASSES.get(step, _AT_FIRST))
    victim = arena.add_at_step(step, action, passed, **settings)
    arena.until(lambda: "health, metrics and docs on" in victim.log)
    for _ in range(_AT_FIRST + 1):
        arena.feed(1 / 24)
        with suppress(AssertionError):
            arena.until(lambda: f"{action} at {step}" in victim.log, 5)
            break
    else:
        _disarm(victim)
    arena.size = size
    return victim if f"{action} at {step}" in victim.log else None


def _disarm(victim: WorkerProcess) -> None:
    with suppress(ProcessLookupError):
        victim.signal(signal.SIGTERM)

    def ended() -> bool:
        wake(victim)  # while it stops, it may reach the step after all
        return victim.process.poll() is not None

    eventually(ended, 30)
