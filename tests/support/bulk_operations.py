"""The operations of the data layer: a shop's, and those in bulk, which are no step of a shop."""

import inspect
from types import ModuleType

_DEFINED_IN = frozenset({"db.users", "db.categories", "db.products", "db.orders", "db.reports"})

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


def operations_of(module: ModuleType) -> set[str]:
    """The names under which a shop finds its operations in the module, wherever they are defined."""
    return {
        name
        for name, function in inspect.getmembers(module, inspect.iscoroutinefunction)
        if function.__module__ in _DEFINED_IN and not name.startswith("_")
    } - BULK
