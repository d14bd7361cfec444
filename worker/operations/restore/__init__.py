"""`ledger restore`: bring back what was published and is no longer in PostgreSQL."""
