"""The data layer: the tables of a shop, and the ledger that makes each decision happen once.

It imports only SQLAlchemy, asyncpg and Alembic. Every function takes the caller's `AsyncSession` first and
never commits: the caller owns the transaction.

As always with SQLAlchemy, an object shows what it was when it was loaded, until a function writes it, locks
it or loads it with a collection (`items`, `products`). Use one session for one message or request.
"""
