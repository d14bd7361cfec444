"""Observes a soak from outside while it runs, and writes a table and a picture of it."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from math import log10
from pathlib import Path
from statistics import linear_regression
from typing import Final
from uuid import uuid4

import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.support.promises import Scene

MB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of the table; `lag` is -1 while Kafka does not say."""

    seconds: float
    placed: int
    decided: int
    lag: int
    rate: float
    spared_bytes: int
    other_bytes: str
    faults: str


class Watch:
    """The latest known figures. `published`: outcomes that a read_committed subscriber has seen so far."""

    def __init__(self) -> None:
        self.published = 0
        self.lag: int | None = None
        self._ended = threading.Event()

    @contextmanager
    def over(self, scene: Scene, partitions: int) -> Iterator[None]:
        """Keep looking, in threads of its own, until the block ends."""
        threads = [
            threading.Thread(target=target, args=(scene, partitions), daemon=True)
            for target in (self._read, self._ask)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join(30)

    def _read(self, scene: Scene, partitions: int) -> None:
        consumer = committed_reader(scene.kafka)
        topics = (scene.topics.order_confirmed, scene.topics.order_rejected)
        consumer.assign([TopicPartition(topic, p, 0) for topic in topics for p in range(partitions)])
        while not self._ended.is_set():
            self.published += sum(message.error() is None for message in consumer.consume(2_000, timeout=0.2))
        consumer.close()

    def _ask(self, scene: Scene, partitions: int) -> None:
        # Not an admin client: librdkafka aborts the process when a broker dies while one awaits its answer.
        consumer = _consumer(scene.kafka, scene.group_id)
        asked = [TopicPartition(scene.topics.order_placed, p) for p in range(partitions)]
        while not self._ended.wait(1.0):
            try:
                committed = consumer.committed(asked, timeout=5)
                ends = [consumer.get_watermark_offsets(p, timeout=5)[1] for p in asked]
                self.lag = sum(ends) - sum(max(p.offset, 0) for p in committed)
            except KafkaException:
                self.lag = None
        consumer.close()


class Sampler:
    """Writes a line now and then, in a thread of its own."""

    def __init__(self, path: Path, sample: Callable[[Sample | None], Sample], every_seconds: float) -> None:
        self.samples: list[Sample] = []
        self._path, self._sample, self._every = path, sample, every_seconds
        self._ended = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Until the block ends."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join(30)

    def _run(self) -> None:
        with self._path.open("w", encoding="utf-8") as file:
            file.write("\t".join(field.name for field in fields(Sample)) + "\n")
            due = time.monotonic()
            while not self._ended.wait(max(0.0, due - time.monotonic())):
                due += self._every
                self.samples.append(self._sample(self.samples[-1] if self.samples else None))
                file.write("\t".join(map(str, astuple(self.samples[-1]))) + "\n")
                file.flush()


def committed_reader(bootstrap_servers: str) -> Consumer:
    """A subscriber with read_committed."""
    return _consumer(bootstrap_servers, f"soak-{uuid4()}")


def _consumer(bootstrap_servers: str, group_id: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": group_id,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",  # an offset that is gone would be a record that is gone
            "reconnect.backoff.max.ms": 1_000,
            "queued.max.messages.kbytes": 32 * 1024,
            "log_level": 0,
            "error_cb": lambda _error: None,  # that the broker is away is no news
        }
    )


def resident_bytes(pid: int) -> int:
    """What a process holds in memory; 0 when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def slope_per_hour(points: Sequence[tuple[float, float]]) -> float:
    """How much the value of (seconds, value) grows an hour, by least squares over the last three quarters."""
    rest = points[len(points) // 4 :]
    if len(rest) < 2:
        return 0.0
    return linear_regression([x for x, _ in rest], [y for _, y in rest]).slope * 3600


def picture(samples: Sequence[Sample]) -> str:
    """An SVG of orders decided a second, lag and the spared worker's memory, with a line for each fault."""
    panels = [
        _Panel("decided orders/s", lambda s: s.rate),
        # An offset that Kafka has forgotten shows as a lag of millions, which would hide all other values.
        _Panel(
            "lag as Kafka reports it, records",
            lambda s: s.lag if s.lag >= 0 else None,
            scale=lambda y: log10(1 + y),
            between=(10, 1_000, 100_000),
        ),
        _Panel("memory of the spared worker, MB", lambda s: s.spared_bytes / MB),
    ]
    parts = [panel.drawn(n * _STEP + 30 + _HEIGHT, samples) for n, panel in enumerate(panels)]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="11"'
        f' viewBox="0 0 {_LEFT + _WIDTH + 30} {len(panels) * _STEP + 20}">'
        '<rect width="100%" height="100%" fill="white"/>' + "".join(parts) + "</svg>\n"
    )


_LEFT, _WIDTH, _HEIGHT, _STEP = 80, 1_000, 150, 190


@dataclass(frozen=True)
class _Panel:
    title: str
    value: Callable[[Sample], float | None]
    scale: Callable[[float], float] = lambda y: y
    between: tuple[float, ...] = ()
    """numbers beside the axis, besides 0 and the largest value"""

    def drawn(self, bottom: float, samples: Sequence[Sample]) -> str:
        end = max((s.seconds for s in samples), default=0.0) or 1.0
        known = [(s.seconds, y) for s in samples if (y := self.value(s)) is not None]
        top = max((y for _, y in known), default=0.0) or 1.0
        height = _HEIGHT / self.scale(top)
        line = " ".join(
            f"{_LEFT + _WIDTH * x / end:.1f},{bottom - height * self.scale(y):.1f}" for x, y in known
        )
        marks = "".join(
            f'<path d="M{_LEFT + _WIDTH * s.seconds / end:.1f} {bottom}v-{_HEIGHT}" stroke="#f4d5a8">'
            f"<title>{s.faults}</title></path>"
            for s in samples
            if s.faults
        )
        numbers = "".join(
            f'<text x="{_LEFT - 6}" y="{bottom - height * self.scale(y) + 4:.1f}"'
            f' text-anchor="end">{y:,.0f}</text>'
            for y in (0, *(y for y in self.between if y < top / 2), top)
        )
        return (
            f'<text x="{_LEFT}" y="{bottom - _HEIGHT - 6}">{self.title}, over {end / 60:.1f} minutes</text>'
            f"{marks}"
            f'<path d="M{_LEFT} {bottom - _HEIGHT}v{_HEIGHT}h{_WIDTH}" fill="none" stroke="#888"/>{numbers}'
            f'<polyline points="{line}" fill="none" stroke="#1f5fa8" stroke-width="1.3"/>'
        )
