"""The records of a run, the same bytes for the same seed: valid orders, and what goes wrong upstream.

Shares are of the sound orders, and exact to one record. There is more demand than stock: decided in about
this order, a third of the orders are rejected for it. Nothing here knows the worker.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import cycle
from random import Random
from typing import Any, Final
from uuid import UUID

from contracts.events import DeadLetterCode
from contracts.examples import hostile_values
from tests.support.builders import line, order_value

DUPLICATES: Final = 0.05
CONFLICTS: Final = 0.02
POISON: Final = 0.02
NULL_HEADERS: Final = 0.05
FOREIGN_HEADERS: Final = 0.05  # values that are not UTF-8
UNKNOWN: Final = 0.01  # of users, and as many of products
WRONG_PRICES: Final = 0.01
SEEN_PRICES: Final = 0.2
REPEATED: Final = 0.05  # orders that name one product twice, whose lines count together
OVER: Final = 0.02  # orders whose two lines of the scarce product fit alone, and together never do
HOT: Final = 0.3  # orders that name the hot product
HOT_PRODUCT: Final = 1
SCARCE_PRODUCT: Final = 26  # the last product; never sold: every order of it wants one more than there is
PRICE: Final = "2.50"  # of every product

_PRODUCTS: Final = 25
_USERS: Final = 50
_HOT_STOCK: Final = 0.5  # parts of the demand
_OTHER_STOCK: Final = 0.65
_SCARCE_STOCK: Final = 3
_LARGEST_POISON: Final = 300_000  # enough to be too large; a megabyte each would test the network
_NOT_UTF8: Final = b"\xff\xfe\xc3("

Headers = tuple[tuple[str, bytes | None], ...]


class Kind(StrEnum):
    ORDER = "order"
    DUPLICATE = "duplicate"  # the very same record again, on the same or on another partition
    CONFLICT = "conflict"  # the id of an order before it on its partition, with another content
    POISON = "poison"


@dataclass(frozen=True)
class Record:
    """One record to publish. `code` is what its dead letter must say, None where there must be none."""

    kind: Kind
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    order_id: UUID | None
    code: str | None


@dataclass(frozen=True)
class Workload:
    """`products` (id → initial stock) and users 1 to `users` exist; `records` are in order of publication."""

    products: dict[int, int]
    users: int
    records: list[Record]

    @property
    def orders(self) -> dict[UUID, bytes]:
        """The content of each sound order by its id: these, and no others, are to be decided."""
        sound = [r for r in self.records if r.kind is Kind.ORDER]
        return {r.order_id: r.value for r in sound if r.order_id is not None and r.value is not None}


def make_workload(seed: int, orders: int, partitions: int) -> Workload:
    """A workload of that many sound orders, over partitions 0 to `partitions` − 1."""
    chance = Random(seed)
    sound = _sound_orders(chance, orders, partitions)
    placed = [
        *enumerate(sound),
        *_duplicates(chance, sound, partitions),
        *_conflicts(chance, sound),
        *_poison(chance, sound, partitions),
    ]
    records = [record for _, record in sorted(placed, key=lambda where: where[0])]
    return Workload(_stock(sound), _USERS, records)


Placed = Iterator[tuple[float, Record]]  # the n-th sound order is at n, the others are between them


def _sound_orders(chance: Random, count: int, partitions: int) -> list[Record]:
    hot, repeated, over, null, foreign, seen, wrong, nobody, nothing = (
        _some(chance, count, share)
        for share in (
            HOT,
            REPEATED,
            OVER,
            NULL_HEADERS,
            FOREIGN_HEADERS,
            SEEN_PRICES,
            WRONG_PRICES,
            UNKNOWN,
            UNKNOWN,
        )
    )
    records = []
    for n in range(count):
        items = _items(chance, hot=n in hot, seen=n in seen)
        if n in repeated:
            again = next(item["product_id"] for item in items if item["product_id"] != HOT_PRODUCT)
            items.append(line(again, chance.randint(1, 5)))
        if n in over:
            items += [line(SCARCE_PRODUCT, _SCARCE_STOCK), line(SCARCE_PRODUCT, 1)]
        if n in wrong:
            items[-1]["unit_price"] = chance.choice(["2.49", "0.00", "99999999.99"])
        if n in nothing:
            items.append(line(chance.choice([SCARCE_PRODUCT + 1, 10**6, 2**63 - 1])))
        user_id = chance.choice([_USERS + 1, 2**63 - 1]) if n in nobody else chance.randint(1, _USERS)
        order_id = UUID(int=chance.getrandbits(128), version=4)
        value = order_value(*items, order_id=order_id, user_id=user_id)
        headers = _headers(chance, null=n in null, foreign=n in foreign)
        partition = chance.randrange(partitions)
        key = str(order_id).encode()
        records.append(Record(Kind.ORDER, partition, key, value, headers, order_id, None))
    return records


def _items(chance: Random, *, hot: bool, seen: bool) -> list[dict[str, Any]]:
    """Some lines; now and then a product is named twice."""
    products = [chance.randint(HOT_PRODUCT + 1, _PRODUCTS) for _ in range(chance.randint(1, 3))]
    if hot:
        products.insert(chance.randint(0, len(products)), HOT_PRODUCT)
    prices = [PRICE, "2.5"] if seen else [None]  # the same price, whichever way it is written
    return [line(p, chance.randint(1, 5), chance.choice(prices)) for p in products]


def _headers(chance: Random, *, null: bool, foreign: bool) -> Headers:
    headers: list[tuple[str, bytes | None]] = [("correlation_id", b"%016x" % chance.getrandbits(64))]
    names = ["correlation_id", "traceparent", "content-type", "ce_id", "note"]
    if null:
        headers.append((chance.choice(names), None))
    if foreign:
        headers.append((chance.choice(names), _NOT_UTF8))
    chance.shuffle(headers)
    return tuple(headers)


def _duplicates(chance: Random, sound: list[Record], partitions: int) -> Placed:
    chosen = chance.sample(range(len(sound)), round(DUPLICATES * len(sound)))
    for i, n in enumerate(chosen):
        original = sound[n]
        elsewhere = (original.partition + chance.randrange(1, max(partitions, 2))) % partitions
        partition = original.partition if i % 2 else elsewhere
        yield _later(chance, n, len(sound)), replace(original, kind=Kind.DUPLICATE, partition=partition)


def _conflicts(chance: Random, sound: list[Record]) -> Placed:
    # On the partition of the original: elsewhere it could be decided first, and be the original then.
    for n in chance.sample(range(len(sound)), round(CONFLICTS * len(sound))):
        original = sound[n]
        value = json.dumps(_changed(chance, json.loads(original.value or b""))).encode()
        code = DeadLetterCode.ORDER_ID_CONFLICT.value
        record = replace(original, kind=Kind.CONFLICT, value=value, headers=(), code=code)
        yield _later(chance, n, len(sound)), record


def _changed(chance: Random, order: dict[str, Any]) -> dict[str, Any]:
    match chance.randrange(3):
        case 0:
            order["items"][0]["quantity"] += 1
        case 1:
            order["user_id"] = order["user_id"] % _USERS + 1
        case _:
            order["items"].append(line(chance.randint(1, _PRODUCTS)))
    return order


def _later(chance: Random, n: int, count: int) -> float:
    """Half of them soon, mostly into the batch of their original; half at any time."""
    return n + chance.uniform(0.1, 20.0 if chance.random() < 0.5 else max(count - n, 1))


def _poison(chance: Random, sound: list[Record], partitions: int) -> Placed:
    kinds = _own_poison(chance.choice(sound).value or b"")
    others = [(h.value, h.code) for h in hostile_values()]
    chance.shuffle(others)
    # Our own values first, so that a run of enough records has each kind.
    count = range(round(POISON * len(sound)))
    keys = cycle([None, b"", b"poison", _NOT_UTF8])  # and so the first has neither key nor value
    for _, (value, code), key in zip(count, cycle([*kinds, *others]), keys, strict=False):
        cut = None if value is None else value[:_LARGEST_POISON]
        headers = _headers(chance, null=chance.random() < 0.2, foreign=chance.random() < 0.2)
        record = Record(Kind.POISON, chance.randrange(partitions), key, cut, headers, None, code.value)
        yield chance.uniform(0, len(sound)), record


def _own_poison(sound: bytes) -> list[tuple[bytes | None, DeadLetterCode]]:
    """One of each kind, made of a sound order: none of them may be taken for it."""
    not_json, invalid = DeadLetterCode.NOT_JSON, DeadLetterCode.INVALID_ORDER
    quantity, unknown = b'"quantity": ', b', "was": '
    return [
        (None, DeadLetterCode.EMPTY_VALUE),
        (sound[: len(sound) // 2], not_json),
        (sound.replace(b'"user_id"', b'"user\x00id"'), not_json),
        (sound.replace(b'"order_id": "', b'"order_id": "\\u0000'), invalid),
        (sound.replace(quantity, quantity + b"NaN" + unknown, 1), not_json),
        (sound.replace(quantity, quantity + b"9" * 4_000, 1), invalid),
        (sound.replace(quantity, quantity + b"1e400" + unknown, 1), invalid),
        (sound[:-1] + b', "note": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", not_json),
        (sound.replace(b'"user_id": ', b'"user_id": true' + unknown), invalid),
        (sound.replace(b'"items": ', b'"items": {}' + unknown), invalid),
        (sound + b" " * _LARGEST_POISON, DeadLetterCode.TOO_LARGE),
    ]


def _stock(sound: Iterable[Record]) -> dict[int, int]:
    demand = dict.fromkeys(range(1, _PRODUCTS + 1), 0)
    for record in sound:
        for item in json.loads(record.value or b"")["items"]:
            if item["product_id"] in demand:
                demand[item["product_id"]] += item["quantity"]
    stock = {p: int(n * (_HOT_STOCK if p == HOT_PRODUCT else _OTHER_STOCK)) for p, n in demand.items()}
    return {**stock, SCARCE_PRODUCT: _SCARCE_STOCK}


def _some(chance: Random, count: int, share: float) -> frozenset[int]:
    return frozenset(chance.sample(range(count), round(share * count)))
