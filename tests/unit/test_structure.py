"""The layers, and that nothing is built by importing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CORE = ["db/decision", "worker/triage", "worker/decode", "worker/outcome", "worker/dead_letter"]


def imported(path: Path) -> set[str]:
    """The modules a file imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def packages(folder: str) -> set[str]:
    return {name.split(".")[0] for path in (ROOT / folder).rglob("*.py") for name in imported(path)}


def test_contracts_import_pydantic_and_the_standard_library_only():
    assert packages("contracts") - set(sys.stdlib_module_names) == {"contracts", "pydantic"}


def test_the_database_package_imports_nothing_of_the_others():
    assert packages("db") - set(sys.stdlib_module_names) == {"db", "sqlalchemy", "asyncpg", "alembic"}


@pytest.mark.parametrize("module", CORE)
def test_the_core_awaits_nothing_and_reads_no_clock(module: str):
    path = ROOT / f"{module}.py"
    tree = ast.parse(path.read_text())
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.AsyncFunctionDef | ast.Await)]
    forbidden = {"asyncio", "time", "random", "os", "aiokafka", "asyncpg", "sqlalchemy", "faststream"}
    assert not {name.split(".")[0] for name in imported(path)} & forbidden


def test_only_the_composition_root_builds_the_worker():
    builders = {
        "create_engine",
        "KafkaBroker",
        "Publisher",
        "OrderConsumer",
        "BatchProcessor",
        "Metrics",
        "Health",
    }
    for path in (ROOT / "worker").glob("*.py"):
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        allowed = {"app.py": builders, "connections.py": {"create_engine"}}.get(path.name, set())
        assert calls & builders <= allowed, path.name


def test_importing_the_worker_connects_to_nothing_and_needs_no_settings():
    code = "import worker.app, worker.cli, worker.demo, db.engine; print('imported')"
    wrong = {
        "ORDER_WORKER_DATABASE_URL": "nonsense",
        "ORDER_WORKER_HTTP_PORT": "nonsense",
        "PATH": "/usr/bin",
    }
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=wrong, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "imported\n"), ran.stderr
