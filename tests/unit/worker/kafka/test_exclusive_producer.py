"""Whether a producer was fenced, by what aiokafka says of it."""

import pytest
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidTxnState,
    KafkaError,
    KafkaTimeoutError,
    ProducerFenced,
)

from worker.kafka.producing.exclusive_producer import is_fenced


def wrapped(cause: BaseException) -> KafkaError:
    """As aiokafka's sender reports an error that it does not expect."""
    error = KafkaError("Unexpected error during batch delivery")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("error", [ProducerFenced(), InvalidProducerEpoch(), InvalidTxnState()])
def test_a_fenced_producer_is_known_by_its_error_also_where_that_is_wrapped(error: KafkaError) -> None:
    assert is_fenced(error)
    assert is_fenced(wrapped(error))


@pytest.mark.parametrize("error", [KafkaTimeoutError(), ConnectionRefusedError(), TimeoutError()])
def test_whatever_else_goes_wrong_is_no_fence(error: BaseException) -> None:
    assert not is_fenced(error)
    assert not is_fenced(wrapped(error))
