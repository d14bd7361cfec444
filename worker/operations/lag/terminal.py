"""The lag as a person reads it. Pure."""

from rich.console import Group
from rich.text import Text

from worker.operations import screen
from worker.operations.lag.measure import (
    NOTHING_COMMITTED,
    GroupLag,
    Pace,
)


def lag_screen(found: GroupLag) -> Group:
    """As a person reads it."""
    count = len(found.members)
    members = f"{count} member{'s' * (count != 1)}" if count else "nobody is in it"
    when = f"{screen.shown(found.time)}" + (
        f", rates over {found.measured_seconds:.1f} s" if found.pace else ""
    )
    rows = [
        (
            str(row.partition),
            row.committed,
            row.end,
            row.lag,
            *pace_cells(row.lag, row.pace),
            short_id(row.owner),
        )
        for row in found.partitions
    ]
    total = ("total", "", "", found.lag, *pace_cells(found.lag, found.pace), "")
    columns = ("partition", "committed", "end", "lag", "decided/s", "placed/s", "drains in", "owner")
    grid = screen.table(columns, [*rows, total], numbers=columns[:-1])
    member_lines = [f"{short_id(m.member_id)} is {m.client_id} at {m.host}" for m in found.members]
    notes = [Text(line) for line in (*remarks_on(found), *member_lines)]
    return Group(
        Text(f"group {found.group_id} on {found.topic}: {members}"),
        Text(when),
        Text(),
        grid,
        *([Text(), *notes] if notes else []),
    )


def short_id(member_id: str | None) -> str:
    """The end of the id is another one for each member; their client ids and hosts are often the same."""
    return "nobody" if member_id is None else f"…{member_id[-5:]}"


def remarks_on(found: GroupLag) -> list[str]:
    """Remarks for the operator besides the numbers."""
    notes = []
    if found.never_committed:
        notes.append(
            f"The group {found.group_id} has never committed: all that is in the topic counts as lag."
        )
    said = {NOTHING_COMMITTED} if found.never_committed else set()
    notes += [
        f"{found.topic}-{row.partition}: {remark}"
        for row in found.partitions
        for remark in row.remarks
        if remark not in said
    ]
    if not found.members and found.lag != 0:
        notes.append("No worker decides these orders: start one with `order-worker run`.")
    if found.unowned:
        notes.append(_unowned(found))
    notes += found.withheld
    if found.skips_trouble:
        notes.append(f"What was skipped or deleted is not known: {found.skips_trouble}.")
    return notes


def _unowned(found: GroupLag) -> str:
    if len(found.unowned) == len(found.partitions):
        return (
            f"Nobody owns a partition of {found.topic} now: the group is rebalancing, or reads another topic."
        )
    numbers = ", ".join(map(str, found.unowned))
    return (
        f"Nobody owns {found.topic}-{numbers}, although the group has members: what is placed there waits."
        " Workers find new partitions within half a minute."
    )


def pace_cells(lag: int | None, pace: Pace | None) -> tuple[str, str, str]:
    if pace is None or lag is None:
        return "–", "–", "–"
    return f"{pace.decided_per_second:,.0f}", f"{pace.arriving_per_second:,.0f}", _drains(lag, pace)


def _drains(lag: int, pace: Pace) -> str:
    if not lag:
        return "–"
    if pace.keeps_up:
        return "keeps up"
    return "never" if pace.seconds_to_drain is None else _spoken(pace.seconds_to_drain)


def _spoken(seconds: float) -> str:
    """12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    whole = int(seconds + 0.5)
    for unit, size, smaller, smaller_size in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            return f"{whole // size:,} {unit} {whole % size // smaller_size} {smaller}"
    return f"{whole} s" if whole else "under 1 s"
