"""The last step of a batch's transaction: takes its stock, if nothing that was read has changed."""

from collections.abc import Mapping
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from db import stock
from db.decision import Decider
from worker.failures import StaleReadError

# The stock of so few products is taken in the statement that waits for the stock lock, which saves a round
# trip of 0.2 ms. Not of more: PostgreSQL would look up row by row what changed while it waited.
FEW_PRODUCTS: Final = 150

_NOT_TAKEN: Final = (
    "PostgreSQL does not let stock be taken of a product that has it: look at the triggers and rules of"
    " products"
)


async def take(
    session: AsyncSession, decider: Decider, levels: Mapping[int, stock.StockLevel], *, locked: bool
) -> None:
    """Take the stock of decisions that were made on `levels`; `locked`: the products are locked.

    Raises StaleReadError if a product has changed since it was read: then nothing may be committed.
    """
    takings = {i: stock.Taking(quantity, levels[i].price) for i, quantity in decider.taken.items()}
    # As late as possible: everything before the lock runs in parallel with other workers.
    in_turn = not locked and not decider.relied_on and len(takings) <= FEW_PRODUCTS
    if not locked and not in_turn:
        await stock.acquire_stock_lock(session)
    # Rejections first: these are reads, and what this batch itself takes must not look like a change.
    if not locked and decider.relied_on:
        seen = {i: levels[i] for i in decider.relied_on if i in levels}
        if await stock.lock_stock(session, decider.relied_on) != seen:
            raise StaleReadError("a product of a rejected order changed")
    if not await stock.take_stock(session, takings, in_turn=in_turn):
        raise StaleReadError(_NOT_TAKEN if locked else "a product was sold or repriced meanwhile")
