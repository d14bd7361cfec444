"""Runs faults by name and seed, one after the other, and keeps a line for each.

A run is the same for the same fault and seed, but for what the machine's timing makes of it.
"""

import hashlib
import logging
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from db import migrate
from db.engine import create_engine
from tests.faults.arena import Arena, arena, subscriber
from tests.faults.catalogue import FAULTS
from tests.faults.verdict import find_violations
from tests.faults.workload import make_workload
from tests.shop import run_apart
from worker.local.postgres import create_database, drop_database
from worker.local.services import Services

DRAIN_SECONDS: Final = 120.0
RECOVERY_SECONDS: Final = 30.0  # until something is decided again after the last blow, or all is

logger = logging.getLogger("campaign")


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run. `violations` is empty when every promise was kept."""

    fault: str
    seed: int
    orders: int
    injected: int
    seconds: float
    violations: tuple[str, ...]
    digest: str
    """of the workers' logs: tells two runs apart"""

    @property
    def verdict(self) -> str:
        return "ok" if not self.violations else f"{len(self.violations)} violated"


@contextmanager
def template(services: Services) -> Iterator[str]:
    """The name of an upgraded, empty database to copy arenas from."""
    name = f"arena_template_{uuid4().hex[:8]}"
    url = create_database(services.database_url, name)

    async def upgrade() -> None:
        engine = create_engine(url)
        await migrate.upgrade(engine, "public")
        await engine.dispose()

    run_apart(upgrade())
    try:
        yield name
    finally:
        drop_database(services.database_url, name)


def run(services: Services, template_name: str, fault: str, seed: int, orders: int) -> Run:
    """One run, judged. A fault that cannot be carried out to its end is a violation too."""
    began = time.monotonic()
    partitions = 4 + seed % 5
    workload = make_workload(seed, orders, partitions)
    with tempfile.TemporaryDirectory(prefix="campaign-") as name:
        folder = Path(name)
        with arena(
            services, template_name, workload, seed=seed, partitions=partitions, folder=folder
        ) as there:
            violations = _fight(there, fault)
            digest = _digest(folder)
            if violations:
                violations += [f"logs: {line}" for line in _tails(folder)]
            return Run(
                fault, seed, orders, there.injected, time.monotonic() - began, tuple(violations), digest
            )


def _fight(there: Arena, fault: str) -> list[str]:
    with subscriber(there.scene) as seen:
        try:
            there.keep()
            there.feed(1 / 4)
            FAULTS[fault](there)
            there.feed()
            _require_recovery(there)
            there.until(lambda: there.scene.lag() == 0, DRAIN_SECONDS)
            codes = there.dismiss()
            violations = find_violations(there, seen)
        except Exception as error:
            return [
                f"{type(error).__name__}: {error}".splitlines()[0],
                *traceback.format_exc().splitlines()[-6:],
            ]
    if any(code not in {0, -9, -15} for code in codes):
        violations.append(f"workers ended with {codes}")
    return violations


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


def _tails(folder: Path) -> list[str]:
    return [
        f"{path.name}: {line}"
        for path in sorted(folder.glob("*.log"))
        for line in path.read_text(errors="replace").splitlines()[-3:]
    ]
