"""The soak's pure parts: orders that can be made again from their index, and what compares outcomes."""

import json
from collections import Counter
from uuid import UUID
from xml.etree import ElementTree

import pytest

from tests.faults.soak.feed import SEASON, SEASONAL_PRODUCTS, STOCK, Stream, index
from tests.faults.soak.verdict import Findings, Outcomes
from tests.faults.soak.watch import Sample, picture, slope_per_hour
from tests.faults.workload import Kind
from worker.core.decode import Decoded, Invalid, decode

COUNT = 4_000
STREAM = Stream(7, 4)
RECORDS = [record for n in range(COUNT) for record in STREAM.records(n)]


def test_an_order_is_the_same_bytes_whenever_it_is_asked_for():
    assert [record for n in range(COUNT) for record in Stream(7, 4).records(n)] == RECORDS
    assert Stream(8, 4).order(5).value != STREAM.order(5).value


@pytest.mark.parametrize("n", [0, 1, 77, 10**7])
def test_an_order_is_found_by_its_id(n: int):
    order = STREAM.order(n)
    assert order.order_id is not None
    assert index(order.order_id) == n
    assert STREAM.find(order.order_id) == order


def test_no_order_is_found_by_an_id_of_another_stream():
    other = Stream(8, 4).order(5).order_id
    assert other is not None
    assert STREAM.find(other) is None
    assert STREAM.find(UUID(int=5)) is None


def test_every_order_is_sound_and_all_poison_is_none():
    for record in RECORDS:
        decoded = decode(record.value, 256 * 1024)
        if record.kind is Kind.POISON:
            assert isinstance(decoded, Invalid)
            assert decoded.code.value == record.code
        else:
            assert isinstance(decoded, Decoded)
            assert decoded.order.order_id == record.order_id


def test_duplicates_conflicts_and_poison_come_in_their_shares():
    kinds = Counter(record.kind for record in RECORDS)
    assert kinds[Kind.ORDER] == COUNT
    assert 0.007 < kinds[Kind.DUPLICATE] / COUNT < 0.013
    assert 0.003 < kinds[Kind.CONFLICT] / COUNT < 0.007
    assert 0.003 < kinds[Kind.POISON] / COUNT < 0.008


def test_a_conflict_follows_its_original_on_its_partition_with_other_content():
    first = {}
    for record in RECORDS:
        if record.kind is Kind.ORDER:
            first[record.order_id] = record
        elif record.kind is Kind.CONFLICT:
            original = first[record.order_id]
            assert (record.partition, record.key) == (original.partition, original.key)
            assert json.loads(record.value or b"") != json.loads(original.value or b"")


def test_about_a_third_of_a_season_finds_its_product_sold_out():
    product = SEASONAL_PRODUCTS[1]
    stock, rejected = STOCK[product], 0
    for n in range(SEASON, 2 * SEASON):
        items = json.loads(STREAM.order(n).value or b"")["items"]
        wanted = sum(i["quantity"] for i in items if i["product_id"] == product)
        rejected += wanted > stock
        stock -= wanted if wanted <= stock else 0
    assert 0.28 < rejected / SEASON < 0.38
    assert stock == 0


def test_the_slope_of_a_line_is_per_hour_and_its_first_quarter_does_not_count():
    line = [(float(x), 100 + x / 360) for x in range(0, 1_000, 5)]
    assert slope_per_hour(line) == pytest.approx(10)
    assert slope_per_hour([(x, 0.0) if x < 250 else (x, y) for x, y in line]) == pytest.approx(10)
    assert slope_per_hour(line[:1]) == 0


def everything_right() -> tuple[Outcomes, Findings]:
    findings = Findings()
    outcomes = Outcomes(3, findings)
    for n in range(2):
        outcomes.decide(n, "confirmed", b"event %d" % n)
        outcomes.add_published(n, "confirmed", b"event %d" % n)
    return outcomes, findings


def rest(outcomes: Outcomes, decided: bytes | None, *published: tuple[str, bytes]) -> None:
    if decided is not None:
        outcomes.decide(2, "rejected", decided)
    for outcome, event in published:
        outcomes.add_published(2, outcome, event)


@pytest.mark.parametrize(
    ("decided", "published", "found"),
    [
        (b"event", [("rejected", b"event")], None),
        (None, [], "1 placed and never decided: order 2"),
        (b"event", [], "1 decided and never published: order 2"),
        (b"event", [("rejected", b"event"), ("rejected", b"event")], "1 published more than once: order 2"),
        (b"event", [("rejected", b"other")], "1 published in other bytes than the ledger's: order 2"),
        (b"event", [("confirmed", b"event")], "1 published in other bytes than the ledger's: order 2"),
    ],
)
def test_an_outcome_that_is_missing_doubled_or_changed_is_found(
    decided: bytes | None, published: list[tuple[str, bytes]], found: str | None
):
    outcomes, findings = everything_right()
    rest(outcomes, decided, *published)
    outcomes.compare()
    assert findings.sentences() == ([found] if found else [])


def test_an_outcome_of_an_order_that_nobody_placed_is_found():
    outcomes, findings = everything_right()
    rest(outcomes, b"event", ("rejected", b"event"))
    outcomes.add_published(3, "confirmed", b"event")
    outcomes.compare()
    assert findings.sentences() == ["1 published, though never placed: 3"]


def test_the_picture_is_xml_and_marks_the_faults():
    samples = [Sample(5.0 * n, n, n, 0, 1.0, 10**8, "", "kill" if n == 3 else "") for n in range(10)]
    texts = [element.text for element in ElementTree.fromstring(picture(samples)).iter() if element.text]
    assert texts.count("kill") == 3, "in each panel"
    ElementTree.fromstring(picture([]))


def test_a_lag_of_millions_does_not_flatten_one_of_thousands():
    samples = [Sample(5.0 * n, n, n, lag, 1.0, 10**8, "", "") for n, lag in enumerate([0, 3_000, 15_000_000])]
    _, lags, _ = (e for e in ElementTree.fromstring(picture(samples)).iter() if e.tag.endswith("polyline"))
    none, thousands, millions = (float(point.partition(",")[2]) for point in lags.attrib["points"].split())
    assert (none - thousands) > (none - millions) / 3
