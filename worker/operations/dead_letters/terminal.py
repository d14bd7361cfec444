"""Dead letters in the terminal: groups in a table, one dead letter on a screen."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise, zip_longest
from typing import Any, Final

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from db.worker.redrive_records import Redrive
from worker.core.dead_letter import own_headers
from worker.operations.dead_letters.letter import Group
from worker.operations.dead_letters.read import LetterOrder, Shown
from worker.operations.dead_letters.settle import SettlePlan
from worker.operations.redrive.edits import edits_of
from worker.operations.screen import shown, table

MAX_CHARACTERS: Final = 4_000  # of a value on the screen

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}:,]|[^][{}:,"\s]+')


def groups_table(groups: Sequence[Group]) -> RenderableType:
    """The groups, the largest first, each in as few lines as fit into 80 columns."""
    return table(
        ("code, path", "letters", "first and last seen", "redriven", "sample"),
        (line for g in groups for line in _group_lines(g)),
        numbers=("letters",),
    )


def letter_screen(letter: Shown) -> RenderableType:
    """Why it failed, where it came from, what was redriven of it, and the record."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for name, text in _facts(letter):
        facts.add_row(Text(shown(name)), Text(shown(text)))
    return Lines(facts, Text(""), Text(_value(letter)))


def _group_lines(group: Group) -> Iterator[Sequence[object]]:
    redriven = [f"{n:,} {status}" for status, n in sorted(group.redriven.items())] or ["–"]
    settled = [f"{group.settled:,} settled"] if group.settled else []
    decided = [f"{n:,} {outcome} since" for outcome, n in sorted(group.decided.items())]
    columns = (
        (group.code, *filter(None, [group.path]), *settled, *decided),
        (group.count,),
        (_seconds(group.first_failed_at), _seconds(group.last_failed_at)),
        redriven,
        (group.sample,),
    )
    return zip_longest(*columns, fillvalue="")


def _facts(letter: Shown) -> Iterator[tuple[str, str]]:
    where = f" at {letter.path}" if letter.path else ""
    yield "dead letter", letter.place
    yield "failed", f"{_seconds(letter.failed_at)}, {letter.code}{where}: {letter.message}"
    if letter.source:
        yield "came from", "{topic} {partition}:{offset}".format(**letter.source)
    if made_by := letter.redriven_from:
        yield "was sent by", f"the redrive of {made_by.letter_partition}:{made_by.letter_offset}"
    yield "redriven", redrive_text(letter.redrive) if letter.redrive else "not yet"
    if settled := letter.settled:
        yield "settled", f"{_seconds(settled.requested_at)} by {settled.requested_by}: {settled.note}"
    if letter.order:
        yield "order", _order_text(letter.order)
    record: dict[str, Any] = letter.record
    yield "key", _one(record, "key")
    for header in record["headers"]:
        # Ours are shown above.
        if own_headers([(header["name"], None)]):
            yield f"header {header['name']}", _one(header, "value")


def _order_text(order: LetterOrder) -> str:
    """What the ledger has for the order id, perhaps for other content."""
    if order.outcome is None or order.source is None:
        return f"{order.order_id}: not decided"
    source = f"{order.source.topic} {order.source.partition}:{order.source.offset}"
    return f"{order.order_id}: {order.outcome} {_seconds(order.decided_at)}, from {source}"


def settle_screen(plan: SettlePlan, again: str) -> RenderableType:
    """The first letters, and how many there are. `again`: the call that settles them."""
    lines = table(
        ("letter", "code, path", "failed", "order", "decided"),
        ((d.place, _at(d.code, d.path), _seconds(d.failed_at), d.order_id, d.outcome) for d in plan.first),
    )
    more = plan.letters - len(plan.first)
    parts: list[RenderableType] = [lines, Text("")]
    if more:
        parts.append(Text(f"… and {more:,} more."))
    if plan.settled_before:
        parts.append(Text(f"Settled already, and left as they are: {plan.settled_before:,}."))
    letters = f"{plan.letters:,} dead letter{'s' * (plan.letters != 1)}"
    if plan.executed:
        return Lines(*parts, Text(shown(f"On record: {letters} settled by {plan.requested_by}: {plan.note}")))
    return Lines(*parts, Text(shown(f"Nothing was changed. To settle {letters}: {again}")))


def _at(code: str, path: str) -> str:
    return f"{code} {path}" if path else code


def redrive_text(redrive: Redrive) -> str:
    """Who, when, what, and what came of it."""
    parts = [f"{_seconds(redrive.requested_at)} by {redrive.requested_by}"]
    for name, old, new in edits_of(redrive):
        before = "nothing" if old is None else old
        parts.append(f"{name or 'the whole value'}: {_cut(before, 200)} → {_cut(new, 200)}")
    if redrive.input_offset is not None:
        parts.append(f"sent as {redrive.input_partition}:{redrive.input_offset}")
    parts.append(redrive.status + (f": {redrive.result}" if redrive.result else ""))
    return ", ".join(parts)


def _seconds(time: Any) -> str:
    return shown(time.replace(microsecond=0)).replace(".000Z", "Z") if time else "–"


def _one(fields: dict[str, Any], name: str) -> str:
    if f"{name}_base64" in fields:
        return f"{_cut(fields[f'{name}_base64'], 200)} (base64: it is not UTF-8)"
    return "null" if fields[name] is None else _cut(fields[name], 500)


def _value(letter: Shown) -> str:
    """Pretty where it is JSON, else with its control characters made visible."""
    record: Any = letter.record
    note = f"\n(cut from {letter.cut_from_bytes:,} bytes)" if letter.cut_from_bytes else ""
    if "value_base64" in record:
        return _cut(record["value_base64"], MAX_CHARACTERS) + "\n(base64: it is not UTF-8)" + note
    if record["value"] is None:
        return "the value is null"
    return _cut(_pretty(record["value"]), MAX_CHARACTERS) + note


def _pretty(value: str) -> str:
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        text = value
    else:
        text = _indented(value)
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _indented(value: str) -> str:
    """The JSON text with a line for each member; numbers as they are written, names that come twice twice."""
    lines, depth = "", 0
    tokens = _TOKEN.findall(value)
    for before, now in pairwise(["", *tokens]):
        depth -= now in "]}"
        if before and (before in "[{," or now in "]}") and before + now not in {"[]", "{}"}:
            lines += "\n" + "  " * depth
        lines += ": " if now == ":" else now
        depth += now in "[{"
    return lines


def _cut(text: str, characters: int) -> str:
    if len(text) <= characters:
        return text
    return f"{text[:characters]}… ({len(text) - characters:,} characters more: see --json or export)"
