"""Tables that a shop has altered, with triggers and types of its own: nothing is lost or sold wrongly.

What PostgreSQL refuses or leaves out for one order is a dead letter, and the others go on; what it does so
for every order waits, and nothing of it stays.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from contracts.events import OrderConfirmed, OrderRejected
from contracts.topics import Topics
from db.engine import create_engine, session_factory
from tests.support.builders import line, order_value, record
from tests.support.shop import Shop
from worker.core.results import Fate, RecordResult
from worker.core.steps import nothing_happens
from worker.failures import DATABASE_ERRORS, RefusedOrderError, Remedy, remedy
from worker.observability.metrics import Metrics
from worker.pipeline.batch import BatchProcessor

pytestmark = [pytest.mark.guarantee_1, pytest.mark.guarantee_3]

Decide = Callable[..., Any]
FEW, MANY = 10, 40  # written in one statement, and by COPY
ODD = 4  # the place of the order that is not like the others


@pytest.fixture
async def decide(database_url: str, shop: Shop) -> AsyncIterator[Decide]:
    """Decides a batch, after the tables were altered."""
    await asyncio.to_thread(shop.stock_up, {1: 10, 9: 1_000})
    engine = create_engine(database_url)
    processor = BatchProcessor(
        session_factory(engine), Topics("p", "c", "r", "d"), Metrics(), nothing_happens, 256 * 1024, 20.0
    )

    async def of_altered(batch: Sequence[Any], altered: str = "") -> list[RecordResult]:
        for statement in filter(None, altered.split(";;")):
            await asyncio.to_thread(shop.sql, statement)
        return await processor.decide(batch, {})

    yield of_altered
    await engine.dispose()


def batch_of(orders: int) -> list[Any]:
    """Orders of one piece of product 9 each, and one of three pieces of product 1."""
    values = [order_value(line(9)) for _ in range(orders)]
    values[ODD] = order_value(line(1, 3))
    return [record(each, offset=i) for i, each in enumerate(values)]


def trigger(body: str, table: str, event: str = "INSERT") -> str:
    return (
        f"CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$;;"
        f"CREATE TRIGGER own BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION own()"
    )


async def assert_only_the_odd_one_is_refused(shop: Shop, results: list[RecordResult], why: bytes) -> None:
    fates = [one.fate for one in results]
    assert fates == [Fate.DEAD_LETTER if place == ODD else Fate.CONFIRMED for place in range(len(results))]
    letter = results[ODD].publication
    assert results[ODD].codes == ("data_error",)
    assert letter is not None
    assert why in (dict(letter.headers)["error.message"] or b"")
    await asyncio.to_thread(shop.assert_conserved)
    assert await asyncio.to_thread(shop.stock) == {1: 10, 9: 1_000 - (len(results) - 1)}


async def assert_nothing_stays(shop: Shop) -> None:
    rows = "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM order_outcomes)"
    assert await asyncio.to_thread(shop.value, rows) == 0
    assert await asyncio.to_thread(shop.stock) == {1: 10, 9: 1_000}


OF_THE_ODD_ONE = {
    "order_items": "NEW.quantity = 3",
    "order_outcomes": "NEW.event->>'total_amount' = '7.50'",
}


@pytest.mark.parametrize("orders", [FEW, MANY])
@pytest.mark.parametrize("table", OF_THE_ODD_ONE)
async def test_a_row_that_a_trigger_leaves_out_takes_its_order_with_it(
    decide: Decide, shop: Shop, table: str, orders: int
):
    leave_out = f"IF {OF_THE_ODD_ONE[table]} THEN RETURN NULL; END IF;"
    results = await decide(batch_of(orders), trigger(leave_out, table))
    await assert_only_the_odd_one_is_refused(shop, results, f"wrote 0 of 1 rows of {table}".encode())


@pytest.mark.parametrize("table", OF_THE_ODD_ONE)
async def test_a_trigger_that_leaves_out_every_row_makes_all_wait(decide: Decide, shop: Shop, table: str):
    with pytest.raises(RefusedOrderError, match=f"wrote 0 of 1 rows of {table}"):
        await decide(batch_of(MANY), trigger("RETURN NULL;", table))
    await assert_nothing_stays(shop)


# What RAISE gives where it names no code, codes that it names, and what fails in a branch of a function.
RAISED = {
    "by-default": "RAISE 'not this one'",
    "own-code": "RAISE 'not this one' USING ERRCODE = '45000'",
    "data-error": "RAISE 'not this one' USING ERRCODE = '22012'",
    "missing-row": "RAISE 'not this one' USING ERRCODE = 'P0002'",
    "missing-column": "NEW.total_amount := (SELECT not_this_one FROM users)",
}


@pytest.mark.parametrize("raised", RAISED)
async def test_an_order_that_a_trigger_refuses_holds_up_no_other(decide: Decide, shop: Shop, raised: str):
    refuse = f"IF NEW.total_amount = 7.50 THEN {RAISED[raised]}; END IF;"
    results = await decide(batch_of(FEW), trigger(refuse, "orders"))
    await assert_only_the_odd_one_is_refused(shop, results, b"not")


async def test_a_refused_order_that_came_alone_waits_by_name_until_another_is_confirmed(
    decide: Decide, shop: Shop
):
    refuse = "IF NEW.total_amount = 7.50 THEN RAISE 'not this one'; END IF;"
    odd, other = batch_of(FEW)[ODD], [record(order_value(line(9)), partition=1)]
    for altered in (trigger(refuse, "orders"), ""):
        with pytest.raises(RefusedOrderError, match=rf"order-placed-0@{ODD}\) is refused: not this one"):
            await decide([odd], altered)
    assert [one.fate for one in await decide(other)] == [Fate.CONFIRMED]
    (result,) = await decide([odd])
    assert (result.fate, result.codes) == (Fate.DEAD_LETTER, ("data_error",))


async def test_a_constraint_that_comes_back_between_two_attempts_costs_no_dead_letter(
    decide: Decide, shop: Shop
):
    """Found by the campaign: others were confirmed in between, but none would be at the second attempt."""
    odd, other = batch_of(FEW)[ODD], record(order_value(line(9)), partition=1)
    refuse_all = "ALTER TABLE orders ADD CONSTRAINT mistake CHECK (false) NOT VALID"
    accept = "ALTER TABLE orders DROP CONSTRAINT mistake"
    for batch in ([other], [odd]):
        with pytest.raises(RefusedOrderError):
            await decide([odd], refuse_all)
        (result,) = await decide(batch, accept)
        assert result.fate is Fate.CONFIRMED


async def test_an_order_refused_between_others_that_sell_out_is_a_dead_letter(decide: Decide, shop: Shop):
    """The last confirmed order would be rejected now, so trying it again shows nothing."""
    refuse, odd = "IF NEW.total_amount = 7.50 THEN RAISE 'not this one'; END IF;", batch_of(FEW)[ODD]
    await decide([], trigger(refuse, "orders"))
    for product in (2, 3):
        with pytest.raises(RefusedOrderError):
            await decide([odd])
        await asyncio.to_thread(shop.stock_up, {product: 1})
        await decide([record(order_value(line(product)), partition=product)])
    (result,) = await decide([odd])
    assert (result.fate, result.codes) == (Fate.DEAD_LETTER, ("data_error",))


def at_commit(body: str) -> str:
    return (
        f"CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$;;"
        "CREATE CONSTRAINT TRIGGER own AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION own()"
    )


async def test_an_order_that_is_refused_at_the_commit_holds_up_no_other(decide: Decide, shop: Shop):
    refuse = "IF NEW.total_amount = 7.50 THEN RAISE 'not this one'; END IF;"
    results = await decide(batch_of(FEW), at_commit(refuse))
    await assert_only_the_odd_one_is_refused(shop, results, b"not this one")


ALL_REFUSED = {
    "trigger": trigger("RAISE 'closed today';", "orders"),
    "deferred-trigger": at_commit("RAISE 'closed today';"),
    "deferred-foreign-key": "CREATE TABLE channels (id int PRIMARY KEY);;"
    "ALTER TABLE orders ADD COLUMN channel int DEFAULT 1 REFERENCES channels DEFERRABLE INITIALLY DEFERRED",
    "generated-column": "ALTER TABLE orders ADD COLUMN short smallint"
    " GENERATED ALWAYS AS ((total_amount * 100000)::smallint) STORED",
    "own-foreign-key": "CREATE TABLE channels (id int PRIMARY KEY);;"
    "ALTER TABLE orders ADD COLUMN channel int DEFAULT 1 REFERENCES channels",
    "own-unique-key": "ALTER TABLE order_items ADD COLUMN one int DEFAULT 1;;"
    "INSERT INTO orders (id, user_id, total_amount, placed_at)"
    " VALUES ('00000000-0000-0000-0000-000000000001', 1, 0, now());;"
    "INSERT INTO order_items SELECT id, 1, 9, 1, 0 FROM orders;;"
    "CREATE UNIQUE INDEX only_one ON order_items (one)",
}


@pytest.mark.parametrize("altered", ALL_REFUSED)
async def test_what_the_tables_refuse_of_every_order_is_no_dead_letter(
    decide: Decide, shop: Shop, altered: str
):
    with pytest.raises(RefusedOrderError, match=r"closed today|smallint|channel|only_one"):
        await decide(batch_of(FEW), ALL_REFUSED[altered])
    assert await asyncio.to_thread(shop.value, "SELECT count(*) FROM order_outcomes") == 0
    assert await asyncio.to_thread(shop.stock) == {1: 10, 9: 1_000}


MISSING = {
    "table": ("ALTER TABLE orders RENAME TO away", "ALTER TABLE away RENAME TO orders"),
    "column": (
        "ALTER TABLE order_items RENAME unit_price TO p",
        "ALTER TABLE order_items RENAME p TO unit_price",
    ),
}


@pytest.mark.parametrize("orders", [1, MANY])
@pytest.mark.parametrize("missing", MISSING)
async def test_what_is_missing_for_moments_costs_no_dead_letter(
    decide: Decide, shop: Shop, missing: str, orders: int
):
    """A migration of the shop's, which swaps a table twice, while other orders are confirmed."""
    away, back = MISSING[missing]
    batch = [record(order_value(line(9)), offset=i) for i in range(orders)]
    for number in range(2):
        with pytest.raises(DATABASE_ERRORS, match="does not exist") as failed:
            await decide(batch, away)
        assert remedy(failed.value) is Remedy.WAIT
        assert (await decide([record(order_value(line(9)), partition=1, offset=number)], back))[0].publication
    assert {one.fate for one in await decide(batch)} == {Fate.CONFIRMED}


async def test_a_product_whose_stock_a_trigger_keeps_holds_up_no_other(decide: Decide, shop: Shop):
    keep = "IF NEW.id = 1 THEN RETURN NULL; END IF;"
    results = await decide(batch_of(FEW), trigger(keep, "products", "UPDATE"))
    await assert_only_the_odd_one_is_refused(shop, results, b"does not let stock be taken")


async def test_a_trigger_that_keeps_all_stock_makes_all_wait(decide: Decide, shop: Shop):
    with pytest.raises(RefusedOrderError, match="triggers and rules of products"):
        await decide(batch_of(FEW), trigger("RETURN NULL;", "products", "UPDATE"))
    await assert_nothing_stays(shop)


@pytest.mark.parametrize("kind", ["numeric(12,4)", "numeric"])
async def test_a_price_with_other_decimals_is_the_same_price(decide: Decide, shop: Shop, kind: str):
    """Found by altering the column: 2.5000 was sold for 250.00."""
    altered = f"ALTER TABLE products ALTER price TYPE {kind};;UPDATE products SET price = 2.5"
    results = await decide(batch_of(FEW), altered)
    events = [OrderConfirmed.model_validate_json(one.publication.value) for one in results]
    assert {str(event.total_amount) for event in events} == {"2.50", "7.50"}
    await asyncio.to_thread(shop.assert_conserved)


@pytest.mark.parametrize("kind", ["numeric(12,3)", "double precision", "smallint"])
async def test_stock_of_another_type_is_counted_in_whole_pieces(decide: Decide, shop: Shop, kind: str):
    """Found by altering the column: the first order that was not to be had stopped every partition."""
    values = [order_value(line(1, 3)), order_value(line(1, 8)), order_value(line(1, 7))]
    altered = (
        f"ALTER TABLE products ALTER stock_quantity TYPE {kind};;UPDATE products SET stock_quantity = 10.4"
    )
    results = await decide([record(each, offset=i) for i, each in enumerate(values)], altered)
    assert [one.fate for one in results] == [Fate.CONFIRMED, Fate.REJECTED, Fate.CONFIRMED]
    (reason,) = OrderRejected.model_validate_json(results[1].publication.value).reasons
    assert (reason.requested, reason.available) == (8, 7)


# What a role or a database may have set for its sessions, and what is no concern of ours.
HARMLESS = {
    "default_transaction_deferrable": "on", "standard_conforming_strings": "off", "array_nulls": "off",
    "datestyle": "German, DMY", "timezone": "Asia/Kolkata", "intervalstyle": "sql_standard",
    "extra_float_digits": "-15", "bytea_output": "escape", "client_encoding": "LATIN1",
    "transform_null_equals": "on",
    "work_mem": "64kB", "temp_file_limit": "0", "plan_cache_mode": "force_generic_plan",
    "enable_indexscan": "off", "enable_seqscan": "off",
}  # fmt: skip


@pytest.mark.parametrize("orders", [FEW, MANY])
async def test_settings_of_a_role_change_nothing_that_is_decided(decide: Decide, shop: Shop, orders: int):
    name = await asyncio.to_thread(shop.value, "SELECT quote_ident(current_database())")
    altered = [f"ALTER DATABASE {name} SET {of} TO '{value}'" for of, value in HARMLESS.items()]
    altered.append(f"ALTER DATABASE {name} SET search_path TO decoy, public")
    decoys = ["CREATE SCHEMA decoy", *(f"CREATE TABLE decoy.{t} (id int)" for t in ("users", "products"))]
    batch = batch_of(orders)
    results = await decide(batch, ";;".join([*decoys, *altered]))
    assert {one.fate for one in results} == {Fate.CONFIRMED}
    again = await decide(batch)
    assert [one.publication.value for one in again] == [one.publication.value for one in results]
    await asyncio.to_thread(shop.assert_conserved)


UNUSABLE = {
    "nan": ("UPDATE products SET price = 'NaN' WHERE id = {}", b"price NaN"),
    "three-decimals": (
        "ALTER TABLE products ALTER price TYPE numeric;;UPDATE products SET price = 2.555 WHERE id = {}",
        b"price 2.555",
    ),
    "infinite": (
        "ALTER TABLE products ALTER price TYPE numeric;;UPDATE products SET price = 'Infinity' WHERE id = {}",
        b"price Infinity",
    ),
}


@pytest.mark.parametrize("unusable", UNUSABLE)
async def test_a_product_without_a_usable_price_holds_up_no_other(decide: Decide, shop: Shop, unusable: str):
    altered, why = UNUSABLE[unusable]
    await assert_only_the_odd_one_is_refused(shop, await decide(batch_of(FEW), altered.format(1)), why)


async def test_an_order_whose_price_is_unusable_by_now_is_published_again(decide: Decide, shop: Shop):
    batch = batch_of(FEW)
    await decide(batch)
    again = await decide(batch, "UPDATE products SET price = 'NaN'")
    assert {one.fate for one in again} == {Fate.REDELIVERED}


async def test_products_without_any_usable_price_make_all_wait(decide: Decide, shop: Shop):
    with pytest.raises(RefusedOrderError, match="product 9 has price NaN"):
        await decide(batch_of(FEW), "UPDATE products SET price = 'NaN'")
    await assert_nothing_stays(shop)


async def test_products_whose_stock_is_no_number_make_all_wait(decide: Decide, shop: Shop):
    altered = "ALTER TABLE products ALTER stock_quantity TYPE numeric;;UPDATE products SET stock_quantity = "
    with pytest.raises(RefusedOrderError, match="product 9 has stock NaN"):
        await decide(batch_of(FEW), altered + "'NaN'")
    await asyncio.to_thread(shop.sql, "UPDATE products SET stock_quantity = received_quantity")
    await assert_nothing_stays(shop)
