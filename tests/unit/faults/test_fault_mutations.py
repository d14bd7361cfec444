"""The table of mutations fits today's sources, so that the proof of the rules cannot rot."""

import re
from pathlib import Path

import pytest

from tests.faults.catalogue import FAULTS
from tests.faults.mutations import LESS_PATIENT, MUTATIONS, Edit, Mutation, NotTheSourceError, Trial, edited

ROOT = Path(__file__).parents[3]
_TEST = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)
each = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)


def _tests_in(path: Path) -> list[str]:
    """Names of the tests of this file, or of all files of this folder with the file's name."""
    files = path.rglob("test_*.py") if path.is_dir() else [path]
    return [f"{one.stem} {name}" for one in files for name in _TEST.findall(one.read_text(encoding="utf-8"))]


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
def test_a_mutation_names_tests_that_exist(mutation: Mutation):
    for test in mutation.shown_by:
        if not isinstance(test, Trial):
            names = _tests_in(ROOT / test.path)
            assert any(part in name for part in test.matching.split(" or ") for name in names), str(test)


def test_the_campaign_can_be_made_less_patient():
    assert edited("", [LESS_PATIENT], ROOT)


@pytest.mark.parametrize("told", ["name", "rule"])
def test_no_two_mutations_are_alike(told: str):
    values = [getattr(one, told) for one in MUTATIONS]
    assert len(values) == len(set(values))


@pytest.mark.parametrize("old", ["is nowhere in it", "import"])
def test_a_text_that_is_not_there_once_is_an_error_that_names_mutation_and_file(old: str):
    with pytest.raises(NotTheSourceError, match=r"rotten: worker/pipeline/batch\.py"):
        edited("rotten", [Edit("worker/pipeline/batch.py", old, "")], ROOT)
