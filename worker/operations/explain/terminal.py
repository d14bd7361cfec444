"""An explanation in the terminal: one screen. Pure."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from worker.operations.explain.explanation import Explanation
from worker.operations.explain.order_facts import Facts
from worker.operations.explain.sections import Section, not_looked_at, sections
from worker.operations.screen import shown, table

MOST_ROWS = 20  # of one table: what is left out is said, and stands in the JSON


def explanation_screen(explanation: Explanation) -> Group:
    """The sentence first, then the facts."""
    facts = explanation.facts
    parts: list[RenderableType] = [Text(f"order {facts.order_id}"), Text(shown(explanation.summary), "bold")]
    for section in sections(facts):
        parts += [Text(), *_section(section)]
    ends = list(_ends(facts))
    if ends:
        parts += [Text(), *(Text(shown(end), "dim") for end in ends)]
    return Group(*parts)


def _section(section: Section) -> Iterator[RenderableType]:
    yield Text(section.title, "bold")
    if section.lead:
        yield Text(f"  {section.lead}")
    if section.head:
        yield table(section.head, section.rows[:MOST_ROWS], numbers=section.numbers)
    if len(section.rows) > MOST_ROWS:
        yield Text(f"… and {len(section.rows) - MOST_ROWS:,} more: --json shows all", "dim")
    if section.note:
        yield Padding(Text(section.note, "dim"), (0, 0, 0, 2), expand=False)


def _ends(facts: Facts) -> Iterator[str]:
    yield from facts.notes
    yield from (f"{count}." for count in facts.unreadable)
    if unread := not_looked_at(facts.unread):
        yield f"{unread} `--scan all` reads everything; --json names the offsets."
