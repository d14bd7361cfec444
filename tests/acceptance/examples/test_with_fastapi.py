"""`examples/with_fastapi.py`, and what it promises about transactions."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from db import catalog
from db.errors import (
    AlreadyExistsError,
    IllegalStatusChangeError,
    InvalidValueError,
    NotFoundError,
    ShopError,
    StillReferencedError,
)
from db.statuses import OrderStatus
from examples import with_fastapi
from tests.acceptance.examples.users import ADA, connections_of, soon, users
from tests.support.shop import Shop

Send = Callable[[dict[str, Any]], Any]


@asynccontextmanager
async def client_of(app: Any, *, lifespan_of: FastAPI | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the running application: an error nobody handled is a 500, as behind a real server."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    fastapi = lifespan_of or app
    async with (
        fastapi.router.lifespan_context(fastapi),
        httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
    ):
        yield client


@pytest.fixture
async def http(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the FastAPI example."""
    async with client_of(with_fastapi.create_app(database_url)) as client:
        yield client


async def test_a_user_who_was_created_is_there_for_everybody_when_the_answer_has_come(
    http: httpx.AsyncClient, shop: Shop
):
    answer = await http.post("/users", json=ADA)
    assert (answer.status_code, answer.json()) == (201, {"id": 1, **ADA})
    assert users(shop) == ["ada@example.com"]
    assert (await http.get("/users/1")).json() == {"id": 1, **ADA}


async def test_the_commit_is_done_before_the_client_has_its_answer(database_url: str, shop: Shop):
    seen: list[list[str]] = []
    app = with_fastapi.create_app(database_url)

    async def looking_when_the_answer_starts(scope: Any, receive: Any, send: Send) -> None:
        async def looking(message: Any) -> None:
            if message["type"] == "http.response.start":
                seen.append(users(shop))
            await send(message)

        await app(scope, receive, looking)

    async with client_of(looking_when_the_answer_starts, lifespan_of=app) as client:
        assert (await client.post("/users", json=ADA)).status_code == 201
    assert seen == [["ada@example.com"]]


async def test_a_commit_that_fails_is_not_answered_with_success(
    http: httpx.AsyncClient, shop: Shop, commits_fail: Callable[[int], None]
):
    commits_fail(1)
    assert (await http.post("/users", json=ADA)).status_code == 500
    assert users(shop) == []
    assert (await http.post("/users", json=ADA)).status_code == 201


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("a fault of ours"), 500), (NotFoundError("gift", "id", 1), 404)]
)
async def test_nothing_stays_of_a_request_that_ends_with_an_error(
    http: httpx.AsyncClient, shop: Shop, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
):
    create_user = catalog.create_user

    async def fails_after_writing(session: AsyncSession, email: str, full_name: str) -> None:
        await create_user(session, email, full_name)
        raise error

    monkeypatch.setattr(catalog, "create_user", fails_after_writing)
    assert (await http.post("/users", json=ADA)).status_code == status
    assert users(shop) == []


async def test_orders_come_whole_with_money_as_text(http: httpx.AsyncClient, shop: Shop):
    shop.stock_up({1: 5, 2: 5}, price="2.50")
    items = [{"product_id": 2, "quantity": 1}, {"product_id": 1, "quantity": 3, "unit_price": "2.50"}]
    placed = await http.post("/orders", json={"user_id": 1, "items": items})
    assert placed.status_code == 201, placed.text
    order = placed.json()
    assert (order["status"], order["total_amount"]) == ("pending", "10.00")
    assert order["items"] == [
        {"product": {"id": 2, "name": "Product 2"}, "quantity": 1, "unit_price": "2.50"},
        {"product": {"id": 1, "name": "Product 1"}, "quantity": 3, "unit_price": "2.50"},
    ]
    assert (await http.get("/users/1/orders")).json() == [order]
    assert shop.stock() == {1: 2, 2: 4}


async def test_the_same_order_id_twice_is_one_order_and_a_conflict(http: httpx.AsyncClient, shop: Shop):
    shop.stock_up({1: 5})
    order = {"user_id": 1, "items": [{"product_id": 1, "quantity": 1}], "order_id": str(uuid4())}
    assert (await http.post("/orders", json=order)).status_code == 201
    again = await http.post("/orders", json=order)
    assert again.status_code == 409
    assert again.json()["error"].startswith(f"order with id {order['order_id']} exists already")
    assert shop.stock() == {1: 4}


async def test_a_body_that_no_json_can_repeat_is_the_client_s_fault(
    http: httpx.AsyncClient, shop: Shop, subtests: pytest.Subtests
):
    """It was a 500: FastAPI answers with the input that is wrong."""
    shop.stock_up({1: 5})
    for wrong in ("NaN", "-Infinity", "1e400", '"\\ud800"', "true", "1.5", "9" * 5_000):
        bodies = {
            "/users": f'{{"email": {wrong}, "full_name": 1}}',
            "/orders": f'{{"user_id": 1, "items": [{{"product_id": 1, "quantity": {wrong}}}]}}',
        }
        for path, body in bodies.items():
            with subtests.test(path=path, wrong=wrong[:20]):
                answer = await http.post(path, content=body, headers={"content-type": "application/json"})
                assert 400 <= answer.status_code < 500, answer.text
                assert answer.json()["detail"]
    assert shop.stock() == {1: 5}


def an_order(product_id: int = 1, quantity: int = 1, user_id: int = 1, **line: Any) -> dict[str, Any]:
    return {"user_id": user_id, "items": [{"product_id": product_id, "quantity": quantity, **line}]}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("GET", "/users/99", None, 404, "there is no user with id 99"),
        ("GET", "/users/99999999999999999999", None, 404, "there is no user with id 99999999999999999999"),
        ("GET", "/users/99/orders", None, 404, "there is no user with id 99"),
        ("GET", "/users/1/orders?limit=0", None, 422, "limit must be an integer from 1 to 1,000: 0"),
        ("POST", "/users", {**ADA, "full_name": " "}, 422, "full_name must not be empty: ' '"),
        ("POST", "/orders", {"user_id": 1, "items": []}, 422, "lines must be 1 to 1,000: 0"),
        ("POST", "/orders", an_order(user_id=99), 422, "there is no user with id 99"),
        ("POST", "/orders", an_order(product_id=99), 422, "there is no product with id 99"),
        ("POST", "/orders", an_order(quantity=9), 409, "product 1: 9 requested, 5 available"),
        ("POST", "/orders", an_order(unit_price="2.40"), 409, "product 1 costs 2.50, not 2.40"),
    ],
)
async def test_each_error_has_its_status_and_its_sentence(
    http: httpx.AsyncClient, shop: Shop, method: str, path: str, body: Any, status: int, sentence: str
):
    shop.stock_up({1: 5}, price="2.50")
    answer = await http.request(method, path, json=body)
    assert (answer.status_code, answer.json()) == (status, {"error": sentence})


async def test_an_email_that_is_taken_is_a_conflict(http: httpx.AsyncClient):
    await http.post("/users", json=ADA)
    answer = await http.post("/users", json=ADA)
    assert answer.status_code == 409
    assert answer.json() == {"error": "user with email 'ada@example.com' exists already (uq_users_email)"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StillReferencedError("user", 1, 2), 409),
        (IllegalStatusChangeError("o", OrderStatus.COMPLETED, OrderStatus.CANCELLED), 409),
        (AlreadyExistsError("user", "email", "x", "uq_users_email"), 409),
        (NotFoundError("user", "id", 1), 404),
        (InvalidValueError("price", -1, "must be from 0"), 422),
    ],
)
def test_errors_of_operations_that_have_no_endpoint_have_a_status_too(error: ShopError, status: int):
    assert with_fastapi.status_of(error) == status


async def test_the_fastapi_example_leaves_no_connection_behind(database_url: str, shop: Shop):
    async with client_of(with_fastapi.create_app(database_url)) as client:
        assert (await client.post("/users", json=ADA)).status_code == 201
        assert connections_of("shop-with-fastapi", shop) == 1
    await soon(lambda: connections_of("shop-with-fastapi", shop) == 0)
