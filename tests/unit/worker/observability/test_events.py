"""Every line of the log has an event, whose name the documentation explains."""

import ast
import re

from tests.support.order_worker import ROOT
from worker.observability.events import Event

LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
PRODUCT = sorted(
    path
    for folder in ("worker", "db")
    for path in (ROOT / folder).rglob("*.py")
    if "sandbox" not in path.parts
)


def test_every_call_that_logs_names_an_event():
    silent, calls = [], 0
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if _logs(node):
                calls += 1
                if "extra" not in {keyword.arg for keyword in node.keywords}:  # type: ignore[attr-defined]
                    silent.append(f"{path.relative_to(ROOT)}:{node.lineno}")  # type: ignore[attr-defined]
    assert calls > 30
    assert not silent, "pass extra=about(Event.…)"


def _logs(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"log", "logger"}
    )


def test_each_event_is_used():
    texts = [path.read_text(encoding="utf-8") for path in PRODUCT if path.name != "events.py"]
    used = {name for text in texts for name in re.findall(r"\bEvent\.(\w+)\b", text)}
    assert {event.name for event in Event} - used == set()


def test_the_documentation_explains_every_event_and_no_other_one():
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    section = text.partition("\n### Events")[2].partition("\n#")[0]
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == {event.value for event in Event}
