"""The table of mutations fits today's sources, so that the proof of the rules cannot rot."""

from pathlib import Path

import pytest

from tests.faults.catalogue import FAULTS
from tests.faults.mutations import LESS_PATIENT, MUTATIONS, Edit, Mutation, NotTheSourceError, Trial, edited

ROOT = Path(__file__).parents[3]
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
    assert all((ROOT / test.path).exists() for test in mutation.shown_by if not isinstance(test, Trial))


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
