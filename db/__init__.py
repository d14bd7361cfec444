"""What is stored: an ordinary shop's tables, and the ledger that makes each decision happen once.

Imports SQLAlchemy, asyncpg and Alembic only. Every function takes the caller's
`AsyncSession` first and never commits: the transaction is the caller's.

What a session has loaded shows what it was then, as always with SQLAlchemy, until a function writes it, locks
it or loads it with a collection (`items`, `products`). A session lives for one message or request.
"""
