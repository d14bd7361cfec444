"""Which tests show which guarantee: `pytest -m guarantee_2`. Each is shown in every kind of test."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
GUARANTEES = (1, 2, 3, 4)


def guarantees_of(path: Path) -> set[int]:
    """Those that a module's `pytestmark` or a decorator in it names."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    marks = {ast.unparse(one) for one in nodes if isinstance(one, ast.Attribute) and "guarantee" in one.attr}
    found = (re.fullmatch(r"pytest\.mark\.guarantee_(\d+)", mark) for mark in marks)
    return {int(match[1]) for match in found if match}


@pytest.mark.parametrize("kind", ["unit", "integration", "acceptance"])
def test_each_guarantee_is_shown_by_tests_of_every_kind(kind: str):
    shown = {number for path in (ROOT / "tests" / kind).rglob("test_*.py") for number in guarantees_of(path)}
    assert shown == set(GUARANTEES)


def test_each_guarantee_has_a_marker_that_says_what_it_is(pytestconfig: pytest.Config):
    lines = [line for line in pytestconfig.getini("markers") if line.startswith("guarantee_")]
    assert [line.partition(": ")[0] for line in lines] == [f"guarantee_{number}" for number in GUARANTEES]
    assert all(len(line.partition(": ")[2]) > 10 for line in lines)
