from typing import Any, cast
from uuid import uuid4

import pytest

from worker.http.outcomes import LettersOfOrders, OutcomeEndpoint
from worker.http.queries import Inquiries, NoAnswerError
from worker.observability.health import Health


class _Broken:
    def session(self) -> Any:
        raise RuntimeError("a fault of ours")


async def _no_letters() -> LettersOfOrders:
    return LettersOfOrders({}, older=False)


async def test_a_look_that_fails_is_no_answer_and_never_says_undecided():
    endpoint = OutcomeEndpoint(cast("Inquiries", _Broken()), _no_letters, Health())
    with pytest.raises(NoAnswerError, match="log says why"):
        await endpoint._within(5, uuid4())
    await endpoint.close()
