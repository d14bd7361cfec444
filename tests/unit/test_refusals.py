"""What helps against each of Kafka's errors at publishing."""

import pytest
from aiokafka import errors

from worker.kafka.limits.refusals import Attempt, InvalidRecordError, Remedy, remedy

OUTCOMES, OUTCOME = Attempt(is_letter=False, records=9), Attempt(is_letter=False, records=1)
LETTERS, LETTER = Attempt(is_letter=True, records=9), Attempt(is_letter=True, records=1)
MINIMAL = Attempt(is_letter=True, records=1, is_minimal=True)
IN_OUR_TIME = Attempt(is_letter=False, records=9, own_time=True)
KEYLESS = Attempt(is_letter=True, records=9, keyed=False)


@pytest.mark.parametrize(
    ("error", "attempt", "helps"),
    [
        (errors.MessageSizeTooLargeError(), OUTCOMES, Remedy.SMALLER_BATCHES),
        (errors.MessageSizeTooLargeError(), LETTERS, Remedy.SMALLER_BATCHES),
        (errors.RecordListTooLargeError(), OUTCOMES, Remedy.SMALLER_BATCHES),
        (errors.MessageSizeTooLargeError(), OUTCOME, Remedy.SET_ASIDE),
        (errors.MessageSizeTooLargeError(), LETTER, Remedy.CUT),
        (errors.RecordListTooLargeError(), LETTER, Remedy.CUT),
        (errors.MessageSizeTooLargeError(), MINIMAL, Remedy.NAMED),
        (errors.InvalidTimestampError(), OUTCOMES, Remedy.OWN_TIME),
        (errors.InvalidTimestampError(), LETTER, Remedy.OWN_TIME),
        (errors.InvalidTimestampError(), IN_OUR_TIME, Remedy.NAMED),
        (InvalidRecordError(), KEYLESS, Remedy.MADE_UP_KEY),
        (errors.CorruptRecordException(), KEYLESS, Remedy.MADE_UP_KEY),
        (errors.CorruptRecordException(), OUTCOMES, Remedy.WAIT),
        (InvalidRecordError(), OUTCOMES, Remedy.ALONE),
        (InvalidRecordError(), LETTERS, Remedy.ALONE),
        (errors.PolicyViolationError(), OUTCOMES, Remedy.ALONE),
        (InvalidRecordError(), OUTCOME, Remedy.SET_ASIDE),
        (InvalidRecordError(), LETTER, Remedy.NAMED),
        (errors.TopicAuthorizationFailedError(), OUTCOMES, Remedy.NAMED),
        (errors.TopicAuthorizationFailedError(), LETTER, Remedy.NAMED),
        (errors.ClusterAuthorizationFailedError(), OUTCOMES, Remedy.NAMED),
        (errors.UnknownTopicOrPartitionError(), OUTCOMES, Remedy.NAMED),
        (errors.InvalidTopicError(), OUTCOMES, Remedy.NAMED),
        (errors.ProducerFenced(), OUTCOMES, Remedy.FENCED),
        (errors.InvalidProducerEpoch(), OUTCOMES, Remedy.FENCED),
        (errors.NotEnoughReplicasError(), OUTCOMES, Remedy.WAIT),
        (errors.RequestTimedOutError(), OUTCOMES, Remedy.WAIT),
        (errors.KafkaStorageError(), OUTCOMES, Remedy.WAIT),
        (errors.OutOfOrderSequenceNumber(), OUTCOMES, Remedy.WAIT),
        (errors.UnknownError(), OUTCOMES, Remedy.WAIT),
        (TimeoutError(), OUTCOMES, Remedy.WAIT),
        (ValueError(), OUTCOME, Remedy.WAIT),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else None,
)
def test_each_error_has_its_remedy(error: Exception, attempt: Attempt, helps: Remedy):
    assert remedy(error, attempt) is helps


def test_aiokafka_knows_the_code_of_a_record_that_is_refused_by_itself():
    assert errors.for_code(87) is InvalidRecordError
