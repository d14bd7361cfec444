"""The users that the examples create, and waiting for what becomes of them."""

import asyncio
from collections.abc import Callable

from tests.support.deadline import eventually
from tests.support.shop import Shop

ADA = {"email": "ada@example.com", "full_name": "Ada Lovelace"}


def users(shop: Shop) -> list[str]:
    """E-mails, as another connection sees them."""
    return [row["email"] for row in shop.sql("SELECT email FROM users ORDER BY id")]


def connections_of(application_name: str, shop: Shop) -> int:
    query = "SELECT FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()"
    return len(shop.sql(query, application_name))


async def soon(condition: Callable[[], object]) -> None:
    """Return when the condition holds. A thread checks it, so that the application runs meanwhile."""
    await asyncio.to_thread(eventually, condition)
