"""The retailer's orders, as counted by hand and as the issue states them."""

from collections import Counter
from decimal import Decimal

import pytest

from contracts.fields import MAX_ITEMS
from worker.sandbox.demo.retailer import GUEST_ID, Retailer, read_retailer, retailer_of


@pytest.fixture(scope="module")
def retailer() -> Retailer:
    return read_retailer()


def row(**values: str) -> dict[str, str]:
    usual = {
        "InvoiceNo": "536365",
        "StockCode": "85123A",
        "Description": "HEART T-LIGHT HOLDER",
        "Quantity": "6",
        "UnitPrice": "2.55",
        "CustomerID": "17850",
    }
    return usual | values


def test_has_the_orders_and_lines_that_the_issue_names(retailer: Retailer):
    assert len(retailer.invoices) == 1_798
    assert retailer.lines == 48_842
    assert max(len(invoice.lines) for invoice in retailer.invoices) == 675


def test_accounts_for_every_line_of_the_file(retailer: Retailer):
    out = retailer.left_out
    assert (out.cancellations, out.cancelled_lines) == (384, 923)
    assert (out.unpriced_lines, out.empty_invoices) == (297, 160)
    assert (out.uncountable_lines, out.too_long_invoices) == (0, 0)
    assert retailer.lines + out.cancelled_lines + out.unpriced_lines == 50_062
    assert len(retailer.invoices) + out.cancellations + out.empty_invoices == 2_342


def test_products_are_numbered_from_one_in_the_order_they_appear(retailer: Retailer):
    assert [product.id for product in retailer.products] == list(range(1, 2_841))
    first = retailer.products[0]
    assert (first.stock_code, first.name, first.price) == (
        "85123A",
        "WHITE HANGING HEART T-LIGHT HOLDER",
        Decimal("2.55"),
    )


def test_customers_keep_their_numbers_and_the_others_are_one_guest(retailer: Retailer):
    assert len(retailer.users) == 976
    assert len({user.email for user in retailer.users}) == 976
    assert retailer.invoices[0].user_id == 17850
    assert sum(invoice.user_id == GUEST_ID for invoice in retailer.invoices) == 177


def test_a_product_is_stocked_with_nine_tenths_of_what_is_wanted(retailer: Retailer):
    wanted = Counter[int]()
    for invoice in retailer.invoices:
        wanted.update({line.product_id: 0 for line in invoice.lines})
        for line in invoice.lines:
            wanted[line.product_id] += line.quantity
    assert {product.id: product.wanted for product in retailer.products} == wanted
    assert all(0 <= 10 * p.stock - 9 * p.wanted < 10 for p in retailer.products)


def test_the_same_invoice_has_the_same_order_id_in_every_run(retailer: Retailer):
    assert len({invoice.order_id for invoice in retailer.invoices}) == 1_798
    assert str(retailer.invoices[0].order_id) == "fdf3301b-17b3-5453-989c-843bd4145128"


def test_postage_is_a_fee_and_a_gift_is_not(retailer: Retailer):
    fees = {product.stock_code for product in retailer.products if product.is_fee}
    assert {"POST", "AMAZONFEE"} <= fees
    assert len(fees) == 14


def test_several_lines_of_one_product_stay_several_lines():
    read = retailer_of([row(Quantity="1"), row(Quantity="2", UnitPrice="9.99")])
    assert [(line.product_id, line.quantity) for line in read.invoices[0].lines] == [(1, 1), (1, 2)]
    assert [(p.price, p.wanted) for p in read.products] == [(Decimal("2.55"), 3)]


def test_a_line_that_is_left_out_makes_no_product_and_no_user():
    read = retailer_of(
        [
            row(InvoiceNo="C1", Quantity="-1"),
            row(UnitPrice="0"),
            row(UnitPrice="-3"),
            row(Quantity="0"),
            row(Quantity="1000001"),
        ]
    )
    assert (read.products, read.users, read.invoices) == ([], [], [])
    out = read.left_out
    assert (out.cancelled_lines, out.unpriced_lines, out.uncountable_lines, out.empty_invoices) == (
        1,
        2,
        2,
        1,
    )


def test_an_invoice_longer_than_an_order_may_be_is_left_out_and_counted():
    longest = [row() for _ in range(MAX_ITEMS)]
    assert len(retailer_of(longest).invoices) == 1
    read = retailer_of([*longest, row()])
    assert read.invoices == []
    assert (read.left_out.too_long_invoices, read.left_out.too_long_lines) == (1, MAX_ITEMS + 1)
