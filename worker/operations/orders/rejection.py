"""Why an order was rejected. Pure."""

import json

from db.bulk.rows import LedgerRow


def rejection_codes(row: LedgerRow) -> list[str]:
    """The different codes of a rejection, in order; none of a confirmation, or of what was pruned."""
    return sorted({reason["code"] for reason in json.loads(row.event or "{}").get("reasons", ())})
