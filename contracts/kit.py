"""Tests a subscriber, in whatever language it is written, with ordinary and with hostile outcomes."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from contracts.examples import Outcome, outcomes

_ABOUT: Final = """\
Tests a subscriber, in whatever language it is written, with ordinary and with hostile outcomes.

COMMAND reads records from standard input, a line of JSON each:

  {"topic": "order-confirmed", "partition": 0, "offset": 7, "timestamp": 1795428000042, "key": "5e9f…",
   "headers": [["ce_id", "890a…"], ["republished", "true"], ["baggage", null]], "value": "{\\"order_id\\":…"}

For each outcome that takes effect it writes a line of JSON to standard output, and nothing for a record that
has no effect. At the end of its input it ends with 0. Other members are ignored:

  {"order_id": "5e9f…", "outcome": "confirmed", "user_id": 7, "total_amount": "5.10", "items": 1}
  {"order_id": "5e9f…", "outcome": "rejected", "user_id": 7, "codes": ["unknown_user"], "retryable": false}

It is run twice: what it did in the first run it knows in the second one. The environment variable
CONTRACT_KIT_STATE names an empty folder that it may keep that in.

What this cannot see is the client: that it reads with isolation.level=read_committed, continues after the
last record that took effect, and stores effect, identity and position in one transaction.
"""
_EXAMPLES: Final = """\
examples:
  python -m contracts.kit -- python examples/subscriber.py
  python -m contracts.kit --timeout 120 -- ./gradlew -q contractKit
  python -m contracts.kit --list
  python -m contracts.kit --records | head -3
"""
STATE: Final = "CONTRACT_KIT_STATE"
_HELD_BACK: Final = 2  # of the records: it comes after the restart
_TIMESTAMP_MS: Final = 1_795_428_000_042
_SHOWN: Final = 200  # characters of what a subscriber wrote
_LONGEST_SECONDS: Final = 86_400
_EXIT_CLOSED_PIPE: Final = 141  # as a shell shows it for other programs


class Verdict(NamedTuple):
    """What became of one record. `why` is empty where all is right."""

    name: str
    why: str


def record(one: Outcome) -> dict[str, Any]:
    """What the subscriber reads."""
    return {
        "topic": one.topic,
        "partition": one.partition,
        "offset": one.offset,
        "timestamp": _TIMESTAMP_MS,
        "key": one.key,
        "headers": [list(header) for header in one.headers],
        "value": one.value,
    }


def judge(sent: Sequence[Outcome], effects: Iterable[dict[str, Any]]) -> list[Verdict]:
    """One verdict for each record, in their order, then one for each effect that belongs to none. Pure.

    Effects are matched by order id: each record that shall have one takes it, and what is left over is the
    fault of those that shall have none.
    """
    left: dict[str, list[dict[str, Any]]] = {}
    for effect in effects:
        left.setdefault(str(effect.get("order_id")), []).append(effect)
    verdicts: dict[int, str] = {}
    for number, one in enumerate(sent):
        if one.effect is not None:
            got = left.get(one.key, [])
            differences = [_difference(one.effect, effect) for effect in got]
            best = differences.index("") if "" in differences else 0
            verdicts[number] = differences[best] if got else f"no effect. {one.rule}"
            del got[best : best + 1]
    for number, one in enumerate(sent):
        if one.effect is None:
            got = left.get(one.key, [])
            verdicts[number] = f"took effect: {_short(got.pop(0))}. {one.rule}" if got else ""
    strange = [Verdict("an effect of no record", _short(effect)) for some in left.values() for effect in some]
    return [Verdict(one.name, verdicts[number]) for number, one in enumerate(sent)] + strange


def _difference(expected: dict[str, Any], got: dict[str, Any]) -> str:
    wrong = [
        f"{name} is {_short(got.get(name))}, not {_short(value)}"
        for name, value in expected.items()
        # 1 and true are equal in Python, and so are 7 and 7.0.
        if (type(got.get(name)), got.get(name)) != (type(value), value)
    ]
    return "; ".join(wrong)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class SubscriberError(Exception):
    """The subscriber did not do what a run asks for, whatever it made of the records."""


def run(command: Sequence[str], sent: Sequence[Outcome], state: str, timeout_seconds: float) -> list[Verdict]:
    """Give it the records, and judge what it made of them. Raises SubscriberError."""
    given = "".join(f"{json.dumps(record(one))}\n" for one in sent)
    try:
        ran = subprocess.run(  # noqa: S603  (it is what the kit is for)
            command,
            input=given.encode(),
            capture_output=True,
            timeout=timeout_seconds,
            env={**os.environ, STATE: state},
            check=False,
        )
    except OSError as error:
        raise SubscriberError(f"cannot be run: {command[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired as error:
        raise SubscriberError(
            f"did not end within {timeout_seconds:g} s of its input's end (--timeout)"
            f"{_last_effect(sent, error.stdout or b'')}"
        ) from None
    if ran.returncode:
        said = ran.stderr.decode(errors="replace").strip().splitlines()
        raise SubscriberError(
            f"ended with {ran.returncode}: {said[-1][:_SHOWN] if said else 'and said nothing'}"
            f"{_last_effect(sent, ran.stdout)}"
        )
    return judge(sent, map(_effect, ran.stdout.splitlines()))


def _last_effect(sent: Sequence[Outcome], written: bytes) -> str:
    """The last record that took effect, as far as it wrote that, and the record behind it."""
    took = (number for number, one in enumerate(sent) if one.effect and one.key.encode() in written)
    last = max(took, default=None)
    if last is None:
        return "; no record took effect"
    return "; the last effect is of " + ", then comes ".join(f'"{one.name}"' for one in sent[last : last + 2])


def _effect(line: bytes) -> dict[str, Any]:
    try:
        effect = json.loads(line)
    except (ValueError, RecursionError):
        effect = None
    if not isinstance(effect, dict):
        raise SubscriberError(f"wrote what is no JSON object: {line.decode(errors='replace')[:_SHOWN]}")
    return effect


def _behind_all(one: Outcome, others: Iterable[Outcome]) -> Outcome:
    """At the end of its partition: what lies before a position that it has stored, a subscriber may skip."""
    place = (one.topic, one.partition)
    offsets = [other.offset for other in others if (other.topic, other.partition) == place]
    return replace(one, offset=max(offsets) + 1)


def both_runs(command: Sequence[str], timeout_seconds: float) -> list[Verdict]:
    """All records but one, and then, in a second process, some of them again and that one.

    Raises SubscriberError.
    """
    before = outcomes()
    new = _behind_all(before.pop(_HELD_BACK), before)
    known = [replace(one, effect=None, rule="It is known since the run before.") for one in before[:2]]
    with tempfile.TemporaryDirectory(prefix="contract-kit-") as state:
        verdicts = run(command, before, state, timeout_seconds)
        after = run(command, [*known, new], state, timeout_seconds)
    return [*verdicts, *(Verdict(f"after a restart: {one.name}", one.why) for one in after)]


def report(verdicts: Sequence[Verdict]) -> str:
    """A line for each record, and how many are right."""
    lines = [f"{'FAILED' if one.why else 'ok':<6}  {one.name}" for one in verdicts]
    whys = [f"        {one.why}" if one.why else "" for one in verdicts]
    shown = [line for pair in zip(lines, whys, strict=True) for line in pair if line]
    right = sum(not one.why for one in verdicts)
    return "\n".join([*shown, "", f"{right} of {len(verdicts)} are right", ""])


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most {_LONGEST_SECONDS:,} seconds: {text}")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m contracts.kit",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=60.0, metavar="S", help="seconds of each run (60)"
    )
    parser.add_argument("--list", action="store_true", help="show the records and what to do with each")
    parser.add_argument("--records", action="store_true", help="write the records, for tests of your own")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="the subscriber, after --")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: it did all of it right; 1: it did not; 2: wrong usage."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.list:
        text = "\n".join(f"{one.name}\n    {one.rule}" for one in outcomes()) + "\n"
    elif asked.records:
        text = "".join(f"{json.dumps(record(one))}\n" for one in outcomes())
    elif not asked.command:
        parser.error("name the command that runs your subscriber, after --")
    else:
        try:
            verdicts = both_runs(asked.command, asked.timeout)
        except SubscriberError as error:
            sys.stderr.write(f"error: the subscriber {error}\n")
            return 1
        sys.stdout.write(report(verdicts))
        return int(any(one.why for one in verdicts))
    sys.stdout.write(text)
    return 0


def _run_as_program() -> int:
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # as by `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try again at its end
        return _EXIT_CLOSED_PIPE
    return code


if __name__ == "__main__":
    sys.exit(_run_as_program())
