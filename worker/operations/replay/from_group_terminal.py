"""The output of `replay --from-group`: one document for scripts, one screen for people."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from worker.kafka.group import Member
from worker.kafka.offsets import TopicSelection
from worker.operations import screen
from worker.operations.replay.from_group import GroupTakeover
from worker.operations.replay.handover import Stage
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class FromGroupPartition:
    """A partition as both groups stand in it; `old_decided_to` is what PostgreSQL knows of the old one."""

    partition: int
    end: int
    old_committed: int | None
    old_decided_to: int | None
    committed: int | None
    stage: str
    remark: str


@dataclass(frozen=True, slots=True)
class FromGroupReport:
    """One takeover, rehearsed or done."""

    executed: bool
    old_group_id: str
    group_id: str
    topic: str
    partitions: list[FromGroupPartition]
    redrives: int  # of the old group that are not finished, and go with it
    running_members: list[Member]  # of the old group
    next_command: str


def report(settings: Settings, selected: TopicSelection, found: GroupTakeover) -> FromGroupReport:
    """The report of a takeover of another group."""
    partitions = [
        FromGroupPartition(
            partition=one.partition.partition,
            end=one.end,
            old_committed=one.old.offset,
            old_decided_to=one.old.pending.pending_to if one.old.pending else None,
            committed=one.new.offset,
            stage=one.stage.value if one.stage else "",
            remark=one.remark,
        )
        for one in found.handovers
    ]
    return FromGroupReport(
        executed=found.executed,
        old_group_id=found.old_group,
        group_id=settings.group_id,
        topic=selected.topic,
        partitions=partitions,
        redrives=found.redrives,
        running_members=found.old_members,
        next_command=_next_command(selected, found),
    )


def _next_command(selected: TopicSelection, found: GroupTakeover) -> str:
    if all(one.stage is not Stage.AHEAD for one in found.handovers):
        return "order-worker run"
    words = ["replay", "--from-group", found.old_group]
    if selected.numbers:
        words += ["--topic", f"{selected.topic}:{','.join(map(str, selected.numbers))}"]
    return screen.command_line(*words)


def show(console: Console, found: FromGroupReport) -> None:
    """For a person: where both groups are, whether PostgreSQL agrees with Kafka, what to do next."""
    what = f"{found.group_id} takes over {found.topic} of the group {found.old_group_id}"
    console.print(Text(f"{what}: done." if found.executed else f"{what}. Nothing was changed.", style="bold"))
    console.print()
    head = ("partition", "end", "old offset", "decided to", "new offset", "stage", "remark")
    used = len(head) - (not any(p.remark for p in found.partitions))
    rows = (
        (p.partition, p.end, p.old_committed, p.old_decided_to, p.committed, p.stage, p.remark)[:used]
        for p in found.partitions
    )
    console.print(screen.table(head[:used], rows, numbers=head[:5]))
    console.print()
    for line in _next(found):
        # A command is copied: the terminal may fold it, and we may not break it.
        console.print(Text(line), soft_wrap=True)


def _next(found: FromGroupReport) -> Iterator[str]:
    if found.redrives and not found.executed:
        yield f"{found.redrives:,} dead letters that are being redriven go with it."
    if found.running_members:
        names = ", ".join(f"{m.client_id} at {m.host.lstrip('/')}" for m in found.running_members)
        yield f"The group {found.old_group_id} is running ({names}): stop its workers first."
    if found.next_command == "order-worker run":
        yield f"Start the workers of {found.group_id}, unless they wait for this: {found.next_command}"
        yield f"Start none of {found.old_group_id} any more: both groups would publish."
    else:
        yield f"Nothing is published again by it. To do it: {found.next_command}"
