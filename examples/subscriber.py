"""A subscriber in which each outcome takes effect once, whatever is killed, republished or read again.

python examples/subscriber.py 127.0.0.1:9092 order-confirmed order-rejected    # pip install confluent-kafka
python -m contracts.kit -- python examples/subscriber.py     # the contract's own test
"""

import json
import os
import sqlite3
import sys
from typing import Any, cast

STATE = os.path.join(os.environ.get("CONTRACT_KIT_STATE", ""), "subscriber.db")
TABLES = """
CREATE TABLE IF NOT EXISTS seen (source, id, PRIMARY KEY (source, id));
CREATE TABLE IF NOT EXISTS positions (topic, part, next, PRIMARY KEY (topic, part));
CREATE TABLE IF NOT EXISTS effects (effect)"""


def effect_of(kind: str, value: str | bytes) -> dict[str, Any] | None:
    """What the outcome does here. None: we do not know that kind. Unknown fields are skipped."""
    if kind not in ("order-confirmed", "order-rejected"):
        return None
    event = json.loads(value)
    effect = {name: event[name] for name in ("order_id", "user_id")}
    effect["outcome"] = kind.removeprefix("order-")
    if kind == "order-confirmed":
        return {**effect, "total_amount": event["total_amount"], "items": len(event["items"])}
    codes = [reason["code"] for reason in event["reasons"]]  # an open list: also one of tomorrow
    return {**effect, "codes": codes, "retryable": event["retryable"]}


def take(db: sqlite3.Connection, topic: str, part: int, offset: int, headers: Any, value: Any) -> None:
    """Do what the outcome asks for, unless it is known: effect, identity and position in one transaction."""
    effect = None
    with db:
        identity = (headers.get("ce_source", ""), headers.get("ce_id", ""))
        is_new = db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", identity).rowcount
        if is_new and (effect := effect_of(headers.get("ce_type", ""), value)):
            db.execute("INSERT INTO effects VALUES (?)", (json.dumps(effect),))
        db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", (topic, part, offset + 1))
    if effect:  # behind the commit: killed before it, the effect comes again, and its line with it
        print(json.dumps(effect), flush=True)


def texts(headers: Any) -> dict[str, str]:
    """The headers as text. A record that no worker wrote may have none, and is of no kind then."""
    return {name: (value or b"").decode(errors="replace") for name, value in headers or ()}


def read_kafka(db: sqlite3.Connection, bootstrap_servers: str, *topics: str) -> None:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    def resume(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for p in partitions:
            place = (p.topic, p.partition)
            known = db.execute("SELECT next FROM positions WHERE (topic, part) = (?, ?)", place)
            p.offset = next(known, (OFFSET_BEGINNING,))[0]
        consumer.assign(partitions)

    options = {
        "bootstrap.servers": bootstrap_servers,
        "group.id": "subscriber",  # shares partitions out; our positions count
        "session.timeout.ms": 6_000,  # how soon one that was killed gives its partitions to the others
        "isolation.level": "read_committed",  # librdkafka's default; others read what is never committed
        "enable.auto.commit": False,
        "auto.offset.reset": "error",  # outcomes were deleted before they were read: find out why
    }
    consumer = Consumer(options)
    consumer.subscribe(list(topics), on_assign=resume)
    while True:
        if r := cast("Any", consumer.poll(1.0)):
            if r.error():
                sys.exit(f"error: {r.error()}")
            take(db, r.topic(), r.partition(), r.offset(), texts(r.headers()), r.value())


if __name__ == "__main__":
    database = sqlite3.connect(STATE)
    database.executescript(TABLES)
    if sys.argv[1:]:
        read_kafka(database, *sys.argv[1:])
    for record in map(json.loads, sys.stdin):
        headers = dict(record["headers"])
        take(database, record["topic"], record["partition"], record["offset"], headers, record["value"])
