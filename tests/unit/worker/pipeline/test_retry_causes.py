"""By which cause each kind of error is counted."""

import pytest
from aiokafka.errors import KafkaConnectionError, ProducerFenced

from worker.failures import WaitsForOperatorError
from worker.kafka.limits.refusals import AdaptedError, RefusedByKafkaError
from worker.observability.metrics import Cause
from worker.pipeline.retries import DatabaseReplacedError, cause_of

NEXT = {"setting": "acl", "what_to_do": "grant it"}


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (KafkaConnectionError(), "outage"),
        (ConnectionRefusedError(), "outage"),
        (TimeoutError(), "outage"),
        (ProducerFenced(), "fenced"),
        (AdaptedError("topic", "too large", **NEXT), "refused"),
        (RefusedByKafkaError("topic", "no right", **NEXT), "operator"),
        (WaitsForOperatorError("fix it"), "operator"),
        (DatabaseReplacedError("of a backup"), "database_replaced"),
        (KeyError("nobody foresaw it"), "unforeseen"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_error_is_counted_by_its_cause(error: Exception, cause: Cause):
    assert cause_of(error) == cause
