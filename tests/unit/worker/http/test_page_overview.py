"""What the overview makes of what the sources return."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from aiokafka import ConsumerRecord

from tests.support.builders import record
from worker.http.page.cached_query import Panel
from worker.http.page.overview import (
    Count,
    Rejections,
    StoredOrders,
    letter_groups,
    outcomes,
    own_counts,
    rejections,
    stored_orders,
)
from worker.http.page.tail import Tail

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def rejection(
    decided_at: datetime, *codes: str, order_id: UUID | None = None, **place: Any
) -> ConsumerRecord[Any, Any]:
    reasons = [{"code": code, "product_id": 7} for code in codes or ("unknown_product",)]
    event = {
        "order_id": str(order_id or uuid4()),
        "user_id": 1,
        "reasons": reasons,
        "retryable": False,
        "placed_at": NOON.isoformat(),
        "decided_at": decided_at.isoformat(),
    }
    return record(json.dumps(event).encode(), topic="order-rejected", **place)


def tail(*records: ConsumerRecord[Any, Any], cut: tuple[int, ...] = (), read_from: int = 0) -> Tail:
    return Tail(records, {0: read_from, 1: read_from}, frozenset(cut))


def decided(orders: list[tuple[datetime, int]], answer: Rejections, at_most: int = 1_000) -> dict[str, Any]:
    found = outcomes(after(10), Panel(stored_orders(orders, at_most)), Panel(answer))
    return {count.name: count.number for count in (*found.decided, *found.reasons)}


def test_an_order_published_twice_is_one_rejection_and_the_newest_is_first():
    order_id = uuid4()
    found = rejections(
        tail(
            rejection(after(1), order_id=order_id, offset=9),
            rejection(after(2), offset=7),
            rejection(after(1), order_id=order_id, offset=5),
            record(b"no event", offset=3),
        )
    )
    assert [r.decided_at for r in found.latest] == [after(2), after(1)]
    assert (found.strange, found.whole_after, found.blind) == (1, None, False)


def test_of_many_reasons_few_are_reported_and_the_rest_is_counted():
    (one,) = rejections(tail(rejection(NOON, *["unknown_product"] * 5, "unknown_user"))).latest
    assert one.reasons == (*["there was no product 7"] * 3, "3 more")
    assert one.codes == ("unknown_product", "unknown_user")


def test_confirmed_and_rejected_are_counted_over_the_same_time():
    orders = [(after(5), 3), (after(4), 2), (after(-3_700), 100)]
    all_told = rejections(tail(rejection(after(4.5), "unknown_user", "unknown_product")))
    assert decided(orders, all_told) == {
        "confirmed": 5,
        "rejected": 1,
        "unknown_user": 1,
        "unknown_product": 1,
    }
    # Partition 1 has older rejections than were read: what is before 4.5 is not known of it.
    cut = rejections(
        tail(
            rejection(after(5.2), offset=4, partition=1),
            rejection(after(4.5), offset=3, partition=1),
            rejection(after(1), offset=3),
            cut=(1,),
        )
    )
    assert decided(orders, cut) == {"confirmed": 3, "rejected": 1, "unknown_product": 1}
    # The orders are cut: of the last second some may be missing.
    assert decided(orders[:2], all_told, at_most=5) == {"confirmed": 3, "rejected": 0}


def test_what_lies_before_a_gap_says_nothing_about_the_time_between():
    found = rejections(
        tail(rejection(after(9), offset=12), rejection(after(1), offset=5), cut=(0,), read_from=10)
    )
    assert found.whole_after == after(9)


def test_a_partition_of_which_nothing_could_be_read_leaves_the_number_open():
    found = rejections(tail(rejection(after(9), offset=12), cut=(0, 1)))
    assert found.blind
    answer = outcomes(after(10), Panel(StoredOrders(((after(5), 3),), None)), Panel(found))
    assert answer.decided == (Count("confirmed", 3), Count("rejected", None))
    assert answer.troubles == ("the newest rejections are too large, or too strange, to be counted here",)


def test_one_server_away_leaves_the_other_ones_number():
    away: Panel[Any] = Panel(None, "the database: connection refused")
    answer = outcomes(after(10), away, Panel(rejections(tail(rejection(after(1))))))
    assert answer.decided == (Count("confirmed", None), Count("rejected", 1))
    assert answer.troubles == ("the database: connection refused",)
    nobody = outcomes(after(10), away, Panel(None, "Kafka: no answer within 2 s"))
    assert [count.number for count in nobody.decided] == [None, None]
    assert (nobody.since, nobody.cut) == (after(-3_589), False)


def test_dead_letters_are_grouped_and_the_newest_is_the_sample():
    def letter(offset: int, path: bytes) -> ConsumerRecord[Any, Any]:
        headers = (("error.code", b"invalid_order"), ("error.path", path))
        return record(b"{}", offset=offset, topic="order-placed-dlt", headers=headers)

    found = letter_groups(tail(letter(9, b"items.3.quantity"), letter(4, b"items.0.quantity"), cut=(0,)))
    (group,) = found.groups
    assert (group.count, group.path, group.sample) == (2, "items.*.quantity", "0:9")
    assert (found.read, found.cut) == (2, True)


def test_a_worker_shows_what_it_counted_and_of_the_rest_only_what_happened():
    name = "order_worker_dead_letters_total"
    assert own_counts([(name, 2.0), (name, 3.0), ("order_worker_batches_total", 0.0)]) == (
        Count("confirmed", 0),
        Count("rejected", 0),
        Count("dead letters", 5),
    )
