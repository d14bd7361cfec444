"""What is written down about the project is what the project does."""

import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from contracts.events import DeadLetterCode, ReasonCode
from contracts.schema import FOLDER
from db import catalog, orders, reports
from tests.support.bulk_operations import operations_of
from tests.support.order_worker import command_names
from worker.app import build
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


async def test_the_asyncapi_document_checked_in_is_that_of_the_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"ORDER_WORKER_{name.upper()}", raising=False)
    worker, application = build(Settings())
    described = json.loads(application.schema.to_specification().to_json())
    checked_in = json.loads((FOLDER / "asyncapi.json").read_text(encoding="utf-8"))
    assert described == checked_in, "run: make schemas"
    await worker.engine.dispose()
