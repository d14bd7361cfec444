"""What is written down about the project is what the project does."""

import re
from pathlib import Path
from types import ModuleType

import pytest

from contracts.events import DeadLetterCode, OrderConfirmed, OrderPlaced, OrderRejected, ReasonCode
from db import catalog, orders, reports
from docs.reference import pages as generated_pages
from tests.faults.mutations import MUTATIONS
from tests.support.bulk_operations import operations_of
from tests.support.order_worker import command_names
from tests.support.pages import (
    ROOT,
    blocks_of,
    broken_links,
    pages,
    read,
    unknown_commands,
    unknown_settings,
    without_index,
)
from worker.settings import Settings

LONGEST_README = 150
# They are about versions that had other names.
OF_THE_PAST = ("CHANGELOG.md", "docs/decisions/")


@pytest.mark.parametrize("page", pages())
def test_a_page_links_and_names_only_what_there_is(page: str):
    text = read(page)
    faults = broken_links(page, text)
    if not page.startswith(OF_THE_PAST):
        faults += unknown_settings(page, text) + unknown_commands(page, text)
    if page.startswith("docs/"):
        faults += without_index(page)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[x](no-such-page.md)", "no-such-page.md is not there"),
        ("[x](guarantees.md#no-such-heading)", "has no heading #no-such-heading"),
        ("![x](no-such-picture.svg)", "no-such-picture.svg is not there"),
        ("`ORDER_WORKER_GROUP_IDS`", "do you mean ORDER_WORKER_GROUP_ID?"),
        ("`order-worker lagg`", "order-worker has no command lagg"),
        ("```sh\norder-worker lag --wach\n```", "lag has no option --wach"),
        ("`dead-letters redrive --all`", "redrive has no option --all"),
        ("`make nonsense`", "the Makefile has no nonsense"),
    ],
)
def test_what_is_wrong_with_a_page_is_named_with_its_line(text: str, fault: str):
    faults = [
        *broken_links("docs/page.md", text),
        *unknown_settings("docs/page.md", text),
        *unknown_commands("docs/page.md", text),
    ]
    assert len(faults) == 1
    assert re.match(r"docs/page\.md:[12]: ", faults[0])
    assert fault in faults[0]


def test_a_page_that_no_index_names_is_named():
    assert len(without_index("docs/nobody-knows-it.md")) == 2
    assert len(without_index("docs/commands/nobody-knows-it.md")) == 1


def test_the_readme_is_one_screen():
    assert len(read("README.md").splitlines()) <= LONGEST_README


@pytest.mark.parametrize(
    ("path", "text"), generated_pages().items(), ids=lambda part: part.stem if isinstance(part, Path) else ""
)
def test_what_a_page_says_of_the_code_is_what_the_code_says(path: Path, text: str):
    assert path.exists(), f"{path.relative_to(ROOT)} is missing; run: make schemas"
    assert path.read_text(encoding="utf-8") == text, f"{path.relative_to(ROOT)} is old; run: make schemas"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_on_the_configuration_page_with_its_meaning(name: str):
    row = re.search(rf"^\| `ORDER_WORKER_{name.upper()}` \|.*$", read("docs/configuration.md"), re.MULTILINE)
    assert row
    assert Settings.model_fields[name].description, f"{name} needs a description in worker/settings.py"


def test_every_code_is_on_the_page_of_those_who_see_it():
    for code in ReasonCode:
        assert f"`{code.value}`" in read("docs/subscribing.md")
    for letter in DeadLetterCode:
        assert f"`{letter.value}`" in read("docs/publishing.md")


def test_the_events_on_the_pages_are_those_of_the_contract():
    (placed,) = _events("docs/publishing.md")
    confirmed, rejected = _events("docs/subscribing.md")
    OrderPlaced.model_validate_json(placed)
    OrderConfirmed.model_validate_json(confirmed)
    OrderRejected.model_validate_json(rejected)


def _events(page: str) -> list[str]:
    return [block.text for block in blocks_of(read(page)) if block.language == "json"]


def test_every_command_has_a_page():
    for name in command_names():
        assert f"docs/commands/{name.replace(' ', '-')}.md" in pages(), f"{name}: run: make schemas"


@pytest.mark.parametrize("module", [catalog, orders, reports], ids=lambda module: module.__name__)
def test_every_operation_of_the_data_layer_is_on_its_page(module: ModuleType):
    for name in operations_of(module):
        assert f"`{name}`" in read("docs/data-layer.md"), name


def test_code_tests_and_mutations_of_each_guarantee_exist():
    rules = {mutation.name: mutation for mutation in MUTATIONS}
    items = re.findall(
        r"^- \*\*(.+)\*\*\s+Code: (.+?)\. Shown by (.+?)\.\s+Mutation: `(.+?)`\.$",
        re.sub(r"\n  +", " ", read("docs/guarantees.md")),
        re.MULTILINE,
    )
    assert len(items) == read("docs/guarantees.md").count("Mutation: `")
    for rule, code, tests, name in items:
        assert name in rules, f"{rule} names a mutation that is none: {name}"
        assert rule == rules[name].rule, name
        places = re.findall(r"`([\w/]+\.py)::(\w+)`", f"{code} {tests}")
        assert len(places) >= 2, f"{rule} names no code or no test"
        assert places[0][0] in {edit.path for edit in rules[name].edits}, f"{name} changes other code: {code}"
        for path, symbol in places:
            assert (ROOT / path).exists(), f"{rule} names a file that is not there: {path}"
            pattern = rf"^(?:async )?(?:def|class) {symbol}\b"
            assert re.search(pattern, read(path), re.MULTILINE), f"{path} has no {symbol}"
