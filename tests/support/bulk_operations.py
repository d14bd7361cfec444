"""Operations of the data layer for orders in bulk: the worker's and its commands', and no step of a shop."""

BULK = frozenset(
    {
        "list_user_ids",
        "list_prices",
        "find_user_ids",
        "lock_user_ids",
        "find_order_ids",
        "find_orders_without_outcome",
        "add_orders",
    }
)
