"""`ledger prune`: drops the events of decided orders that nobody can need any more."""
