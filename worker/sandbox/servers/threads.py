"""Asynchronous clients for synchronous callers."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def run_async(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of `function()`, in a thread and a loop of its own: a loop may be running here already."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(lambda: asyncio.run(function())).result()
