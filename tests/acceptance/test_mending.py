"""Dead letters fixed one by one or several fields at a time, and letters that nobody needs to send again."""

import json
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.redriving import assert_each_sent_once, redriven
from tests.support.worker_process import Workers


@pytest.fixture
def dead_letters(order_worker: OrderWorker) -> OrderWorker:
    return order_worker.of("dead-letters")


@pytest.fixture(autouse=True)
def worker_runs(scene: Scene, workers: Workers) -> None:
    scene.shop.stock_up({1: 100, 2: 100})
    workers.start().wait_until_ready()


def test_letters_with_two_wrong_fields_are_mended_by_options_or_by_a_file(
    scene: Scene, dead_letters: OrderWorker, tmp_path: Path
):
    ids = [uuid4() for _ in range(4)]
    broken = [{**line(1), "quantity": "1"}, {**line(2), "quantity": "1"}]
    scene.place([order_value(*broken, order_id=i, user_id="7") for i in ids[:2]], partition=0)  # type: ignore[arg-type]
    scene.place([order_value(line(1, 0), order_id=ids[2]), b"{"], partition=1)
    eventually(lambda: len(scene.dead_letters()) == 4)

    both = ("--set", "user_id=7", "--set", "items.*.quantity=2")
    one = dead_letters("redrive", "0:0", "0:1", "--set", "user_id=7")
    one.assert_one_line(
        1, "0:0: --set user_id makes it no order", "items.0.quantity", "0:1: ", "nothing was sent"
    )
    missing = dead_letters.here("redrive", "0:0", "--set", "items.5.quantity=1")
    missing.assert_one_line(1, "0:0: the value has no items.5", "nothing was sent")
    dead_letters.here("redrive", "--set", "a=1", "--set", "a=2").assert_one_line(2, "--set a is given twice")
    rehearsed = dead_letters.here("redrive", "0:0", "0:1", *both, "--json").document
    assert rehearsed["expected"] == [
        {"fate": "confirmed", "why": "", "letters": 2, "samples": ["0:0", "0:1"]}
    ]
    assert [c["old"] for c in rehearsed["selection"]["changes"][:2]] == ['"7"', '["1", "1"]']
    assert redriven(scene) == []
    done = dead_letters.here("redrive", "0:0", "0:1", *both, "--execute", "--json").document
    assert done["results"] == {"decided": 2}
    shown = dead_letters.here("show", "0:0").out
    assert 'user_id: "7" → 7, items.*.quantity: ["1", "1"] → 2, sent as 0:' in shown
    assert f"{ids[0]}: confirmed" in shown

    path = tmp_path / "fixed.jsonl"
    whole = order_value(line(2, 3), order_id=ids[3]).decode()
    sound = {"place": "1:0", "set": {"items.0.quantity": 4}}
    from_file = ("redrive", "--from-file", str(path))
    for bad, said in (
        ({"place": "1:1", "set": {"user_id": 7}}, f"{path}:2: 1:1: the value is not JSON"),
        ({"place": "1:1", "value": {"order_id": "x"}}, f"{path}:2: 1:1: its new value makes it no order"),
        ({"place": "1:99", "value": whole}, f"{path}:2: 1:99: no dead letter is there"),
    ):
        path.write_text(f"{json.dumps(sound)}\n{json.dumps(bad)}\n")
        dead_letters.here(*from_file, "--execute").assert_one_line(1, said)
    assert len(redriven(scene)) == 2, "nothing is sent where one line is bad"
    dead_letters.here(*from_file, "1:0").assert_one_line(2, "--from-file names the dead letters")

    path.write_text(f"{json.dumps(sound)}\n" + json.dumps({"place": "1:1", "value": whole, "error": {}}))
    assert "confirmed" in dead_letters.here(*from_file).done().out
    done = dead_letters.here(*from_file, "--execute", "--json").document
    assert done["results"] == {"decided": 2}
    assert_each_sent_once(scene)
    sent = {m.event["order_id"]: m for m in redriven(scene)}
    assert sent[str(ids[3])].value == whole.encode()
    assert sent[str(ids[3])].key == str(ids[3]).encode()
    assert scene.shop.stock() == {1: 100 - 2 * 2 - 4, 2: 100 - 2 * 2 - 3}
    dead_letters.here(*from_file, "--execute").assert_one_line(1, "2 redriven before")


def test_what_is_settled_or_cannot_succeed_is_sent_only_on_request(scene: Scene, dead_letters: OrderWorker):
    order_id = uuid4()
    scene.place([order_value(line(1, quantity), order_id=order_id) for quantity in (1, 2)], partition=0)
    scene.place([order_value(line(1, 0), order_id=order_id), b"{"], partition=1)
    eventually(lambda: len(scene.dead_letters()) == 3)
    groups = {g["code"]: g for g in dead_letters.here("list", "--json").document}
    assert groups["order_id_conflict"]["decided"] == groups["invalid_order"]["decided"] == {"confirmed": 1}
    assert (groups["not_json"]["decided"], groups["not_json"]["settled"]) == ({}, 0)
    assert dead_letters.here("list").out.count("1 confirmed since") == 2
    rehearsed = dead_letters.here("redrive", "--json").document
    assert (rehearsed["selection"]["letters"], rehearsed["selection"]["conflicts"]) == (2, 1)
    assert {(e["fate"], e["why"]) for e in rehearsed["expected"]} == {
        ("dead_letter", "invalid_order at items.0.quantity"),
        ("dead_letter", "not_json"),
    }
    for asked in (("0:0",), ("--code", "order_id_conflict")):
        (expected,) = dead_letters.here("redrive", *asked, "--json").document["expected"]
        assert (expected["fate"], expected["why"]) == ("dead_letter", "order_id_conflict")

    dead_letters.here("settle").assert_one_line(2, "name the dead letters to settle")
    dead_letters.here("settle", "0:0", "--execute").assert_one_line(2, "--note is missing")
    dead_letters.here("settle", "0:7", "--note", "x").assert_one_line(1, "0:7: no dead letter is there")
    rehearsal = dead_letters.here("settle", "0:0").done().out
    assert str(order_id) in rehearsal
    assert (
        "Nothing was changed. To settle 1 dead letter: order-worker dead-letters settle 0:0 --note"
        in rehearsal
    )
    assert scene.shop.value("SELECT count(*) FROM settled_letters") == 0
    settle = ("settle", "0:0", "1:1", "--note", "sent again, see 4711", "--by", "ada", "--execute")
    assert "On record: 2 dead letters settled by ada: sent again" in dead_letters.here(*settle).done().out
    dead_letters.here(*settle).assert_one_line(1, "nothing to settle: 2 settled already")
    (who,) = scene.shop.sql("SELECT DISTINCT requested_by, note FROM settled_letters")
    assert tuple(who) == ("ada", "sent again, see 4711")

    listed = dead_letters.here("list", "--json")
    assert [g["code"] for g in listed.document] == ["invalid_order"]
    assert "2 settled, and left out" in listed.err
    assert [g["settled"] for g in dead_letters.here("list", "--settled", "--json").document] == [0, 1, 1]
    assert "by ada: sent again, see 4711" in dead_letters.here("show", "0:0").out
    assert dead_letters.here("redrive", "--json").document["selection"]["settled"] == 2
    assert dead_letters.here("redrive", "--settled", "--json").document["selection"]["letters"] == 2
    assert dead_letters.here("redrive", "1:1", "--json").document["selection"]["letters"] == 1
