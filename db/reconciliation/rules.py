"""What a reconciliation takes for right, one statement a rule, on the tables of `db.reconciliation.tables`.

Each judges a portion, adds a finding for each discrepancy, and returns counts by name.
"""

from typing import Final

# Each record has one result. A dead letter comes before a duplicate: a record that was redriven and then
# decided is a duplicate of the redriven one, and still a dead letter. A record without a result is not lost
# if its dead letter may have been deleted by now.
JUDGE_RECORDS: Final = """
WITH judged AS MATERIALIZED (
  SELECT r.partition, r.record_offset, r.order_id, r.code, l.outcome, l.source_partition, l.source_offset,
    s.topic, letters.number AS letters,
    CASE
      WHEN own.is_own AND l.fingerprint <> r.fingerprint THEN 'fingerprint_differs'
      WHEN own.is_own AND letters.number > 0 THEN 'decided_and_dead'
      WHEN own.is_own THEN l.outcome
      WHEN letters.number > 0 THEN 'dead_letter'
      WHEN l.fingerprint = r.fingerprint THEN 'duplicate'
      WHEN r.record_offset < s.letters_from THEN 'letter_deleted'
      -- Nobody could read it when an operator skipped it; it may be readable since.
      WHEN EXISTS (SELECT FROM skips k WHERE k.topic = s.topic AND k.partition = r.partition
        AND k.kind = 'skipped' AND r.record_offset >= k.from_offset AND r.record_offset < k.to_offset)
        THEN 'skipped'
      WHEN r.code IS NOT NULL THEN 'invalid_and_lost'
      WHEN l.order_id IS NULL THEN 'undecided'
      ELSE 'conflict_and_lost'
    END AS result
  FROM reconciled_records r
  JOIN reconciled_spans s ON s.partition = r.partition
  LEFT JOIN order_outcomes l ON l.order_id = r.order_id
  CROSS JOIN LATERAL (
    SELECT coalesce(l.source_topic = s.topic AND l.source_partition = r.partition
      AND l.source_offset = r.record_offset, false) AS is_own) own
  CROSS JOIN LATERAL (
    SELECT count(*) AS number FROM reconciled_letters d
    WHERE d.partition = r.partition AND d.record_offset = r.record_offset
      -- Of another time, it is of a record of an earlier topic of this name.
      AND coalesce(d.timestamp_ms, r.timestamp_ms) = r.timestamp_ms) letters
  WHERE r.partition = :partition AND r.record_offset >= :start AND r.record_offset < :end
), found AS (
  INSERT INTO reconciled_findings (code, topic, partition, record_offset, order_id, detail)
  SELECT result, topic, partition, record_offset, order_id,
    CASE result
      WHEN 'fingerprint_differs' THEN 'the ledger has decided another content than this record has now'
      WHEN 'decided_and_dead' THEN format('%s, and %s dead letter(s) as well', outcome, letters)
      WHEN 'invalid_and_lost' THEN format('no order (%s), and no dead letter', code)
      WHEN 'undecided' THEN 'a sound order, and neither a decision nor a dead letter'
      ELSE format('another content than the order decided from %s@%s, and no dead letter',
        source_partition, source_offset)
    END
  FROM judged WHERE result IN
    ('fingerprint_differs', 'decided_and_dead', 'invalid_and_lost', 'undecided', 'conflict_and_lost')
)
SELECT result, count(*) FROM judged GROUP BY result
UNION ALL SELECT 'letter_again', sum(letters - 1) FROM judged WHERE letters > 1
UNION ALL SELECT 'records', count(*) FROM judged
"""

# Published once in the right topic, byte for byte. Publications on purpose are counted apart.
JUDGE_PUBLISHED: Final = """
WITH decided AS MATERIALIZED (
  SELECT d.*, d.outcome = 'confirmed' AS is_confirmed,
    substr(sha256(convert_to(CAST(d.event AS text), 'UTF8')), 1, 16) AS digest,
    extract(epoch FROM d.decided_at) * 1000 <
      CASE d.outcome WHEN 'confirmed' THEN d.confirmed_since_ms ELSE d.rejected_since_ms END AS may_be_deleted
  FROM reconciled_decided d
  WHERE d.partition = :partition AND d.record_offset >= :start AND d.record_offset < :end
), publications AS MATERIALIZED (
  SELECT d.*, o.originals, o.exact, o.republished, o.places, w.reason, w.what_to_do
  FROM decided d
  LEFT JOIN withheld_outcomes w ON w.order_id = d.order_id AND w.published_at IS NULL
  -- One by one, by the index: how many rows a portion has is estimated too low for any other join of it.
  CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE NOT o.republished) AS originals,
      count(*) FILTER (WHERE NOT o.republished AND o.is_confirmation = d.is_confirmed
        AND o.digest = d.digest) AS exact,
      count(*) FILTER (WHERE o.republished) AS republished,
      (array_agg(format('%s@%s', o.partition, o.record_offset) ORDER BY o.partition, o.record_offset)
        FILTER (WHERE NOT o.republished))[1:6] AS places
    FROM reconciled_outcomes o WHERE o.order_id = d.order_id) o
), found AS (
  INSERT INTO reconciled_findings (code, topic, partition, record_offset, order_id, detail)
  SELECT CASE WHEN reason IS NULL THEN 'not_told' ELSE 'outcome_withheld' END,
    topic, partition, record_offset, order_id,
    CASE WHEN reason IS NULL THEN format('%s, and never published%s', outcome,
        CASE WHEN republished > 0 THEN ' but as a republication' ELSE '' END)
      ELSE format('%s, and not published: %s; %s', outcome, reason, what_to_do) END
  -- What is withheld is published from the ledger, however long ago it was decided.
  FROM publications WHERE originals = 0 AND (reason IS NOT NULL OR NOT may_be_deleted)
  UNION ALL
  SELECT 'told_twice', topic, partition, record_offset, order_id,
    format('%s, and published %s times: at %s', outcome, exact, array_to_string(places, ', '))
  FROM publications WHERE exact > 1
  UNION ALL
  SELECT CASE WHEN o.is_confirmation = d.is_confirmed THEN 'event_differs' ELSE 'wrong_topic' END,
    CASE WHEN o.is_confirmation THEN CAST(:confirmed AS text) ELSE CAST(:rejected AS text) END,
    o.partition, o.record_offset, d.order_id,
    CASE WHEN o.is_confirmation = d.is_confirmed THEN 'published with other bytes than the ledger has'
      ELSE format('%s, and published in this topic', d.outcome) END
  FROM publications d JOIN reconciled_outcomes o ON o.order_id = d.order_id
  WHERE d.exact < d.originals + d.republished
    AND NOT (o.is_confirmation = d.is_confirmed AND o.digest = d.digest)
)
SELECT 'republished', sum(republished) FROM publications
UNION ALL SELECT 'outcome_deleted', count(*) FROM publications
  WHERE originals = 0 AND may_be_deleted AND reason IS NULL
"""

# Confirmed: order and items are there, as they were published. Rejected: no order. A confirmed order that is
# gone, while the books of all its products add up, was deleted by `orders.delete_order`, which sees to them.
JUDGE_ORDERS: Final = """
WITH compared AS MATERIALIZED (
  SELECT d.topic, d.partition, d.record_offset, d.order_id, d.outcome = 'confirmed' AS is_confirmed,
    o.id IS NOT NULL AS is_stored, o.total_amount, d.event->>'total_amount' AS event_total,
    o.user_id, d.event->>'user_id' AS event_user, stored.lines AS stored_lines, in_event.lines AS event_lines,
    EXISTS (SELECT FROM reconciled_unbalanced u WHERE u.product_id = ANY (in_event.products)) AS is_unbalanced
  FROM reconciled_decided d
  LEFT JOIN orders o ON o.id = d.order_id
  CROSS JOIN LATERAL (
    SELECT string_agg(format('%s×%s at %s', i.product_id, i.quantity, i.unit_price), ', '
      ORDER BY i.line_number) AS lines
    FROM order_items i WHERE i.order_id = o.id) stored
  CROSS JOIN LATERAL (
    SELECT string_agg(format('%s×%s at %s', item->>'product_id', item->>'quantity', item->>'unit_price'), ', '
      ORDER BY number) AS lines, array_agg(item->>'product_id') AS products
    FROM json_array_elements(
        CASE WHEN json_typeof(d.event->'items') = 'array' THEN d.event->'items' ELSE '[]' END)
      WITH ORDINALITY AS items (item, number)) in_event
  WHERE d.partition = :partition AND d.record_offset >= :start AND d.record_offset < :end
), found AS (
  INSERT INTO reconciled_findings (code, topic, partition, record_offset, order_id, detail)
  SELECT 'order_missing', topic, partition, record_offset, order_id,
    'confirmed, there is no order, and the stock of its products does not add up'
  FROM compared WHERE is_confirmed AND NOT is_stored AND is_unbalanced
  UNION ALL
  SELECT 'order_of_rejection', topic, partition, record_offset, order_id,
    'rejected, and yet there is an order'
  FROM compared WHERE NOT is_confirmed AND is_stored
  UNION ALL
  SELECT 'order_differs', topic, partition, record_offset, order_id,
    format('the order has total %s and user %s, its event %s and %s',
      total_amount, user_id, event_total, event_user)
  FROM compared WHERE is_confirmed AND is_stored
    AND (CAST(total_amount AS text) IS DISTINCT FROM event_total
      OR CAST(user_id AS text) IS DISTINCT FROM event_user)
  UNION ALL
  SELECT 'items_differ', topic, partition, record_offset, order_id,
    format('stored %s; published %s', coalesce(left(stored_lines, 300), 'nothing'),
      coalesce(left(event_lines, 300), 'nothing'))
  FROM compared WHERE is_confirmed AND is_stored AND stored_lines IS DISTINCT FROM event_lines
)
SELECT 'order_deleted', count(*) FROM compared WHERE is_confirmed AND NOT is_stored AND NOT is_unbalanced
"""

# Every published outcome was decided: the ledger was committed before, and is read after.
JUDGE_STRAY_OUTCOMES: Final = """
WITH stray AS MATERIALIZED (
  SELECT o.* FROM reconciled_outcomes o
  WHERE o.is_confirmation = :is_confirmation AND o.partition = :partition
    AND o.record_offset >= :start AND o.record_offset < :end
    AND NOT EXISTS (SELECT FROM order_outcomes l WHERE l.order_id = o.order_id)
), found AS (
  INSERT INTO reconciled_findings (code, topic, partition, record_offset, order_id, detail)
  SELECT 'outcome_without_row', CAST(:topic AS text), partition, record_offset, order_id,
    CASE WHEN order_id IS NULL THEN 'published without an order id as its key'
      ELSE 'published, and the ledger has no such order' END
  FROM stray
)
SELECT 'stray', count(*) FROM stray
"""

# A row that names a source holds the order of that record. A row that is older than all records belongs to an
# earlier topic of this name, whose offsets began at 0 as well.
JUDGE_LEDGER: Final = """
WITH named AS MATERIALIZED (
  SELECT l.order_id, l.outcome, s.topic, l.source_partition, l.source_offset,
    l.source_offset < s.start_offset AS is_before, r.partition IS NOT NULL AS is_there,
    EXISTS (SELECT FROM reconciled_unreadable u WHERE u.partition = l.source_partition
      AND l.source_offset >= u.start_offset AND l.source_offset < u.end_offset) AS is_unreadable,
    extract(epoch FROM l.decided_at) * 1000 < s.oldest_ms AS is_of_earlier_topic
  FROM order_outcomes l
  JOIN reconciled_spans s ON s.topic = l.source_topic AND s.partition = l.source_partition
  LEFT JOIN reconciled_records r ON r.partition = l.source_partition AND r.record_offset = l.source_offset
  WHERE l.source_offset < s.end_offset AND (l.source_offset >= s.start_offset OR s.is_cut)
    AND r.order_id IS DISTINCT FROM l.order_id
), found AS (
  INSERT INTO reconciled_findings (code, topic, partition, record_offset, order_id, detail)
  SELECT 'source_differs', topic, source_partition, source_offset, order_id,
    format('%s from this record, where there is %s', outcome,
      CASE WHEN is_there THEN 'another one' ELSE 'none' END)
  FROM named WHERE NOT is_before AND NOT is_unreadable AND is_of_earlier_topic IS NOT TRUE
)
SELECT 'input_deleted', count(*) FROM named WHERE is_before
UNION ALL SELECT 'input_unreadable', count(*) FROM named WHERE NOT is_before AND is_unreadable
UNION ALL SELECT 'earlier_topic', count(*) FROM named
  WHERE NOT is_before AND NOT is_unreadable AND is_of_earlier_topic
"""

# Records that nobody can unpack have results if they were decided before they broke. An operator's skip
# accounts for the rest.
JUDGE_UNREADABLE: Final = """
WITH judged AS MATERIALIZED (
  SELECT u.*, u.end_offset - u.start_offset AS offsets,
    (SELECT count(DISTINCT d.record_offset) FROM reconciled_letters d WHERE d.partition = u.partition
      AND d.record_offset >= u.start_offset AND d.record_offset < u.end_offset)
    + (SELECT count(*) FROM order_outcomes l WHERE l.source_topic = :topic
      AND l.source_partition = u.partition
      AND l.source_offset >= u.start_offset AND l.source_offset < u.end_offset) AS results
  FROM reconciled_unreadable u
  WHERE NOT EXISTS (SELECT FROM skips k WHERE k.topic = :topic AND k.partition = u.partition
    AND k.kind = 'skipped' AND k.from_offset <= u.start_offset AND k.to_offset >= u.end_offset)
)
INSERT INTO reconciled_findings (code, topic, partition, record_offset, detail)
SELECT CASE WHEN waits THEN 'blocked_by_unreadable' ELSE 'unreadable_and_lost' END,
  CAST(:topic AS text), partition, start_offset,
  CASE WHEN waits THEN format('nobody can unpack it (%s), and all behind it waits', why)
    ELSE format('offsets %s to %s, of which %s have a result: nobody can unpack them (%s)',
      start_offset, end_offset - 1, results, why) END
FROM judged WHERE waits OR results < offsets
"""
