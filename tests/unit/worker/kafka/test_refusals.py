"""What helps against each of Kafka's errors at publishing."""

import pytest
from aiokafka import errors

from worker.kafka.limits.refusals import Attempt, InvalidRecordError, RefusalRemedy, remedy

OUTCOMES, OUTCOME = Attempt(is_letter=False, records=9), Attempt(is_letter=False, records=1)
LETTERS, LETTER = Attempt(is_letter=True, records=9), Attempt(is_letter=True, records=1)
MINIMAL = Attempt(is_letter=True, records=1, is_minimal=True)
IN_OUR_TIME = Attempt(is_letter=False, records=9, own_time=True)
KEYLESS = Attempt(is_letter=True, records=9, keyed=False)


@pytest.mark.parametrize(
    ("error", "attempt", "helps"),
    [
        (errors.MessageSizeTooLargeError(), OUTCOMES, RefusalRemedy.SMALLER_BATCHES),
        (errors.MessageSizeTooLargeError(), LETTERS, RefusalRemedy.SMALLER_BATCHES),
        (errors.RecordListTooLargeError(), OUTCOMES, RefusalRemedy.SMALLER_BATCHES),
        (errors.MessageSizeTooLargeError(), OUTCOME, RefusalRemedy.SET_ASIDE),
        (errors.MessageSizeTooLargeError(), LETTER, RefusalRemedy.CUT),
        (errors.RecordListTooLargeError(), LETTER, RefusalRemedy.CUT),
        (errors.MessageSizeTooLargeError(), MINIMAL, RefusalRemedy.NAMED),
        (errors.InvalidTimestampError(), OUTCOMES, RefusalRemedy.OWN_TIME),
        (errors.InvalidTimestampError(), LETTER, RefusalRemedy.OWN_TIME),
        (errors.InvalidTimestampError(), IN_OUR_TIME, RefusalRemedy.NAMED),
        (InvalidRecordError(), KEYLESS, RefusalRemedy.MADE_UP_KEY),
        (errors.CorruptRecordException(), KEYLESS, RefusalRemedy.MADE_UP_KEY),
        (errors.CorruptRecordException(), OUTCOMES, RefusalRemedy.WAIT),
        (InvalidRecordError(), OUTCOMES, RefusalRemedy.ALONE),
        (InvalidRecordError(), LETTERS, RefusalRemedy.ALONE),
        (errors.PolicyViolationError(), OUTCOMES, RefusalRemedy.ALONE),
        (InvalidRecordError(), OUTCOME, RefusalRemedy.SET_ASIDE),
        (InvalidRecordError(), LETTER, RefusalRemedy.NAMED),
        (errors.TopicAuthorizationFailedError(), OUTCOMES, RefusalRemedy.NAMED),
        (errors.TopicAuthorizationFailedError(), LETTER, RefusalRemedy.NAMED),
        (errors.ClusterAuthorizationFailedError(), OUTCOMES, RefusalRemedy.NAMED),
        (errors.UnknownTopicOrPartitionError(), OUTCOMES, RefusalRemedy.NAMED),
        (errors.InvalidTopicError(), OUTCOMES, RefusalRemedy.NAMED),
        (errors.ProducerFenced(), OUTCOMES, RefusalRemedy.FENCED),
        (errors.InvalidProducerEpoch(), OUTCOMES, RefusalRemedy.FENCED),
        (errors.NotEnoughReplicasError(), OUTCOMES, RefusalRemedy.WAIT),
        (errors.RequestTimedOutError(), OUTCOMES, RefusalRemedy.WAIT),
        (errors.KafkaStorageError(), OUTCOMES, RefusalRemedy.WAIT),
        (errors.OutOfOrderSequenceNumber(), OUTCOMES, RefusalRemedy.WAIT),
        (errors.UnknownError(), OUTCOMES, RefusalRemedy.WAIT),
        (TimeoutError(), OUTCOMES, RefusalRemedy.WAIT),
        (ValueError(), OUTCOME, RefusalRemedy.WAIT),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else None,
)
def test_each_error_has_its_remedy(error: Exception, attempt: Attempt, helps: RefusalRemedy):
    assert remedy(error, attempt) is helps


def test_aiokafka_knows_the_code_of_a_record_that_is_refused_by_itself():
    assert errors.for_code(87) is InvalidRecordError
