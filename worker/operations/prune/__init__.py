"""`ledger prune`: deletes the events of decided orders that are not needed any more."""
