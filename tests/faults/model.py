"""Checks every decision of a run against the rule, from what can be seen outside of the worker.

It shares no code with the worker. What it accepts are exactly the results that some one-at-a-time run gives:

1. Transactions follow each other in the order of their commits. One that takes stock, or rejects for lack of
   it, holds the product's row until its commit, so that this is the order in which they met the stock.
2. Within a transaction each partition's orders were decided in one run, in offset order. The order of the
   runs is stored nowhere, and none is promised: any of them is right. (The physical order of the rows in
   `orders` would show it most of the time; but COPY fills gaps that rolled-back batches left, so that a model
   built on it could accuse an innocent worker.) It is therefore searched for.
3. What a set of runs takes does not depend on their order. So the search goes over sets, not over orders: it
   adds one run after the other, each decision measured by the stock which the set so far and the run's own
   earlier orders leave, and continues where least is wrong. It ends with the set of all runs: with nothing
   wrong exactly if some order makes every decision right, else with the fewest accusations that any order
   allows. For n partitions in one batch it looks at n sets when nothing misleads it, at 2ⁿ at most.
4. However a transaction was ordered, it leaves the same stock, so that no doubt reaches the next one.

What does not depend on stock (users, products, prices, totals) is checked apart: prices never change here.
A transaction with a wrong decision still takes what it took: the next is measured by what was really there.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from heapq import heappop, heappush
from itertools import count, groupby
from uuid import UUID

from tests.faults.decisions import (
    CONFIRMED,
    INSUFFICIENT_STOCK,
    PRICE_CHANGED,
    REJECTED,
    UNKNOWN_PRODUCT,
    UNKNOWN_USER,
    Decided,
    Line,
    Placed,
    Reason,
    Start,
)


def find_violations(decided: Iterable[Decided], orders: Mapping[UUID, Placed], start: Start) -> list[str]:
    """A sentence for each decision that no one-at-a-time run could have come to. Empty: all is right."""
    in_turn = sorted(decided, key=lambda one: one.commit_order)
    return list(stream_violations(in_turn, orders.get, start))


def stream_violations(
    in_turn: Iterable[Decided], order_of: Callable[[UUID], Placed | None], start: Start
) -> Iterator[str]:
    """The same of decisions in the order of their commits, with no more than one transaction in memory."""
    stock = Counter(start.stock)
    last: dict[int, Decided] = {}
    for _, transaction in groupby(in_turn, key=lambda one: one.commit_order):
        known = []
        for one in sorted(transaction, key=lambda one: (one.source_partition, one.source_offset)):
            order = order_of(one.order_id)
            if order is None:
                yield f"{one} was decided, but nobody placed it"
                continue
            known.append((one, order.wanted()))
            yield from _wrong_whatever_the_stock(one, order, start)
            yield from _out_of_turn(one, last)
        runs = [_Run(list(run)) for _, run in groupby(known, key=lambda pair: pair[0].source_partition)]
        yield from _wrong_in_any_order(runs, stock, frozenset(start.stock))
        for run in runs:
            stock.subtract(run.takes)


# What does not depend on stock ------------------------------------------------------------------------


def _wrong_whatever_the_stock(one: Decided, order: Placed, start: Start) -> Iterator[str]:
    if one.user_id != order.user_id:
        yield f"{one} names user {one.user_id}, and user {order.user_id} placed it"
    expected = Counter(_lasting_reasons(order, start))
    if one.outcome == CONFIRMED:
        yield from (f"{one} was confirmed against: {reason}" for reason in expected)
        yield from _wrong_bill(one, order, start)
    elif one.outcome == REJECTED:
        given = Counter(reason for reason in one.reasons if reason.code != INSUFFICIENT_STOCK)
        yield from _difference(one, given, expected)
        if not one.reasons:
            yield f"{one} was rejected without a reason"
        if one.retryable != all(reason.code == INSUFFICIENT_STOCK for reason in one.reasons):
            yield f"{one} says retryable={one.retryable}, which its reasons contradict"
    else:
        yield f"{one} has the unknown outcome {one.outcome!r}"


def _lasting_reasons(order: Placed, start: Start) -> Iterator[Reason]:
    """What stands against the order at any time, each once, however many lines say it."""
    if order.user_id not in start.users:
        yield Reason(UNKNOWN_USER)
    for product_id in order.wanted():
        if product_id not in start.stock:
            yield Reason(UNKNOWN_PRODUCT, product_id)
    for product_id, price in {(line.product_id, line.price) for line in order.lines}:
        current = start.prices.get(product_id)
        if current is not None and price is not None and price != current:
            yield Reason(PRICE_CHANGED, product_id, expected=price, current=current)


def _wrong_bill(one: Decided, order: Placed, start: Start) -> Iterator[str]:
    due = tuple(Line(i.product_id, i.quantity, start.prices.get(i.product_id)) for i in order.lines)
    if one.lines != due:
        yield f"{one} was sold as {one.lines}, not as {due}"
    total = sum((i.price * i.quantity for i in due if i.price is not None), Decimal(0))
    if one.total != total:
        yield f"{one} costs {one.total}, not {total}"


def _difference(one: Decided, given: Counter[Reason], expected: Counter[Reason]) -> Iterator[str]:
    yield from (f"{one} does not list the reason: {reason}" for reason in expected - given)
    yield from (f"{one} lists a wrong reason: {reason}" for reason in given - expected)


# What depends on the order of decisions -------------------------------------------------------------------


def _out_of_turn(one: Decided, last: dict[int, Decided]) -> Iterator[str]:
    """First come, first served, also from one transaction to the next."""
    before = last.setdefault(one.source_partition, one)
    if one.source_offset < before.source_offset:
        yield f"{one} was decided only after {before}, which came later"
    else:
        last[one.source_partition] = one


class _Run:
    """The decisions of one partition in one transaction, in offset order."""

    def __init__(self, decided: Sequence[tuple[Decided, Counter[int]]]) -> None:
        self._decided = decided  # each with what its order wants
        self.takes: Counter[int] = Counter()
        for one, wanted in self._decided:
            if one.outcome == CONFIRMED:
                self.takes.update(wanted)

    def wrong(self, stock: Mapping[int, int], products: frozenset[int]) -> Iterator[str]:
        """What is wrong with the decisions if `stock` was there before the first of them."""
        left = Counter(stock)
        for one, wanted in self._decided:
            short = Counter(
                Reason(INSUFFICIENT_STOCK, product_id, requested, left[product_id])
                for product_id, requested in wanted.items()
                if product_id in products and requested > left[product_id]
            )
            if one.outcome == CONFIRMED:
                yield from (f"{one} was confirmed against: {reason}" for reason in short)
                left.subtract(wanted)
            else:
                given = Counter(reason for reason in one.reasons if reason.code == INSUFFICIENT_STOCK)
                yield from _difference(one, given, short)


def _wrong_in_any_order(runs: Sequence[_Run], stock: Counter[int], products: frozenset[int]) -> list[str]:
    """Nothing if some order of the runs makes all decisions right; else what is wrong in the best of them."""
    everything = frozenset(range(len(runs)))
    ticket = count()  # so that no two entries are compared further than that
    queue: list[tuple[int, int, int, frozenset[int], list[str]]] = [(0, 0, next(ticket), frozenset(), [])]
    seen: set[frozenset[int]] = set()
    while True:
        _, _, _, done, wrong = heappop(queue)
        if done == everything:
            return wrong
        if done in seen:
            continue
        seen.add(done)
        left = _left(stock, runs, done)
        for n in everything - done:
            more = [*wrong, *runs[n].wrong(left, products)]
            # The least wrong first, and of these the furthest: with nothing wrong straight to the end.
            heappush(queue, (len(more), -len(done), next(ticket), done | {n}, more))


def _left(stock: Counter[int], runs: Sequence[_Run], done: Iterable[int]) -> Counter[int]:
    left = Counter(stock)
    for n in done:
        left.subtract(runs[n].takes)
    return left
