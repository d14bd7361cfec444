"""The layers, and that nothing is built by importing."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
LONGEST_FILE_LINES = 300
LONGEST_TEST_NAME = 80
CORE = [
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "worker" / "core").glob("*.py"))),
    "contracts/compatibility.py",
    "db/decision.py",
    "db/bulk/rows.py",
    "worker/operations/dead_letters/letter.py",
    "worker/operations/redrive/json_edit.py",
    "worker/operations/redrive/canary.py",
    "worker/operations/orders/reopened.py",
    "worker/operations/orders/rejection.py",
    "worker/kafka/limits/topic_limits.py",
    "worker/kafka/limits/adapted.py",
    "worker/kafka/limits/remarks.py",
]


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


def test_contracts_import_pydantic_with_its_core_and_the_standard_library_only():
    assert packages("contracts") - set(sys.stdlib_module_names) == {"contracts", "pydantic", "pydantic_core"}


def test_the_database_package_imports_nothing_of_the_others():
    assert packages("db") - set(sys.stdlib_module_names) == {"db", "sqlalchemy", "asyncpg", "alembic"}


@pytest.mark.parametrize(
    "path",
    sorted(p for p in (ROOT / "db").rglob("*.py") if "versions" not in p.parts),
    ids=lambda path: path.stem,
)
def test_the_types_of_the_database_package_are_known_to_its_callers(path: Path):
    untyped = [
        f"{path.name}:{function.lineno} {function.name}"
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and not function.name.startswith("_")
        for annotation in annotations(function)
        if annotation is None or re.search(r"\bAny\b", ast.unparse(annotation))
    ]
    assert not untyped


def annotations(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.expr | None]:
    """Of everything a caller gives and gets; None where there is none."""
    given = function.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    named = [a for a in arguments if a is not None and a.arg not in {"self", "cls"}]
    return [function.returns, *(a.annotation for a in named)]


def test_products_are_locked_in_one_file_only():
    """Everywhere else a lock of its own could meet the others in another order: a deadlock."""
    locks = re.compile(r"select\(Product[^)]*\)(?:(?!\n\n).)*with_for_update|FOR (NO KEY )?UPDATE", re.DOTALL)
    holders = {
        p.name
        for folder in ("db", "worker")
        for p in (ROOT / folder).rglob("*.py")
        if locks.search(code_of(p))
    }
    assert holders == {"stock.py"}


def code_of(path: Path) -> str:
    """The file without its comments and docstrings."""
    return re.sub(r'""".*?"""|#[^\n]*', "", path.read_text(), flags=re.DOTALL)


def test_private_attributes_of_kafka_clients_are_used_in_two_modules():
    """A class that inherits from one of aiokafka's may use its own."""
    private = re.compile(
        r"\b(?!self\._|cls\._)[\w.]+\._(client|fetcher|coordinator|subscriptions?|txn_manager|sender|brokers)\b"
    )
    users = {p.name for p in (ROOT / "worker").rglob("*.py") if private.search(code_of(p))}
    assert users == {"internals.py", "client_internals.py"}


@pytest.mark.parametrize("module", CORE)
def test_the_core_awaits_nothing_and_reads_no_clock(module: str):
    path = ROOT / module
    tree = ast.parse(path.read_text())
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.AsyncFunctionDef | ast.Await)]
    forbidden = {"asyncio", "time", "random", "os", "aiokafka", "asyncpg", "sqlalchemy", "faststream"}
    assert not {name.split(".")[0] for name in imported(path)} & forbidden


def test_only_the_composition_root_builds_the_worker():
    builders = {
        "create_engine",
        "KafkaBroker",
        "Leases",
        "Publisher",
        "OrderConsumer",
        "Flow",
        "BatchProcessor",
        "Metrics",
        "Health",
        "OutcomeEndpoint",
        "Site",
        "Sources",
    }
    allowed = {
        "app.py": builders,
        "database.py": {"create_engine"},
        "broker.py": {"KafkaBroker"},
        # It takes leases of partitions as a worker would, outside of one.
        "fencing.py": {"Leases"},
    }
    product = [p for p in (ROOT / "worker").rglob("*.py") if "sandbox" not in p.parts]
    for path in product:
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert calls & builders <= allowed.get(path.name, set()), path


def test_importing_the_worker_connects_to_nothing_and_needs_no_settings():
    code = "import worker.app, worker.cli, worker.sandbox.demo, db.engine; print('imported')"
    wrong = {
        "ORDER_WORKER_DATABASE_URL": "nonsense",
        "ORDER_WORKER_HTTP_PORT": "nonsense",
        "PATH": "/usr/bin",
    }
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=wrong, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "imported\n"), ran.stderr


def test_the_worker_runs_without_its_sandbox_which_its_image_leaves_out(tmp_path: Path):
    assert "worker/sandbox" in (ROOT / ".dockerignore").read_text().split()
    for package in ("contracts", "db", "worker"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("sandbox"))

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env={}, capture_output=True, text=True
        )

    code = f"import worker.app; assert worker.__file__.startswith({str(tmp_path)!r})"
    ran = python("-c", code)
    assert ran.returncode == 0, ran.stderr
    demo = python("-m", "worker", "demo")
    assert (demo.returncode, demo.stderr.count("\n")) == (1, 1), demo.stderr
    assert "make demo" in demo.stderr


@pytest.mark.parametrize("kind", ["unit", "integration"])
def test_the_folders_of_the_tests_are_those_of_what_they_test(kind: str):
    roots = {"bench": ROOT, "faults": ROOT / "tests", "support": ROOT / "tests"}
    folders = {
        path.parent.relative_to(ROOT / "tests" / kind) for path in (ROOT / "tests" / kind).rglob("*.py")
    }
    strange = [
        folder
        for folder in folders
        if folder.parts
        if not any(
            (roots.get(folder.parts[0], ROOT) / folder).with_suffix(end).exists() for end in ("", ".py")
        )
    ]
    assert not strange


def test_no_file_of_the_product_is_longer_than_a_reader_can_hold():
    long = {
        f"{path.relative_to(ROOT)}: {lines}"
        for folder in ("contracts", "db", "worker")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := path.read_text().count("\n")) > LONGEST_FILE_LINES
    }
    assert not long


def test_the_name_of_a_test_is_a_short_sentence():
    names = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)
    found = [name for path in (ROOT / "tests").rglob("*.py") for name in names.findall(path.read_text())]
    assert len(found) > 1_000
    assert [name for name in found if len(name) > LONGEST_TEST_NAME] == []
