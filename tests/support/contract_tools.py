"""Tools that read the contract in JavaScript, on Node: AsyncAPI's own parser, and ajv."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.order_worker import ROOT

FOLDER = ROOT / "tests" / "contract_tools"
HOW_TO_INSTALL = "the contract is tested with Node 20 and packages of its registry: run `make contract-tools`"


def are_there() -> bool:
    """Whether they are; where CI is set they have to be."""
    if shutil.which("node") and (FOLDER / "node_modules").exists():
        return True
    if os.environ.get("CI"):
        pytest.fail(HOW_TO_INSTALL, pytrace=False)
    return False


def of_document(path: Path) -> list[dict[str, Any]]:
    """The faults that AsyncAPI's parser finds in the document. `severity` 0: an error, 1: a warning."""
    return _run("asyncapi", path)


def of_values(schema: Path, values: Iterable[bytes]) -> list[dict[str, Any]]:
    """The faults that ajv finds in these values, in its strict mode; `line` is the number of the value."""
    # On one line each, however they were written.
    return _run("values", schema, b"\n".join(json.dumps(json.loads(value)).encode() for value in values))


def _run(what: str, path: Path, given: bytes = b"") -> list[dict[str, Any]]:
    if not are_there():
        pytest.skip(HOW_TO_INSTALL)
    ran = subprocess.run(
        ["node", "validate.mjs", what, str(path)], cwd=FOLDER, input=given, capture_output=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return [json.loads(line) for line in ran.stdout.splitlines()]
