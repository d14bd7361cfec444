"""The table of mutations fits today's sources, so that the proof of the rules cannot rot."""

import re
from pathlib import Path

import pytest

from tests.faults.catalogue import FAULTS
from tests.faults.mutations import LESS_PATIENT, MUTATIONS, Edit, Mutation, NotTheSourceError, Trial, edited
from tests.faults.mutations import Test as SuiteTest  # pytest would collect a class Test

ROOT = Path(__file__).parents[3]
_TEST = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)
each = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)


@each
def test_a_mutation_finds_its_text_once_and_changes_it(mutation: Mutation):
    for path, text in edited(mutation.name, mutation.edits, ROOT).items():
        assert text != (ROOT / path).read_text(encoding="utf-8")


@each
def test_a_mutated_file_still_compiles(mutation: Mutation):
    for path, text in edited(mutation.name, mutation.edits, ROOT).items():
        compile(text, path, "exec")


@each
def test_a_mutation_names_faults_of_the_campaign(mutation: Mutation):
    assert mutation.shown_by
    assert {trial.fault for trial in mutation.shown_by if isinstance(trial, Trial)} <= set(FAULTS)


@each
def test_a_mutation_selects_tests_that_there_are(mutation: Mutation):
    for test in mutation.shown_by:
        if isinstance(test, SuiteTest):
            names = " ".join(names_of_tests(ROOT / test.path))
            assert [part for part in test.matching.split(" or ") if part not in names] == [], test


def names_of_tests(path: Path) -> list[str]:
    files = [path] if path.is_file() else sorted(path.rglob("test_*.py"))
    return [name for file in files for name in _TEST.findall(file.read_text(encoding="utf-8"))]


def test_the_campaign_can_be_made_less_patient():
    assert edited("", [LESS_PATIENT], ROOT)


@pytest.mark.parametrize("field", ["name", "rule"])
def test_no_two_mutations_are_alike(field: str):
    values = [getattr(one, field) for one in MUTATIONS]
    assert len(values) == len(set(values))


@pytest.mark.parametrize("old", ["is nowhere in it", "import"])
def test_a_text_that_is_not_there_once_is_an_error_that_names_mutation_and_file(old: str):
    with pytest.raises(NotTheSourceError, match=r"rotten: worker/pipeline/batch\.py"):
        edited("rotten", [Edit("worker/pipeline/batch.py", old, "")], ROOT)
