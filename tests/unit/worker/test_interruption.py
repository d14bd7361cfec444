import asyncio
import logging

import pytest

from worker import interruption


async def fails(what: str) -> None:
    def callback() -> None:
        raise asyncio.InvalidStateError("invalid state")

    callback.__qualname__ = what
    asyncio.get_running_loop().call_soon(callback)
    await asyncio.sleep(0.001)


@pytest.mark.parametrize(("what", "is_said"), [("Loop._sock_connect_cb", False), ("ours", True)])
def test_a_connection_made_while_it_is_cancelled_is_no_traceback(
    what: str, is_said: bool, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.ERROR, "asyncio"):
        interruption.run(fails(what))
    assert (what in caplog.text) is is_said
