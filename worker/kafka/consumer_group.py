"""The consumer group that a worker belongs to."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker


@dataclass(frozen=True, slots=True)
class ConsumerGroup:
    """One group on the topic of placed orders; `sessions` reach its rows in PostgreSQL."""

    id: str
    topic: str
    sessions: async_sessionmaker[AsyncSession]
