"""A shop over HTTP: users and orders, one transaction a request.

    order-worker db upgrade                         # the tables
    order-worker catalog import examples/catalog    # something to order
    python examples/with_fastapi.py                 # then open http://127.0.0.1:8080/docs

All three work on the database of ORDER_WORKER_DATABASE_URL. Needs `pip install fastapi`.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Annotated, TypeAlias
from uuid import UUID

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, StrictInt
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import catalog, orders
from db.engine import create_engine, get_session, session_factory
from db.errors import InvalidValueError, NotFoundError, ShopError, UnknownNameError
from db.models import Order, User
from db.orders import OrderLine
from db.statuses import OrderStatus
from db.transactions import run_in_transaction


class NewUser(BaseModel):
    email: str
    full_name: str


class NewLine(BaseModel):
    product_id: StrictInt  # else `true` would be 1
    quantity: StrictInt
    unit_price: Decimal | None = None


class NewOrder(BaseModel):
    user_id: StrictInt
    items: list[NewLine]
    order_id: UUID | None = None


class FromRow(BaseModel):
    """Read from the attributes of a row. Money becomes a JSON string, which no client rounds."""

    model_config = ConfigDict(from_attributes=True)


class ShownUser(FromRow):
    id: int
    email: str
    full_name: str


class ShownProduct(FromRow):
    id: int
    name: str


class ShownItem(FromRow):
    product: ShownProduct
    quantity: int
    unit_price: Decimal


class ShownOrder(FromRow):
    id: UUID
    status: OrderStatus
    total_amount: Decimal
    placed_at: datetime
    items: list[ShownItem]


def create_app(database_url: str) -> FastAPI:
    """The application. Connects to nothing before the first request, and to nothing after its end."""
    engine = create_engine(database_url, application_name="shop-with-fastapi")

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    app = FastAPI(title="Shop", lifespan=lifespan)
    app.add_exception_handler(ShopError, answer_error)
    app.add_exception_handler(RequestValidationError, answer_invalid)
    app.include_router(routes(session_factory(engine)))
    return app


def routes(sessions: async_sessionmaker[AsyncSession]) -> APIRouter:
    """Each request has a session of its own: committed on success, rolled back on an error."""
    router = APIRouter()
    # With this scope the commit comes before the answer. Without it FastAPI commits when the client has
    # its 201 already. Then a commit may fail after a success was reported, and a client that reads at once
    # may find nothing.
    Session: TypeAlias = Annotated[AsyncSession, Depends(get_session(sessions), scope="function")]

    @router.post("/users", status_code=201, response_model=ShownUser)
    async def create_user(new: NewUser, session: Session) -> User:
        return await catalog.create_user(session, new.email, new.full_name)

    @router.get("/users/{user_id}", response_model=ShownUser)
    async def get_user(user_id: int, session: Session) -> User:
        return await catalog.get_user_by_id(session, user_id)

    @router.post("/orders", status_code=201, response_model=ShownOrder)
    async def create_order(new: NewOrder) -> Order:
        lines = [OrderLine(line.product_id, line.quantity, line.unit_price) for line in new.items]

        async def order(session: AsyncSession) -> Order:
            return await orders.create_order(session, new.user_id, lines, order_id=new.order_id)

        # Committed before the answer as well, and run again where PostgreSQL had to end a deadlock.
        return await run_in_transaction(sessions, order)

    @router.get("/users/{user_id}/orders", response_model=list[ShownOrder])
    async def list_orders(user_id: int, session: Session, limit: int = 100) -> Sequence[Order]:
        return await orders.list_orders_with_items(session, user_id, limit=limit)

    return router


async def answer_error(_request: Request, error: Exception) -> JSONResponse:
    """The error's own sentence. By now the transaction is rolled back."""
    assert isinstance(error, ShopError)
    return JSONResponse({"error": str(error)}, status_of(error))


async def answer_invalid(_request: Request, error: Exception) -> JSONResponse:
    """FastAPI's answer without the input: with it, NaN or half of a surrogate pair there would be a 500."""
    assert isinstance(error, RequestValidationError)
    detail = [{name: each[name] for name in ("type", "loc", "msg")} for each in error.errors()]
    return JSONResponse({"detail": detail}, 422)


def status_of(error: ShopError) -> int:
    match error:
        # First, because it is a NotFoundError as well: but it is the body that names what does not exist.
        # 404 would say that of the URL, and 409 that the same order may be taken later.
        case UnknownNameError() | InvalidValueError():
            return 422
        case NotFoundError():
            return 404
        case _:
            # Taken, still needed, in another status, out of stock: what the shop holds now stands against it.
            return 409


if __name__ == "__main__":
    database_url = os.environ.get("ORDER_WORKER_DATABASE_URL", "postgresql://postgres@127.0.0.1/postgres")
    uvicorn.run(create_app(database_url), port=8080)
