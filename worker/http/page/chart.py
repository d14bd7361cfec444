"""Lines over the last hour, as points of an SVG. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from worker.observability.history import INTERVAL_SECONDS, KEPT_SECONDS, Point

WIDTH: Final = 600
HEIGHT: Final = 100
# Where points are missing the line has a gap, because the values are unknown.
_GAP_SECONDS: Final = 3 * INTERVAL_SECONDS

Value = Callable[[Point], float | None]
Shown = Callable[[float | None], str]


@dataclass(frozen=True, slots=True)
class Line:
    """One line; `pieces` are `x,y x,y …`, one for each time without a gap. `kind`: its class."""

    name: str
    kind: str
    now: str
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines of one scale, from 0 to `highest`. `words` describe it for screen readers."""

    title: str
    lines: tuple[Line, ...]
    highest: str
    words: str


def charts(points: Sequence[Point], clock: float) -> tuple[Chart, ...]:
    """The group's rates and lag, and the times of this worker's batches; none without two points."""
    if len(points) < 2:
        return ()
    rates = (("decided", "main", _decided), ("placed", "other", _placed))
    times = (("half within", "main", _half), ("99 % within", "other", _most))
    return (
        _chart("Orders a second", points, clock, _rate, *rates),
        _chart("Waiting", points, clock, _count, ("lag", "main", _lag)),
        _chart("A batch of this worker takes", points, clock, seconds, *times),
    )


def seconds(value: float | None) -> str:
    """A time that is mostly below a second, as text."""
    if value is None:
        return "–"
    return f"{value * 1_000:,.0f} ms" if value < 1 else f"{value:,.1f} s"


def _chart(
    title: str, points: Sequence[Point], clock: float, shown: Shown, *lines: tuple[str, str, Value]
) -> Chart:
    known = [value for _, _, of in lines for point in points if (value := of(point)) is not None]
    highest = max(known, default=0.0)
    drawn = tuple(
        Line(name, kind, shown(of(points[-1])), tuple(_pieces(points, clock, of, highest)))
        for name, kind, of in lines
    )
    now = ", ".join(f"{line.name} {line.now}" for line in drawn)
    words = f"{title}, last hour: {now}; highest {shown(highest)}"
    return Chart(title, drawn, shown(highest), words)


def _pieces(points: Iterable[Point], clock: float, value: Value, highest: float) -> Iterator[str]:
    piece: list[str] = []
    before: float | None = None
    for point in points:
        now = value(point)
        if piece and (now is None or (before is not None and point.clock - before > _GAP_SECONDS)):
            yield _joined(piece)
            piece = []
        if now is not None:
            x = WIDTH * (1 - (clock - point.clock) / KEPT_SECONDS)
            y = HEIGHT * (1 - now / highest) if highest else HEIGHT
            piece.append(f"{max(0.0, x):.1f},{y:.1f}")
        before = point.clock
    if piece:
        yield _joined(piece)


def _joined(piece: Sequence[str]) -> str:
    """A single point becomes a line to itself, or it would not be drawn."""
    return " ".join(piece if len(piece) > 1 else [*piece, *piece])


def _decided(point: Point) -> float | None:
    return point.decided_per_second


def _placed(point: Point) -> float | None:
    return point.placed_per_second


def _lag(point: Point) -> float | None:
    return point.lag


def _half(point: Point) -> float | None:
    return point.half_within_seconds


def _most(point: Point) -> float | None:
    return point.most_within_seconds


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 10 or not value else f"{value:.1f}"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
