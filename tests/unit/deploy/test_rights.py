"""What deploy/ grants is what the program needs: neither drifts from the other."""

import re
from collections.abc import Mapping
from typing import Final

import pytest

from db.models import Base
from tests.support.kafka_acls import granted, printed_commands, rights_of, run_script
from tests.support.order_worker import ROOT
from worker.kafka.rights import DESCRIBE_CONFIGS, GROUP, IDS, TOPIC, needed_by_worker
from worker.rights import PAGE_RIGHTS, RIGHTS
from worker.settings import Settings

ROLES: Final = (ROOT / "deploy" / "postgres" / "roles.sql").read_text(encoding="utf-8")
OURS: Final = {*Base.metadata.tables, "alembic_version"}
TOPICS: Final = ("order-placed", "order-confirmed", "order-rejected", "order-placed-dlt")
RESOURCES: Final = {
    TOPIC: ("TOPIC", "LITERAL"),
    GROUP: ("GROUP", "LITERAL"),
    IDS: ("TRANSACTIONAL_ID", "PREFIXED"),
}


def granted_to(role: str) -> dict[str, set[str]]:
    """By table, as the rows of roles.sql say."""
    rows = re.findall(rf"^  \(:'{role}', '(\w+)', +'([A-Z][^']+)', '[^']+'\)", ROLES, re.MULTILINE)
    return {table: set(re.findall(r"[A-Z]+(?: \([^)]+\))?", kinds)) for table, kinds in rows}


def joined(*parts: Mapping[str, tuple[str, ...]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for part in parts:
        for table, rights in part.items():
            found.setdefault(table, set()).update(rights)
    return found


def test_a_worker_gets_what_it_looks_up_before_it_starts():
    assert granted_to("worker") == joined(RIGHTS, PAGE_RIGHTS, {"alembic_version": ("SELECT",)})


def test_readers_and_operators_see_every_table():
    (listed,) = re.findall(r"unnest\(ARRAY\[(.*?)\]\)", ROLES, re.DOTALL)
    assert set(re.findall(r"'(\w+)'", listed)) == OURS


def test_an_operator_changes_nothing_but_our_tables_and_of_the_ledger_events_alone():
    operator = granted_to("operator")
    assert set(operator) <= OURS
    assert operator["order_outcomes"] == {"INSERT", "UPDATE (event, sorted_fingerprint)"}


def test_every_role_and_the_schema_have_a_name_of_your_choice():
    for name in ("schema", "migrator", "worker", "reader", "operator"):
        assert re.search(rf"^\\if :\{{\?{name}\}} +\\else \\set {name} \w+ \\endif$", ROLES, re.MULTILINE)
    statements = re.sub(r"^(--|\\if).*$", "", ROLES, flags=re.MULTILINE)
    assert "order_worker" not in statements
    assert "public" not in statements


def test_a_worker_gets_the_acls_that_it_asks_for_before_it_starts():
    needed = {
        (*RESOURCES[kind], name): set(rights) for (kind, name), rights in needed_by_worker(Settings()).items()
    }
    for topic in TOPICS:
        needed["TOPIC", "LITERAL", topic].add(DESCRIBE_CONFIGS)
    assert rights_of("User:order-worker", granted()) == needed


def test_the_names_of_the_settings_go_into_the_acls_and_a_group_into_its_prefix():
    env = {"ORDER_WORKER_GROUP_ID": "shop", "ORDER_WORKER_ORDER_PLACED_TOPIC": "in", "WORKER": "User:me"}
    names = {name for _, _, name in rights_of("User:me", granted(**env))}
    assert names == {"in", *TOPICS[1:], "shop", "shop."}


def test_who_is_set_to_nothing_gets_nothing():
    everybody = {one.principal for one in granted()}
    without = {one.principal for one in granted(SUBSCRIBER="", READER="")}
    assert everybody - without == {"User:order-subscriber", "User:order-reader"}


def test_what_is_printed_can_be_pasted_into_a_shell():
    name = "User:CN=a worker's,O=Shop"
    (command, *_) = printed_commands(WORKER=name)
    assert name in command


TOOL = """#!/bin/sh
printf '%s\\n' "$*" >>"$0.calls"
exit ${FAILS:-0}
"""


@pytest.fixture
def tool(tmp_path):
    """Kafka's, which writes down how it is called."""
    path = tmp_path / "kafka-acls.sh"
    path.write_text(TOOL)
    path.chmod(0o755)
    return path


def test_nothing_is_run_without_execute_and_all_that_is_printed_with_it(tool):
    calls = tool.with_name("kafka-acls.sh.calls")
    printed = printed_commands(KAFKA_ACLS=str(tool), COMMAND_CONFIG="admin.properties")
    assert not calls.exists()
    ran = run_script("--execute", KAFKA_ACLS=str(tool), COMMAND_CONFIG="admin.properties")
    assert ran.returncode == 0
    assert calls.read_text().splitlines() == [" ".join(words[1:]) for words in printed]
    assert all("--command-config" in words for words in printed)


def test_the_first_command_that_fails_ends_it(tool):
    ran = run_script("--execute", KAFKA_ACLS=str(tool), FAILS="3")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "the last command failed" in ran.stderr
    assert len(tool.with_name("kafka-acls.sh.calls").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["--exceute"], {}, "there is no --exceute: look at acls.sh --help"),
        ([], {"OPERATOR": "ada"}, "OPERATOR=ada is no principal: write User:"),
        ([], {"WORKER": "User:"}, "WORKER=User: is no principal"),
        (["--execute"], {"KAFKA_ACLS": "/nowhere/kafka-acls.sh"}, "there is no /nowhere/kafka-acls.sh"),
    ],
)
def test_a_wrong_call_is_one_line_and_does_nothing(arguments: list[str], env: dict[str, str], said: str):
    ran = run_script(*arguments, **env)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert said in ran.stderr


def test_the_help_names_every_variable():
    help_text = run_script("--help").stdout
    for name in re.findall(r"\$\{([A-Z_]+)[:-]", (ROOT / "deploy/kafka/acls.sh").read_text()):
        assert name in help_text
