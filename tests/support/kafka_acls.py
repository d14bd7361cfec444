"""What deploy/kafka/acls.sh grants: reads its commands as ACLs, and grants those on a broker."""

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from tests.support.kafka_topics import admin_client
from tests.support.order_worker import ROOT

SCRIPT: Final = ROOT / "deploy" / "kafka" / "acls.sh"
_RESOURCES: Final = {
    "--topic": ResourceType.TOPIC,
    "--group": ResourceType.GROUP,
    "--transactional-id": ResourceType.TRANSACTIONAL_ID,
}
_CLUSTER: Final = "kafka-cluster"  # Kafka's name of itself


def run_script(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The script, with nothing in its environment but these and the path."""
    return subprocess.run(
        [SCRIPT, *arguments], env={"PATH": os.environ["PATH"], **env}, capture_output=True, text=True
    )


def printed_commands(**env: str) -> list[list[str]]:
    """The words of each command that the script prints."""
    ran = run_script(**env)
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    return [shlex.split(line) for line in ran.stdout.splitlines() if not line.startswith("#")]


def bindings(command: Sequence[str]) -> Iterator[AclBinding]:
    """The ACLs that a command of kafka-acls.sh adds."""
    words = list(command)
    assert "--add" in words
    given = list(zip(words, [*words[1:], ""], strict=True))
    pattern = "PREFIXED" if ("--resource-pattern-type", "prefixed") in given else "LITERAL"
    resources = [(_RESOURCES[word], value) for word, value in given if word in _RESOURCES]
    if "--cluster" in words:
        resources.append((ResourceType.BROKER, _CLUSTER))
    for principal in (value for word, value in given if word == "--allow-principal"):
        for operation in (_operation(value) for word, value in given if word == "--operation"):
            for kind, name in resources:
                yield AclBinding(
                    kind,
                    name,
                    ResourcePatternType[pattern],
                    principal,
                    "*",
                    operation,
                    AclPermissionType.ALLOW,
                )


def _operation(name: str) -> AclOperation:
    known = {one.name.replace("_", ""): one for one in AclOperation}
    return known[name.upper()]


def granted(**env: str) -> set[AclBinding]:
    """All that the script grants."""
    return {one for command in printed_commands(**env) for one in bindings(command)}


def grant(bootstrap_servers: str, acls: set[AclBinding]) -> None:
    """Grant these rights, as an administrator."""
    for done in admin_client(bootstrap_servers).create_acls(list(acls)).values():
        done.result(20)


def take(bootstrap_servers: str, acl: AclBinding) -> None:
    """Take this right away."""
    exactly = AclBindingFilter(
        *(acl.restype, acl.name, acl.resource_pattern_type, acl.principal, acl.host, acl.operation),
        acl.permission_type,
    )
    for done in admin_client(bootstrap_servers).delete_acls([exactly]).values():
        assert len(done.result(20)) == 1, acl


def rights_of(principal: str, acls: set[AclBinding]) -> Mapping[tuple[str, str, str], set[str]]:
    """Operations by kind, pattern and name of a resource."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for one in acls:
        if one.principal == principal:
            place = (
                ResourceType(one.restype).name,
                ResourcePatternType(one.resource_pattern_type).name,
                one.name,
            )
            found.setdefault(place, set()).add(AclOperation(one.operation).name)
    return found
