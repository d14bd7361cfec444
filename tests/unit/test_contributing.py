"""What contributors read is so: targets, paths, Python versions, and sets of dependencies that agree."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CI = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
PAGES = ["CONTRIBUTING.md", ".github/pull_request_template.md", ".github/workflows/ci.yml"]


def pinned(name: str) -> dict[str, str]:
    """Package to version, of one of the locked sets."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9][\w.-]*)(?:\[.*\])?==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_every_target_that_a_page_names_is_one(page: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    calls = re.findall(r"(?:`|run: |^ *)make ((?:[a-z-]+ ?)+)", text, re.MULTILINE)
    assert calls
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert {target for call in calls for target in call.split()} <= targets


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_every_path_that_a_page_names_is_there(page: str):
    named = re.findall(
        r"(?:`|\]\()([\w.-]+/[\w./-]*|[\w-]+\.md)[`)]", (ROOT / page).read_text(encoding="utf-8")
    )
    assert named
    assert [path for path in named if not (ROOT / path).exists() and path != "dist/"] == []


def test_ci_tests_on_every_python_that_the_package_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    (matrix,) = re.findall(r"python-version: \[(.*)\]", CI)
    assert re.findall(r"[\d.]+", matrix) == named
    assert project["requires-python"] == f">={named[0]}"


@pytest.mark.parametrize(("smaller", "larger"), [("worker", "demo"), ("demo", "dev")])
def test_a_smaller_set_of_dependencies_is_part_of_the_larger(smaller: str, larger: str):
    assert pinned(smaller).items() <= pinned(larger).items(), "run: make lock"


def test_the_demo_installs_no_tools_of_developers():
    assert not {"pytest", "mypy", "ruff", "matplotlib", "hypothesis", "uv"} & set(pinned("demo"))


def test_locks_and_hooks_name_no_host():
    for path in [*(ROOT / "requirements").glob("*.txt"), ROOT / ".pre-commit-config.yaml"]:
        assert "://" not in path.read_text(encoding="utf-8"), path.name
