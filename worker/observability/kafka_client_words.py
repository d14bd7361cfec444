"""Rewords the messages that aiokafka logs while a broker is away. Pure."""

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, Final

from worker.error_texts import reason_of

# By the text that aiokafka formats. "{0}" is its first argument; an error is its reason, a class its name.
_WORDS: Final[Mapping[str, str]] = {
    'Unable connect to "%s:%s": %s': "no connection to Kafka at {0}:{1}: {2}",
    'Unable to request metadata from "%s:%s": %s': (
        "Kafka at {0}:{1} does not say which brokers there are: {2}"
    ),
    "Unable to request metadata from node with id %s: %r": (
        "broker {0} does not say which brokers there are: {1}"
    ),
    "Unable to update metadata from %s": "no broker says which brokers there are; asked: {0}",
    "Unable connect to node with id %s: %s": "no connection to broker {0}: {1}",
    "Topic %s is not available during auto-create initialization": "topic {0} has no leaders yet",
    "Topic %s not found in cluster metadata": "Kafka knows no topic {0}",
    "Topic %s is not authorized for this client": "Kafka does not let us see topic {0}",
    "Error sending %s to node %s [%s] -- marking coordinator dead": (
        "the group's coordinator, broker {1}, gives no answer: {2}; looking for it again"
    ),
    "Marking the coordinator dead (node %s)for group %s.": (
        "the group's coordinator, broker {0}, is away; looking for it again"
    ),
    "Group Coordinator Request failed: %s": "no broker says who coordinates the group: {0}",
    "LeaveGroup request failed: %s": "the group was left without notice: {0}",
    "Heartbeat session expired - marking coordinator dead": (
        "no heartbeat reached the group's coordinator in time; looking for it again"
    ),
    "Heartbeat send request failed: %s. Will retry.": "a heartbeat had no answer: {0}; trying again",
    "Heartbeat failed for group %s: coordinator (node %s) is either not started or not valid": (
        "broker {1} does not coordinate the group any more; looking for who does"
    ),
    "Heartbeat failed for group %s because it is rebalancing": "the group is rebalancing",
    "Heartbeat failed for group %s: generation id is not  current.": (
        "the group has rebalanced without this worker; joining again"
    ),
    "Heartbeat failed: local member_id was not recognized; resetting and re-joining group": (
        "the group does not know this worker any more; joining again"
    ),
    "Heartbeat failed: %r": "a heartbeat was refused: {0}",
    "OffsetCommit failed for group %s - %s": "an offset was not committed: {1}",
    "OffsetCommit failed for group %s due to group error (%s), will rejoin": (
        "an offset was not committed: {1}; joining the group again"
    ),
    "OffsetCommit failed for group %s on partition %s with offset %s: %s": (
        "offset {2} of {1} was not committed: {3}"
    ),
    "OffsetCommit failed before join, ignoring: %s": "an offset was not committed before a rebalance: {0}",
    "Failed fetch messages from %s: %s": "broker {0} gave no records: {1}",
    "Failed fetch offsets from %s: %s": "broker {0} did not say where partitions end: {1}",
    "Unexpected error while fetching data: %s": "a partition gave no records: {0}",
    "FindCoordinator Request failed: %s": "no broker says who coordinates our transactions: {0}",
    "Cannot send %r to %s: %r": "broker {1} gave no answer to {0}: {2}",
    "Could not send %r: %r": "no broker to send {0} to: {1}",
    "Unexpected error in sender routine": "the producer has failed",
    "Unexpected error in fetcher routine": "fetching records has failed",
    "Unexpected error in coordinator routine": "the membership of the group has failed",
    "Unexpected exception in AIOKafkaConnection": "a connection to a broker has failed",
    "Got error produce response: %s": "outcomes were not sent: {0}",
    "Got error produce response on topic-partition %s, retrying. Error: %s": (
        "outcomes for {0} were not taken yet: {1}; trying again"
    ),
}
_NUMBER: Final = re.compile(r"^\[Error -?\d+\] ")  # which Kafka has for each error, before its name
_BROKER_FIRST: Final = frozenset(
    {
        "Unable to request metadata from node with id %s: %r",
        "Unable connect to node with id %s: %s",
        "Failed fetch messages from %s: %s",
        "Failed fetch offsets from %s: %s",
    }
)
"""Texts whose first argument is the broker's number."""


def reworded(text: str, arguments: Any) -> tuple[str, dict[str, Any]]:
    """The sentence, and the fields that it names. `text` and `arguments`: as given to aiokafka's logger."""
    given = arguments if isinstance(arguments, tuple) else () if arguments is None else (arguments,)
    said = [_said(one) for one in given]
    fields: dict[str, Any] = {"server": "kafka"}
    if text in _BROKER_FIRST and said:
        fields["broker"] = said[0]
    if errors := [one for one in given if isinstance(one, BaseException)]:
        fields["error"] = type(errors[0]).__name__
    if (ours := _WORDS.get(text)) and _fits(ours, said):
        return ours.format(*said), fields
    try:
        return "aiokafka: " + (text % tuple(said) if said else text), fields
    except (TypeError, ValueError):  # another kind of argument than text
        return "aiokafka: " + " ".join([text, *said]), fields


def _fits(ours: str, said: Sequence[str]) -> bool:
    """Empty if missing: another version of aiokafka may pass fewer arguments."""
    places = [int(name) for _, name, _, _ in string.Formatter().parse(ours) if name]
    return max(places, default=-1) < len(said)


def _said(argument: Any) -> str:
    """One line: an error's reason without Python's tuples, a class by its name, a list with commas."""
    if isinstance(argument, BaseException):
        if len(argument.args) > 1 and not isinstance(argument, OSError):
            return ", ".join(_said(one) for one in argument.args)
        return _NUMBER.sub("", " ".join(reason_of(argument).split()))
    if isinstance(argument, type):
        return argument.__name__
    if isinstance(argument, tuple) and hasattr(argument, "topic") and hasattr(argument, "partition"):
        return f"{argument.topic}-{argument.partition}"
    if isinstance(argument, (list, tuple, set, frozenset)):
        return ", ".join(_said(one) for one in argument)
    return " ".join(str(argument).split())
