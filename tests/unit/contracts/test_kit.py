"""The kit finds what a subscriber does wrong, and the records that it sends are what the contract allows."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from contracts.envelope import event_id
from contracts.events import OrderConfirmed, OrderRejected
from contracts.examples import Outcome, outcomes
from contracts.kit import STATE, SubscriberError, judge, main, record, run
from examples import subscriber
from tests.support.order_worker import ROOT

Effects = list[dict[str, Any]]
OUTCOMES = outcomes()
RIGHT = [one.effect for one in OUTCOMES if one.effect]


def wrong(effects: Effects) -> set[str]:
    """The names of the records that these effects are wrong for."""
    return {verdict.name for verdict in judge(OUTCOMES, effects) if verdict.why}


def of(name: str) -> Outcome:
    return next(one for one in OUTCOMES if one.name == name)


# --- the records ---


@pytest.mark.parametrize("one", OUTCOMES, ids=lambda one: one.name)
def test_a_record_is_as_a_worker_would_send_it(one: Outcome) -> None:
    headers, event = dict(one.headers), json.loads(one.value)
    assert one.key == event["order_id"] == headers["ce_subject"]
    if one.name != "the same ce_id from another source":
        assert headers["ce_id"] == str(event_id(UUID(one.key)))
    assert one.topic == headers["ce_type"] or one.name == "a kind of event of tomorrow"
    assert one.rule.endswith(".")
    if one.effect and one.effect["outcome"] == "confirmed":
        read = OrderConfirmed.model_validate_json(one.value)
        assert read.total_amount == sum((i.quantity * i.unit_price for i in read.items), Decimal(0))
        of_kind = {"total_amount": str(read.total_amount), "items": len(read.items)}
        assert one.effect == {
            "order_id": one.key,
            "outcome": "confirmed",
            "user_id": read.user_id,
            **of_kind,
        }
    elif one.effect:
        refused = OrderRejected.model_validate_json(one.value)
        assert one.effect["codes"] == [str(reason.code) for reason in refused.reasons]
        assert one.effect["retryable"] == refused.retryable


def test_the_records_are_of_many_kinds_and_each_is_explained() -> None:
    names = [one.name for one in OUTCOMES]
    assert len(set(names)) == len(names) >= 20
    shown = (ROOT / "contracts" / "examples" / "README.md").read_text("utf-8")
    assert [name for name in names if f"| {name} |" not in shown] == []


# --- the verdicts ---


def test_a_subscriber_that_does_it_right_has_nothing_wrong() -> None:
    assert wrong(list(RIGHT)) == set()
    assert wrong(list(reversed(RIGHT))) == set(), "topics have no order between them"


def each(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Effects:
    """What is right, each with what the change says of it."""
    return [{**effect, **change(effect)} for effect in RIGHT]


def with_member(name: str) -> set[str]:
    return {one.name for one in OUTCOMES if one.effect and name in one.effect}


MISTAKES: dict[str, tuple[Effects, set[str]]] = {
    "a repeat takes effect": (
        [*RIGHT, {**RIGHT[0]}],
        {"the same again, at another offset"},
    ),
    "known by ce_id alone": (
        [effect for effect in RIGHT if effect["user_id"] != 8],
        {"the same ce_id from another source"},
    ),
    "ids are floats, as in JavaScript": (
        each(lambda effect: {"user_id": int(float(effect["user_id"]))}),
        {"the largest numbers"},
    ),
    "money is a float": (
        each(lambda effect: {"total_amount": float(effect.get("total_amount", 0))}),
        with_member("total_amount"),
    ),
    "1 for true": (
        each(lambda effect: {"retryable": int(effect.get("retryable", False))}),
        with_member("retryable"),
    ),
    "an unknown code is skipped": (
        [effect for effect in RIGHT if "shop_closed" not in effect.get("codes", ())],
        {"a code of tomorrow"},
    ),
    "an unknown kind takes effect": (
        [*RIGHT, {"order_id": of("a kind of event of tomorrow").key, "outcome": "reserved"}],
        {"a kind of event of tomorrow"},
    ),
    "made up": ([*RIGHT, {"order_id": "x"}], {"an effect of no record"}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_wrong_is_named(mistake: str) -> None:
    effects, found = MISTAKES[mistake]
    assert wrong(effects) == found


# --- the command ---

WRITES = """
    codes = [x["code"] for x in e.get("reasons", [])]
    print(json.dumps({"order_id": e["order_id"], "outcome": h["ce_type"][6:], "user_id": e["user_id"],
        "total_amount": e.get("total_amount"), "items": len(e.get("items", [])), "codes": codes,
        "retryable": e.get("retryable")}))
"""
FORGETFUL = f"""
import json, sys
seen = set()
for line in sys.stdin:
    r = json.loads(line); h = dict(r["headers"]); e = json.loads(r["value"])
    if (h["ce_source"], h["ce_id"]) in seen or h["ce_type"] == "order-reserved": continue
    seen.add((h["ce_source"], h["ce_id"])){WRITES}"""


def test_the_python_example_does_it_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--", sys.executable, str(ROOT / "examples" / "subscriber.py")]) == 0
    said = capsys.readouterr().out
    assert said.endswith("27 of 27 are right\n")
    assert "FAILED" not in said


@pytest.mark.parametrize(
    "headers", [None, [], [("ce_type", None), ("ce_id", b"\xff"), ("x", b"\xff")], [("ce_type", b"x")]]
)
def test_the_python_example_passes_over_what_no_worker_wrote(headers: Any) -> None:
    """It stopped there for good."""
    db = sqlite3.connect(":memory:")
    db.executescript(subscriber.TABLES)
    subscriber.take(db, "order-confirmed", 0, 7, subscriber.texts(headers), b"by hand")
    assert db.execute("SELECT topic, part, next FROM positions").fetchall() == [("order-confirmed", 0, 8)]
    assert db.execute("SELECT * FROM effects").fetchall() == []
    db.close()


def test_one_that_remembers_only_while_it_runs_fails_after_the_restart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--", sys.executable, "-c", FORGETFUL]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")]
    assert failed == [
        "FAILED  after a restart: a confirmed order",
        "FAILED  after a restart: a rejected order",
    ]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["/nowhere/subscriber"], "cannot be run: /nowhere/subscriber: No such file or directory"),
        ([sys.executable, "-c", "import sys; sys.exit('broken')"], "ended with 1: broken"),
        ([sys.executable, "-c", "print('no JSON')"], "wrote what is no JSON object: no JSON"),
        ([sys.executable, "-c", "print('[' * 100_000)"], "wrote what is no JSON object: [[["),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "did not end within 1 s of its input's end"),
    ],
    ids=["not there", "ends with an error", "writes no JSON", "nests too deep", "does not end"],
)
def test_a_subscriber_that_cannot_be_judged_is_one_line(
    command: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SubscriberError) as error:
        run(command, OUTCOMES[:1], str(tmp_path), timeout_seconds=1.0)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


# What keeps a subscriber from doing anything twice, beside the identity of events.
KNOWN_BY = {
    "its position": "key, known = (r['topic'], r['partition']), lambda: done.get(key, -1) >= r['offset']",
    "its order id": "key, known = e['order_id'], lambda: key in done",
}
REMEMBERING = f"""
import json, os, pickle, sys
state = os.path.join(os.environ["CONTRACT_KIT_STATE"], "done")
done = pickle.load(open(state, "rb")) if os.path.exists(state) else dict()
for line in sys.stdin:
    r = json.loads(line); h = dict(r["headers"]); e = json.loads(r["value"])
    %s
    identity = h["ce_source"], h["ce_id"]
    if h["ce_type"] == "order-reserved" or known() or identity in done: continue
    done[key] = r["offset"]; done[identity] = 0{WRITES}pickle.dump(done, open(state, "wb"))
"""


@pytest.mark.parametrize("by", KNOWN_BY)
def test_one_that_also_knows_a_record_otherwise_does_it_right(
    by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kit sent a new record before the stored position, and two records of one order id."""
    assert main(["--", sys.executable, "-c", REMEMBERING % KNOWN_BY[by]]) == 0, capsys.readouterr().out


def test_where_a_subscriber_stopped_is_named(tmp_path: Path) -> None:
    stops = "import sys; sys.exit(print(sys.stdin.readline()) or 'broken')"
    with pytest.raises(SubscriberError) as error:
        run([sys.executable, "-c", stops], OUTCOMES[:3], str(tmp_path), 30)
    assert str(error.value) == (
        'ended with 1: broken; the last effect is of "a confirmed order", then comes "a rejected order"'
    )


@pytest.mark.parametrize("shown", ["--list", "--records"])
def test_a_reader_that_has_read_enough_is_no_traceback(shown: str) -> None:
    kit = [sys.executable, "-m", "contracts.kit", shown]
    with subprocess.Popen(kit, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stderr
        running.stdout.close()
        assert (running.stderr.read(), running.wait(30)) == (b"", 141)


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1", "1e9", "x"])
def test_a_time_limit_that_is_none_is_wrong_usage(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as usage:
        main(["--timeout", seconds, "--", "true"])
    assert usage.value.code == 2
    assert (
        f"argument --timeout: must be above 0 and at most 86,400 seconds: {seconds}"
        in capsys.readouterr().err
    )


def test_the_state_folder_is_the_subscribers_own(tmp_path: Path) -> None:
    writes = f"import os, pathlib; pathlib.Path(os.environ['{STATE}'], 'x').touch()"
    one = replace(OUTCOMES[0], effect=None)
    assert [v.why for v in run([sys.executable, "-c", writes], [one], str(tmp_path), 30)] == [""]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_the_records_are_shown_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert OUTCOMES[3].rule in capsys.readouterr().out
    assert main(["--records"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [record(one) for one in OUTCOMES]
    with pytest.raises(SystemExit) as usage:
        main([])
    assert usage.value.code == 2
