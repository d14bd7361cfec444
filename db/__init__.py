"""What is stored: an ordinary shop's tables, and the ledger that makes each decision happen once.

Imports SQLAlchemy, asyncpg and Alembic only. Every function takes the caller's
`AsyncSession` first and never commits: the transaction is the caller's.
"""
