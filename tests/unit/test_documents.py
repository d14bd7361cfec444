"""What is written down about the project is what the project does."""

import re
from pathlib import Path
from types import ModuleType

import pytest

from contracts.events import DeadLetterCode, ReasonCode
from db import catalog, orders, reports
from tests.support.bulk_operations import operations_of
from tests.support.order_worker import command_names
from worker.settings import Settings

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_stands_in_the_readme(name: str):
    assert f"`{name.upper()}`" in README


def test_every_code_stands_in_the_readme():
    for code in [*ReasonCode, *DeadLetterCode]:
        assert f"`{code.value}`" in README


def test_every_command_stands_in_the_readme():
    for name in command_names():
        assert re.search(rf"\| `{name}[ `]", README), name


@pytest.mark.parametrize("module", [catalog, orders, reports], ids=lambda module: module.__name__)
def test_every_operation_of_the_data_layer_stands_in_the_readme(module: ModuleType):
    for name in operations_of(module):
        assert f"`{name}`" in README, name
