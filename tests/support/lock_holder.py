"""Holds every product locked until it is killed: python -m tests.support.lock_holder DATABASE_URL."""

import asyncio
import sys

import asyncpg


async def hold(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute("SELECT 1 FROM products FOR UPDATE")
        print("locked", flush=True)
        await asyncio.Event().wait()


asyncio.run(hold(sys.argv[1]))
