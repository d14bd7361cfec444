"""The live picture: a state and how it is drawn. Pure, so that it can be looked at without any server."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.align import Align
from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

BUCKET_SECONDS: Final = 0.25
KILLED, TAKEN_OVER, BACK = "killed", "taken over", "back"  # what an event writes below the chart
SMALLEST: Final = (80, 24)

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_GOOD, _BAD, _NOTE, _QUIET = "green", "red", "yellow", "bright_black"


@dataclass(slots=True)
class WorkerLine:
    """What is shown of one worker."""

    name: str
    pid: int | None
    status: str  # live, killed, starting
    partitions: tuple[int, ...] = ()
    decided: int = 0
    url: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `mark`, if any, stands below the chart."""

    seconds: float
    text: str
    mark: str = ""


@dataclass(slots=True)
class ScreenState:
    """Everything the screen shows. `seconds` counts from the first order placed."""

    orders: int
    records: int
    now: str = ""
    seconds: float = 0.0
    placed: Counter[str] = field(default_factory=Counter)  # records, by what they are meant to be
    counts: Counter[str] = field(default_factory=Counter)  # outcomes
    reasons: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    lag: int | None = None
    visible: list[int] = field(default_factory=list)  # outcomes that became visible, per bucket
    sent: list[int] = field(default_factory=list)  # records placed, per bucket
    workers: list[WorkerLine] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def tick(self, seconds: float, placed: int, visible: int) -> None:
        """Take what happened until `seconds`: totals, of which the chart keeps the differences."""
        self.seconds = seconds
        bucket = int(seconds / BUCKET_SECONDS)
        for series, total in ((self.sent, placed), (self.visible, visible)):
            series.extend([0] * (bucket + 1 - len(series)))
            series[bucket] += total - sum(series)

    def happened(self, text: str, mark: str = "") -> None:
        self.events.append(Event(self.seconds, text, mark))

    @property
    def decided(self) -> int:
        return self.counts.total()


def render(state: ScreenState, width: int, height: int) -> RenderableType:
    """The whole screen, exactly `width` by `height`; below 80 by 24 it asks for more room."""
    if width < SMALLEST[0] or height < SMALLEST[1]:
        return _too_small(state, width, height)
    spare = height - SMALLEST[1]
    rows = [
        Layout(_header(state), size=1),
        Layout(_now(state), size=3),
        Layout(_middle(state, width), size=9),
        Layout(_chart(state, width - 4, 3 + min(spare // 4, 4)), size=6 + min(spare // 4, 4)),
        Layout(_workers(state), size=2 + len(state.workers)),
    ]
    rest = height - sum(row.size or 0 for row in rows) - 1
    if rest >= 3:
        rows.append(Layout(_events(state, rest - 2), size=rest))
    rows.append(Layout(_footer(), size=1))
    screen = Layout()
    screen.split_column(*rows)
    return screen


def _too_small(state: ScreenState, width: int, height: int) -> RenderableType:
    lines = [
        state.now,
        f"{state.decided:,} of {state.orders:,} orders decided",
        f"(at least {SMALLEST[0]} × {SMALLEST[1]} shows more; this is {width} × {height})",
    ]
    return Align.center(Text("\n".join(lines), justify="center"), vertical="middle", height=height)


def _header(state: ScreenState) -> RenderableType:
    line = Table.grid(expand=True)
    line.add_column(justify="left", no_wrap=True)
    line.add_column(justify="right", no_wrap=True)
    title = Text.assemble(
        (" order-worker ", "bold reverse"), "  real orders of a gift retailer, decided exactly once"
    )
    line.add_row(title, Text(f"{state.seconds:4.0f} s ", style="bold"))
    return line


def _now(state: ScreenState) -> RenderableType:
    return _panel(Text(state.now, style="bold", overflow="ellipsis", no_wrap=True), "Now", border=_NOTE)


def _middle(state: ScreenState, width: int) -> RenderableType:
    side = max(28, (width - 34) // 2)
    row = Layout()
    row.split_row(
        Layout(_orders(state), ratio=1),
        Layout(_bars("Rejected, by reason", state.reasons, _NOTE, side - 4), size=side),
        Layout(_bars("Dead letters", state.codes, _BAD, side - 4), size=side),
    )
    return row


def _orders(state: ScreenState) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    placed = state.placed
    done = ProgressBar(
        total=max(state.records, 1), completed=placed.total(), complete_style="cyan", finished_style="cyan"
    )
    table.add_row("orders placed", Text(f"{placed['order']:,}", style="bold cyan"))
    table.add_row("confirmed", Text(f"{state.counts['confirmed']:,}", style=f"bold {_GOOD}"))
    table.add_row("rejected", Text(f"{state.counts['rejected']:,}", style=f"bold {_NOTE}"))
    table.add_row("dead letters", Text(f"{state.codes.total():,}", style=f"bold {_BAD}"))
    table.add_row("sent twice", f"{placed['duplicate']:,}")
    lag = "?" if state.lag is None else f"{state.lag:,}"
    table.add_row("waiting (lag)", Text(lag, style="bold" if state.lag else ""))
    return _panel(Group(table, done), "Orders")


def _bars(title: str, counts: Mapping[str, int], style: str, width: int) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    names = max((len(name) for name in counts), default=0)
    digits = max((len(f"{count:,}") for count in counts.values()), default=0)
    room = max(1, width - names - digits - 3)
    largest = max(counts.values(), default=1)
    for name, count in sorted(counts.items(), key=lambda item: -item[1])[:7]:
        bar = Text("━" * max(1, room * count // largest), style=style)
        table.add_row(name, Text(f"{count:>{digits},}", style="bold"), bar)
    if not counts:
        table.add_row(Text("none yet", style=_QUIET))
    return _panel(table, title)


def _chart(state: ScreenState, width: int, height: int) -> RenderableType:
    """Bars of what became visible; a column is a quarter of a second, the newest stands at the right."""
    first = max(0, len(state.visible) - width)
    series = state.visible[first:]
    top = _top(series)
    short_handed = _short_handed(state.events, first, len(series))
    lines = [_row(series, top, level, height, short_handed) for level in reversed(range(height))]
    lines.append(_marks(state.events, first, width))
    highest = round(max(series, default=0) / BUCKET_SECONDS)
    title = (
        f"Outcomes visible to subscribers: {_rate(state.visible):,}/s, at most {highest:,}/s"
        f" · placed: {_rate(state.sent):,}/s"
    )
    return _panel(Group(*lines), title)


def _rate(series: Sequence[int]) -> int:
    """Per second, over the last whole second."""
    buckets = round(1 / BUCKET_SECONDS)
    return sum(series[-buckets - 1 : -1])


def _top(series: Sequence[int]) -> int:
    """What fills the chart: one burst, as after a takeover, should not flatten all the rest."""
    usual = sorted(value for value in series if value)
    return max(8, min(usual[-1], 2 * usual[len(usual) // 2])) if usual else 8


def _short_handed(events: Sequence[Event], first: int, columns: int) -> range:
    """The columns from the kill until both workers are back."""
    at = {event.mark: int(event.seconds / BUCKET_SECONDS) - first for event in events}
    return range(at[KILLED], at.get(BACK, columns)) if KILLED in at else range(0)


def _row(series: Sequence[int], top: int, level: int, height: int, short_handed: range) -> Text:
    row = Text()
    for column, value in enumerate(series):
        row.append(_BLOCKS[_eighths(value, top, level, height)], _NOTE if column in short_handed else _GOOD)
    return row


def _eighths(value: int, top: int, level: int, height: int) -> int:
    eighths = -(-value * height * 8 // top)  # rounded up: what is not nothing is seen
    return min(8, max(0, eighths - 8 * level))


def _marks(events: Sequence[Event], first: int, width: int) -> Text:
    line = Text("─" * width, style=_QUIET)
    for event in events:
        column = int(event.seconds / BUCKET_SECONDS) - first
        label = f"▲ {event.mark} "
        if event.mark and 0 <= column < width:
            label = label[: width - column]
            line = line[:column] + Text(label, style=f"bold {_NOTE}") + line[column + len(label) :]
    return line


def _workers(state: ScreenState) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    styles = {"live": _GOOD, "killed": _BAD}
    signs = {"live": "●", "killed": "✖"}
    for worker in state.workers:
        style = styles.get(worker.status, _NOTE)
        partitions = ", ".join(map(str, worker.partitions)) or "–"
        table.add_row(
            Text(worker.name, style="bold"),
            Text(f"{signs.get(worker.status, '○')} {worker.status:<8}", style=f"bold {style}"),
            f"partitions {partitions:<10}",
            f"decided {worker.decided:>5,}",
            Text(f"process {worker.pid}", style=_QUIET),
        )
    return _panel(table, "Workers")


def _events(state: ScreenState, rows: int) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", style=_QUIET, no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for event in state.events[-rows:]:
        table.add_row(f"{event.seconds:.1f} s", event.text)
    return _panel(table, "What happened")


def _footer() -> RenderableType:
    return Text(" Ctrl-C stops everything and leaves nothing behind", style=_QUIET)


def _panel(content: RenderableType, title: str, border: str = _QUIET) -> Panel:
    heading = Text(title, style="bold")
    return Panel(content, title=heading, title_align="left", box=ROUNDED, border_style=border, padding=(0, 1))
