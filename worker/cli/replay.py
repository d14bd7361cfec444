"""`replay`: workers read records again, without publishing outcomes again."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from worker import interruption
from worker.cli.options import MOST_OFFSET, AsJson, Execute, errors_in_json, example, group
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.kafka.offsets import TopicSelection
    from worker.operations.replay.plan import Target
    from worker.settings import Settings

commands = group()


@commands.command(
    epilog=example(
        "order-worker replay --by-duration PT2H",
        "order-worker replay --to-datetime 2026-11-23T10:00:00Z --topic order-placed:0,2 --execute",
        "order-worker replay --shift-by -500",
        "order-worker replay --from-group order-worker-old",
    )
)
def replay(
    to_datetime: Annotated[
        str | None, typer.Option(metavar="TIME", help="The first record since then, by its timestamp.")
    ] = None,
    by_duration: Annotated[
        str | None, typer.Option(metavar="PT2H", help="The first record of so long ago, or newer.")
    ] = None,
    to_earliest: Annotated[bool, typer.Option("--to-earliest", help="The first record there is.")] = False,
    to_offset: Annotated[
        int | None,
        typer.Option(min=0, max=MOST_OFFSET, metavar="N", help="This offset, in each partition selected."),
    ] = None,
    shift_by: Annotated[
        int | None,
        typer.Option(
            min=-MOST_OFFSET,
            max=MOST_OFFSET,
            metavar="N",
            help="From the committed offset; -500: the last 500 again.",
        ),
    ] = None,
    to_latest: Annotated[bool, typer.Option("--to-latest", help="Behind the last record there is.")] = False,
    from_group: Annotated[
        str | None,
        typer.Option(metavar="OLD_GROUP", help="Where that group is: ORDER_WORKER_GROUP_ID is its new name."),
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(metavar="TOPIC[:P,P]", help="The input topic, or some of its partitions. Default: all."),
    ] = None,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Let workers read records again, and publish nothing again. Without --execute: a rehearsal.

    Orders that are decided stay decided and are not published again. All others are decided and published.

    A dead letter is written again. Where to go is said as with Kafka's own kafka-consumer-groups.

    The rehearsal only reads: it says what workers will make of each record, and of the stock.

    It names the products that orders of several partitions want more of than there is: first come decides.

    With --execute the workers must be stopped. What would skip anything that is not done with is refused.

    --from-group: the group has a new name, and continues where the old one stopped. Nothing is read again.
    """
    with errors_in_json(as_json):
        options: dict[str, str | int | bool | None] = {
            "--to-datetime": to_datetime,
            "--by-duration": by_duration,
            "--to-earliest": to_earliest or None,
            "--to-offset": to_offset,
            "--shift-by": shift_by,
            "--to-latest": to_latest or None,
            "--from-group": from_group,
        }
        given = {option: value for option, value in options.items() if value is not None}
        if len(given) != 1:
            raise UsageError(f"give exactly one of {', '.join(options)}")
        ((option, value),) = given.items()
        from worker.kafka.offsets import TopicSelection, parse_topic
        from worker.settings import read_settings

        settings = read_settings()
        selected = TopicSelection(settings.order_placed_topic) if topic is None else parse_topic(topic)
        if from_group is not None and not from_group.strip():
            raise UsageError("--from-group is empty: name the old group")
        if from_group is not None:
            interruption.run(_from_group(settings, from_group, selected, execute, as_json))
        else:
            interruption.run(_replay(settings, _target(option, value), selected, execute, as_json))


async def _from_group(
    settings: "Settings", old_group: str, selected: "TopicSelection", execute: bool, as_json: bool
) -> None:
    from worker.operations import screen
    from worker.operations.replay import from_group, from_group_terminal

    done = await from_group.from_group(settings, old_group, selected, execute=execute)
    found = from_group_terminal.report(settings, selected, done)
    screen.print_json(found) if as_json else from_group_terminal.show(screen.output(), found)


async def _replay(
    settings: "Settings", target: "Target", selected: "TopicSelection", execute: bool, as_json: bool
) -> None:
    from worker.operations import screen
    from worker.operations.replay import replay, terminal

    done = await replay.replay(settings, selected, target, execute=execute, quiet=as_json)
    found = terminal.report(settings, selected, done)
    screen.print_json(found) if as_json else terminal.show(screen.output(), found)


def _target(option: str, value: str | int | bool) -> "Target":
    from worker.kafka.offsets import parse_duration, parse_time
    from worker.operations.replay.plan import Target, To

    if option == "--by-duration":
        try:
            return Target(To.TIME, time=datetime.now(UTC) - parse_duration(str(value), option))
        except OverflowError:
            raise UsageError(f"{option} {value}: that is before the year 1") from None
    if option == "--to-datetime":
        return Target(To.TIME, time=parse_time(str(value), option))
    return Target(To(option), int(value) if option in ("--to-offset", "--shift-by") else 0)
